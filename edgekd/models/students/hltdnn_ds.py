"""HLTDNN-DS: the histogram-layer student for small devices.

HLTDNN's two branches, averaged features beside local histograms, on a backbone of depthwise-separable convolutions
(Howard et al. 2017, arXiv 1704.04861) that stride early, where HLTDNN stays at full resolution. Under 12 M MAC and 40 k
parameters for 5 s at 32 kHz; the width multiplier of the same paper makes it smaller or larger.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.blocks import TwoBranches, convolution, scaled, separable
from edgekd.models.outputs import StudentOutput


class HLTDNNDS(TwoBranches):
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
        self.add_ending(middle, last, num_classes)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.blocks[1](self.blocks[0](self.stem(log_mel)))
        middle = self.blocks[2](tap)
        last = self.expand(self.blocks[4](self.blocks[3](middle)))
        return StudentOutput(self.classify(middle, last), tap)
