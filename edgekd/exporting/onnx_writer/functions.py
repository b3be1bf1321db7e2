"""Functions and methods of tensors as ONNX operators: `FUNCTIONS` says which.

Each has the parameters of PyTorch's function, so that calls are read as PyTorch reads them; what one of them cannot
express is `Unknown`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from edgekd.exporting.onnx_writer.shaping import (
    average_pool,
    cast,
    concatenated,
    flattened,
    reduced,
    slid,
)
from edgekd.exporting.onnx_writer.shaping import unsqueeze as with_dimension
from edgekd.exporting.onnx_writer.sheet import Shape, Sheet, Unknown, Value

Sizes = int | Sequence[int]


def relu(sheet: Sheet, input: Value, inplace: bool = False) -> Value:  # noqa: ARG001
    """The larger of a value and zero."""
    return sheet.node("Relu", [input], input.shape)


def sigmoid(sheet: Sheet, input: Value) -> Value:
    """`1 / (1 + exp(-x))`."""
    return sheet.node("Sigmoid", [input], input.shape)


def sqrt(sheet: Sheet, input: Value) -> Value:
    """The square root."""
    return sheet.node("Sqrt", [input], input.shape)


def unchanged(_sheet: Sheet, input: Value) -> Value:
    """What does nothing once training is over, such as dropout."""
    return input


def add(sheet: Sheet, input: Value, other: Any) -> Value:
    """The sum of two values."""
    return _elementwise(sheet, "Add", input, other)


def subtract(sheet: Sheet, input: Value, other: Any) -> Value:
    """The difference of two values."""
    return _elementwise(sheet, "Sub", input, other)


def multiply(sheet: Sheet, input: Value, other: Any) -> Value:
    """The product of two values."""
    return _elementwise(sheet, "Mul", input, other)


def clamp(sheet: Sheet, input: Value, min: Any = None, max: Any = None) -> Value:
    """The larger of a value and a number."""
    if not isinstance(min, int | float) or max is not None:
        raise Unknown("a clamp that is not from one number on")
    kind = "Max" if input.dtype == torch.float16 else "Clip"  # of which older runtimes have none for halves
    return sheet.node(kind, [input, sheet.number(min, input.dtype)], input.shape)


def mean(sheet: Sheet, input: Value, dim: Sizes | None = None, keepdim: bool = False) -> Value:
    """Means over some dimensions."""
    return _reduced(sheet, "ReduceMean", input, dim, keepdim)


def amax(sheet: Sheet, input: Value, dim: Sizes | None = None, keepdim: bool = False) -> Value:
    """Maxima over some dimensions, taken in float32: that changes none, and older runtimes have none for halves."""
    return cast(sheet, _reduced(sheet, "ReduceMax", cast(sheet, input, torch.float32), dim, keepdim), input.dtype)


def cat(sheet: Sheet, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Values in a row."""
    return concatenated(sheet, tensors, dim)


def flatten(sheet: Sheet, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Several dimensions as one."""
    return flattened(sheet, input, start_dim, end_dim)


def unsqueeze(sheet: Sheet, input: Value, dim: int) -> Value:
    """One more dimension, of 1."""
    return with_dimension(sheet, input, dim)


def max_pool2d(
    sheet: Sheet,
    input: Value,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """The largest in each window."""
    if ceil_mode or return_indices:
        raise Unknown("a max-pool that rounds up, or returns places")
    kernel, border, spread = pair(kernel_size), pair(padding), pair(dilation)
    steps = kernel if stride is None else pair(stride)
    pads = [*border, *border]
    return sheet.node(
        "MaxPool",
        [input],
        slid(input, kernel, steps, pads, spread),
        storage_order=0,
        dilations=spread,
        ceil_mode=0,
        pads=pads,
        auto_pad="NOTSET",
        strides=steps,
        kernel_shape=kernel,
    )


def avg_pool2d(
    sheet: Sheet,
    input: Value,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The mean of each window."""
    if ceil_mode or divisor_override is not None or not (count_include_pad or pair(padding) == [0, 0]):
        raise Unknown("an average pool that rounds up, or divides by another number")
    kernel = pair(kernel_size)
    return average_pool(sheet, input, kernel, kernel if stride is None else pair(stride), pair(padding))


def adaptive_avg_pool2d(sheet: Sheet, input: Value, output_size: Any) -> Value:
    """The mean of each map, for an output of 1 x 1."""
    if output_size not in (1, (1, 1), [1, 1]) or len(input.shape) != 4:
        raise Unknown("an average pool to another size than 1")
    return reduced(sheet, "ReduceMean", input, (-1, -2), keep=True)


def pair(sizes: Sizes) -> list[int]:
    """One size for both dimensions, or two. Raises `Unknown` for another number of them."""
    both = [sizes, sizes] if isinstance(sizes, int) else list(sizes)
    if len(both) != 2:
        raise Unknown("a list of one size, or of none")
    return both


# Functions and names of tensor methods alike.
FUNCTIONS: dict[object, Callable[..., Value]] = {
    **dict.fromkeys((torch.relu, nn.functional.relu, "relu", "relu_"), relu),
    **dict.fromkeys((torch.sigmoid, nn.functional.sigmoid, "sigmoid"), sigmoid),
    **dict.fromkeys((torch.sqrt, "sqrt"), sqrt),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add"), add),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul"), multiply),
    **dict.fromkeys((torch.clamp, "clamp"), clamp),
    **dict.fromkeys((torch.mean, "mean"), mean),
    **dict.fromkeys((torch.amax, "amax"), amax),
    torch.cat: cat,
    **dict.fromkeys((torch.flatten, "flatten"), flatten),
    **dict.fromkeys((torch.unsqueeze, "unsqueeze"), unsqueeze),
    nn.functional.max_pool2d: max_pool2d,
    nn.functional.avg_pool2d: avg_pool2d,
    nn.functional.adaptive_avg_pool2d: adaptive_avg_pool2d,
}


IN_PLACE = (operator.iadd, operator.imul, "relu_")  # they write what they give over what they take
VIEWS = (  # what they give is in the memory of what they take
    *(nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten),
    *(torch.flatten, torch.unsqueeze, "flatten", "unsqueeze"),
)


def _elementwise(sheet: Sheet, kind: str, input: Any, other: Any) -> Value:
    if not (isinstance(input, Value) and isinstance(other, Value)) or input.dtype != other.dtype:
        raise Unknown(f"{kind} of something else than two values of one type")
    return sheet.node(kind, [input, other], _broadcast(input.shape, other.shape))


def _broadcast(first: Shape, second: Shape) -> Shape:
    if len(first) != len(second):
        raise Unknown("values with another number of dimensions each")
    for one, other in zip(first, second, strict=True):
        if one != other and 1 not in (one, other):
            raise Unknown("values that have no common shape")
    return tuple(other if one == 1 else one for one, other in zip(first, second, strict=True))


def _reduced(sheet: Sheet, kind: str, input: Value, dim: Sizes | None, keepdim: bool) -> Value:
    if dim is None:
        raise Unknown(f"{kind} over all dimensions")
    return reduced(sheet, kind, input, [dim] if isinstance(dim, int) else list(dim), keepdim)
