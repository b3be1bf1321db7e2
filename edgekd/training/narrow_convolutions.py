"""Convolutions of few channels on a GPU, as a compiled step has them.

cuDNN's kernels are made for maps of many channels. On one of 1, 4 or 16 they compute slowly, and maps are turned from
one order to another and back around them. Here such a convolution is a sum of small products:

    y(m) = sum_s x(m + shift(s)) W(s)

x lies channels-last, `LANES` channels a place, with a border of zeros as wide as the kernel reaches; then the places
can be numbered in one row, and each of the kernel's shifts is the same step for all of them, so that nothing asks where
a line ends. What comes out at places of the border means nothing and is left out. The gradient of x is a sum of the
same kind, with the weights turned; that of the weights is `W'(s) = sum_m x(m + shift(s))^T y'(m)`. A convolution of one
channel takes the places of a kernel's line for its channels. One that reaches nowhere, 1x1, is a matrix product.

`RULES` says this to the compiler, in place of `aten.convolution` and its gradient (`compiled`); a network's code knows
nothing of it. Numbers are those of cuDNN: operands of half precision, sums of float32. What fits no rule stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.losses.ssatkd.kernels import check_alike

LANES = 16
"""Channels of a place: the least that a GPU's matrix units take."""

MOST_VALUES = 2**31 - 2**24
"""Values that a kernel can number."""

WIDEST_PRODUCT = 256
"""Channels up to which a 1x1 convolution is a plain product; cuDNN is good at wider ones."""

HALF = (torch.float16, torch.bfloat16)


