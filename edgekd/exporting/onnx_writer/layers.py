"""Layers as ONNX operators: one function for each kind of module, `MODULES` says which.

A module has to be of that very class, in evaluation mode, with nothing hooked into it (`is_plain`); what a subclass
does is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.exporting.integer_layers import Hidden, IntegerLayer, RoundActivation, StoredIntegers
from edgekd.exporting.onnx_writer.functions import (
    adaptive_avg_pool2d,
    avg_pool2d,
    flatten,
    max_pool2d,
    relu,
    sigmoid,
    unchanged,
)
from edgekd.exporting.onnx_writer.shaping import (
    average_pool,
    cast,
    concatenated,
    flattened,
    known,
    reduced,
    scaled,
    slid,
    unsqueeze,
)
from edgekd.exporting.onnx_writer.sheet import Sheet, Unknown, Value
from edgekd.models.blocks import FirstConv2d, SameConv2d, Scaled
from edgekd.models.histogram import FLOOR, HistogramLayer, grid_windows

Norm = nn.BatchNorm1d | nn.BatchNorm2d
Convolution = nn.Conv1d | nn.Conv2d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, FirstConv2d, SameConv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
IDLE = (nn.Dropout, nn.Dropout2d, nn.Identity)  # once training is over


def convolution(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """With its own weight and bias."""
    return _layer(sheet, module, value, *_own_parameters(sheet, module))


def normalised_layer(sheet: Sheet, layer: nn.Module, norm: nn.Module, value: Value, layer_scope: str) -> Value:
    """A convolution or linear layer with the batch norm after it folded in: one operator, called after the norm."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)
    assert isinstance(norm, NORMS)
    scale, shift, mean, variance = (each.detach().cpu().numpy() for each in _statistics(norm))
    weight = layer.weight.detach().cpu().numpy()
    bias = np.zeros_like(mean) if layer.bias is None else layer.bias.detach().cpu().numpy()
    factor = scale / np.sqrt(variance + norm.eps)
    folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    stored = sheet.array(folded, f"{layer_scope}.weight")
    return _layer(sheet, layer, value, stored, sheet.array((bias - mean) * factor + shift, f"{layer_scope}.bias"))


