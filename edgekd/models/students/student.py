"""A student as it ships: waveform gain, log-mel, batch norm over mel bins, network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.log_mel import LogMel, normalise_mel_bins
from edgekd.models.outputs import StudentOutput


class Student(nn.Module):
    """Waveform `(B, S)` in [-1, 1] at `sample_rate` Hz -> `StudentOutput`.

    `gain` is the waveform normalisation fitted on the training side. `network` maps a normalised log-mel
    `(B, 1, T, F)` to `(logits, tap)`; quantisation replaces it and leaves the rest in float.
    """

    gain: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        tap_channels: int,
        frontend: FrontendConfig,
        sample_rate: int,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.name, self.width = name, width
        self.frontend = LogMel(frontend, sample_rate)
        self.norm = nn.BatchNorm2d(frontend.n_mels // frontend.bins_per_step)
        self.network = network
        self.tap_channels = tap_channels
        self.register_buffer("gain", torch.ones(()))

    def front_end(self, waveform: Tensor) -> Tensor:
        """Log-mel `(B, 1, T, F)` before normalisation: no parameter that is learned has had a part in it."""
        return self.frontend(waveform * self.gain)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Normalised log-mel `(B, 1, T, F)`: what the network sees."""
        return normalise_mel_bins(self.norm, self.front_end(waveform))

    def forward(self, sound: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> StudentOutput:
        """The outputs for `sound`, a waveform `(B, S)` or what `front_end` made of it, `(B, 1, T, F)`.

        `augment` changes the normalised log-mel on its way to the network (SpecAugment in training).
        """
        log_mel = normalise_mel_bins(self.norm, self.front_end(sound) if sound.ndim == 2 else sound)
        return StudentOutput(*self.network(log_mel if augment is None else augment(log_mel)))
