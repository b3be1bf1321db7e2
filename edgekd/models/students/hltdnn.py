"""HLTDNN: the histogram-layer time-delay network of the SSATKD paper (arXiv 2501.01921), exactly.

Four `same` convolutions over time and mel bins, pooled along mel bins only; then a branch of averaged sigmoid features
beside a histogram layer. 11,144 learned parameters at 4 classes, but 218 M MAC at 5 s: most of them are spent by the
11x11 and the two 3x3 convolutions at full resolution. `hltdnn_ds` is the one for small devices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.models.histogram import HistogramLayer
from edgekd.models.outputs import StudentOutput


class HLTDNN(nn.Module):
    """Normalised log-mel `(B, 1, T, F)` -> `StudentOutput`; the tap is `(B, 16, T, F - 2)`, after the second
    pooling."""

    tap_channels = 16

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 11, padding=5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d((1, 2), stride=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d((1, 2), stride=1)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.pool3 = nn.MaxPool2d((1, 4), stride=(1, 2))
        self.conv4 = nn.Conv2d(16, 4, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.pool4 = nn.MaxPool2d((1, 8), stride=(1, 4))
        self.expand = nn.Conv2d(4, 256, 1)
        self.norm = nn.BatchNorm1d(256)
        self.histogram = HistogramLayer(4)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(256 + self.histogram.output_size, num_classes)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        features = self.pool1(self.relu1(self.conv1(log_mel)))
        tap = self.pool2(self.relu2(self.conv2(features)))
        features = self.pool3(self.relu3(self.conv3(tap)))
        features = self.pool4(self.relu4(self.conv4(features)))
        averages = self.norm(torch.sigmoid(self.expand(features)).mean(dim=(2, 3)))
        both = torch.cat([averages, self.histogram(features)], dim=1)
        return StudentOutput(self.classifier(self.dropout(both)), tap)
