from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from edgekd import progress
from edgekd.progress import ConsoleProgress, silent


def plain() -> Console:
    return Console(file=io.StringIO(), width=200)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


def shown(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_silent_takes_any_figures() -> None:
    silent("student", 1, 2, loss=0.5, best="81 %")


def test_a_log_gets_the_last_unit_of_a_stage_as_a_line() -> None:
    where = plain()
    with ConsoleProgress(console=where) as progress:
        for done in range(1, 4):
            progress("student", done, 3, loss=0.123456, best="81.0%")
    lines = shown(where).splitlines()
    assert len(lines) == 1, "three quick steps are one line"
    assert lines[0].startswith("student: 3/3")
    assert lines[0].endswith("loss 0.1235 best 81.0%")


def test_a_log_gets_a_line_every_few_seconds_with_rate_and_time_left(clock: Clock) -> None:
    where = plain()
    with ConsoleProgress(console=where) as progress:
        for done in range(11):
            progress("cache", done, 100)
            clock.now += 1
    assert shown(where).splitlines() == ["cache: 5/100 (1.00/s, 95 s left)", "cache: 10/100 (1.00/s, 90 s left)"]


def test_stages_keep_their_own_time(clock: Clock) -> None:
    where = plain()
    with ConsoleProgress(console=where) as progress:
        progress("a", 0, 10)
        clock.now += 50
        progress("b", 0, 10)
        clock.now += 1
        progress("b", 10, 10)
    assert shown(where).splitlines()[-1] == "b: 10/10 (10.0/s)"


def test_quiet_shows_nothing() -> None:
    for where in (plain(), terminal()):
        with ConsoleProgress(quiet=True, console=where) as progress:
            progress("student", 3, 3)
        assert shown(where) == ""


def test_a_terminal_gets_a_bar_with_the_figures() -> None:
    where = terminal()
    with ConsoleProgress(console=where) as progress:
        progress("student", 1, 2, loss=0.5)
        progress("student", 2, 2, loss=0.25)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(where))
    assert "student" in text
    assert "2/2" in text
    assert "loss 0.25" in text


def test_bars_are_closed_when_the_work_fails() -> None:
    where = terminal()

    def fail() -> None:
        with ConsoleProgress(console=where) as progress:
            progress("student", 1, 2)
            raise RuntimeError("work")

    with pytest.raises(RuntimeError, match="work"):
        fail()
    assert shown(where).rstrip("\n").endswith("\x1b[?25h"), "the cursor is visible again"


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleProgress() as progress:
        progress("student", 1, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "student: 1/1" in captured.err


@pytest.mark.parametrize("where", [plain, terminal])
def test_a_name_in_brackets_is_no_markup(where: Callable[[], Console]) -> None:
    console = where()
    with ConsoleProgress(console=console) as progress:
        progress("a[red]b :dog:", 2, 2, best="[bold]")
    assert "a[red]b :dog:" in shown(console) and "best [bold]" in shown(console)