@torch.library.custom_op("edgekd::shifted_products", mutates_args=())
def shifted_products(values: Tensor, weights: Tensor, bias: Tensor, side: int) -> Tensor:
    """`sum_s values(m + shift(s)) @ weights(s) + bias` of `values (B, H, W, LANES)` for each place m of (B, H, W) in a
    row, in the same shape and type.

    `weights (S, LANES, LANES)` by shift, `bias (LANES,)`; shift s goes `s // side` lines and `s % side` places on. The
    sum means nothing where that leaves the map.
    """
    if values.device.type == "cuda":
        from edgekd.training import shifted_kernels

        return shifted_kernels.products(values.contiguous(), weights.contiguous(), bias, side)
    total = bias.float() + torch.zeros_like(values, dtype=torch.float32)
    for shift, weight in enumerate(weights):
        total += _ahead(values, shift // side, shift % side).float() @ weight.float()
    return total.to(values.dtype)


@torch.library.custom_op("edgekd::shifted_outer", mutates_args=())
def shifted_outer(values: Tensor, gradient: Tensor, height: int, side: int) -> Tensor:
    """`sum_m values(m + shift(s))^T gradient(m + c)` for each shift s of `height` lines by `side` places, c the shift
    in their middle: `(height * side, LANES, LANES)` float32.

    Both maps are `(B, H, W, LANES)`, and `gradient` is zero on a border as wide as the shifts reach from their middle.
    """
    if values.device.type == "cuda":
        from edgekd.training import shifted_kernels

        return shifted_kernels.outer(values.contiguous(), gradient.contiguous(), height, side)
    here = _ahead(gradient, height // 2, side // 2).float().flatten(0, 2)
    shifts = [(line, place) for line in range(height) for place in range(side)]
    return torch.stack([_ahead(values, *shift).float().flatten(0, 2).mT @ here for shift in shifts])


def _ahead(values: Tensor, lines: int, places: int) -> Tensor:
    """The value so many lines and places on, in the row of all places; zero past its end."""
    rows, step = values.flatten(0, 2), lines * values.shape[2] + places
    return F.pad(rows[step:], (0, 0, 0, step)).view_as(values)


@shifted_products.register_fake
def _(values: Tensor, _weights: Tensor, _bias: Tensor, _side: int) -> Tensor:
    return values.new_empty(values.shape)


@shifted_outer.register_fake
def _(values: Tensor, _gradient: Tensor, height: int, side: int) -> Tensor:
    return values.new_empty((height * side, LANES, LANES), dtype=torch.float32)


class _Narrow:
    """A convolution of one channel, or of `LANES` at most, to as many, that keeps the size of a map."""

    def __init__(self, values: Tensor, weights: Tensor) -> None:
        self.height, self.side = weights.shape[2:]
        self.unfolded = values.shape[1] == 1 and 1 < self.side <= LANES
        self.lines, self.row = values.shape[2:]

    @property
    def shifts(self) -> tuple[int, int]:
        return self.height, 1 if self.unfolded else self.side

    def bordered(self, maps: Tensor) -> Tensor:
        """`(B, C, H, W)` channels-last, with as many lanes and a border."""
        (height, side), channels = self.shifts, maps.shape[1]
        sides, lines = [side // 2] * 2, [height // 2] * 2
        rows = F.pad(maps.permute(0, 2, 3, 1), [0, LANES - channels, *sides, *lines])
        return rows.contiguous()

    def operand(self, values: Tensor) -> Tensor:
        """What the shifts go over."""
        if not self.unfolded:
            return self.bordered(values)
        reach = [self.side // 2, LANES - 1 - self.side // 2]
        return F.pad(values[:, 0], [*reach, *[self.height // 2] * 2]).unfold(2, LANES, 1).contiguous()

    def of_shifts(self, weights: Tensor) -> Tensor:
        """`weights (O, C, height, side)` as `(S, LANES, LANES)`: of an input's lane to an output's."""
        rows = weights[:, 0].permute(1, 2, 0) if self.unfolded else weights.permute(2, 3, 1, 0).flatten(0, 1)
        return F.pad(rows, [0, LANES - rows.shape[2], 0, LANES - rows.shape[1]]).contiguous()

    def inside(self, bordered: Tensor) -> Tensor:
        """Of sums over shifts those that mean something."""
        return bordered[:, : self.lines, : self.row]

    def forward(self, values: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        outputs = weights.shape[0]
        added = values.new_zeros(LANES) if bias is None else F.pad(bias, [0, LANES - outputs])
        sums = shifted_products(self.operand(values), self.of_shifts(weights), added, self.shifts[1])
        return self.inside(sums)[..., :outputs].permute(0, 3, 1, 2)

    def gradient_of_values(self, gradient: Tensor, values: Tensor, weights: Tensor) -> Tensor:
        turned = self.of_shifts(weights).flip(0).mT.contiguous()
        sums = self.inside(shifted_products(gradient, turned, values.new_zeros(LANES), self.shifts[1]))
        if not self.unfolded:
            return sums[..., : values.shape[1]].permute(0, 3, 1, 2)
        # Each place of the map was a lane of as many places as the kernel's line is long.
        middle = self.side // 2
        reached = F.pad(sums.float(), [0, 0, middle, middle])
        lanes = (reached[:, :, self.side - 1 - j :][:, :, : self.row, j] for j in range(self.side))
        return sum(lanes, start=torch.zeros((), device=sums.device)).to(values.dtype)[:, None]

    def gradient_of_weights(self, gradient: Tensor, values: Tensor, weights: Tensor) -> Tensor:
        sums = shifted_outer(self.operand(values), gradient, *self.shifts)
        (outputs, inputs), (height, side) = weights.shape[:2], weights.shape[2:]
        if self.unfolded:
            return sums[:, :side, :outputs].permute(2, 0, 1)[:, None].to(weights.dtype)
        return sums.view(height, side, LANES, LANES)[:, :, :inputs, :outputs].permute(3, 2, 0, 1).to(weights.dtype)


def _convolution(
    values: Tensor, weights: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    _output_padding: Any, groups: int,
) -> Tensor:  # fmt: skip
    kind = _kind(values, weights, stride, padding, dilation, transposed, groups)
    if kind is None:
        return NotImplemented
    if kind is _Narrow:
        return _Narrow(values, weights).forward(values, weights, bias)
    if _is_channels_last(values):
        product = (_rows(values) @ _rows(weights)[:, 0, 0].mT).permute(0, 3, 1, 2)
    else:
        product = (weights.flatten(1) @ values.flatten(2)).unflatten(2, values.shape[2:])
    return product if bias is None else product + bias[:, None, None]


def _convolution_backward(
    gradient: Tensor, values: Tensor, weights: Tensor, _bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, _output_padding: Any, groups: int, wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    kind = _kind(values, weights, stride, padding, dilation, transposed, groups)
    if kind is None:
        return NotImplemented
    found: list[Tensor | None] = [None, None, None]
    if wanted[2]:
        found[2] = gradient.float().sum((0, 2, 3)).to(weights.dtype)
    if kind is _Narrow:
        narrow = _Narrow(values, weights)
        bordered = narrow.bordered(gradient)
        if wanted[0]:
            found[0] = narrow.gradient_of_values(bordered, values, weights)
        if wanted[1]:
            found[1] = narrow.gradient_of_weights(bordered, values, weights)
        return found[0], found[1], found[2]
    matrix, inputs = weights.flatten(1), weights.shape[1]
    if _is_channels_last(values):
        rows = gradient.permute(0, 2, 3, 1).contiguous()
        if wanted[0]:
            found[0] = (rows @ _rows(weights)[:, 0, 0])[..., :inputs].permute(0, 3, 1, 2)
        if wanted[1]:
            products = rows.flatten(0, 2).mT @ _rows(values).flatten(0, 2)
            found[1] = products[:, :inputs].reshape(weights.shape)
        return found[0], found[1], found[2]
    if wanted[0]:
        found[0] = (matrix.mT @ gradient.flatten(2)).view_as(values)
    if wanted[1]:
        products = gradient.flatten(2) @ values.flatten(2).mT
        found[1] = products.float().sum(0).to(weights.dtype).view_as(weights)
    return found[0], found[1], found[2]


def _rows(maps: Tensor) -> Tensor:
    """`(B, C, H, W)` as `(B, H, W, C)`, with as many channels more, of zeros, as make their number one of eights."""
    return F.pad(maps.permute(0, 2, 3, 1), [0, -maps.shape[1] % 8]).contiguous()


def _kind(
    values: Tensor, weights: Tensor, stride: Any, padding: Any, dilation: Any, transposed: bool, groups: int
) -> type[_Narrow] | str | None:
    """What a convolution is computed as; None where as it is."""
    if values.ndim != 4 or transposed or groups != 1 or values.dtype not in HALF:
        return None
    (outputs, inputs), kernel = weights.shape[:2], list(weights.shape[2:])
    if any(size != 1 for size in (*stride, *dilation)) or list(padding) != [size // 2 for size in kernel]:
        return None
    if kernel == [1, 1]:
        return "product" if max(inputs, outputs) <= WIDEST_PRODUCT and min(inputs, outputs) <= LANES else None
    bordered = (values.shape[2] + kernel[0]) * (values.shape[3] + kernel[1]) * values.shape[0]
    if any(size % 2 == 0 for size in kernel) or max(inputs, outputs) > LANES or bordered * LANES > MOST_VALUES:
        return None
    return _Narrow


def _is_channels_last(maps: Tensor) -> bool:
    return maps.stride(1) == 1 and maps.shape[1] > 1


def _few_means(
    values: Tensor, kernel: list[int], stride: Sequence[int] = (), padding: Any = (0, 0), ceil_mode: bool = False,
    _count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """An average pooling to a few large cells: a mean each."""
    stride = stride or kernel
    if len(kernel) != 2 or len(stride) != 2:
        return NotImplemented
    rows, columns = ((size - k) // s + 1 for size, k, s in zip(values.shape[-2:], kernel, stride, strict=True))
    if any(padding) or ceil_mode or divisor_override or rows * columns > 4 or kernel[0] * kernel[1] < 64:
        return NotImplemented
    means = [
        [
            values[..., i * stride[0] :, j * stride[1] :][..., : kernel[0], : kernel[1]].float().mean((-2, -1))
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    return torch.stack([torch.stack(line, -1) for line in means], -2).to(values.dtype)


def try_kernels(device: torch.device) -> None:
    """Compute something in each kernel on a CUDA `device`, and in PyTorch on the CPU; raises where that fails, or they
    differ."""
    drawn = torch.Generator().manual_seed(0)
    shapes = ((2, 40, 30, LANES), (9, LANES, LANES), (LANES,))
    maps, weights, bias = ((torch.rand(shape, generator=drawn) - 0.5).bfloat16() for shape in shapes)
    gradient = F.pad(maps[:, 1:-1, 1:-1].flip(1), (0, 0, 1, 1, 1, 1))
    for what, compute in (
        ("a convolution", lambda *there: shifted_products(there[0], *there[2:], 3)),
        ("a convolution's gradient", lambda *there: shifted_outer(*there[:2], 3, 3)),
    ):
        here = (maps, gradient, weights, bias)
        check_alike(what, compute(*(each.to(device) for each in here)), compute(*here), 0.02)  # bfloat16 has 8 bits


RULES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.avg_pool2d.default: _few_means,
}
