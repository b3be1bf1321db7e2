"""Downloads against a server in this process that cuts off, refuses and lies."""

from __future__ import annotations

import hashlib
import re
import resource
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import InputError
from edgekd.models import download
from edgekd.models.download import ATTEMPTS, WeightsFile, fetch, teachers_folder

CONTENT = bytes(range(256)) * 8_000  # 2 MB
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves `content`; what goes wrong is set by the attributes, and every request's range is kept."""

    content = CONTENT
    ranges = True
    cut_after: list[int]  # bytes of the body that the first, second ... answer breaks off after
    statuses: list[int]  # answers to the first requests, before any is served
    shifted = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after, self.statuses, self.asked = [], [], []
        self.asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/w.pth?download=1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        content, start = server.content, 0
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if asked is not None and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            start += server.shifted
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


def pinned(server: Server, digest: str = SHA256, size: int | None = len(CONTENT)) -> WeightsFile:
    return WeightsFile(server.url, "w.pth", size, digest)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_is_kept_under_its_name_when_it_is_the_published_one(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    path = fetch(pinned(server), tmp_path / "new", lambda stage, done, total, **_: steps.append((stage, done, total)))
    assert path == tmp_path / "new" / "w.pth"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == {"w.pth"}
    assert steps[-1] == ("download, MB", 2, 2)
    assert server.asked == [None]


def test_a_file_that_is_there_is_checked_and_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(CONTENT)
    assert fetch(pinned(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == []
    (tmp_path / "w.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=r"w\.pth: not the published file, or a damaged one .*Delete it"):
        fetch(pinned(server), tmp_path)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT[:-1]


def test_a_connection_that_breaks_is_gone_on_with_from_where_it_broke(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.cut_after = [700_000, 300_000]
    assert fetch(pinned(server), tmp_path, sleep=waits.append).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=700000-", "bytes=1000000-"]
    assert len(waits) == 2


def test_a_connection_may_break_often_as_long_as_bytes_come(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.cut_after = [100_000] * (3 * ATTEMPTS)
    assert fetch(pinned(server), tmp_path, sleep=waits.append).read_bytes() == CONTENT
    assert waits == [1.0] * (3 * ATTEMPTS)


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["known", "unknown"])
def test_what_an_earlier_call_left_is_gone_on_with(server: Server, tmp_path: Path, size: int | None) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT[:1_500_000])
    assert fetch(pinned(server, size=size), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1500000-"]
    assert names(tmp_path) == {"w.pth"}


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["known", "unknown"])
def test_a_part_that_was_whole_needs_only_its_name(server: Server, tmp_path: Path, size: int | None) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    assert fetch(pinned(server, size=size), tmp_path).read_bytes() == CONTENT
    assert server.asked == ([] if size else [f"bytes={len(CONTENT)}-"])


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["known", "unknown"])
def test_a_part_that_is_too_long_is_begun_again(
    server: Server, tmp_path: Path, size: int | None, waits: list[float]
) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(pinned(server, size=size), tmp_path, sleep=waits.append).read_bytes() == CONTENT
    assert server.asked[-1] is None


@pytest.mark.parametrize("lying", ["ranges", "shifted"])
def test_a_server_without_ranges_or_with_wrong_ones_starts_the_file_again(
    server: Server, tmp_path: Path, lying: str, waits: list[float]
) -> None:
    setattr(server, lying, lying == "shifted")
    (tmp_path / "w.pth.part").write_bytes(CONTENT[:1000])
    assert fetch(pinned(server), tmp_path, sleep=waits.append).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"] + [None] * (lying == "shifted")


def test_a_part_of_another_file_is_found_out_and_begun_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"\0" * 1000)
    assert fetch(pinned(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", None]


@pytest.mark.parametrize("left", [0, 1000])
def test_another_file_than_the_published_one_is_not_kept(server: Server, tmp_path: Path, left: int) -> None:
    if left:
        (tmp_path / "w.pth.part").write_bytes(CONTENT[:left])
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(InputError, match=r"what came is not the published w\.pth \(its digest is not sha256:"):
        fetch(pinned(server), tmp_path)
    assert names(tmp_path) == set()


def test_another_size_than_the_published_one_is_refused_before_it_comes(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.content = b"<html>Sign in to the network</html>"
    with pytest.raises(InputError, match=r"the server offers 35 bytes, not the 2,048,000 of the published file"):
        fetch(pinned(server), tmp_path, sleep=waits.append)
    assert names(tmp_path) == set()


def test_an_md5_is_a_pin_where_no_other_is_published(server: Server, tmp_path: Path) -> None:
    right = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert fetch(pinned(server, right), tmp_path / "right").read_bytes() == CONTENT
    with pytest.raises(InputError, match="what came is not the published"):
        fetch(pinned(server, right[:-1] + ("0" if right[-1] != "0" else "1")), tmp_path / "wrong")


def test_a_busy_server_is_asked_again_after_longer_and_longer(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.statuses = [503, 429, 500]
    assert fetch(pinned(server), tmp_path, sleep=waits.append).read_bytes() == CONTENT
    assert waits == [2, 4, 8]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_address_that_leads_nowhere_is_not_asked_twice(server: Server, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(InputError) as caught:
        fetch(pinned(server), tmp_path)
    message = str(caught.value)
    assert f"cannot be downloaded (the server answered {status}" in message
    assert server.url in message
    assert len(server.asked) == 1


def test_offline_it_says_what_to_do_by_hand(tmp_path: Path, waits: list[float]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    file = WeightsFile(f"http://127.0.0.1:{port}/w.pth", "w.pth", len(CONTENT), SHA256)
    with pytest.raises(InputError) as caught:
        fetch(file, tmp_path, sleep=waits.append)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file.url}: cannot be downloaded (")
    assert f"put it at {tmp_path / 'w.pth'}, and check it: 'sha256sum w.pth' must say {SHA256[7:]}." in message
    assert len(waits) == ATTEMPTS - 1


def test_a_download_that_stays_cut_off_is_kept_for_the_next_call(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.cut_after = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(InputError, match=r"ended after 1,000,000 of 2,048,000 bytes.*1\.0 MB are kept: the same comm"):
        fetch(pinned(server), tmp_path, sleep=waits.append)
    assert names(tmp_path) == {"w.pth.part"}
    assert fetch(pinned(server), tmp_path).read_bytes() == CONTENT


def test_a_server_that_stops_answering_is_left(
    server: Server, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        file = WeightsFile(f"http://127.0.0.1:{silent.getsockname()[1]}/w", "w.pth", None, SHA256)
        with pytest.raises(InputError, match="timed out"):
            fetch(file, tmp_path, sleep=waits.append)


def test_a_full_disk_is_told_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))  # the kernel refuses to write more, as a full disk does
    try:
        with pytest.raises(InputError, match=r"no space left for w\.pth: 1\.\d MB more are needed, .* are free.*--out"):
            fetch(pinned(server), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == {"w.pth.part"}
    assert fetch(pinned(server), tmp_path).read_bytes() == CONTENT


def test_a_disk_too_small_is_found_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"2\.0 MB more are needed, 1\.0 MB are free"):
        fetch(pinned(server), tmp_path)
    assert names(tmp_path) == set()


def test_a_folder_that_is_a_file_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be written \(.*\)\. Name another \(--out\)\."):
        fetch(pinned(server), tmp_path / "file")


def test_weights_are_kept_in_the_cache(own_cache: Path) -> None:
    assert teachers_folder() == own_cache / "teachers"
