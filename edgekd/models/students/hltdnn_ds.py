"""HLTDNN-DS: the histogram-layer student for small devices.

HLTDNN's two branches, averaged features beside local histograms, on a backbone of depthwise-separable convolutions
(Howard et al. 2017, arXiv 1704.04861) that stride early, where HLTDNN stays at full resolution. Batch norm follows
every convolution and folds away before quantisation. Under 12 M MAC and 40 k parameters for 5 s at 32 kHz; the width
multiplier of the same paper makes it smaller or larger.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekd.models.outputs import StudentOutput
from edgekd.models.students.histogram import HistogramLayer


class HLTDNNDS(nn.Module):
    """Normalised log-mel `(B, 1, T, F)` -> `StudentOutput`; the tap is `(B, 36, T/4, F/4)`, after the second block.

    A tap after the stem, as early as HLTDNN's, would have the texture terms teach 176 parameters and no more. `width`
    multiplies all channels (see `scaled`), but not the histograms.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        stem, early, tap, middle, late, last = (scaled(channels, width) for channels in (16, 32, 36, 64, 80, 128))
        self.tap_channels = tap
        self.stem = convolution(1, stem, 3, stride=2)
        self.blocks = nn.Sequential(
            separable(stem, early, stride=2),
            separable(early, tap),
            separable(tap, middle, stride=2),
            separable(middle, late),
            separable(late, late, stride=2),
        )
        self.expand = convolution(late, last, 1)
        self.squeeze = nn.Sequential(nn.Conv2d(middle, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.histogram = HistogramLayer(4)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(last + self.histogram.output_size, num_classes)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.blocks[1](self.blocks[0](self.stem(log_mel)))
        middle = self.blocks[2](tap)
        features = self.expand(self.blocks[4](self.blocks[3](middle)))
        averages = features.mean(dim=(2, 3))
        both = torch.cat([averages, self.histogram(self.squeeze(middle))], dim=1)
        return StudentOutput(self.classifier(self.dropout(both)), tap)


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
