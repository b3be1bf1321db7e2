"""HLTDNN-DS: the histogram-layer student for small devices.

HLTDNN's two branches, averaged features beside local histograms, on a backbone of depthwise-separable convolutions
(Howard et al. 2017, arXiv 1704.04861) that stride early, where HLTDNN stays at full resolution. Batch norm follows
every convolution and folds away before quantisation. Under 12 M MAC and 40 k parameters for 5 s at 32 kHz.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.models.outputs import StudentOutput
from edgekd.models.students.histogram import HistogramLayer


class HLTDNNDS(nn.Module):
    """Normalised log-mel `(B, 1, T, F)` -> `StudentOutput`; the tap is `(B, 36, T/4, F/4)`, after the second block.

    A tap after the stem, as early as HLTDNN's, would have the texture terms teach 176 parameters and no more.
    """

    tap_channels = 36

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = convolution(1, 16, 3, stride=2)
        self.blocks = nn.Sequential(
            separable(16, 32, stride=2),
            separable(32, 36),
            separable(36, 64, stride=2),
            separable(64, 80),
            separable(80, 80, stride=2),
        )
        self.expand = convolution(80, 128, 1)
        self.squeeze = nn.Sequential(nn.Conv2d(64, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.histogram = HistogramLayer(4)
        self.dropout = nn.Dropout(0.3)
        self.classifier = nn.Linear(128 + self.histogram.output_size, num_classes)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.blocks[1](self.blocks[0](self.stem(log_mel)))
        middle = self.blocks[2](tap)
        features = self.expand(self.blocks[4](self.blocks[3](middle)))
        averages = features.mean(dim=(2, 3))
        both = torch.cat([averages, self.histogram(self.squeeze(middle))], dim=1)
        return StudentOutput(self.classifier(self.dropout(both)), tap)


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
