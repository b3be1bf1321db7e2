"""HLTDNN-micro: the histogram-layer student for microcontrollers.

The two branches and the separable convolutions of HLTDNN-DS, for who is short of memory: as in the keyword spotters of
such devices (Zhang et al. 2017, arXiv 1711.07128) the first layer strides and is narrow. So do the blocks after it,
until 32 x 4 places are left of a log-mel of 501 x 64; only then come channels. At that size (5 s at 32 kHz) and 10
classes it takes under 3 M MAC and 16 k parameters, no layer writes more than 64,256 bytes in int8 (the stem does), and
the float responses of the histogram layer, which looks at those 32 x 4 places, take 32,768.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.blocks import TwoBranches, convolution, scaled, separable
from edgekd.models.outputs import StudentOutput


class HLTDNNMicro(TwoBranches):
    """Normalised log-mel `(B, 1, T, F)` -> `StudentOutput`; the tap is `(B, 24, T/4, F/4)`, after the first block.

    That is as large a map as HLTDNN-DS's tap; one block later a quarter of it would be left, too little to have edges.
    `width` multiplies all channels, but not the histograms; above 1 the limits above do not hold.
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        stem, tap, early, middle, late, last = (scaled(channels, width) for channels in (8, 24, 32, 48, 56, 80))
        self.tap_channels = tap
        self.stem = convolution(1, stem, 3, stride=2)
        self.blocks = nn.Sequential(
            separable(stem, tap, stride=2),
            separable(tap, early, stride=2),
            separable(early, middle, stride=2),
            separable(middle, late),
            separable(late, last),
        )
        self.add_ending(middle, last, num_classes)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.blocks[0](self.stem(log_mel))
        middle = self.blocks[2](self.blocks[1](tap))
        return StudentOutput(self.classify(middle, self.blocks[4](self.blocks[3](middle))), tap)
