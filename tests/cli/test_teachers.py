from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgekd.models.download import WeightsFile
from edgekd.models.teachers.table import TEACHERS, TeacherSpec
from edgekd.runs.run import Run

CONTENT = b"weights" * 10_000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served over HTTP from which the weights of cnn14 are fetched; wavlm's have no digest."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "w.pth").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/w.pth"

        def pin(name: str, digest: str | None) -> None:
            spec = TEACHERS[name]
            values = {field: getattr(spec, field) for field in spec.__dataclass_fields__}
            changed = TeacherSpec(**{**values, "file": WeightsFile(url, "w.pth", len(CONTENT), digest)})
            monkeypatch.setitem(TEACHERS, name, changed)

        pin("cnn14", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
        pin("wavlm", None)
        yield folder
        server.shutdown()
        thread.join()


def test_every_teacher_is_listed_in_80_columns(edgekd: Callable, cache: Path) -> None:
    shown = edgekd("teachers")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2 : 2 + len(TEACHERS)]] == list(TEACHERS)
    (yamnet,) = [line for line in lines if line.startswith("yamnet ")]
    for fact in ("3.20 M", "16 kHz", "128 x 125 x 16", "Apache-2.0", "to fetch"):
        assert fact in yamnet


def test_the_list_as_json_has_all_that_is_known(edgekd: Callable, cache: Path) -> None:
    listed = edgekd("teachers", "--json").json()["teachers"]
    assert [teacher["teacher"] for teacher in listed] == list(TEACHERS)
    by_name = {teacher["teacher"]: teacher for teacher in listed}
    assert by_name["cnn14"]["file"]["digest"].startswith("sha256:")
    assert by_name["cnn14"]["tap_at_5_s"] == [64, 250, 32]
    assert by_name["convnet"]["input_rate"] is None
    assert {teacher["needs_weights"] for teacher in listed} == {True, False}
    assert edgekd("teachers", "cnn14", "--json").json() == by_name["cnn14"]


@pytest.mark.parametrize("name", sorted(TEACHERS))
def test_a_teacher_is_shown_with_where_its_weights_come_from(edgekd: Callable, cache: Path, name: str) -> None:
    shown, spec = edgekd("teachers", name).out, TEACHERS[name]
    assert shown.startswith(f"{name}: {spec.summary}\n")
    assert spec.weights_from in shown and spec.licence in shown
    if spec.file is not None:
        assert spec.file.url in shown and (spec.file.digest or "no published digest") in shown


def test_unknown_teachers_get_the_nearest(edgekd: Callable) -> None:
    assert "Did you mean 'cnn14'?" in edgekd("teachers", "cn14").refusal(2)
    assert "Did you mean 'cnn14'?" in edgekd("teachers", "fetch", "cn14").refusal(2)


def test_fetched_weights_are_used_by_themselves(edgekd: Callable, cache: Path, published: Path) -> None:
    assert "\nweights = " not in edgekd("distill", "--dry-run").out
    done = edgekd("teachers", "fetch", "cnn14", "--quiet")
    file = cache / "teachers" / "w.pth"
    assert done.code == 0 and done.err == ""
    assert f"{file}: 70,000 bytes, sha256:" in done.out
    assert file.read_bytes() == CONTENT
    assert f'weights = "{file}"' in edgekd("distill", "--dry-run").out
    assert "fetched" in next(line for line in edgekd("teachers").out.splitlines() if line.startswith("cnn14"))
    assert edgekd("teachers", "cnn14", "--json").json()["fetched"] == str(file)
    assert edgekd("teachers", "fetch", "cnn14", "--json").json()["path"] == str(file)


def test_weights_fetched_elsewhere_are_named_in_the_next_command(
    edgekd: Callable, cache: Path, published: Path, tmp_path: Path
) -> None:
    done = edgekd("teachers", "fetch", "cnn14", "--out", tmp_path / "my weights")
    assert done.err.startswith("download, MB: 0/1") or done.err == ""
    assert f"--teacher-weights '{tmp_path / 'my weights' / 'w.pth'}'" in done.out
    assert not cache.exists()


def test_other_content_than_the_pinned_is_refused(edgekd: Callable, cache: Path, published: Path) -> None:
    (published / "w.pth").write_bytes(CONTENT[::-1])
    assert "what came is not the published w.pth" in edgekd("teachers", "fetch", "cnn14", "-q").refusal(3)
    (published / "w.pth").unlink()
    line = edgekd("teachers", "fetch", "cnn14", "-q").refusal(3)
    assert "answered 404" in line and f"put it at {cache / 'teachers' / 'w.pth'}" in line


def test_what_has_no_digest_needs_the_user_s(edgekd: Callable, cache: Path, published: Path) -> None:
    assert "no published digest of w.pth is known" in edgekd("teachers", "fetch", "wavlm").refusal(2)
    assert "64 hexadecimal" in edgekd("teachers", "fetch", "wavlm", "--sha256", "abc").refusal(2)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert edgekd("teachers", "fetch", "wavlm", "--sha256", digest.upper(), "-q").code == 0
    assert "pinned already" in edgekd("teachers", "fetch", "cnn14", "--sha256", digest).refusal(2)


@pytest.mark.parametrize(("name", "words"), [("ast", "hf download MIT/ast"), ("convnet", "trained from scratch")])
def test_a_teacher_without_a_file_says_how_it_comes(edgekd: Callable, cache: Path, name: str, words: str) -> None:
    line = edgekd("teachers", "fetch", name).refusal(2)
    assert "has no file to fetch" in line and words in line


def test_a_teacher_of_the_user_s_own_teaches_from_its_folder(
    edgekd: Callable, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "house_teacher.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, k):\n"
        "        super().__init__()\n"
        "        self.conv, self.top = nn.Conv1d(1, 4, 9, stride=8), nn.Linear(4, k)\n"
        "    def forward(self, x):\n"
        "        tap = self.conv(x.unsqueeze(1)).relu()\n"
        "        return self.top(tap.mean(2)), tap.unsqueeze(3)\n"
        "def make(classes, rate):\n"
        "    return Net(classes)\n"
    )
    settings = [
        *("--teacher", "house_teacher:make", "--adaptation", "none", "--data-dir", recordings, "--sample-rate", "4000"),
        *("--clip-seconds", "0.5", "--epochs", "1", "--batch-size", "8", "--device", "cpu", "--quiet", "--no-quantize"),
        *("--set", "frontend.f_max=1900", "--set", "frontend.n_fft=256", "--set", "frontend.hop_length=128"),
        *("--set", "frontend.n_mels=32", "--set", "augment.shifts_per_clip=1", "--out", tmp_path / "run"),
    ]
    refused = edgekd("distill", *settings[:3], "head", *settings[4:]).refusal(2)
    assert "has no 'head'" in refused
    assert not (tmp_path / "run").exists()
    done = edgekd("distill", *settings)
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "run")
    assert run.config.teacher.folder == tmp_path
    monkeypatch.chdir("/")
    assert run.teacher() is not None
    run.warn("a warning, once")
    from edgekd.report.terminal import print_run

    print_run(run)
