"""Which detections are right: one true event each, and as many pairs as there can be.

A detection may be paired with a true event of its recording and label

- that it overlaps: time of both over time of either (intersection over union) is `share` or more, as in the
  few-shot bioacoustic task of the DCASE challenges (0.3 there); or
- whose beginning it has to `seconds`, and whose end to `seconds` or to `share` of that event's length, whichever is
  more, as event-based measures of sed_eval have it (Mesaros, Heittola, Virtanen, "Metrics for Polyphonic Sound Event
  Detection", Applied Sciences 6, 2016; 0.2 s and 0.2 in the DCASE challenges).

Detections are taken in the order of their scores, the highest first, and each is given an event if there is any way to
do so that leaves every earlier one with an event: an augmenting path (Kuhn 1955; Berge 1957). So after each of them
there are as many pairs as any pairing of the detections so far could have: one pass serves every threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.number_formats import percent, setting

Floats = NDArray[np.float64]

SLACK = 1e-6  # s and share: what decimals of a table are rounded to must not decide


@dataclass(frozen=True)
class Overlap:
    """Pairs overlap by this `share` or more, of the time of both together: 0 < `share` <= 1."""

    share: float = 0.3

    def __str__(self) -> str:
        return f"intersection over union of {percent(self.share)} or more"

    def fitting(self, start: float, end: float, true_start: Floats, true_end: Floats) -> NDArray[np.bool_]:
        """Which of the true events `(T,)` a detection may be paired with."""
        shared = np.minimum(end, true_end) - np.maximum(start, true_start)
        together = np.maximum(end, true_end) - np.minimum(start, true_start)
        fits: NDArray[np.bool_] = (shared > 0) & (shared >= (self.share - SLACK) * together)
        return fits

    def reach(self, start: float, end: float, longest: float) -> tuple[float, float]:
        """Between which times a true event has to begin for that, where none is longer than `longest`."""
        return start - longest, end


@dataclass(frozen=True)
class Tolerance:
    """Pairs begin within `seconds` of each other, and end within them or `share` of the true event's length."""

    seconds: float
    share: float = 0.2

    def __str__(self) -> str:
        more = f" or {percent(self.share)} of its length" if self.share else ""
        return f"beginning within {setting(self.seconds)} s, end within {setting(self.seconds)} s{more}"

    def fitting(self, start: float, end: float, true_start: Floats, true_end: Floats) -> NDArray[np.bool_]:
        """Which of the true events `(T,)` a detection may be paired with."""
        allowed = np.maximum(self.seconds, self.share * (true_end - true_start))
        fits: NDArray[np.bool_] = (np.abs(true_start - start) <= self.seconds + SLACK) & (
            np.abs(true_end - end) <= allowed + SLACK
        )
        return fits

    def reach(self, start: float, _end: float, _longest: float) -> tuple[float, float]:
        """Between which times a true event has to begin for that."""
        return start - self.seconds - SLACK, start + self.seconds + SLACK


Criterion = Overlap | Tolerance


def right(start: Floats, end: Floats, true_start: Floats, true_end: Floats, criterion: Criterion) -> NDArray[np.bool_]:
    """Which detections `(D,)` of one recording and label, the highest score first, get one of the true events `(T,)`.

    Of the first n, for any n, as many are right as any pairing of those n can make.
    """
    order = np.argsort(true_start, kind="stable")
    true_start, true_end = true_start[order], true_end[order]
    longest = float((true_end - true_start).max(initial=0.0))
    candidates: list[list[int]] = []
    for begin, stop in zip(start.tolist(), end.tolist(), strict=True):
        first, last = criterion.reach(begin, stop, longest)
        low = int(np.searchsorted(true_start, first, side="left"))
        high = int(np.searchsorted(true_start, last, side="right"))
        fits = criterion.fitting(begin, stop, true_start[low:high], true_end[low:high])
        candidates.append((low + np.flatnonzero(fits)).tolist())
    pairs = _Pairs(candidates)
    return np.array([pairs.add(number) for number in range(len(candidates))], dtype=np.bool_)


class _Pairs:
    """Pairs of detections, given by the true events that are `candidates` of each, and true events."""

    def __init__(self, candidates: list[list[int]]) -> None:
        self._candidates = candidates
        self._detection: dict[int, int] = {}  # of an event
        self._event: dict[int, int] = {}  # of a detection
        self._given_away: set[int] = set()  # events that no later detection can get, nor have another give up

    def add(self, number: int) -> bool:
        """Give a detection an event, if need be by giving others another one. Nobody who has one loses it."""
        asking: dict[int, int] = {}  # event -> the detection that asks for it
        waiting = [number]
        while waiting:
            detection = waiting.pop()
            for event in self._candidates[detection]:
                if event in asking or event in self._given_away:
                    continue
                asking[event] = detection
                if event in self._detection:
                    waiting.append(self._detection[event])
                else:
                    self._hand_over(event, asking)
                    return True
        # All that these detections can have is theirs already, and will be: whoever asks for it later asks in vain.
        self._given_away.update(asking)
        return False

    def _hand_over(self, free: int, asking: dict[int, int]) -> None:
        """Along the path from the `free` event back to the new detection, which has none to give up."""
        event: int | None = free
        while event is not None:
            detection = asking[event]
            before = self._event.get(detection)
            self._detection[event], self._event[detection] = detection, event
            event = before
