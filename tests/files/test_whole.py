from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.files import whole
from edgekd.files.whole import sweep, write_bytes, write_text, write_together


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

    def full(_file: int) -> None:  # a disk may say so only when what it was given is to lie on it
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"report\.json: no space left.*1,000 bytes.*free some space"):
        write_bytes(path, bytes(1000))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["report.json"]


def test_another_failure_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(InputError, match=r"a: cannot be written: Is a directory\."):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]


def test_a_really_full_disk_keeps_what_was_there(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(64)
    write_bytes(disk / "a", b"x" * 10_000)
    with pytest.raises(InputError, match="no space left"):
        write_bytes(disk / "a", b"y" * 100_000)
    assert (disk / "a").read_bytes() == b"x" * 10_000
    assert names(disk) == ["a"]
    write_bytes(disk / "b", b"z" * 1_000)


def test_what_is_renamed_is_on_the_disk_before_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the kernel is asked to: that the power may fail is not tested."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched(file: int) -> None:
        done.append(Path(f"/proc/self/fd/{file}").readlink().name.partition(".vm")[0])
        fsync(file)

    def replaced(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(whole, "_host", lambda: "vm")
    write_bytes(tmp_path / "a", b"new")
    assert done == [".a", "rename", tmp_path.name]


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    host = whole._host()
    for name in (f".a.{host}.{dead}.partial", f".a.{host}.{os.getpid()}.partial", f".a.another.{dead}.partial"):
        (tmp_path / name).touch()
    (tmp_path / ".old.77.partial").touch()
    os.utime(tmp_path / ".old.77.partial", (0, 0))
    sweep(tmp_path)
    assert names(tmp_path) == [f".a.another.{dead}.partial", f".a.{host}.{os.getpid()}.partial"]


def test_of_files_written_together_none_is_new_where_one_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(InputError, match=r"b/c: cannot be written"):
        write_together(tmp_path, {"a": b"new", "b/c": b"new"})
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
