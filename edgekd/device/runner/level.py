"""Where a recording is no sound: digital silence, one value throughout, samples of another unit."""

from __future__ import annotations

from collections import deque

import numpy as np

HIGHEST_PEAK = 16.0  # 24 dB over full scale: no recorder's headroom, but samples of another unit
LEAST_SILENCE = 0.01  # s: a shorter run of zeros at an end may be sound


def largest(samples: np.ndarray) -> float:
    """The largest magnitude of any sample."""
    return float(max(samples.max(), -samples.min())) if samples.size else 0.0


def zeros_at_ends(samples: np.ndarray, rate: int) -> tuple[int, int]:
    """How many samples of digital silence `samples (S,)` begin and end with, where that is `LEAST_SILENCE` or more.

    All of it silent: (0, 0), for there is nothing else to hear.
    """
    sound = np.flatnonzero(samples)
    if not len(sound):
        return 0, 0
    least = LEAST_SILENCE * rate
    first, last = int(sound[0]), len(samples) - 1 - int(sound[-1])
    return (first if first >= least else 0), (last if last >= least else 0)


def zeros_in_runs(samples: np.ndarray, rate: int) -> int:
    """How many of `samples (S,)` are digital silence, in runs of `LEAST_SILENCE` or more."""
    edges = np.flatnonzero(np.diff(samples == 0, prepend=False, append=False))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= LEAST_SILENCE * rate].sum())


class Stretches:
    """Where a signal that comes in pieces keeps one value for `LEAST_SILENCE` or more, and what that leaves of windows
    of it at another rate.

    `source` and `target` in Hz. The windows come in order: those a clip and more before the last are forgotten.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._least = LEAST_SILENCE * source
        self._ended: deque[tuple[int, int, float]] = deque()  # first sample, one after the last, value
        self._last: tuple[int, int, float] | None = None  # the stretch, of any length, that may go on
        self._position = 0

    @property
    def flat(self) -> bool:
        """Whether all that has come has one value."""
        return self._last is None or self._last[0] == 0

    def push(self, samples: np.ndarray) -> None:
        """The next `samples (S,)`."""
        if not len(samples):
            return
        if self._is_lively(samples):
            self._push_lively(samples)
            return
        changes = np.flatnonzero(samples[1:] != samples[:-1]) + 1
        starts = np.concatenate([[0], changes]) + self._position
        stops = np.concatenate([changes, [len(samples)]]) + self._position
        if self._last is not None:
            if self._last[2] == samples[0]:
                starts[0] = self._last[0]
            elif self._last[1] - self._last[0] >= self._least:
                self._ended.append(self._last)
        for number in np.flatnonzero(stops[:-1] - starts[:-1] >= self._least):
            value = float(samples[int(stops[number]) - 1 - self._position])
            self._ended.append((int(starts[number]), int(stops[number]), value))
        self._last = (int(starts[-1]), int(stops[-1]), float(samples[-1]))
        self._position += len(samples)

    def _is_lively(self, samples: np.ndarray) -> bool:
        """Whether no stretch of one value in `samples (S,)` is as long as those that count: each of those has in it a
        whole block of half that length, and of such blocks eight samples are looked at. False where that leaves it
        open."""
        half = int(self._least) // 2
        blocks = len(samples) // half if half >= 8 else 0
        if blocks < 4:
            return False
        seen = samples[: blocks * half].reshape(blocks, half)[:, :: half // 8]
        return not (seen == seen[:, :1]).all(axis=1).any()

    def _push_lively(self, samples: np.ndarray) -> None:
        """The next `samples`, of which the stretches at both ends alone may count, together with what is beyond."""
        most = 2 * (int(self._least) // 2)
        first = int((samples[:most] != samples[0]).argmax())
        last = len(samples) - int((samples[: -most - 1 : -1] != samples[-1]).argmax())
        if self._last is not None:
            begin, end, value = self._last
            end = self._position + first if value == samples[0] else end
            if end - begin >= self._least:
                self._ended.append((begin, end, value))
        self._last = (self._position + last, self._position + len(samples), float(samples[-1]))
        self._position += len(samples)

    def window(self, first: int, count: int) -> tuple[bool, int, int]:
        """Of the `count` samples from `first`, at the target rate: whether they have one value; and the first, and the
        one after the last, that are left without the digital silence at their ends, counted from `first`."""
        start, stop = (
            min(self._position, -(-place * self._source // self._target)) for place in (first, first + count)
        )
        while self._ended and self._ended[0][1] <= 2 * start - stop:
            self._ended.popleft()
        heard_from, heard_to = start, stop
        for begin, end, value in (*self._ended, *((self._last,) if self._last is not None else ())):
            if begin <= start and end >= stop:
                return True, 0, count
            if value == 0 and begin <= start < end and end - start >= self._least:
                heard_from = end
            if value == 0 and begin < stop <= end and stop - begin >= self._least:
                heard_to = begin
        left = [-(-place * self._target // self._source) - first for place in (heard_from, heard_to)]
        return False, left[0] if heard_from > start else 0, min(count, left[1]) if heard_to < stop else count


def is_flat(samples: np.ndarray) -> bool:
    """Whether all of `samples (S,)` have one value: digital silence, a constant, a converter that is stuck."""
    return bool((samples == samples[:1]).all())
