"""Observers: how the range of an activation is read from the magnitudes it takes.

Each is a function of one histogram of magnitudes and returns the largest magnitude that int8 shall hold, 127 scales:

    absmax      the largest that was seen; nothing is clipped.
    percentile  the one that `percentile` per cent of the magnitudes stay below.
    entropy     the one that keeps most of the distribution: the smallest Kullback-Leibler divergence of the histogram,
                clipped, to the same poured into the 128 magnitudes of the grid (Migacz, "8-bit inference with
                TensorRT", GTC 2017; ONNX Runtime's entropy calibrator does the same).
    mse         the one with the smallest mean of (x - q(x))^2 over the histogram (Nagel et al. 2021, arXiv 2106.08295,
                3.1).

Values that are exactly 0, half of what a ReLU gives, are on every grid: entropy and mse leave them out, so that they do
not drown the rest. The percentile counts them, as training does when a scale follows its batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from edgekd.quantization.fake_quant import HISTOGRAM_BINS, QMAX, bound_of_histogram

ObserverName = Literal["absmax", "percentile", "entropy", "mse"]

LEAST_RANGE = HISTOGRAM_BINS // 16  # bins; about one for each magnitude of the grid: below, a histogram cannot tell
RANGE_STEP = 8  # bins from one bound tried to the next: 0.4 % of the range
POINTS_PER_BIN = 4  # at which the rounding error is evaluated


class MagnitudeObserver:
    """The largest magnitude seen, how many values were exactly 0, and a histogram of magnitudes.

    The histogram's range doubles, merging its bins in pairs, whenever a larger magnitude comes, so the order of the
    batches changes nothing but the width of a bin, at most 1/1024 of the largest magnitude.
    """

    def __init__(self) -> None:
        self.histogram = torch.zeros(HISTOGRAM_BINS, dtype=torch.float64)
        self.upper = 0.0  # of the histogram's last bin
        self.zeros = 0
        self._largest: Tensor | None = None

    @property
    def largest(self) -> float:
        """NaN or infinite where a value was."""
        return 0.0 if self._largest is None else self._largest.item()

    def __call__(self, values: Tensor) -> None:
        magnitudes = values.abs().float()
        largest = magnitudes.amax()
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        peak = largest.item()
        if not 0 < peak < float("inf"):
            peak = self.upper  # all zero: nothing to widen for; not finite: `largest` tells
        if self.upper == 0:
            self.upper = peak
        while self.upper < peak:
            self.histogram = torch.cat([self.histogram.view(-1, 2).sum(1), torch.zeros_like(self.histogram[::2])])
            self.upper *= 2
        zeros = int((magnitudes == 0).sum())
        self.zeros += zeros
        if self.upper > 0:
            self.histogram += torch.histc(magnitudes, bins=HISTOGRAM_BINS, min=0.0, max=self.upper).cpu()
        else:
            self.histogram[0] += zeros

    def bound(self, observer: ObserverName, percentile: float = 100.0) -> float:
        """The largest magnitude that int8 shall hold; NaN or infinite where a value was."""
        if not 0 < self.largest < float("inf"):
            return self.largest
        return min(OBSERVERS[observer](self, percentile), self.largest)

    def coverage(self, bound: float) -> float:
        """The share of all magnitudes that `bound` holds, to a bin: 1 for the largest."""
        if bound >= self.largest:
            return 1.0
        held = max(1, round(bound / self.upper * HISTOGRAM_BINS))
        return float(self.histogram[:held].sum() / self.histogram.sum())

    def nonzero(self) -> Tensor:
        """The histogram without the values that are exactly 0."""
        counts = self.histogram.clone()
        counts[0] = (counts[0] - self.zeros).clamp(min=0)
        return counts


def _absmax(seen: MagnitudeObserver, _: float) -> float:
    return seen.largest


def _percentile(seen: MagnitudeObserver, percentile: float) -> float:
    if percentile >= 100:
        return seen.largest
    return bound_of_histogram(seen.histogram, torch.tensor(seen.upper), percentile / 100).item()


def _entropy(seen: MagnitudeObserver, _: float) -> float:
    counts = seen.nonzero()
    centres = (torch.arange(HISTOGRAM_BINS, dtype=torch.float64) + 0.5) * (seen.upper / HISTOGRAM_BINS)

    def divergence(bins: int, bound: float) -> Tensor:
        """From the histogram, all that is clipped in its last bin, to what the grid can tell of it."""
        kept, level = counts[:bins], (centres[:bins] * (QMAX / bound)).round().long()
        occupied = (kept > 0).double()
        mass, width = torch.zeros(QMAX + 1).double(), torch.zeros(QMAX + 1).double()
        mass.index_add_(0, level, kept)
        width.index_add_(0, level, occupied)
        poured = occupied * (mass / width.clamp(min=1))[level]
        clipped = kept.clone()
        clipped[-1] += counts[bins:].sum()
        truth, told = clipped / clipped.sum(), poured / poured.sum()
        # Mass that the grid has no place for costs much, but not infinitely so.
        return (truth * (truth.clamp(min=1e-300) / told.clamp(min=1e-9)).log()).sum()

    return _smallest(seen, divergence)


def _mse(seen: MagnitudeObserver, _: float) -> float:
    weights = (seen.nonzero() / POINTS_PER_BIN).repeat_interleave(POINTS_PER_BIN)
    points = HISTOGRAM_BINS * POINTS_PER_BIN
    magnitudes = (torch.arange(points, dtype=torch.float64) + 0.5) * (seen.upper / points)

    def squared_error(_: int, bound: float) -> Tensor:
        scale = bound / QMAX
        rounded = (magnitudes / scale).round().clamp(max=QMAX) * scale
        return (weights * (magnitudes - rounded).square()).sum()

    return _smallest(seen, squared_error)


OBSERVERS: dict[ObserverName, Callable[[MagnitudeObserver, float], float]] = {
    "absmax": _absmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}


def _smallest(seen: MagnitudeObserver, cost: Callable[[int, float], Tensor]) -> float:
    """The bound at which `cost(bins, bound)` is smallest, of the upper edges of the histogram's bins."""
    counts = seen.nonzero()
    tried = [
        (float(cost(bins, bound)), bound)
        for bins in range(LEAST_RANGE, HISTOGRAM_BINS + 1, RANGE_STEP)
        if counts[:bins].any()
        for bound in [seen.upper * bins / HISTOGRAM_BINS]
    ]
    return min(tried)[1]
