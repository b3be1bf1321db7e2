"""What a quantised network becomes in integers, and what has no such form."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.layers import LOGIT_BITS, Convolution, IntegerNetwork, MaxPool, Means
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.reference import every_map, logits, quantised
from edgekd.models.blocks import SameConv2d
from edgekd.models.outputs import StudentOutput
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import set_flavour
from edgekd.quantization.prepare import QuantizedNetwork, prepare

LOG_MEL = torch.randn(4, 1, 9, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """A stem, `middle`, a mean and a linear layer."""

    def __init__(self, middle: nn.Module, channels: int = 4) -> None:
        super().__init__()
        self.stem, self.relu, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), middle
        self.classifier = nn.Linear(channels, 3)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.relu(self.stem(log_mel))
        return StudentOutput(self.classifier(self.middle(tap).mean(dim=(2, 3))), tap)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.layer(maps) + maps


def quantised_network(network: nn.Module, keep_float: Collection[str] = ()) -> QuantizedNetwork:
    torch.manual_seed(0)
    prepared = prepare(network, LOG_MEL, keep_float)
    calibrate(prepared, [LOG_MEL], CalibrationRecipe(observer="absmax"))
    set_flavour(prepared, "onnxruntime")
    return prepared


def in_integers(network: QuantizedNetwork) -> IntegerNetwork:
    return lower(network, 9, 8)


@pytest.mark.parametrize(
    ("middle", "kind"),
    [
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.ReLU6()), Convolution),
        (nn.Sequential(nn.Conv2d(4, 4, (5, 3), stride=(2, 1), padding=(2, 0))), Convolution),
        (nn.Conv2d(4, 4, 3, padding="same"), Convolution),
        (SameConv2d(4, 4, 3, stride=2), Convolution),
        (nn.Sequential(nn.Dropout(0.5), nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0))), MaxPool),
        (nn.Identity(), Means),
    ],
)
def test_a_network_in_integers_is_what_it_was(middle: nn.Module, kind: type) -> None:
    prepared = quantised_network(Network(middle))
    network = in_integers(prepared)
    assert any(type(layer) is kind for layer in network.layers)
    maps = every_map(network, quantised(LOG_MEL.numpy(), network.entry))
    found = logits(network.classifier, maps[network.classifier.source.name]) / (1 << LOGIT_BITS)
    with torch.no_grad():
        expected = prepared(LOG_MEL)[0].numpy()
    step = network.classifier.source.scale * float(prepared.layers()[-1][0].weight_quant.scale.max()) * 127
    assert np.abs(found - expected).max() < 2 * step + 2.0**-LOGIT_BITS


def test_what_a_relu_6_cuts_off_is_cut_off() -> None:
    network = Network(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6()))
    with torch.no_grad():
        network.middle[0].weight.mul_(50)
    prepared = quantised_network(network)
    middle = in_integers(prepared).layers[1]
    assert isinstance(middle, Convolution)
    assert (middle.low, middle.high) == (-128, -1)  # 127 steps of 6 / 127 above -128


@pytest.mark.parametrize(
    ("network", "cause"),
    [
        (Network(Residual()), "it calls add"),
        (Network(nn.Conv2d(4, 4, 3, padding=1, groups=2)), r"'middle' is a convolution with dilation, in groups"),
        (Network(nn.Conv2d(4, 8, 3, groups=4), 8), r"'middle' is a convolution with dilation, in groups"),
        (Network(nn.Conv2d(4, 4, 3, padding=2, dilation=2)), r"'middle' is a convolution with dilation"),
        (Network(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), r"or padded with something else"),
        (Network(nn.MaxPool2d(2, ceil_mode=True)), r"'middle' is a pooling with dilation, rounded up"),
        (Network(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardswish())), r"'middle.1' is a Hardswish"),
        (Network(nn.AdaptiveAvgPool2d(2)), r"'middle' is a pooling to 2"),
    ],
)
def test_what_has_no_form_in_integers_is_refused(network: nn.Module, cause: str) -> None:
    prepared = quantised_network(network)
    with pytest.raises(GateError, match=f"The student has no form in integers alone: .*{cause}"):
        in_integers(prepared)


def test_a_layer_that_was_kept_in_float_is_named() -> None:
    prepared = quantised_network(Network(nn.Conv2d(4, 4, 1)), keep_float=["middle"])
    with pytest.raises(GateError, match=r"its layer 'middle' was kept in float\. Quantise it too"):
        in_integers(prepared)
