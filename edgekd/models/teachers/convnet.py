"""A plain convolutional teacher to train from scratch, where no AudioSet-trained one fits.

Networks trained on AudioSet hear 50 Hz to 14 kHz at fixed rates. Sonar at 4 kHz, or a data set with its own band, is
better taught by a network of moderate size that sees exactly the student's log-mel. The shape is CNN14's (Kong et al.
2020, arXiv 1912.10211) scaled down to what a CPU trains in minutes: four blocks of two 3x3 convolutions, 16 to 128
channels, 0.3 M parameters and 120 MMAC for 150 frames of 64 bins.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.config import FrontendConfig
from edgekd.frontend import LogMel
from edgekd.models.teachers.base import Teacher, mean_and_max, normalise_mel_bins, repeat_frames

WIDTHS = (16, 32, 64, 128)
EMBEDDING_SIZE = 128
TAP_FRAMES = 4  # what the two poolings after the tap need to leave one frame


class ConvNet(Teacher):
    """Works at the rate of the data on the run's own front end; the tap follows the first block and its pooling."""

    def __init__(self, num_classes: int, sample_rate: int, frontend: FrontendConfig) -> None:
        super().__init__(num_classes, sample_rate, sample_rate, WIDTHS[0], EMBEDDING_SIZE)
        self.log_mel = LogMel(frontend, sample_rate)
        self.norm = nn.BatchNorm2d(frontend.n_mels)
        self.stem = nn.Sequential(*_block(1, WIDTHS[0]), nn.AvgPool2d(2))
        self.trunk = nn.Sequential(
            *_block(WIDTHS[0], WIDTHS[1]),
            nn.AvgPool2d(2),
            nn.Dropout(0.1),
            *_block(WIDTHS[1], WIDTHS[2]),
            nn.AvgPool2d(2),
            nn.Dropout(0.1),
            *_block(WIDTHS[2], WIDTHS[3]),
        )
        self.fc1 = nn.Linear(WIDTHS[3], EMBEDDING_SIZE)

    def tap(self, waveform: Tensor) -> Tensor:
        return self.stem(normalise_mel_bins(self.norm, self.log_mel(waveform)))

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        tap = self.tap(waveform)
        pooled = mean_and_max(self.trunk(repeat_frames(tap, TAP_FRAMES)))
        embedding = F.relu(self.fc1(F.dropout(pooled, 0.3, self.training)))
        return F.dropout(embedding, 0.3, self.training), tap


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    """Twice: 3x3 convolution, batch norm, ReLU."""
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
