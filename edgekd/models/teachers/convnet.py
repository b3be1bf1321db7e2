"""A convolutional teacher to train from scratch, where no AudioSet-trained one fits.

Networks trained on AudioSet hear 50 Hz to 14 kHz at fixed rates. Sonar at 4 kHz, or a data set with its own band, is
better taught by a network of moderate size that sees the student's log-mel (before frames or bins are averaged). The
shape is the small student's (`hltdnn_ds`), averages beside local histograms over separable convolutions, three times
as wide: on simulated sonar a plain network of twice its cost, CNN14's shape scaled down, learned less in the same
number of epochs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.log_mel import LogMel, normalise_mel_bins
from edgekd.models.blocks import convolution, separable
from edgekd.models.histogram import HistogramLayer
from edgekd.models.teachers.base import Layers, Teacher

WIDTHS = (48, 96, 108, 192, 240, 240)
AVERAGES, HISTOGRAM_CHANNELS = 384, 8


class ConvNet(Teacher):
    """Works at the rate of the data on the run's own front end; the tap `(B, 48, T/2, F/2)` follows the stem."""

    def __init__(self, num_classes: int, sample_rate: int, frontend: FrontendConfig) -> None:
        histogram = HistogramLayer(HISTOGRAM_CHANNELS)
        super().__init__(num_classes, sample_rate, sample_rate, WIDTHS[0], AVERAGES + histogram.output_size)
        self.log_mel = LogMel(frontend.whole(), sample_rate)
        self.norm = nn.BatchNorm2d(frontend.n_mels)
        self.stem = convolution(1, WIDTHS[0], 3, stride=2)
        self.middle = nn.Sequential(
            separable(WIDTHS[0], WIDTHS[1], stride=2),
            separable(WIDTHS[1], WIDTHS[2]),
            separable(WIDTHS[2], WIDTHS[3], stride=2),
        )
        self.upper = nn.Sequential(
            separable(WIDTHS[3], WIDTHS[4]),
            separable(WIDTHS[4], WIDTHS[5], stride=2),
            convolution(WIDTHS[5], AVERAGES, 1),
        )
        self.squeeze = nn.Sequential(
            nn.Conv2d(WIDTHS[3], HISTOGRAM_CHANNELS, 1, bias=False), nn.BatchNorm2d(HISTOGRAM_CHANNELS)
        )
        self.histogram = histogram
        self.dropout = nn.Dropout(0.4)

    def layers(self) -> Layers:
        *blocks, last = (*self.middle, *self.upper)
        halves = [half for block in blocks for half in block.children()]
        return Layers([nn.Sequential(*each.children()) for each in (self.stem, *halves, last)], tap=1)

    def input_norm(self) -> nn.BatchNorm2d | None:
        return self.norm

    def tap(self, waveform: Tensor) -> Tensor:
        return self.stem(normalise_mel_bins(self.norm, self.log_mel(waveform)))

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        tap = self.tap(waveform)
        middle = self.middle(tap)
        averages = self.upper(middle).mean(dim=(2, 3))
        return self.dropout(torch.cat([averages, self.histogram(self.squeeze(middle))], dim=1)), tap
