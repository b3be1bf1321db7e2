"""From a quantised network to its integer layers, node by node as `torch.fx` has it.

Between a layer and the quantiser after it lies a sum that nobody rounds: `Sum`, `MeansOf`, `Joined`. The quantiser
gives it a map to be rounded to. What only moves values, or comes after training to nothing, is not there at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.layers import IntegerNetwork, Layer, Map, MaxPool
from edgekd.microcontrollers.integer.sums import (
    Entry,
    Joined,
    MeansOf,
    Pair,
    Sum,
    Told,
    classifier,
    convolution,
    means,
    no_form,
    pair,
)
from edgekd.microcontrollers.integer.tables import histogram_table, sigmoid_table
from edgekd.models.blocks import FirstConv2d, SameConv2d
from edgekd.models.histogram import HistogramLayer, grid_windows
from edgekd.models.tracing import logits_of, module_of
from edgekd.quantization.fake_quant import FLAVOURS, ActivationFakeQuant, QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork

FLAVOUR = FLAVOURS["onnxruntime"]
"""The flavour whose values these are: a map's lie 128 below that flavour's uint8."""

_UNSIGNED_ZERO = 128  # of that uint8
_CONVOLUTIONS = (nn.Conv2d, FirstConv2d, SameConv2d)
_Value = Map | Entry | Sum | MeansOf | Told | Joined | None


def lower(network: QuantizedNetwork, frames: int, bins: int, *, several: bool = False) -> IntegerNetwork:
    """The integer form of a calibrated `network` for log-mels `(1, frames, bins)`; `several`: of the classes may be
    there at once.

    Raises `GateError` for a layer that has none, and for one that was kept in float.
    """
    kept = network.float_layers()
    if kept:
        raise no_form(f"its layer '{kept[0]}' was kept in float", "Quantise it too (edgekd quantize, no keep_float)")
    return _Lowering(network, frames, bins).done(several)


class _Lowering:
    """One walk over a network's graph."""

    def __init__(self, network: QuantizedNetwork, frames: int, bins: int) -> None:
        self.network, self.entry = network, Entry(frames, bins)
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, _Value] = {}

    def done(self, several: bool) -> IntegerNetwork:
        logits = logits_of(self.network.graph)
        needed = _needed(logits)
        entry: Map | None = None
        for node in self.network.graph.nodes:
            if node not in needed or node is logits:
                continue
            value = self.values[node] = self._value(node)
            if isinstance(value, Map) and entry is None:
                entry = value  # the first that is rounded is what enters
        last = module_of(self.network, logits)
        if not (isinstance(last, QuantizedLayer) and isinstance(last.layer, nn.Linear)):
            raise no_form("its logits are not what a linear layer makes")
        source = self._map(logits.all_input_nodes[0])
        if source.rows * source.columns > 1 or entry is None:
            raise no_form("its linear layer takes a map, where it can take a vector")
        return IntegerNetwork(entry, tuple(self.layers), classifier(last, source, several))

    def _value(self, node: fx.Node) -> _Value:
        if node.op == "placeholder":
            return self.entry
        if node.op == "get_attr":
            return None  # a scale, which its quantiser has too
        if node.op == "call_module":
            module = module_of(self.network, node)
            rule = _MODULES.get(type(module))
            if rule is None:
                raise no_form(f"'{node.target}' is a {type(module).__name__}")
            return rule(self, node, module)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        function = _FUNCTIONS.get(name)
        if function is None:
            raise no_form(f"it calls {name}")
        return function(self, node)

    def _map(self, node: fx.Node) -> Map:
        value = self.values[node]
        if not isinstance(value, Map):
            raise no_form(f"'{node.name}' is not rounded to int8 before it is used")
        return value

    def rounded(self, node: fx.Node, quantiser: nn.Module) -> _Value:
        assert isinstance(quantiser, ActivationFakeQuant)
        value = self.values[node.all_input_nodes[0]]
        if isinstance(value, Map):  # it was moved, and is rounded already
            return value
        kind = FLAVOUR.activation(quantiser.non_negative)
        zero_point = kind.zero_point - _UNSIGNED_ZERO
        scale = quantiser.scale.item()
        if not np.isfinite(scale):
            raise GateError(f"'{node.target}' has no scale: the int8 student was not calibrated. Run edgekd quantize.")

        def target(rows: int, columns: int, channels: int) -> Map:
            return Map(str(node.target), rows, columns, channels, scale, zero_point)

        if isinstance(value, Entry):
            return target(value.rows, value.columns, 1)
        if isinstance(value, Sum):
            return self._add(convolution(value, target(*value.shape)))
        if isinstance(value, MeansOf):
            value = Joined((value,))
        if isinstance(value, Joined):
            return self._joined(value, target)
        raise no_form(f"'{node.all_input_nodes[0].name}' cannot be rounded to int8")

    def _add(self, layer: Layer) -> Map:
        self.layers.append(layer)
        return layer.target

    def _joined(self, value: Joined, target_of: Callable[[int, int, int], Map]) -> Map:
        outputs = [part.outputs for part in value.parts]
        target = target_of(1, 1, sum(outputs))
        for part, start in zip(value.parts, np.cumsum([0, *outputs[:-1]]).tolist(), strict=True):
            self.layers.append(means(part, target, start))
        return target


