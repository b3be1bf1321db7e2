"""Calibration: the first scales, measured on a few training clips chosen by a recipe.

A recipe (`calibration/*.toml`) states how many clips, how they are chosen, and how a range is read from what they make
each activation do. It is the starting point of quantisation-aware training, and all there is to quantisation without
it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from edgekd.config import Section, parse, read_toml
from edgekd.errors import InputError, unknown_name
from edgekd.quantization.fake_quant import HISTOGRAM_BINS, bound_of_histogram, scale_for, set_enabled
from edgekd.quantization.prepare import QuantizedNetwork
from edgekd.resources import named_resources


class CalibrationRecipe(Section):
    """Which clips, and how an activation's range is read from them."""

    clips: int = Field(128, ge=1, description="training clips; all of them where there are fewer")
    selection: Literal["stratified", "random"] = Field("stratified", description="stratified: as many of each class")
    observer: Literal["absmax", "percentile"] = Field("percentile", description="how a range is read from the values")
    percentile: float = Field(99.99, gt=50, le=100, description="share of magnitudes inside the range; percentile only")

    @property
    def coverage(self) -> float:
        """Share of an activation's magnitudes that its range covers, 0 to 1."""
        return 1.0 if self.observer == "absmax" else self.percentile / 100


def load_recipe(name: str) -> CalibrationRecipe:
    """A shipped recipe by name, or one from a TOML file by path.

    Raises `UsageError` for a name that is neither, for a file that cannot be read, and for unknown keys or values.
    """
    shipped = named_resources("calibration")
    path = Path(name)
    if name in shipped:
        path = shipped[name]
    elif path.suffix != ".toml":
        raise unknown_name("calibration recipe", name, shipped)
    return parse(CalibrationRecipe, read_toml(path), str(path))


def select_clips(labels: Sequence[int], rows: Sequence[int], recipe: CalibrationRecipe, seed: int) -> list[int]:
    """The rows to calibrate on, sorted: `recipe.clips` of `rows`, or all if there are fewer.

    `labels[row]` is the class of a row. Pass training rows only: a range measured on test clips has seen the test set.
    Stratified: classes take turns, so that their counts differ by at most one unless a class runs out.
    """
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    if recipe.selection == "random":
        return sorted(shuffled[: recipe.clips])
    drawn: defaultdict[int, int] = defaultdict(int)
    turns = []  # (how many of its class came before, row)
    for row in shuffled:
        turns.append((drawn[labels[row]], row))
        drawn[labels[row]] += 1
    turns.sort(key=lambda turn: turn[0])  # stable: within a turn the shuffled order stays
    return sorted(row for _, row in turns[: recipe.clips])


@torch.no_grad()
def calibrate(network: QuantizedNetwork, batches: Iterable[Tensor], recipe: CalibrationRecipe) -> None:
    """Set every scale in `network` from `batches` of normalised log-mels `(B, 1, T, F)`.

    The network computes in float while it is observed. Raises `InputError` when there are no batches, or when an
    activation is not finite.
    """
    quantisers = network.quantisers()
    observers = {name: MagnitudeObserver() for name in quantisers}
    was_training = network.training
    network.eval()
    set_enabled(network, False)
    try:
        for name, quantiser in quantisers.items():
            quantiser.observer = observers[name]
        for log_mel in batches:
            network(log_mel)
    finally:
        for quantiser in quantisers.values():
            quantiser.observer = None
        set_enabled(network, True)
        network.train(was_training)
    for name, quantiser in quantisers.items():
        if observers[name].is_empty:
            raise InputError("Calibration got no clips: the training side of the split is empty.")
        bound = observers[name].bound(recipe.coverage)
        if not torch.isfinite(bound):
            raise InputError(f"Calibration: '{name}' is not finite: the student's weights or a training clip hold NaN.")
        quantiser.scale.copy_(scale_for(bound))
        quantiser.coverage = recipe.coverage
    for layer, quantiser in network.layers():
        layer.follow(quantiser.scale)


class MagnitudeObserver:
    """The largest magnitude seen, and a histogram of magnitudes from which any percentile can be read.

    The histogram's range doubles, merging its bins in pairs, whenever a larger magnitude comes, so the order of the
    batches changes nothing but the width of a bin, at most 1/1024 of the largest magnitude.
    """

    def __init__(self) -> None:
        self._largest: Tensor | None = None
        self._upper = 0.0
        self._histogram: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        return self._largest is None

    def __call__(self, values: Tensor) -> None:
        magnitudes = values.abs().float()
        largest = magnitudes.amax()
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        peak = largest.item()
        if not 0 < peak < float("inf"):
            peak = self._upper  # all zero: nothing to widen for; not finite: `bound` tells
        if self._histogram is None:
            self._histogram = torch.zeros(HISTOGRAM_BINS, device=values.device, dtype=torch.float64)
        if self._upper == 0:
            self._upper = peak
        while self._upper < peak:
            self._histogram = torch.cat([self._histogram.view(-1, 2).sum(1), torch.zeros_like(self._histogram[::2])])
            self._upper *= 2
        if self._upper > 0:
            self._histogram += torch.histc(magnitudes, bins=HISTOGRAM_BINS, min=0.0, max=self._upper)

    def bound(self, coverage: float) -> Tensor:
        """The magnitude below which a share `coverage` of all values lies; NaN or infinite if a value was."""
        assert self._largest is not None and self._histogram is not None
        if coverage >= 1 or not 0 < self._largest.item() < float("inf"):
            return self._largest
        upper = torch.full_like(self._largest, self._upper)
        return torch.minimum(bound_of_histogram(self._histogram, upper, coverage), self._largest)
