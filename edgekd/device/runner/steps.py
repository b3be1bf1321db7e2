"""Windows that overlap, and what they have in common computed once.

The graph of a bundle is there a second time, in parts that follow one another: from the log-mel to a map, from that to
another one, and from the last maps to the probabilities. A column of a map is made of a stretch of the signal. All but
the few at its ends, which feel the border of the window, are those of the window before, further to the left: they are
kept, and a part is run for the new ones and those at the ends alone. That is exact where the windows lie a multiple of
the part's stride apart; where they do not, it is the window a few hops earlier for which that holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Generic, Sequence, TypeVar

import numpy as np

from edgekd.device.runner.engines import Session
from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.log_mel import LogMel

Run = Callable[[Sequence[np.ndarray]], "list[np.ndarray]"]  # a part of the graph: its inputs -> its outputs
Maps = TypeVar("Maps")


class Map:
    """What a part makes of its input, as the manifest has it.

    Of a window it has `columns`, one every `stride` columns of the part's input; `left` of them at its beginning and
    `right` at its end feel the border of the window, and `reach` do so at the beginning of a stretch of it.
    """

    def __init__(self, columns: int, stride: int, left: int, right: int, reach: int) -> None:
        self.columns, self.stride, self.left, self.right, self.reach = columns, stride, left, right, reach

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
        return self._held[self._first : self._first + self._map.columns]

    def move(self, moved: int, left: np.ndarray, new: np.ndarray) -> None:
        """To a window that begins `moved` columns of the input later, given what is not in this one: the columns on the
        `left`, and the `new` ones."""
        first = self._first + moved // self._map.stride
        kept = self._map.columns - len(new)
        if first + self._map.columns > len(self._held):
            self._held[:kept] = self._held[first : first + kept].copy()
            first = 0
        self._first = first
        self._held[first : first + len(left)] = left
        self._held[first + kept : first + self._map.columns] = new


class _Kept(Generic[Maps]):
    """The maps of the windows before, the newest of each phase: `start` modulo `period`, both in samples."""

    def __init__(self, period: int, samples: int) -> None:
        self._period, self._samples = period, samples
        self._windows: dict[int, tuple[int, Maps]] = {}

    def before(self, start: int) -> tuple[int, Maps] | None:
        """By how many samples the last window of this phase began earlier, and its maps; None where it has nothing in
        common with the one at `start`."""
        begun, maps = self._windows.pop(start % self._period, (start, None))
        return (start - begun, maps) if maps is not None and 0 < start - begun < self._samples else None

    def keep(self, start: int, maps: Maps) -> None:
        """And forget those windows that have nothing in common with what follows."""
        for phase in [phase for phase, (begun, _) in self._windows.items() if start - begun >= self._samples]:
            del self._windows[phase]
        self._windows[start % self._period] = start, maps


class Part:
    """A part of the graph on windows of `samples` that follow one another, with one column of its input every `unit`
    samples. The first `lead` of them make what feels the beginning of a window."""

    def __init__(self, run: Run, maps: Sequence[Map], lead: int, unit: int, samples: int) -> None:
        self._run, self._maps, self._lead, self._unit = run, maps, lead, unit
        self._stride = max(each.stride for each in maps)
        self._kept: _Kept[list[_Sliding]] = _Kept(self._stride * unit, samples)

    def __call__(self, columns: np.ndarray, start: int) -> list[np.ndarray]:
        """The maps `(columns, ...)` of the window that begins at sample `start`, for its input `(columns, ...)`; good
        until the next call."""
        kept = self._kept.before(start)
        moved = 0 if kept is None else kept[0] // self._unit
        first = self._first(moved)
        if kept is None or first <= self._lead:  # nothing would be saved
            maps = [_Sliding(*each) for each in zip(self._maps, self._run([columns]))]
        else:
            maps = kept[1]
            found = self._run([np.concatenate((columns[: self._lead], columns[first:]))])
            for each, slid, made in zip(self._maps, maps, found):
                new = (self._lead - first) // each.stride + each.first_new(moved)
                slid.move(moved, made[: each.left], made[new:])
        self._kept.keep(start, maps)
        return [each.columns for each in maps]

    def _first(self, moved: int) -> int:
        """The column of the input from which on it is needed where an earlier window began `moved` before."""
        needed = min(each.stride * (each.first_new(moved) - each.reach) for each in self._maps)
        return needed // self._stride * self._stride


class Steps:
    """Class probabilities of the windows of one signal, of `samples` each, in their turn.

    `parts` follow one another; `end` makes probabilities `(1, K)` of the maps of the last one, or of the log-mel where
    there is none.
    """

    def __init__(self, log_mel: LogMel, samples: int, parts: Sequence[Part], end: Run) -> None:
        steps, _ = log_mel.shape(samples)
        self._log_mel, self._parts, self._end = log_mel, parts, end
        self._map = Map(steps, 1, *log_mel.at_borders(samples), 0)
        self._kept: _Kept[_Sliding] = _Kept(log_mel.step_samples, samples)

    def __call__(self, clip: np.ndarray, start: int) -> np.ndarray:
        """Class probabilities `(K,)` of the window `clip (samples,)` that begins at sample `start` of the signal."""
        maps = [self._log_mels(clip, start)]
        for part in self._parts:
            maps = part(maps[0], start)
        return self._end(maps)[0]

    def _log_mels(self, clip: np.ndarray, start: int) -> np.ndarray:
        """`(T, F, 1)`."""
        kept = self._kept.before(start)
        left, columns = self._map.left, self._map.columns
        if kept is None:
            log_mel = _Sliding(self._map, self._log_mel.steps(clip, (0, columns))[:, :, None])
        else:
            moved, log_mel = kept[0] // self._log_mel.step_samples, kept[1]
            new = self._log_mel.steps(clip, (0, left), (self._map.first_new(moved), columns))[:, :, None]
            log_mel.move(moved, new[:left], new[left:])
        self._kept.keep(start, log_mel)
        return log_mel.columns


class StepGraphs:
    """The graphs of a bundle's `steps`, opened once for any number of signals. Raises `RunnerError`.

    `described` is that section of the manifest, `classifier` the one of this name.
    """

    def __init__(self, folder: Path, described: dict[str, Any], classifier: dict[str, Any], opset: int, threads: int):
        self._log_mel = LogMel(**classifier["frontend"], sample_rate=classifier["sample_rate"], gain=classifier["gain"])
        self._samples: int = classifier["clip_samples"]
        self._parts = [
            (self._opened(folder / part["file"], opset, threads, part["maps"]), part) for part in described["parts"]
        ]
        self._end = self._opened(folder / described["end"], opset, threads, [])
        self.step_samples = self._log_mel.step_samples

    def of_signal(self) -> Steps:
        """For the windows of one signal."""
        parts, unit = [], self.step_samples
        for run, part in self._parts:
            maps = [Map(**each) for each in part["maps"]]
            parts.append(Part(run, maps, part["lead"], unit, self._samples))
            unit *= maps[0].stride
        return Steps(self._log_mel, self._samples, parts, self._end)

    def _opened(self, model: Path, opset: int, threads: int, maps: Sequence[dict[str, int]]) -> Run:
        session = Session(model, opset, threads)
        names = [each.name for each in session.inputs]

        def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [made[0] for made in session.run({name: each[None] for name, each in zip(names, inputs)})]

        if len(session.outputs) != max(1, len(maps)):
            raise RunnerError(f"{model}: not the graph that the manifest describes. Copy or export the bundle again")
        return run
