"""Convolutions and poolings of a quantised network, as sums that nobody has rounded yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from edgekd.microcontrollers.integer.layers import Map, MaxPool
from edgekd.microcontrollers.integer.sums import no_form, pair, stored
from edgekd.microcontrollers.integer.values import Pair, Sum, Value
from edgekd.microcontrollers.integer.walk import Walk, argument
from edgekd.models.blocks import FirstConv2d, SameConv2d
from edgekd.quantization.fake_quant import QuantizedLayer

_CONVOLUTIONS = (nn.Conv2d, FirstConv2d, SameConv2d)
_Weight = NDArray[np.int8]


def layer(walk: Walk, node: fx.Node, module: nn.Module) -> Value:
    """A convolution, or a linear layer of a vector, which is one of 1x1."""
    assert isinstance(module, QuantizedLayer)
    inner, source = module.layer, walk.map_before(node)
    weight = module.integer_weight().numpy()
    bias, unit = stored(module, source)
    if type(inner) is nn.Linear:
        if source.rows * source.columns > 1:
            raise no_form(f"'{node.target}' is a linear layer of a map, where it can be one of a vector")
        weight = weight[:, None, None, :]
        return Sum(source, (1, 1, len(weight)), weight, bias, unit, (1, 1), (0, 0, 0, 0), False)
    if type(inner) not in _CONVOLUTIONS:
        raise no_form(f"'{node.target}' is a {type(inner).__name__}")
    assert isinstance(inner, nn.Conv2d)
    if inner.padding_mode != "zeros" or (isinstance(inner, SameConv2d) and inner.dilation != (1, 1)):
        raise no_form(f"'{node.target}' is a convolution that is padded with something else than zeros")
    depthwise = inner.groups == inner.in_channels == inner.out_channels
    weight = _spread(weight.transpose(0, 2, 3, 1), pair(inner.dilation))
    if inner.groups > 1 and not depthwise:
        weight = _of_all_channels(weight, inner.groups)
    kernel = weight.shape[1], weight.shape[2]
    padding = _padding(inner, source, kernel)
    sizes = _slid(source, kernel, pair(inner.stride), padding)
    shape = (*sizes, inner.out_channels)
    return Sum(source, shape, weight, bias, unit, pair(inner.stride), padding, depthwise)


def _spread(weight: _Weight, dilation: Pair) -> _Weight:
    """A kernel with zeros between its rows and columns, where it is dilated."""
    outputs, rows, columns, inputs = weight.shape
    size = (rows - 1) * dilation[0] + 1, (columns - 1) * dilation[1] + 1
    wide = np.zeros((outputs, *size, inputs), np.int8)
    wide[:, :: dilation[0], :: dilation[1]] = weight
    return wide


def _of_all_channels(weight: _Weight, groups: int) -> _Weight:
    """The weight of a convolution in groups, with zeros for the channels of other groups."""
    outputs, rows, columns, inputs = weight.shape
    wide = np.zeros((groups, outputs // groups, rows, columns, groups, inputs), np.int8)
    for group, part in enumerate(weight.reshape(groups, -1, rows, columns, inputs)):
        wide[group, :, :, :, group] = part
    return wide.reshape(outputs, rows, columns, groups * inputs)


def _padding(convolution: nn.Conv2d, source: Map, kernel: Pair) -> tuple[int, int, int, int]:
    """Above, below, left, right."""
    if isinstance(convolution, SameConv2d):
        left, right, top, bottom = convolution.borders(torch.Size((1, source.channels, source.rows, source.columns)))
        return top, bottom, left, right
    if isinstance(convolution.padding, str):
        reach = [size - 1 if convolution.padding == "same" else 0 for size in kernel]
        return reach[0] // 2, reach[0] - reach[0] // 2, reach[1] // 2, reach[1] - reach[1] // 2
    rows, columns = pair(convolution.padding)
    return rows, rows, columns, columns


def _slid(source: Map, kernel: Pair, stride: Pair, padding: tuple[int, int, int, int]) -> Pair:
    room = source.rows + padding[0] + padding[1] - kernel[0], source.columns + padding[2] + padding[3] - kernel[1]
    return room[0] // stride[0] + 1, room[1] // stride[1] + 1


def max_pool(walk: Walk, node: fx.Node, module: nn.Module | None) -> Value:
    """`nn.MaxPool2d` and the function."""
    source = walk.map_before(node)
    given = _settings(node, module, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"))
    if pair(given["dilation"] or 1) != (1, 1) or given["ceil_mode"] or given["return_indices"]:
        raise no_form(f"'{node.target}' is a pooling with dilation, rounded up, or with indices")
    kernel, stride, padding = _window(given)
    rows, columns = _slid(source, kernel, stride, padding)
    target = replace(source, name=node.name if module is None else str(node.target), rows=rows, columns=columns)
    return walk.add(MaxPool(source, target, kernel, stride, padding))


def average_pool(walk: Walk, node: fx.Node, module: nn.Module | None) -> Value:
    """`nn.AvgPool2d` and the function: a depthwise convolution whose weights are 1."""
    source = walk.map_before(node)
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    given = _settings(node, module, names)
    kernel, stride, padding = _window(given)
    if given["ceil_mode"] or given["divisor_override"] or (given["count_include_pad"] is False and any(padding)):
        raise no_form(f"'{node.target}' is a pooling rounded up, or divided by something else than its kernel's size")
    shape = (*_slid(source, kernel, stride, padding), source.channels)
    weight = np.ones((source.channels, *kernel, 1), np.int8)
    unit = np.full(source.channels, source.scale / (kernel[0] * kernel[1]))
    return Sum(source, shape, weight, np.zeros(source.channels, np.int64), unit, stride, padding, depthwise=True)


def _settings(node: fx.Node, module: nn.Module | None, names: tuple[str, ...]) -> dict[str, Any]:
    if module is not None:
        return {name: getattr(module, name) for name in names}
    return {name: argument(node, place, name) for place, name in enumerate(names, start=1)}


def _window(given: dict[str, Any]) -> tuple[Pair, Pair, tuple[int, int, int, int]]:
    """Kernel, stride, padding."""
    kernel = pair(given["kernel_size"])
    rows, columns = pair(given["padding"] or 0)
    return kernel, pair(given["stride"] or kernel), (rows, rows, columns, columns)
