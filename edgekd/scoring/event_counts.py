"""Detections beside true events, counted: what was right, what was a false alarm, and where, by recording and class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekd.events.event import Event
from edgekd.events.matching import Criterion, right

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class EventCounts:
    """Of D detections, the highest score first, the recording and class (places in `recordings` and `classes`), the
    `score` (NaN: none), whether each is `right`, and whether it lies in the background: overlaps no true event of any
    class. `events (G, K)`: true events of each recording and class; `hours` and `background_hours (G,)` of each
    recording, None where lengths are not known.
    """

    recordings: tuple[str, ...]
    classes: tuple[str, ...]
    recording: Places
    class_: Places
    score: Floats
    right: npt.NDArray[np.bool_]
    in_background: npt.NDArray[np.bool_]
    events: Floats
    hours: Floats | None
    background_hours: Floats | None

    def counted(self, kept: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Right detections and all detections of each recording and class, `(G, K)` each, of those `kept (D,)`."""
        cells = self.recording * len(self.classes) + self.class_
        shape = self.events.shape

        def count(which: npt.NDArray[np.bool_]) -> Floats:
            return np.bincount(cells[which], minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

        return count(kept & self.right), count(kept)

    def background_alarms(self, kept: npt.NDArray[np.bool_]) -> Floats:
        """Detections `(G,)` in the background of each recording, of those `kept (D,)`."""
        found = np.bincount(self.recording[kept & self.in_background], minlength=len(self.recordings))
        return found.astype(np.float64)


def count_events(
    detections: Sequence[Event],
    truth: Sequence[Event],
    recordings: Sequence[str],
    classes: Sequence[str],
    criterion: Criterion,
    seconds: Mapping[str, float] | None = None,
) -> EventCounts:
    """Pair detections with true events, in each recording and class.

    Events of other classes than `classes` are not scored; of `truth` they still are no background. All recordings must
    be among `recordings`, and have their length in `seconds` where that is given. A detection without a score comes
    after all others.
    """
    place = {name: number for number, name in enumerate(recordings)}
    number_of = {name: number for number, name in enumerate(classes)}
    scored = [event for event in detections if event.label in number_of]
    score = np.array([np.nan if event.score is None else event.score for event in scored], dtype=np.float64)
    order = np.argsort(-score, kind="stable")  # NaN last
    scored, score = [scored[number] for number in order], score[order]
    cells: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, event in enumerate(scored):
        cells[event.recording, event.label].append(number)
    true_cells: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
    events = np.zeros((len(place), len(number_of)))
    for event in truth:
        if event.label in number_of:
            true_cells[event.recording, event.label].append(event)
            events[place[event.recording], number_of[event.label]] += 1
    start = np.array([event.start for event in scored], dtype=np.float64)
    end = np.array([event.end for event in scored], dtype=np.float64)
    is_right = np.zeros(len(scored), dtype=np.bool_)
    for cell, numbers in cells.items():
        there = true_cells.get(cell)
        if there:
            is_right[numbers] = right(start[numbers], end[numbers], *_bounds(there), criterion)
    stretches = _stretches(truth)
    quiet = [_is_background(event, stretches.get(event.recording)) for event in scored]
    hours = background = None
    if seconds is not None:
        hours = np.array([seconds[name] for name in recordings], dtype=np.float64) / 3600
        covered = [_covered(stretches.get(name), seconds[name]) for name in recordings]
        background = hours - np.array(covered, dtype=np.float64) / 3600
    return EventCounts(
        recordings=tuple(recordings),
        classes=tuple(classes),
        recording=np.array([place[event.recording] for event in scored], dtype=np.intp),
        class_=np.array([number_of[event.label] for event in scored], dtype=np.intp),
        score=score,
        right=is_right,
        in_background=np.array(quiet, dtype=np.bool_) & ~is_right,
        events=events,
        hours=hours,
        background_hours=background,
    )


def covered_seconds(truth: Sequence[Event]) -> float:
    """How long there was an event, in all recordings together."""
    return sum(_covered(stretches, np.inf) for stretches in _stretches(truth).values())


def _bounds(events: Sequence[Event]) -> tuple[Floats, Floats]:
    starts, ends = [event.start for event in events], [event.end for event in events]
    return np.array(starts, dtype=np.float64), np.array(ends, dtype=np.float64)


def _stretches(truth: Sequence[Event]) -> dict[str, tuple[Floats, Floats]]:
    """Where each recording has true events: from when to when `(N,)`, in order, those that meet as one."""
    by_recording: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in truth:
        by_recording[event.recording].append((event.start, event.end))
    joined = {}
    for recording, spans in by_recording.items():
        spans.sort()
        merged = [list(spans[0])]
        for start, end in spans[1:]:
            if start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        bounds = np.array(merged, dtype=np.float64)
        joined[recording] = bounds[:, 0], bounds[:, 1]
    return joined


def _is_background(event: Event, stretches: tuple[Floats, Floats] | None) -> bool:
    """Whether an event meets none of the stretches, whose order is that of both their ends."""
    if stretches is None:
        return True
    first = int(np.searchsorted(stretches[1], event.start, side="left"))
    return first == len(stretches[0]) or bool(stretches[0][first] > event.end)


def _covered(stretches: tuple[Floats, Floats] | None, length: float) -> float:
    if stretches is None:
        return 0.0
    return float((np.minimum(stretches[1], length) - np.minimum(stretches[0], length)).sum())
