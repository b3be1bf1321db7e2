"""The log-mel of a student as it was trained: what its form in C, in floats or in integers, has to give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.front_end import FrontendConfig
from edgekd.log_mel import mel_bin_affine
from edgekd.models.students.student import Student

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainedLogMel:
    """The log-mel of samples times `gain`, of which row `x (F,)` is normalised to `scale * x + shift`, `(F,)` each."""

    config: FrontendConfig
    sample_rate: int
    gain: float
    scale: Floats
    shift: Floats

    @classmethod
    def of(cls, student: Student) -> TrainedLogMel:
        scale, shift = (each.double().numpy() for each in mel_bin_affine(student.norm))
        return cls(student.frontend.config, student.frontend.sample_rate, float(student.gain), scale, shift)

    @property
    def of_magnitudes(self) -> bool:
        """Whether it is logarithms of magnitudes plus the least (convention "yamnet"), not of powers that are at least
        that."""
        return self.config.convention == "yamnet"

    @property
    def unit(self) -> float:
        """What a binary logarithm of 1 comes to: dB, or natural logarithms."""
        return math.log(2) if self.of_magnitudes else 10 * math.log10(2)

    @property
    def averaged(self) -> int:
        """Of how many logarithms each value of the network's entry is the mean."""
        return self.config.bins_per_step * self.config.frames_per_step
