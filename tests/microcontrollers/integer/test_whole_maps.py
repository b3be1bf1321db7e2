"""What is known of whole maps, in integers: means, maxima, deviations over time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.fixed_point import factors
from edgekd.microcontrollers.integer.layers import Classifier, Deviations, IntegerNetwork, Layer, Lookup, Map, Maxima
from edgekd.microcontrollers.integer.reference import every_map
from edgekd.microcontrollers.integer.sums import summary
from edgekd.microcontrollers.integer.values import DeviationsOf, FunctionOf, MaximaOf, function_of, means_of
from edgekd.models.students.cut import STILL, pooled
from tests.microcontrollers.integer.small_networks import Network, steps_apart


class Cut(nn.Module):
    """The ending of a student that is cut from a teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.BatchNorm1d(12, affine=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.spread(pooled(maps))


class Beside(nn.Module):
    """Maps side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 5, padding=2), nn.Conv2d(12, 4, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.last(torch.cat([self.one(maps), maps, torch.sigmoid(self.two(maps))], dim=1))


@pytest.mark.parametrize(
    ("middle", "channels", "ending", "kind"),
    [
        (nn.Identity(), 12, Cut(), Deviations),
        (nn.AvgPool2d(2), 12, Cut(), Deviations),
        (nn.Conv2d(4, 4, 1), 4, nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), Maxima),
        (Beside(), 4, None, Lookup),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardswish()), 4, None, None),
    ],
)
def test_a_network_in_integers_is_what_it_was(
    middle: nn.Module, channels: int, ending: nn.Module | None, kind: type | None
) -> None:
    integers, steps = steps_apart(Network(middle, channels, ending))
    assert kind is None or any(type(layer) is kind for layer in integers.layers)
    assert steps < (3 if isinstance(middle, nn.AvgPool2d) else 1)  # nothing rounds that one in training


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (40, 7), (501, 64), (2, 200_000)])
def test_a_deviation_over_time_is_that_of_exact_numbers(rows: int, columns: int) -> None:
    source, target = Map("map", rows, columns, 3, 0.02, -128), Map("vector", 1, 1, 3, 0.011, 0)
    random = np.random.default_rng(rows)
    layer = summary(DeviationsOf(source, STILL, factor=np.array([1.0, -2.0, 0.5])), target, 0)
    values = random.integers(-128, 128, (2, rows, columns, 3), dtype=np.int8)
    values[..., 1] = random.choice([-128, 127], (2, rows, 1))  # as far apart as they can be
    values[1, ..., 2] = 77  # still
    found = through(layer, values)[:, 0, 0] - 0.0
    means = source.scale * values.astype(np.float64).mean(axis=2)
    exact = np.sqrt(np.maximum(means.var(axis=1), STILL)) * [1.0, -2.0, 0.5] / target.scale
    assert np.abs(found - np.clip(exact, -128, 127)).max() < 0.51


def test_a_deviation_that_64_bits_cannot_hold_is_refused() -> None:
    source, target = Map("map", 60_000, 300, 3, 0.02, -128), Map("vector", 1, 1, 3, 0.011, 0)
    with pytest.raises(GateError, match="the deviation over time of 'map' does not fit into 64 bits"):
        summary(DeviationsOf(source), target, 0)


FACTOR, OFFSET = np.array([5.0, -0.3]), np.array([-0.777, 0.123])


def test_a_maximum_is_of_the_whole_map() -> None:
    source, target = Map("map", 5, 4, 2, 0.02, -128), Map("vector", 1, 1, 2, 0.03, 0)
    values = np.random.default_rng(0).integers(-128, -100, (30, 5, 4, 2), dtype=np.int8)
    found = through(summary(MaximaOf(source, factor=FACTOR, offset=OFFSET), target, 0), values)[:, 0, 0]
    exact = ((values.max(axis=(1, 2)) + 128.0) * 0.02 * FACTOR + OFFSET) / 0.03
    assert np.abs(found - exact).max() <= 0.501


def test_a_mean_of_few_values_is_rounded_once() -> None:
    source, target = Map("map", 2, 1, 2, 0.02, -128), Map("vector", 1, 1, 2, 0.03, 0)
    values = np.random.default_rng(0).integers(-128, -100, (30, 2, 1, 2), dtype=np.int8)
    found = through(summary(means_of(source).scaled(FACTOR, OFFSET), target, 0), values)[:, 0, 0]
    exact = ((values.mean(axis=(1, 2)) + 128.0) * 0.02 * FACTOR + OFFSET) / 0.03
    assert np.abs(found - exact).max() <= 0.501


def test_the_mean_of_a_function_is_that_of_what_it_says() -> None:
    source, target = Map("map", 9, 4, 2, 0.05, 0), Map("vector", 1, 1, 2, 0.01, 0)
    values = np.random.default_rng(0).integers(-128, 128, (3, 9, 4, 2), dtype=np.int8)
    function = function_of(source).values
    wave = FunctionOf(source, np.sin(function))
    found = through(summary(means_of(wave), target, 0), values)[:, 0, 0]
    exact = np.sin(0.05 * values.astype(np.float64)).mean(axis=(1, 2)) / 0.01
    assert np.abs(found - exact).max() < 0.51


def through(layer: Layer, values: np.ndarray) -> np.ndarray:
    """What `layer` makes of `values (B, rows, columns, channels)`."""
    target = layer.target
    classifier = Classifier(target, np.zeros((1, target.channels), np.int8), np.zeros(1, np.int32), factors(1.0))
    return every_map(IntegerNetwork(layer.source, (layer,), classifier), values)[target.name]
