"""Layers that several networks share: separable convolutions (Howard et al. 2017, arXiv 1704.04861), and an ending.

Batch norm follows every convolution and folds away before quantisation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.histogram import HistogramLayer


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, to the nearest multiple of 4: integer dot products take four values at a time."""
    return max(4, 4 * math.floor(channels * width / 4 + 0.5))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A `same` convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 depthwise convolution, then a 1x1 one."""
    return nn.Sequential(convolution(inputs, inputs, 3, stride, groups=inputs), convolution(inputs, outputs, 1))


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