def batch_norm(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """One that nothing could take in."""
    assert isinstance(module, NORMS)
    names = ("weight", "bias", "running_mean", "running_var")
    stored = [
        sheet.tensor(tensor, f"{sheet.scope}.{name}") for name, tensor in zip(names, _statistics(module), strict=True)
    ]
    momentum = 0.1 if module.momentum is None else module.momentum
    return sheet.node("BatchNormalization", [value, *stored], value.shape, momentum=1 - momentum, epsilon=module.eps)


def max_pool(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """`nn.MaxPool2d`."""
    assert isinstance(module, nn.MaxPool2d)
    size, stride, padding, dilation = module.kernel_size, module.stride, module.padding, module.dilation
    return max_pool2d(sheet, value, size, stride, padding, dilation, module.ceil_mode, module.return_indices)


def avg_pool(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """`nn.AvgPool2d`."""
    assert isinstance(module, nn.AvgPool2d)
    size, stride, padding = module.kernel_size, module.stride, module.padding
    whole, divisor = module.count_include_pad, module.divisor_override
    return avg_pool2d(sheet, value, size, stride, padding, module.ceil_mode, whole, divisor)


def adaptive_pool(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """`nn.AdaptiveAvgPool2d`."""
    assert isinstance(module, nn.AdaptiveAvgPool2d)
    return adaptive_avg_pool2d(sheet, value, module.output_size)


def flatten_layer(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """`nn.Flatten`."""
    assert isinstance(module, nn.Flatten)
    return flatten(sheet, value, module.start_dim, module.end_dim)


def histogram(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """`edgekd.models.histogram.HistogramLayer`, line for line; in half precision its sum is taken in float32."""
    assert isinstance(module, HistogramLayer)
    centres = sheet.tensor(module.mu[:, :, None, None], f"{sheet.scope}.mu")
    widths = sheet.tensor(module.gamma[:, :, None, None], f"{sheet.scope}.gamma")
    features = unsqueeze(sheet, value, 2)
    shape = (*features.shape[:2], module.bins, *features.shape[3:])
    offset = sheet.node("Sub", [features, centres], shape)
    scaled = sheet.node("Mul", [widths, offset], shape, value.dtype)
    squares = sheet.node("Mul", [scaled, scaled], shape)
    response = sheet.node("Exp", [sheet.node("Neg", [squares], shape)], shape)
    total = reduced(sheet, "ReduceSum", cast(sheet, response, torch.float32), [2], keep=True)
    total = cast(sheet, total, value.dtype)
    total = sheet.node("Add", [total, sheet.number(FLOOR, value.dtype)], total.shape)
    response = flattened(sheet, sheet.node("Div", [response, total], shape), 1, 2)
    means = average_pool(sheet, response, *grid_windows((known(response, 2), known(response, 3))))
    for dim in (-2, -1):
        if known(response, len(response.shape) + dim) == 1:
            means = concatenated(sheet, [means, means], dim)
    return flattened(sheet, means, 1)


def round_activation(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """QuantizeLinear, DequantizeLinear."""
    assert isinstance(module, RoundActivation)
    parameters = [sheet.tensor(module.get_buffer(name), f"{sheet.scope}.{name}") for name in ("scale", "zero_point")]
    integers = sheet.node("QuantizeLinear", [value, *parameters], value.shape, module.get_buffer("zero_point").dtype)
    return sheet.node("DequantizeLinear", [integers, *parameters], value.shape, torch.float32)


def integer_layer(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """A layer on a weight, and in some flavours a bias, that are stored as integers."""
    assert isinstance(module, IntegerLayer)
    if type(module.operation) not in (*CONVOLUTIONS, nn.Linear):
        raise Unknown(type(module.operation).__name__)
    weight = _stored_integers(sheet, module.weight, "weight").name
    bias = None
    if isinstance(module.bias, StoredIntegers):
        bias = _stored_integers(sheet, module.bias, "bias").name
    elif module.float_bias is not None:
        bias = sheet.tensor(module.float_bias, f"{sheet.scope}.bias")
    return _layer(sheet, module.operation, value, weight, bias)


def hidden(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """A maximum with the lowest number."""
    lowest = sheet.tensor(module.get_buffer("lowest"), f"{sheet.scope}.lowest")
    return sheet.node("Max", [value, lowest], value.shape)


def scaled_layer(sheet: Sheet, module: nn.Module, value: Value) -> Value:
    """A product with one number."""
    assert isinstance(module, Scaled)
    return scaled(sheet, value, module.get_buffer("factor"), f"{sheet.scope}.factor")


Rule = Callable[[Sheet, nn.Module, Value], Value]

MODULES: dict[type[nn.Module], Rule] = {
    **dict.fromkeys((*CONVOLUTIONS, nn.Linear), convolution),
    **dict.fromkeys(NORMS, batch_norm),
    nn.ReLU: lambda sheet, _, value: relu(sheet, value),
    nn.Sigmoid: lambda sheet, _, value: sigmoid(sheet, value),
    **dict.fromkeys(IDLE, lambda sheet, _, value: unchanged(sheet, value)),
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: avg_pool,
    nn.AdaptiveAvgPool2d: adaptive_pool,
    nn.Flatten: flatten_layer,
    HistogramLayer: histogram,
    RoundActivation: round_activation,
    IntegerLayer: integer_layer,
    Hidden: hidden,
    Scaled: scaled_layer,
}


def _own_parameters(sheet: Sheet, module: nn.Module) -> tuple[str, str | None]:
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    weight = sheet.tensor(module.weight, f"{sheet.scope}.weight")
    return weight, None if module.bias is None else sheet.tensor(module.bias, f"{sheet.scope}.bias")


def _layer(sheet: Sheet, module: nn.Module, value: Value, weight: str, bias: str | None) -> Value:
    """What `module` does, with a weight and bias that are stored or made already."""
    inputs: list[Value | str] = [value, weight] if bias is None else [value, weight, bias]
    if isinstance(module, nn.Linear):
        if len(value.shape) != 2 or bias is None:
            raise Unknown("a linear layer without a bias, or on more than one vector a clip")
        shape = (value.shape[0], module.out_features)
        return sheet.node("Gemm", inputs, shape, alpha=1.0, beta=1.0, transA=0, transB=1)
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    pads = _pads(module, value)
    kernel, stride, dilation = list(module.kernel_size), list(module.stride), list(module.dilation)
    return sheet.node(
        "Conv",
        inputs,
        slid(value, kernel, stride, pads, dilation, module.out_channels),
        group=module.groups,
        pads=pads,
        auto_pad="NOTSET",
        strides=stride,
        dilations=dilation,
        kernel_shape=kernel,
    )


def _pads(module: Convolution, value: Value) -> list[int]:
    """Zeros before each dimension, then after each."""
    if isinstance(module, SameConv2d):
        sizes = [known(value, dim) for dim in (2, 3)]
        left, right, top, bottom = module.borders(torch.Size([1, module.in_channels, *sizes]))
        return [top, left, bottom, right]
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise Unknown("a padding that is not one of so many zeros")
    return [*module.padding, *module.padding]


def _statistics(norm: Norm) -> Sequence[Tensor]:
    """Scale, shift, mean, variance."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise Unknown("a batch norm that takes its statistics from the batch")
    scale = torch.ones_like(mean) if norm.weight is None else norm.weight
    return scale, torch.zeros_like(mean) if norm.bias is None else norm.bias, mean, variance


def _stored_integers(sheet: Sheet, stored: StoredIntegers, part: str) -> Value:
    scope = f"{sheet.scope}.{part}"
    names = ("integers", "scale", "zero_point")
    inputs = [sheet.tensor(stored.get_buffer(name), f"{scope}.{name}") for name in names]
    with sheet.within(scope):
        shape = tuple(stored.get_buffer("integers").shape)
        return sheet.node("DequantizeLinear", inputs, shape, torch.float32, axis=0)
