"""Which windows of a recording are of which class, by the selections in it.

A window is of a class if it shares enough time with selections of that class: the stated share of the window or of the
selection, whichever is shorter. So a call that is shorter than the window has to be in it for that share of the call,
and a passage that is longer has to fill that share of the window; windows that follow each other lose no call. What no
selection touches is background. Between the two a window is neither, and teaches nobody: left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.data.layouts.folder import cut
from edgekd.events.event import Event

Window = tuple[int, int]
"""Where it starts and how long it is, in samples of the file."""


@dataclass(frozen=True)
class Sorted:
    """Windows `(N,)` of one recording: `enough (N, K)` of which classes each is, `touched (N,)` whether any selection
    shares time with it, `partly (N,)` whether one of a class does that it is not of."""

    windows: tuple[Window, ...]
    enough: NDArray[np.bool_]
    touched: NDArray[np.bool_]
    partly: NDArray[np.bool_]


def cut_windows(frames: int, rate: int, clip_seconds: float, hop_seconds: float | None) -> list[Window]:
    """The windows of a recording, one behind the other, or one every `hop_seconds` as long as they are whole."""
    if hop_seconds is None:
        return cut(0, frames, clip_seconds * rate)
    length = max(1, round(clip_seconds * rate))
    last = max(0, frames - length)
    starts = dict.fromkeys(round(number * hop_seconds * rate) for number in range(int(last / (hop_seconds * rate)) + 1))
    return [(start, min(length, frames - start)) for start in starts if start <= last]


def sort_windows(
    windows: Sequence[Window], rate: int, events: Iterable[Event], classes: Sequence[str], share: float
) -> Sorted:
    """The `windows` of a recording at `rate` Hz by its `events`; those of any label touch one."""
    begin = np.array([start / rate for start, _ in windows])
    end = np.array([(start + length) / rate for start, length in windows])
    half_sample = 0.5 / rate  # times in tables are rounded
    enough = np.zeros((len(windows), len(classes)), dtype=np.bool_)
    touched, partly = np.zeros(len(windows), dtype=np.bool_), np.zeros(len(windows), dtype=np.bool_)
    numbers = {name: number for number, name in enumerate(classes)}
    for label, spans in _joined(events).items():
        of_class = enough[:, numbers[label]] if label in numbers else None
        together, by_label = np.zeros(len(windows)), np.zeros(len(windows), dtype=np.bool_)
        for start, stop in spans:
            first = int(np.searchsorted(end, start, side="right"))
            last = max(int(np.searchsorted(begin, stop, side="left")), first + 1 if start == stop else first)
            near = slice(first, last)
            shared = np.minimum(end[near], stop) - np.maximum(begin[near], start)
            by_label[near] |= (shared > half_sample) | (start == stop)
            together[near] += np.maximum(shared, 0)
            if of_class is not None:
                shorter = np.minimum(end[near] - begin[near], stop - start)
                of_class[near] |= (shared >= share * shorter - half_sample) & ((shared > half_sample) | (start == stop))
        if of_class is not None:
            of_class |= together >= share * (end - begin) - half_sample
            partly |= by_label & ~of_class
        touched |= by_label
    return Sorted(tuple(windows), enough, touched, partly)


def evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` of `count` numbers from 0 on, evenly spread; all where there are no more."""
    if count <= wanted:
        return np.arange(count)
    return (np.arange(wanted) * count) // wanted


def _joined(events: Iterable[Event]) -> dict[str, list[tuple[float, float]]]:
    """The spans of each label, those that overlap or touch as one."""
    spans: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in sorted(events, key=lambda each: (each.start, each.end)):
        of_label = spans[event.label]
        if of_label and event.start <= of_label[-1][1]:
            of_label[-1] = of_label[-1][0], max(of_label[-1][1], event.end)
        else:
            of_label.append((event.start, event.end))
    return dict(spans)
