"""What a quantised network becomes in integers, and what has no such form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import GateError
from tests.microcontrollers.integer.small_networks import Network, in_integers, quantised_network


class Calling(nn.Module):
    """A part of a network that calls `name`."""

    def __init__(self, name: str, *arguments: object) -> None:
        super().__init__()
        self.name, self.arguments = name, arguments

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = getattr(torch, self.name)(maps, *self.arguments)
        return found


class Positive(nn.Module):
    """The root of what is positive, in a map of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)
        nn.init.constant_(self.layer.bias, 10.0)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        return torch.sqrt(self.layer(maps))


class ByColumn(nn.Module):
    """A sum of a map and a column."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, (1, 8))

    def forward(self, maps: Tensor) -> Tensor:
        return self.one(maps) + self.two(maps)


@pytest.mark.parametrize(
    ("network", "cause"),
    [
        (
            Network(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
            r"'middle' is a convolution that is padded with",
        ),
        (Network(nn.MaxPool2d(2, ceil_mode=True)), r"'middle' is a pooling with dilation, rounded up"),
        (Network(nn.AvgPool2d(3, padding=1, count_include_pad=False)), r"'middle' is a pooling rounded up, or divided"),
        (Network(nn.AdaptiveAvgPool2d(2)), r"'middle' is a pooling to 2"),
        (Network(nn.PReLU()), r"'middle' is a PReLU"),
        (Network(nn.Softmax(dim=1)), r"'middle' is a Softmax"),
        (Network(Calling("cumsum", 2)), r"'cumsum' calls cumsum"),
        (Network(Positive()), r"'sqrt' is no function of single values, or has none for some"),
        (Network(Calling("mean", 1, True), 1), r"'mean' is a mean of what is not rounded to int8, or not over frames"),
        (Network(Calling("amax", 1, True), 1), r"'amax' is a maximum of what is not rounded to int8, or not over"),
        (Network(ByColumn()), r"'add' adds something else than two int8 maps of one shape"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_has_no_form_in_integers_is_refused(network: nn.Module, cause: str) -> None:
    prepared = quantised_network(network)
    with pytest.raises(GateError, match=f"The student has no form in integers alone: .*{cause}"):
        in_integers(prepared)


def test_a_layer_that_was_kept_in_float_is_named() -> None:
    prepared = quantised_network(Network(nn.Conv2d(4, 4, 1)), keep_float=["middle"])
    with pytest.raises(GateError, match=r"its layer 'middle' was kept in float\. Quantise it too"):
        in_integers(prepared)