def _needed(node: fx.Node) -> set[fx.Node]:
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _layer(lowering: _Lowering, node: fx.Node, module: nn.Module) -> _Value:
    assert isinstance(module, QuantizedLayer)
    inner, source = module.layer, lowering._map(node.args[0])  # type: ignore[arg-type]
    if type(inner) not in _CONVOLUTIONS:
        raise no_form(f"'{node.target}' is a {type(inner).__name__} that is not the last layer")
    assert isinstance(inner, nn.Conv2d)
    depthwise = inner.groups == inner.in_channels == inner.out_channels
    if inner.dilation != (1, 1) or inner.padding_mode != "zeros" or not (depthwise or inner.groups == 1):
        raise no_form(f"'{node.target}' is a convolution with dilation, in groups, or padded with something else")
    padding = _padding(inner, source)
    sizes = _slid((source.rows, source.columns), pair(inner.kernel_size), pair(inner.stride), padding)
    return Sum(module, source, (*sizes, inner.out_channels), padding)


def _padding(convolution: nn.Conv2d, source: Map) -> tuple[int, int, int, int]:
    """Above, below, left, right."""
    if isinstance(convolution, SameConv2d):
        left, right, top, bottom = convolution.borders(torch.Size((1, source.channels, source.rows, source.columns)))
        return top, bottom, left, right
    if isinstance(convolution.padding, str):
        reach = [size - 1 if convolution.padding == "same" else 0 for size in convolution.kernel_size]
        return reach[0] // 2, reach[0] - reach[0] // 2, reach[1] // 2, reach[1] - reach[1] // 2
    rows, columns = pair(convolution.padding)
    return rows, rows, columns, columns


def _slid(sizes: Pair, kernel: Pair, stride: Pair, padding: tuple[int, int, int, int]) -> Pair:
    room = sizes[0] + padding[0] + padding[1] - kernel[0], sizes[1] + padding[2] + padding[3] - kernel[1]
    return room[0] // stride[0] + 1, room[1] // stride[1] + 1


def _relu(lowering: _Lowering, node: fx.Node, module: nn.Module | None = None) -> _Value:
    value = lowering.values[node.all_input_nodes[0]]
    if not isinstance(value, Sum):
        raise no_form(f"'{node.name}' is a ReLU that no convolution is before")
    return replace(value, relu=True, above=6.0 if isinstance(module, nn.ReLU6) else value.above)


def _same(lowering: _Lowering, node: fx.Node, _module: nn.Module | None = None) -> _Value:
    return lowering.values[node.all_input_nodes[0]]


def _max_pool(lowering: _Lowering, node: fx.Node, module: nn.Module) -> _Value:
    assert isinstance(module, nn.MaxPool2d)
    source = lowering._map(node.all_input_nodes[0])
    kernel, stride, (rows, columns) = pair(module.kernel_size), pair(module.stride), pair(module.padding)
    if pair(module.dilation) != (1, 1) or module.ceil_mode or module.return_indices:
        raise no_form(f"'{node.target}' is a pooling with dilation, rounded up, or with indices")
    padding = (rows, rows, columns, columns)
    pooled_rows, pooled_columns = _slid((source.rows, source.columns), kernel, stride, padding)
    target = replace(source, name=str(node.target), rows=pooled_rows, columns=pooled_columns)
    return lowering._add(MaxPool(source, target, kernel, stride, padding))


