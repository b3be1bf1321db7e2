"""Two commands in one folder, and a run that is to replace another: who is refused, and what is there meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekd.errors import EdgekdError
from edgekd.files.locks import writing
from edgekd.runs.run import BEGINS, Run
from edgekd.training import loop


@contextmanager
def busy(folder: Path) -> Iterator[None]:
    """Somebody else writes `folder`."""
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with writing(folder):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    yield
    leave.set()
    thread.join()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        ("distill", "--resume", "--out", "RUN"),
        ("quantize", "RUN"),
        ("quantize", "RUN", "--resume"),
        ("quantize", "RUN", "--sensitivity"),
        ("quantize", "RUN", "--auto-mixed"),
        ("export", "RUN", "--target", "cpu"),
        ("profile", "RUN", "--quick"),
        ("profile", "RUN/student", "--quick", "--out", "elsewhere"),
    ],
)
def test_who_comes_second_is_told_who_is_there_and_changes_nothing(
    command: tuple[str, ...], edgekd: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    before = contents(run)
    with busy(run):
        line = edgekd(*(word.replace("RUN", run.name) for word in command), "--quiet").refusal(2)
    assert f"{run.name}: in use by process {os.getpid()} on " in line
    assert " since 2" in line
    assert contents(run) == before
    assert sorted(path.name for path in run.parent.iterdir() if path.name.startswith(".")) == []


def test_a_second_distill_is_refused_from_its_first_file_on(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with busy(out):
        assert "run: in use by process" in quick("--data-dir", recordings, "--out", out).refusal(2)
    assert not out.exists()


def test_reading_is_not_refused(edgekd: Callable, run: Path, recordings: Path) -> None:
    with busy(run):
        assert edgekd("predict", run, recordings / "high" / "0.wav").code == 0


def test_a_bundle_that_is_written_and_a_folder_that_is_compared_are_refused(
    edgekd: Callable, run: Path, recordings: Path, tmp_path: Path
) -> None:
    with busy(tmp_path / "bundle"):
        line = edgekd("export", run, "--target", "cpu", "--out", tmp_path / "bundle", "--quiet").refusal(2)
    assert "bundle: in use by process" in line
    with busy(tmp_path / "grid"):
        options = ("--data-dir", recordings, "--sample-rate", "4000", "--clip-seconds", "0.5", "--device", "cpu")
        more = ("--methods", "labels", "--seeds", "1", "--set", "frontend.f_max=1900", "--teacher", "convnet")
        line = edgekd("compare", *options, *more, "--out", tmp_path / "grid", "--quiet").refusal(2)
    assert "grid: in use by process" in line


class StoppedError(EdgekdError):
    """Ends a run in its midst."""


def test_the_old_run_stays_until_the_new_student_stands(
    quick: Callable, edgekd: Callable, run: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    anew = ("--data-dir", recordings, "--out", run, "--overwrite", "--seed", "7", "--no-quantize")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise StoppedError("stopped")

        patch.setattr(loop, "validate", stop)
        assert "stopped" in quick(*anew).refusal(1)
    assert contents(run) == before, "it can still be used"
    done = edgekd("distill", "--out", run, "--resume", "--no-quantize", "--quiet")
    assert done.code == 0, done.err
    assert Run.open(run).config.seed == 7, "what was begun last is what is gone on with"
    assert not (run / "int8").exists(), "nothing of the old one is left in it"
    again = contents(run)["student/best.safetensors"]
    assert quick(*anew).code == 0
    assert contents(run)["student/best.safetensors"] == again
    assert [path.name for path in run.parent.iterdir() if "edgekd" in path.name] == []


def test_the_folder_that_one_stands_in_is_not_replaced(
    quick: Callable, run: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, out in ((run, "."), (run / "student", "..")):
        monkeypatch.chdir(place)
        line = quick("--data-dir", recordings, "--out", out, "--overwrite", "--no-quantize").refusal(2)
        assert f"{out} is where you are, and is to be replaced. Go to another folder (cd) first." in line


@pytest.mark.parametrize("left", ["config.toml", BEGINS, ".config.toml.77.partial"])
def test_a_run_that_was_killed_as_it_began_is_begun_again(
    left: str, quick: Callable, recordings: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    anew = ("--data-dir", recordings, "--out", out, "--no-quantize")
    (out / left).write_text(quick(*anew, "--dry-run").out)
    done = quick(*anew)
    assert done.code == 0, done.err
    assert contents(out)["student/best.safetensors"] == contents(finished)["student/best.safetensors"]
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_settings_of_the_user_s_own_are_not_written_over(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seed = 77\n")
    line = quick("--data-dir", recordings, "--out", tmp_path, "--no-quantize").refusal(2)
    assert "exists already" in line
    assert (tmp_path / "config.toml").read_text() == "seed = 77\n"
