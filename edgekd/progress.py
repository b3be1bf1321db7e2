"""Progress: how long work reports how far it is, and how that is shown.

Work takes a `Progress` callback and calls it as `progress("student", done, total, loss=0.31)`; it never prints.
`edgekd.cli` passes a `ConsoleProgress`: a bar with rate and time left on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from edgekd.escaping import terminal_text
from edgekd.number_formats import number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress(Protocol):
    """Called whenever `done` of `total` units of `stage` are finished, with figures worth showing."""

    def __call__(self, stage: str, done: int, total: int, /, **figures: float | str) -> None: ...


def silent(stage: str, done: int, total: int, /, **figures: float | str) -> None:
    """The `Progress` that shows nothing."""


def new_console(file: TextIO) -> Console:
    """What writes to a stream with rich: [x] is no markup, and :dog: no picture.

    It raises `BrokenPipeError` where nobody reads any more: rich would end the program, with 1.
    """
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Piped(file=file, highlight=False, markup=False, emoji=False)


class ConsoleProgress:
    """Shows progress on standard error; a context manager, so that the bars are closed on any exit.

    `audio`: units are seconds of audio, shown as hours, and their rate as times real time.
    """

    _line_every_s = 5.0

    def __init__(self, quiet: bool = False, console: Console | None = None, *, audio: bool = False) -> None:
        self._console = console
        self.quiet = quiet
        self._audio = audio
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int]] = {}  # when a stage was first heard of, and how far it was
        self._last_line: dict[str, float] = {}
        self._done: dict[str, int] = {}

    @property
    def console(self) -> Console:
        if self._console is None:
            self._console = new_console(sys.stderr)
        return self._console

    def __enter__(self) -> Self:
        if not self.quiet and self.console.is_terminal:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(
                TextColumn("{task.description:<18}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", style="dim", markup=False),
                console=self.console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int, /, **figures: float | str) -> None:
        if self.quiet:
            return
        now = time.monotonic()
        if done < self._done.get(stage, 0):  # a second stage of this name
            for record in (self._started, self._last_line, self._tasks):
                record.pop(stage, None)
        self._done[stage] = done
        started, before = self._started.setdefault(stage, (now, done))
        rate = (done - before) / (now - started) if now > started else 0.0
        named = terminal_text(stage, sys.stderr)
        shown = terminal_text(" ".join(f"{name} {_short(value)}" for name, value in figures.items()), sys.stderr)
        if self._bars is not None:
            task = self._tasks.get(stage)
            if task is None:
                task = self._tasks[stage] = self._bars.add_task(named, total=total, count="", rate="", figures="")
            count, speed = self._count(done, total), self._speed(rate)
            self._bars.update(task, completed=done, total=total, count=count, rate=speed, figures=shown)
        elif done >= total or now - self._last_line.get(stage, started) >= self._line_every_s:
            self._last_line[stage] = now
            left = f", {(total - done) / rate:.0f} s left" if done < total else ""
            speed = f" ({self._speed(rate)}{left})" if rate > 0 else ""
            # Names are in stages: harbour[rtx] is no markup, and :dog: no picture.
            line = f"{named}: {self._count(done, total)}{speed} {shown}".rstrip()
            self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _count(self, done: int, total: int) -> str:
        return f"{done / 3600:.2f}/{total / 3600:.2f} h" if self._audio else f"{done}/{total}"

    def _speed(self, rate: float) -> str:
        if rate <= 0:
            return ""
        return f"{number(rate)} times real time" if self._audio else f"{number(rate)}/s"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
