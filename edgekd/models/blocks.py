"""Layers that several networks share: separable convolutions (Howard et al. 2017, arXiv 1704.04861), and an ending.

Batch norm follows every convolution and folds away before quantisation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from edgekd.models.histogram import HistogramLayer


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, to the nearest multiple of 4: integer dot products take four values at a time."""
    return max(4, 4 * math.floor(channels * width / 4 + 0.5))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A `same` convolution, batch norm and ReLU."""
    kind = FirstConv2d if inputs == 1 else nn.Conv2d
    return nn.Sequential(
        kind(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 depthwise convolution, then a 1x1 one."""
    return nn.Sequential(convolution(inputs, inputs, 3, stride, groups=inputs), convolution(inputs, outputs, 1))


class FirstConv2d(nn.Conv2d):
    """A convolution of one channel, with a small kernel.

    PyTorch's gradient of its input, which the batch norm before it learns from, took a CPU longer than any other
    operation of a step. Here it is a matrix product and a sum, five times as fast.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.requires_grad and input.device.type == "cpu" and torch.is_grad_enabled() and bias is None:
            assert not isinstance(self.padding, str)
            (stride, _), (padding, _) = self.stride, self.padding
            found: Tensor = _OneChannel.apply(input, weight, stride, padding)
            return found
        return super()._conv_forward(input, weight, bias)


class _OneChannel(torch.autograd.Function):
    """`conv2d` of `maps (B, 1, H, W)` and `weight (O, 1, K, K)`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(maps, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        maps, weight = ctx.saved_tensors
        stride, padding, side = ctx.stride, ctx.padding, weight.shape[2]
        sizes = [stride] * 2, [padding] * 2, [1, 1]
        _, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, maps, weight, None, *sizes, False, [0, 0], 1, [False, True, False]
        )
        taps = side * side
        # Sixteen columns of floats are a register's width: of nine the product takes four times as long.
        columns = F.pad(weight.flatten(1), (0, -taps % 16))
        each = gradient.permute(0, 2, 3, 1) @ columns  # what comes to the map from each place by each tap
        rows, places = each.shape[1:3]
        reached = [(size - 1) * stride + side for size in (rows, places)]
        found = maps.new_zeros(len(maps), *(max(r, s + padding) for r, s in zip(reached, maps.shape[2:], strict=True)))
        for tap in range(taps):
            line, place = divmod(tap, side)
            found[:, line : line + stride * rows : stride, place : place + stride * places : stride] += each[..., tap]
        inside = (slice(padding, padding + size) for size in maps.shape[2:])
        return found[:, *inside].unsqueeze(1), to_weight, None, None


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's "same": output `ceil(size / stride)`, an odd pixel of padding goes last.

    Half a stride of the grid lies between this and `padding=1`, and few mel bins are left at the top of a network:
    weights that were learned with the one are worth less with the other.
    """

    def borders(self, shape: torch.Size) -> tuple[int, int, int, int]:
        """Zeros that a map of `shape (B, C, T, F)` gets: before and after its mel bins, before and after its frames."""
        before_after: list[int] = []
        for size, stride, kernel in zip(shape[:1:-1], self.stride[::-1], self.kernel_size[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before_after += [total // 2, total - total // 2]
        return (before_after[0], before_after[1], before_after[2], before_after[3])

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        left, right, top, bottom = self.borders(input.shape)
        if left == right and top == bottom:
            return F.conv2d(input, weight, bias, self.stride, (top, left), self.dilation, self.groups)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


class Scaled(nn.Module):
    """Values times one number, which is stored and not learned."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.get_buffer("factor")


class TwoBranches(nn.Module):
    """A network that ends as HLTDNN does: averages of its last map beside local histograms of an earlier one.

    The parts of the ending lie directly in the network, under the names that stored weights have.
    """

    def add_ending(self, middle: int, last: int, num_classes: int) -> None:
        """Make the ending, for an earlier map of `middle` channels and a last one of `last`."""
        self.squeeze = nn.Sequential(nn.Conv2d(middle, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.histogram = HistogramLayer(4)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(last + self.histogram.output_size, num_classes)

    def classify(self, middle: Tensor, last: Tensor) -> Tensor:
        """`(B, middle, T, F)` and `(B, last, T', F')` -> logits `(B, K)`."""
        averages = last.mean(dim=(2, 3))
        both = torch.cat([averages, self.histogram(self.squeeze(middle))], dim=1)
        return self.classifier(self.dropout(both))