def _mean(lowering: _Lowering, node: fx.Node, module: nn.Module | None = None) -> _Value:
    value = lowering.values[node.all_input_nodes[0]]
    if module is None and sorted(_mean_dims(node)) != [2, 3]:
        raise no_form(f"'{node.name}' is a mean over something else than frames and mel bins")
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
        raise no_form(f"'{node.target}' is a pooling to {module.output_size}")
    if not isinstance(value, Map | Told):
        raise no_form(f"'{node.name}' is a mean of what is not rounded to int8")
    table = value.table if isinstance(value, Told) else None
    source = value.source if isinstance(value, Told) else value
    return MeansOf(source, table, ((0, source.rows),), ((0, source.columns),))


def _mean_dims(node: fx.Node) -> list[int]:
    dims: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else ())
    return [dim % 4 for dim in ((dims,) if isinstance(dims, int) else dims)]


def _sigmoid(lowering: _Lowering, node: fx.Node, _module: nn.Module | None = None) -> _Value:
    value = lowering.values[node.all_input_nodes[0]]
    if not isinstance(value, Map):
        raise no_form(f"'{node.name}' is a sigmoid of what is not rounded to int8")
    return Told(value, sigmoid_table(value))


def _histogram(lowering: _Lowering, node: fx.Node, module: nn.Module) -> _Value:
    assert isinstance(module, HistogramLayer)
    source = lowering._map(node.all_input_nodes[0])
    sides = (source.rows, source.columns)
    cells = [
        tuple((place * stride, place * stride + size) for place in ((0, 0) if side == 1 else (0, 1)))
        for side, size, stride in zip(sides, *grid_windows(sides), strict=True)
    ]
    return MeansOf(source, histogram_table(module, source), cells[0], cells[1])


def _norm(lowering: _Lowering, node: fx.Node, module: nn.Module) -> _Value:
    assert isinstance(module, nn.BatchNorm1d)
    value = lowering.values[node.all_input_nodes[0]]
    if not (isinstance(value, MeansOf) and len(value.row_cells) == len(value.column_cells) == 1):
        raise no_form(f"'{node.target}' is a batch norm of something else than means over a map")
    mean, variance, weight, shift = (_numbers(each) for each in _statistics(module))
    factor = weight / np.sqrt(variance + module.eps)
    return replace(value, factor=value.factor * factor, offset=(value.offset - mean) * factor + shift)


def _statistics(norm: nn.BatchNorm1d) -> tuple[Tensor, ...]:
    assert norm.running_mean is not None and norm.running_var is not None
    if not norm.affine:
        return norm.running_mean, norm.running_var, torch.ones(norm.num_features), torch.zeros(norm.num_features)
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()


def _cat(lowering: _Lowering, node: fx.Node) -> _Value:
    parts = [lowering.values[part] for part in node.all_input_nodes]
    dims: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    joined = [part for part in parts if isinstance(part, MeansOf)]
    if dims not in (1, -1) or len(joined) < len(parts) or node.args[0] != list(node.all_input_nodes):
        raise no_form(f"'{node.name}' joins something else than means over maps")
    return Joined(tuple(joined))


_MODULES: dict[type, Callable[[_Lowering, fx.Node, Any], _Value]] = {
    ActivationFakeQuant: _Lowering.rounded,
    QuantizedLayer: _layer,
    HistogramLayer: _histogram,
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: _mean,
    nn.Sigmoid: _sigmoid,
    nn.BatchNorm1d: _norm,
    **dict.fromkeys((nn.ReLU, nn.ReLU6), _relu),
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten), _same),
}
_FUNCTIONS: dict[str, Callable[[_Lowering, fx.Node], _Value]] = {
    "relu": _relu,
    "mean": _mean,
    "sigmoid": _sigmoid,
    "cat": _cat,
    "flatten": _same,
}
