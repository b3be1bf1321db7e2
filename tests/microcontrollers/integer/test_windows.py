"""Convolutions and poolings in integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.microcontrollers.integer.layers import Convolution, MaxPool, Means
from edgekd.models.blocks import SameConv2d
from tests.microcontrollers.integer.small_networks import Network, in_integers, quantised_network, steps_apart


class Pooled(nn.Module):
    """By the functions."""

    def forward(self, maps: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(F.avg_pool2d(maps, (2, 1), stride=1)), 2)


@pytest.mark.parametrize(
    ("middle", "kind"),
    [
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.ReLU6()), Convolution),
        (nn.Sequential(nn.Conv2d(4, 4, (5, 3), stride=(2, 1), padding=(2, 0))), Convolution),
        (nn.Conv2d(4, 4, 3, padding="same"), Convolution),
        (SameConv2d(4, 4, 3, stride=2), Convolution),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), Convolution),
        (nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 4, 1, groups=2)), Convolution),
        (nn.Conv2d(4, 4, 3, padding=(2, 3), dilation=(2, 3)), Convolution),
        (nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4), Convolution),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(4, 4, 1)), Convolution),
        (nn.Sequential(nn.AvgPool2d(3, stride=2, padding=1), nn.Conv2d(4, 4, 1)), Convolution),
        (nn.Sequential(Pooled(), nn.Conv2d(4, 4, 1)), MaxPool),
        (nn.Sequential(nn.Dropout(0.5), nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0))), MaxPool),
        (nn.Identity(), Means),
    ],
    ids=str,
)
def test_a_network_in_integers_is_what_it_was(middle: nn.Module, kind: type) -> None:
    integers, steps = steps_apart(Network(middle))
    assert any(type(layer) is kind for layer in integers.layers)
    assert steps < 1


def test_what_a_relu_6_cuts_off_is_cut_off() -> None:
    network = Network(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6()))
    with torch.no_grad():
        network.middle[0].weight.mul_(50)
    middle = in_integers(quantised_network(network)).layers[1]
    assert isinstance(middle, Convolution)
    assert (middle.low, middle.high) == (-128, -1)  # 127 steps of 6 / 127 above -128


def test_a_linear_layer_of_a_vector_is_a_convolution() -> None:
    vector = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6), nn.ReLU())
    integers, steps = steps_apart(Network(nn.Identity(), 6, vector))
    assert isinstance(integers.layers[-1], Convolution)
    assert steps < 1
