from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.files.caches import cache_folder, locked, reserve, write_at


def test_the_cache_folder_is_the_environment_s_or_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("EDGEKD_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edgekd"


def test_one_process_has_a_lock_and_the_next_waits_for_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from edgekd.files.caches import locked\n"
        "with locked(Path(sys.argv[1]), lambda: print('waiting', flush=True)):\n    print('in', flush=True)"
    )
    command = [sys.executable, "-c", code, str(lock)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with locked(lock, lambda: pytest.fail("nobody had it")):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
    said, _ = other.communicate(timeout=60)
    assert (said, other.returncode) == ("in\n", 0)


def test_a_file_is_as_long_as_it_was_reserved(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w+b", buffering=0) as file:
        file.write(b"12345")
        for size in (100, 3, 8):
            reserve(file.fileno(), size)
            assert os.fstat(file.fileno()).st_size == size
        write_at(file.fileno(), b"67", 3)
    assert (tmp_path / "a").read_bytes() == b"12367\0\0\0"


def test_a_disk_that_takes_less_than_all_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: len(data) - 1)
    with open(tmp_path / "a", "wb") as file, pytest.raises(OSError, match="No space left") as failure:
        write_at(file.fileno(), b"12", 0)
    assert failure.value.errno == errno.ENOSPC
