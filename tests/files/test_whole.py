from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.files.whole import write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "häfen\n")
    assert (tmp_path / "a.txt").read_bytes() == "häfen\n".encode()


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    seen: list[bytes] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append(path.read_bytes())
        assert self.parent == path.parent, "a rename is atomic only within one file system"
        assert self.read_bytes() == b"new"
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_bytes(path, b"new")
    assert (seen, path.read_bytes()) == ([b"old"], b"new")
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(
    reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old")
    whole = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        whole(self, data[: len(data) // 2])
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(InputError, match=r"report\.json: no space left.*1,000 bytes.*free some space"):
        write_bytes(path, bytes(1000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["report.json"]


def test_another_failure_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(InputError, match=r"a: cannot be written: Is a directory\."):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False, timeout=10)
    except OSError as failure:
        pytest.skip(f"cannot mount a small disk: {failure}")
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True, timeout=10)


def test_a_really_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    write_bytes(small_disk / "a", b"x" * 10_000)
    with pytest.raises(InputError, match="no space left"):
        write_bytes(small_disk / "a", b"y" * 100_000)
    assert (small_disk / "a").read_bytes() == b"x" * 10_000
    assert names(small_disk) == ["a"]
    write_bytes(small_disk / "b", b"z" * 1_000)
