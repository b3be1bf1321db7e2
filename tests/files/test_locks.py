"""One writer or any number of readers; who is kept out is told by whom, and a killed process keeps nobody out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekd.errors import InputError, UsageError
from edgekd.files.locks import reading, writing

HOLD = """
import sys
from pathlib import Path
from edgekd.files import locks
sys.argv = ["/usr/bin/edgekd", "quantize", "a run\\n"]
with getattr(locks, sys.argv_kind)(Path(sys.argv_folder)):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[Callable[[str, Path], subprocess.Popen[str]]]:
    """Another process that holds the lock of a folder, `writing` or `reading`, until its standard input closes."""
    started = []

    def hold(kind: str, folder: Path) -> subprocess.Popen[str]:
        code = HOLD.replace("sys.argv_kind", repr(kind)).replace("sys.argv_folder", repr(str(folder)))
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path, other: Callable) -> None:
    first = other("writing", tmp_path / "run")
    with (
        pytest.raises(
            UsageError, match=rf"in use by process {first.pid} on \S+, 'edgekd quantize .*' since 20"
        ) as told,
        writing(tmp_path / "run"),
    ):
        pass
    assert "\n" not in str(told.value)
    with pytest.raises(UsageError, match=str(first.pid)), reading(tmp_path / "run"):
        pass
    first.communicate("")
    with writing(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_keeps_nobody_out(tmp_path: Path, other: Callable) -> None:
    first = other("writing", tmp_path / "run")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    with writing(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == [], "what it left is gone"


def test_readers_do_not_disturb_each_other_and_keep_a_writer_out(tmp_path: Path, other: Callable) -> None:
    first, second = other("reading", tmp_path), other("reading", tmp_path)
    second.communicate("")
    with reading(tmp_path):
        pass
    with pytest.raises(UsageError, match=str(first.pid)), writing(tmp_path):
        pass
    first.communicate("")
    with writing(tmp_path):
        pass


def test_who_has_it_may_take_it_again_and_another_thread_may_not(tmp_path: Path) -> None:
    refused = []

    def try_it() -> None:
        with pytest.raises(UsageError, match=str(os.getpid())), writing(tmp_path / "run"):
            pass
        refused.append(True)

    with writing(tmp_path / "run"), writing(tmp_path / "run"), reading(tmp_path / "run"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert refused == [True]


def test_a_folder_under_two_names_has_one_lock(tmp_path: Path, other: Callable) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    other("writing", tmp_path / "run")
    with pytest.raises(UsageError, match=r"link: in use"), writing(tmp_path / "link"):
        pass


def test_a_folder_that_is_replaced_stays_locked(tmp_path: Path, other: Callable) -> None:
    run = tmp_path / "run"
    run.mkdir()
    other("writing", run)
    run.rename(tmp_path / "away")
    run.mkdir()
    with pytest.raises(UsageError, match="in use"), writing(run):
        pass


def test_a_program_that_is_started_does_not_hold_it(tmp_path: Path) -> None:
    with writing(tmp_path / "run"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with writing(tmp_path / "run"):
        pass
    child.communicate(b"\n")


def test_folders_on_the_way_are_made_and_taken_away_again(tmp_path: Path) -> None:
    with writing(tmp_path / "a" / "b" / "run"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with writing(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "b" / "run").mkdir()
    assert (tmp_path / "a" / "b" / "run").is_dir()


def test_a_disk_that_is_read_only_can_be_read(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(64, "ro")
    with reading(disk / "run"):
        pass
    with pytest.raises(InputError, match=r"run: cannot be written: Read-only file system"), writing(disk / "run"):
        pass
