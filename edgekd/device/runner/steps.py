"""Windows that overlap, and what they have in common computed once.

The graph of a bundle is there a second time, in parts that follow one another: from the log-mel to a map, from that
to another one, and from the last maps to the probabilities. A column of a map is made of a stretch of the signal.
All but the few at its ends, which feel the border of the window, are those of the window before, further to the left:
they are kept, and a part is run for the new ones and those at the ends alone. That is exact where windows lie a
multiple of the part's stride apart; where they do not, the window a few hops earlier is taken for which they do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from edgekd.device.runner.engines import Session
from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.log_mel import LogMel

Run = Callable[[Sequence[np.ndarray]], "list[np.ndarray]"]  # a part of the graph: its inputs (B, ...) -> its outputs


class Map(NamedTuple):
    """What a part makes of its input, as the manifest has it.

    Of a window it has `columns`, one every `stride` columns of the part's input; `left` of them at its beginning and
    `right` at its end feel the border of the window, and `reach` do so at the beginning of a stretch of it.
    """

    columns: int
    stride: int
    left: int
    right: int
    reach: int

    def first_new(self, moved: int) -> int:
        """The first column, after those on the left, that is not in the map of a window that began `moved` columns of
        the input before."""
        return max(self.left, self.columns - self.right - moved // self.stride)


class _Sliding:
    """A map of the newest window of a phase, `(columns, ...)`, in memory for two: the next is a few columns further."""

    def __init__(self, described: Map, columns: np.ndarray) -> None:
        self._map, self._first = described, 0
        self._held = np.empty((2 * described.columns, *columns.shape[1:]), columns.dtype)
        self._held[: described.columns] = columns

    @property
    def columns(self) -> np.ndarray:
        """`(columns, ...)`, good until the next move."""
        return self._held[self._first : self._first + self._map.columns]

    def move(self, moved: int, left: np.ndarray, new: np.ndarray) -> None:
        """To a window that begins `moved` columns of the input later, given what is not in this one: the columns on the
        `left`, and the `new` ones."""
        first, kept = self._first + moved // self._map.stride, self._map.columns - len(new)
        if first + self._map.columns > len(self._held):
            self._held[:kept] = self._held[first : first + kept].copy()
            first = 0
        self._first = first
        self._held[first : first + len(left)] = left
        self._held[first + kept : first + self._map.columns] = new


class _Phases:
    """Something of the newest window of each phase, which is its `start` modulo `period`, both in samples."""

    def __init__(self, period: int, samples: int) -> None:
        self._period, self._samples = period, samples
        self._windows: dict[int, tuple[int, Any]] = {}

    def before(self, start: int) -> tuple[int, Any] | None:
        """By how many samples the last window of the phase of the one at `start` began earlier, and what is kept of it;
        None where they have nothing in common."""
        found = self._windows.get(start % self._period)
        return (start - found[0], found[1]) if found is not None and 0 < start - found[0] < self._samples else None

    def keep(self, start: int, kept: Any) -> None:
        """And forget windows that have nothing in common with what follows."""
        if len(self._windows) > 1:
            for phase in [phase for phase, (begun, _) in self._windows.items() if start - begun >= self._samples]:
                del self._windows[phase]
        self._windows[start % self._period] = start, kept


class _Asked(NamedTuple):
    """What a part is to be run on for a window: all columns of its input, or those at its ends, the right ones from
    `first` on, where a window `moved` columns before is kept."""

    start: int
    columns: np.ndarray
    moved: int
    first: int


class Part:
    """A part of the graph on windows of `samples` that follow one another, with one column of its input every `unit`
    samples. The first `lead` of them make what feels the beginning of a window."""

    def __init__(self, run: Run, maps: Sequence[Map], lead: int, unit: int, samples: int) -> None:
        self._run, self._maps, self._lead, self._unit = run, maps, lead, unit
        self._stride = max(each.stride for each in maps)
        self._starts = _Phases(self._stride * unit, samples)  # of those that were asked for
        self._kept = _Phases(self._stride * unit, samples)  # of those that are done
        self._asked: list[_Asked] = []
        self._firsts: dict[int, int] = {}  # of the columns to be run, by how many were moved

    def ask(self, start: int, columns: np.ndarray) -> None:
        """For the maps of the window at sample `start`, given the input `(columns, ...)`."""
        before = self._starts.before(start)
        moved = 0 if before is None else before[0] // self._unit
        if moved not in self._firsts:
            needed = min(each.stride * (each.first_new(moved) - each.reach) for each in self._maps)
            self._firsts[moved] = needed // self._stride * self._stride
        first = self._firsts[moved]
        if before is None or first <= self._lead:  # nothing would be saved
            moved, first, columns = 0, 0, columns.copy()
        else:
            columns = np.concatenate((columns[: self._lead], columns[first:]))
        self._starts.keep(start, None)
        self._asked.append(_Asked(start, columns, moved, first))

    def run(self, give: Callable[[int, list[np.ndarray]], None]) -> None:
        """Call `give` with each window that was asked for: its start, its maps `(columns, ...)`, good within the
        call."""
        found: dict[int, list[np.ndarray]] = {}
        for length in {len(each.columns) for each in self._asked}:
            alike = [number for number, each in enumerate(self._asked) if len(each.columns) == length]
            batch = self._run([np.stack([self._asked[number].columns for number in alike])])
            found.update((number, [each[place] for each in batch]) for place, number in enumerate(alike))
        for number, (start, _, moved, first) in enumerate(self._asked):
            before = self._kept.before(start) if moved else None
            if before is None:
                maps = [_Sliding(each, made) for each, made in zip(self._maps, found[number])]
            else:
                maps = before[1]
                for each, sliding, made in zip(self._maps, maps, found[number]):
                    new = (self._lead - first) // each.stride + each.first_new(moved)
                    sliding.move(moved, made[: each.left], made[new:])
            self._kept.keep(start, maps)
            give(start, [each.columns for each in maps])
        self._asked.clear()


class Steps:
    """Class probabilities of the windows of one signal, of `samples` each: `ask` for each in its turn, then `take`.

    `parts` follow one another; `end` makes probabilities `(B, K)` of the maps of the last one, or of the log-mel where
    there is none.
    """

    def __init__(self, log_mel: LogMel, samples: int, parts: Sequence[Part], end: Run) -> None:
        steps, _ = log_mel.shape(samples)
        self._log_mel, self._parts, self._end = log_mel, parts, end
        self._map = Map(steps, 1, *log_mel.at_borders(samples), 0)
        self._kept = _Phases(log_mel.step_samples, samples)
        self._last: list[list[np.ndarray]] = []  # the maps of each window that its scores are made of

    def ask(self, start: int, clip: np.ndarray) -> None:
        """For the scores of the window `clip (samples,)` that begins at sample `start` of the signal."""
        log_mel = self._log_mels(start, clip)
        if self._parts:
            self._parts[0].ask(start, log_mel)
        else:
            self._add(start, [log_mel])

    def take(self) -> np.ndarray:
        """Class probabilities `(B, K)` of the windows that were asked for since."""
        for part, following in zip(self._parts, [*self._parts[1:], None]):
            part.run(self._add if following is None else _first_to(following))
        scores = self._end([np.stack(each) for each in zip(*self._last)])[0]
        self._last.clear()
        return scores

    def _add(self, _start: int, maps: list[np.ndarray]) -> None:
        self._last.append([each.copy() for each in maps])

    def _log_mels(self, start: int, clip: np.ndarray) -> np.ndarray:
        """`(T, F, 1)`, good until the next call."""
        before = self._kept.before(start)
        left, columns = self._map.left, self._map.columns
        if before is None:
            log_mel = _Sliding(self._map, self._log_mel.steps(clip, (0, columns))[:, :, None])
        else:
            moved, log_mel = before[0] // self._log_mel.step_samples, before[1]
            new = self._log_mel.steps(clip, (0, left), (self._map.first_new(moved), columns))[:, :, None]
            log_mel.move(moved, new[:left], new[left:])
        self._kept.keep(start, log_mel)
        return log_mel.columns


def _first_to(part: Part) -> Callable[[int, list[np.ndarray]], None]:
    return lambda start, maps: part.ask(start, maps[0])


class StepGraphs:
    """The graphs of a bundle's `steps`, opened once for any number of signals. Raises `RunnerError`.

    `described` is that section of the manifest, `classifier` the one of this name.
    """

    def __init__(
        self, folder: Path, described: dict[str, Any], classifier: dict[str, Any], opset: int, threads: int
    ) -> None:
        self._log_mel = LogMel(**classifier["frontend"], sample_rate=classifier["sample_rate"], gain=classifier["gain"])
        self._samples: int = classifier["clip_samples"]
        self._parts = [
            (_opened(folder / part["file"], opset, threads, len(part["maps"])), part) for part in described["parts"]
        ]
        self._end = _opened(folder / described["end"], opset, threads, 1)
        self.step_samples = self._log_mel.step_samples
        self.strides = [max(each["stride"] for each in part["maps"]) for part in described["parts"]]

    def of_signal(self) -> Steps:
        """For the windows of one signal."""
        parts, unit = [], self.step_samples
        for run, part in self._parts:
            maps = [Map(**each) for each in part["maps"]]
            parts.append(Part(run, maps, part["lead"], unit, self._samples))
            unit *= maps[0].stride
        return Steps(self._log_mel, self._samples, parts, self._end)


def _opened(model: Path, opset: int, threads: int, outputs: int) -> Run:
    session = Session(model, opset, threads)
    names = [each.name for each in session.inputs]
    if len(session.outputs) != outputs:
        raise RunnerError(f"{model}: not the graph that the manifest describes. Copy or export the bundle again")
    return lambda inputs: session.run(dict(zip(names, inputs)))
