"""Operators that several layers are made of, and the shapes that they give."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.exporting.onnx_writer.sheet import KINDS, Shape, Sheet, Unknown, Value

TO_THE_END = 2**63 - 1  # of a slice


def reshape(sheet: Sheet, value: Value, *sizes: int) -> Value:
    """`(B, ...)` -> `(B, *sizes)`."""
    batch = value.shape[0]
    target = sheet.integers(-1 if batch is None else batch, *sizes)
    return sheet.node("Reshape", [value, target], (batch, *sizes), allowzero=1)


def transpose(sheet: Sheet, value: Value, first: int, second: int) -> Value:
    """With two of its dimensions in each other's place."""
    order = list(range(len(value.shape)))
    order[first], order[second] = second, first
    return sheet.node("Transpose", [value], tuple(value.shape[dim] for dim in order), perm=order)


def unsqueeze(sheet: Sheet, value: Value, dim: int) -> Value:
    """With a dimension of 1 more, at `dim`."""
    dim %= len(value.shape) + 1
    shape = (*value.shape[:dim], 1, *value.shape[dim:])
    return sheet.node("Unsqueeze", [value, sheet.integers(dim)], shape)


def squeeze(sheet: Sheet, value: Value, dim: int) -> Value:
    """Without the dimension `dim`, which is 1."""
    dim %= len(value.shape)
    return sheet.node("Squeeze", [value, sheet.integers(dim)], (*value.shape[:dim], *value.shape[dim + 1 :]))


def cut(sheet: Sheet, value: Value, dim: int, start: int, end: int | None = None) -> Value:
    """`value[start:end]` along `dim`."""
    size = known(value, dim)
    bounds = [sheet.integers(number) for number in (start, TO_THE_END if end is None else end, dim, 1)]
    shape = (*value.shape[:dim], (size if end is None else end) - start, *value.shape[dim + 1 :])
    return sheet.node("Slice", [value, *bounds], shape)


def cast(sheet: Sheet, value: Value, dtype: torch.dtype) -> Value:
    """In another type; as it is where it has it."""
    return value if value.dtype == dtype else sheet.node("Cast", [value], value.shape, dtype, to=KINDS[dtype])


def reduced(
    sheet: Sheet, operator: str, value: Value, dims: Sequence[int], keep: bool, output: str | None = None
) -> Value:
    """A `Reduce...` over known dimensions, of which `keep` leaves 1."""
    axes = [dim % len(value.shape) for dim in dims]
    sizes = [(1 if keep else 0) if dim in axes else size for dim, size in enumerate(value.shape)]
    shape = tuple(size for dim, size in enumerate(sizes) if keep or dim not in axes)
    if not axes or 0 in axes:
        raise Unknown(f"{operator} over the batch")
    default: dict[str, Any] = {} if operator == "ReduceMax" else {"noop_with_empty_axes": 0}  # as the exporter has it
    return sheet.node(operator, [value, sheet.integers(*axes)], shape, output=output, **default, keepdims=int(keep))


def concatenated(sheet: Sheet, values: Sequence[Value], dim: int) -> Value:
    """The values in a row along `dim`; one alone as it is."""
    if len(values) == 1:
        return values[0]
    axis = dim % len(values[0].shape)
    if axis == 0 or len({(len(value.shape), value.dtype) for value in values}) > 1:
        raise Unknown("Concat over the batch, or of types that differ")
    shape = list(values[0].shape)
    shape[axis] = sum(known(value, axis) for value in values)
    return sheet.node("Concat", values, tuple(shape), axis=dim)


def average_pool(
    sheet: Sheet, value: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int] | None = None
) -> Value:
    """Means over places of `kernel`, zeros of the padding counted."""
    padding = padding or [0] * len(kernel)
    return sheet.node(
        "AveragePool",
        [value],
        slid(value, kernel, stride, [*padding, *padding]),
        count_include_pad=1,
        ceil_mode=0,
        pads=[*padding, *padding],
        auto_pad="NOTSET",
        strides=list(stride),
        kernel_shape=list(kernel),
    )


def slid(
    value: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int] | None = None,
    channels: int | None = None,
) -> Shape:
    """The shape of what a window of `kernel` gives on its way over a map `(B, C, ...)`. Raises `Unknown` where it does
    not fit in: whoever runs the network has words for that."""
    places = len(kernel)
    if len(value.shape) != places + 2:
        raise Unknown("a map without a batch")
    sizes = []
    for dim, (size, step) in enumerate(zip(kernel, stride, strict=True)):
        reach = (dilation[dim] if dilation else 1) * (size - 1) + 1
        room = known(value, dim + 2) + pads[dim] + pads[dim + places] - reach
        if room < 0:
            raise Unknown("a window that is larger than the map")
        sizes.append(room // step + 1)
    return (value.shape[0], value.shape[1] if channels is None else channels, *sizes)


def known(value: Value, dim: int) -> int:
    """The size of a dimension that is not the batch."""
    size = value.shape[dim]
    if size is None:
        raise Unknown("an operator over the batch")
    return size


def flattened(sheet: Sheet, value: Value, start: int, end: int = -1) -> Value:
    """Dimensions `start` to `end` as one."""
    start, end = start % len(value.shape), end % len(value.shape)
    if start == 0:
        raise Unknown("the batch flattened")
    if start == end:
        return value
    sizes = [known(value, dim) for dim in range(1, len(value.shape))]
    return reshape(sheet, value, *sizes[: start - 1], prod(sizes[start - 1 : end]), *sizes[end:])


def scaled(sheet: Sheet, value: Value, factors: Tensor, name: str) -> Value:
    """Times a stored tensor, which changes no shape; as it is where all factors are 1."""
    if bool((factors == 1).all()):
        return value
    return sheet.node("Mul", [value, sheet.tensor(factors, name)], value.shape)


def shifted(sheet: Sheet, value: Value, terms: Tensor, name: str) -> Value:
    """Plus a stored tensor, which changes no shape; as it is where all terms are 0."""
    if not bool(terms.any()):
        return value
    return sheet.node("Add", [value, sheet.tensor(terms, name)], value.shape)


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its class says, in evaluation mode: nothing is hooked into it."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return not hooked and not module.training and "forward" not in vars(module)
