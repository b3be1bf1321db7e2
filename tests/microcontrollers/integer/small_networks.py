"""Networks of a stem, a part under test, and a linear layer; and what their integers give beside what they gave."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.microcontrollers.integer.layers import LOGIT_BITS, IntegerNetwork
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.reference import every_map, logits, quantised
from edgekd.models.outputs import StudentOutput
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import set_flavour
from edgekd.quantization.prepare import QuantizedNetwork, prepare

LOG_MEL = torch.randn(4, 1, 9, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """A stem, `middle`, `pooled` and a linear layer."""

    def __init__(self, middle: nn.Module, channels: int = 4, pooled: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.relu, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), middle
        self.pooled = pooled or Average()
        self.classifier = nn.Linear(channels, 3)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.relu(self.stem(log_mel))
        return StudentOutput(self.classifier(self.pooled(self.middle(tap))), tap)


class Average(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


def quantised_network(network: nn.Module, keep_float: Collection[str] = ()) -> QuantizedNetwork:
    torch.manual_seed(0)
    prepared = prepare(network, LOG_MEL, keep_float)
    calibrate(prepared, [LOG_MEL], CalibrationRecipe(observer="absmax"))
    set_flavour(prepared, "onnxruntime")
    return prepared


def in_integers(network: QuantizedNetwork) -> IntegerNetwork:
    return lower(network, 9, 8)


def steps_apart(network: nn.Module) -> tuple[IntegerNetwork, float]:
    """The integer form of `network`, and how far its logits lie from those of its quantised form, in the largest that a
    step of the vector before the linear layer can change one. Its weights are drawn anew."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.get_buffer("running_mean").uniform_(-0.5, 0.5)
            module.get_buffer("running_var").uniform_(0.01, 1)
    prepared = quantised_network(network)
    integers = in_integers(prepared)
    maps = every_map(integers, quantised(LOG_MEL.numpy(), integers.entry))
    found = logits(integers.classifier, maps[integers.classifier.source.name]) / (1 << LOGIT_BITS)
    with torch.no_grad():
        expected = prepared(LOG_MEL)[0].numpy()
    step = integers.classifier.source.scale * float(prepared.layers()[-1][0].weight_quant.scale.max()) * 127
    return integers, float(np.abs(found - expected).max() - 2.0**-LOGIT_BITS) / step
