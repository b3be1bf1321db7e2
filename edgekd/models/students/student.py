"""A student as it ships: waveform gain, log-mel, batch norm over mel bins, network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.log_mel import LogMel, normalise_mel_bins
from edgekd.models.outputs import StudentOutput
from edgekd.models.tracing import embedding_layer
from edgekd.task import SINGLE


class Student(nn.Module):
    """Waveform `(B, S)` in [-1, 1] at `sample_rate` Hz -> `StudentOutput`.

    `gain` is the waveform normalisation fitted on the training side. `network` maps a normalised log-mel
    `(B, 1, T, F)` to `(logits, tap)`; quantisation replaces it and leaves the rest in float. `embedding_layer` says
    where its embedding is, None where it has none. `task`: what its classes are to each other, and so its logits.
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
        *,
        keeps_norms: bool = False,
    ) -> None:
        """`keeps_norms`: its batch norms came with its weights, so that their statistics stand still in training."""
        super().__init__()
        self.name, self.width = name, width
        self.frontend = LogMel(frontend, sample_rate)
        self.norm = nn.BatchNorm2d(frontend.n_mels // frontend.bins_per_step)
        self.keeps_norms = keeps_norms
        if keeps_norms:  # and until they come, nothing is normalised
            nn.init.constant_(self.norm.get_buffer("running_var"), 1 - self.norm.eps)
        self.network = network
        self.tap_channels = tap_channels
        self.embedding_layer = embedding_layer(network)  # of the same name in the network that quantisation makes
        self._entered: list[Tensor] | None = None
        self.task = SINGLE
        self.register_buffer("gain", torch.ones(()))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.keeps_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.eval()
        return self

    def front_end(self, waveform: Tensor) -> Tensor:
        """Log-mel `(B, 1, T, F)` before normalisation: no parameter that is learned has had a part in it."""
        return self.frontend(waveform * self.gain)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Normalised log-mel `(B, 1, T, F)`: what the network sees."""
        return normalise_mel_bins(self.norm, self.front_end(waveform))

    def give_embedding(self) -> None:
        """From now on have the output's `embedding (B, D)`, what enters the classifier of the present network, before
        dropout.

        It is seen on its way, so that networks need not return it and none ships with it.
        """
        assert self.embedding_layer is not None
        entered: list[Tensor] = []
        layer = self.network.get_submodule(self.embedding_layer.name)
        layer.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        self._entered = entered

    def forward(self, sound: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> StudentOutput:
        """The outputs for `sound`, a waveform `(B, S)` or what `front_end` made of it, `(B, 1, T, F)`.

        `augment` changes the normalised log-mel on its way to the network (SpecAugment in training).
        """
        log_mel = normalise_mel_bins(self.norm, self.front_end(sound) if sound.ndim == 2 else sound)
        logits, tap = self.network(log_mel if augment is None else augment(log_mel))[:2]
        return StudentOutput(logits, tap, None if self._entered is None else self._entered.pop())
