"""Functions of maps, and sums and products of two, in integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.microcontrollers.integer.layers import Addition, Convolution, Lookup, Map, Product
from edgekd.microcontrollers.integer.reference import _addition
from edgekd.microcontrollers.integer.sums import ADDITION_BITS, addition
from edgekd.microcontrollers.integer.values import Added
from tests.microcontrollers.integer.small_networks import Network, in_integers, quantised_network, steps_apart


class Residual(nn.Module):
    """A map and what a convolution makes of it."""

    def __init__(self, after: nn.Module | None = None) -> None:
        super().__init__()
        self.layer, self.after = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), after or nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.after(self.layer(maps) + maps)


class Downsampled(nn.Module):
    """A block of a residual network whose short way has a convolution, too."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1))
        self.short, self.last = nn.Conv2d(4, 6, 1, 2), nn.Conv2d(6, 4, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.last(F.relu(torch.add(self.long(maps), self.short(maps))))


class Excited(nn.Module):
    """Squeeze and excitation, by convolutions or linear layers."""

    def __init__(self, linear: bool, gate: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        layer = nn.Linear if linear else (lambda *sizes: nn.Conv2d(*sizes, 1))
        self.layers = nn.Sequential(layer(4, 8), nn.ReLU(), layer(8, 4), gate)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, maps: Tensor) -> Tensor:
        squeezed = maps.mean(dim=(2, 3)) if self.linear else maps.mean(dim=(2, 3), keepdim=True)
        shares = self.layers(squeezed)
        if self.linear:
            shares = shares.unsqueeze(-1).unsqueeze(-1)
        return self.last(shares * maps if self.linear else maps * shares)


class Gated(nn.Module):
    """A product of two maps, and one of a map with a function of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, maps: Tensor) -> Tensor:
        two = self.two(maps)
        return self.last(torch.tanh(self.one(maps)) * torch.sigmoid(two)) * 0.5


@pytest.mark.parametrize(
    ("middle", "kind"),
    [
        (Residual(), Addition),
        (nn.Sequential(Residual(nn.ReLU()), Residual(nn.ReLU6()), Residual(nn.Hardswish())), Addition),
        (Downsampled(), Addition),
        (Excited(linear=False, gate=nn.Hardsigmoid()), Product),
        (Excited(linear=True, gate=nn.Sigmoid()), Product),
        (Gated(), Product),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardswish(), nn.Conv2d(4, 4, 1)), Lookup),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.SiLU()), Lookup),
        (nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.1), nn.Conv2d(4, 4, 1), nn.GELU()), Lookup),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_network_in_integers_is_what_it_was(middle: nn.Module, kind: type) -> None:
    integers, steps = steps_apart(Network(middle))
    assert any(type(layer) is kind for layer in integers.layers)
    assert steps < 1


def test_a_relu_after_a_sum_is_part_of_it() -> None:
    integers = in_integers(quantised_network(Network(Residual(nn.ReLU()))))
    assert [type(layer) for layer in integers.layers[:3]] == [Convolution, Convolution, Addition]
    last = integers.layers[2]
    assert isinstance(last, Addition)
    assert last.low == last.target.zero_point


@pytest.mark.parametrize(
    ("scales", "zero_points"), [((0.7, 0.02), (0, -128)), ((1e-6, 3.0), (-128, -128)), ((9, 9), (0, 0))]
)
def test_a_sum_of_maps_is_rounded_once(scales: tuple[float, float], zero_points: tuple[int, int]) -> None:
    terms = [Map(f"term{n}", 1, 256, 1, *each) for n, each in enumerate(zip(scales, zero_points, strict=True))]
    layer = addition(Added((terms[0], terms[1])), Map("sum", 1, 256, 1, 0.11, 0))
    assert max(layer.mantissas) <= 1 << ADDITION_BITS
    random = torch.Generator().manual_seed(0)
    first, second = (torch.randint(-128, 128, (50, 1, 256, 1), generator=random, dtype=torch.int8) for _ in terms)
    found = _addition(layer, first.numpy(), second.numpy())
    real = sum(
        scale * (term.double() - zero) for scale, zero, term in zip(scales, zero_points, (first, second), strict=True)
    )
    assert isinstance(real, Tensor)
    exact = (real / 0.11).clamp(-128, 127)
    assert float((torch.from_numpy(found).double() - exact).abs().max()) < 0.5001
