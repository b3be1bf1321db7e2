"""From a quantised network to its integer layers: which rule goes for which module and function.

Between a layer and the quantiser after it lies a value that nobody rounds (`values`). The quantiser gives it a map to
be rounded to (`walk`).
"""

from __future__ import annotations

from torch import nn

from edgekd.microcontrollers.integer import pointwise, whole_maps, windows
from edgekd.microcontrollers.integer.layers import IntegerNetwork
from edgekd.microcontrollers.integer.sums import no_form
from edgekd.microcontrollers.integer.values import Entry
from edgekd.microcontrollers.integer.walk import Rule, Walk
from edgekd.models.histogram import HistogramLayer
from edgekd.quantization.fake_quant import QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork

MODULES: dict[type, Rule] = {
    QuantizedLayer: windows.layer,
    HistogramLayer: whole_maps.histogram,
    nn.MaxPool2d: windows.max_pool,
    nn.AvgPool2d: windows.average_pool,
    nn.AdaptiveAvgPool2d: whole_maps.mean,
    nn.AdaptiveMaxPool2d: whole_maps.maximum,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), whole_maps.norm),
    **dict.fromkeys((nn.ReLU, nn.ReLU6), pointwise.relu),
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten), whole_maps.same),
    **dict.fromkeys(pointwise.FUNCTION_MODULES, pointwise.function),
}
FUNCTIONS: dict[str, Rule] = {
    **dict.fromkeys(pointwise.FUNCTIONS, pointwise.function),
    **dict.fromkeys(("relu", "relu_", "relu6"), pointwise.relu),
    **dict.fromkeys(("add", "iadd", "add_"), pointwise.add),
    **dict.fromkeys(("mul", "imul", "multiply"), whole_maps.times),
    **dict.fromkeys(("sub", "isub"), whole_maps.subtract),
    "clamp": whole_maps.clamp,
    "sqrt": whole_maps.root,
    "mean": whole_maps.mean,
    "amax": whole_maps.maximum,
    "adaptive_avg_pool2d": whole_maps.mean,
    "adaptive_max_pool2d": whole_maps.maximum,
    "max_pool2d": windows.max_pool,
    "avg_pool2d": windows.average_pool,
    "cat": whole_maps.join,
    "flatten": whole_maps.same,
    "unsqueeze": whole_maps.unsqueeze,
}


def lower(network: QuantizedNetwork, frames: int, bins: int, *, several: bool = False) -> IntegerNetwork:
    """The integer form of a calibrated `network` for log-mels `(1, frames, bins)`; `several`: of the classes may be
    there at once.

    Raises `GateError` for a layer that has none, and for one that was kept in float.
    """
    kept = network.float_layers()
    if kept:
        raise no_form(f"its layer '{kept[0]}' was kept in float", "Quantise it too (edgekd quantize, no keep_float)")
    return Walk(network, Entry(frames, bins), MODULES, FUNCTIONS).done(several)
