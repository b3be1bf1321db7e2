"""What every teacher offers to the rest of the package.

A teacher turns a waveform into an embedding, and a linear head turns that into class logits. An early feature map, the
tap, is what structural and statistical texture distillation compares with the student's. Teachers keep the sampling
rate and the front end they were trained with: waveforms arrive at the rate of the data and are resampled inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgekd.models.checkpoints import State
from edgekd.models.outputs import TeacherOutput
from edgekd.models.weights import load_matching, read_weights


class Layers(NamedTuple):
    """A convolutional teacher as a chain: what each of its convolutions does up to the next one, in order.

    A layer is an `nn.Sequential` of a convolution, its batch norm if it has one, its pooling and its ReLU; its input is
    a map `(B, C, T, F)`, that of the first one a normalised log-mel. `tap`: after how many the tap is.
    """

    modules: Sequence[nn.Sequential]
    tap: int


class Teacher(nn.Module, ABC):
    """Waveform `(B, S)` in [-1, 1] at `sample_rate` Hz -> `TeacherOutput`.

    `embedding_size`: E of its embeddings `(B, E)`; 0 where it gives none.
    """

    def __init__(
        self, num_classes: int, sample_rate: int, own_rate: int, tap_channels: int, embedding_size: int
    ) -> None:
        """Take waveforms at `sample_rate` Hz; the network works at `own_rate` Hz."""
        super().__init__()
        self.sample_rate = sample_rate
        self.tap_channels = tap_channels
        self.embedding_size = embedding_size
        self.head: nn.Linear | None = nn.Linear(embedding_size, num_classes)
        self._resample = _resampler(sample_rate, own_rate)

    @abstractmethod
    def tap(self, waveform: Tensor) -> Tensor:
        """The early feature map `(B, C, T, F)` alone, without the cost of the layers above it."""

    @abstractmethod
    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding `(B, E)` that the head classifies, and the same feature map as `tap`."""

    def forward(self, waveform: Tensor) -> TeacherOutput:
        embedding, tap = self.embed(waveform)
        logits = embedding.new_empty(len(embedding), 0) if self.head is None else self.head(embedding)
        return TeacherOutput(logits, tap, embedding)

    @property
    def classifies(self) -> bool:
        """Whether it has a head for these classes; without one its logits are `(B, 0)`, and it cannot be scored."""
        return self.head is not None

    def drop_head(self) -> None:
        """Be a teacher that gives embeddings and taps alone."""
        self.head = None

    def classifier(self) -> nn.Linear | None:
        """The layer from the embedding to the logits, which `head` adaptation trains; None where there is none."""
        return self.head

    def layers(self) -> Layers | None:
        """Its convolutions as a chain, for students that are cut from it; None where they are none."""
        return None

    def input_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm over mel bins between log-mel and first convolution; None where there is none."""
        return None

    def front_end(self) -> nn.Module | None:
        """The module that gives the log-mel `(B, 1, T, F)`; None for networks that take the waveform itself."""
        return self._modules.get("log_mel")

    def load_pretrained(self, path: Path) -> None:
        """Load published weights, or those of a teacher adapted earlier; the head keeps the values it has.

        Raises `InputError` when the file is not one of this architecture's.
        """
        self.load_all_but_head(read_weights(path), path)

    def load_whole(self, path: Path) -> None:
        """Load a teacher adapted earlier to the same classes, its head included.

        Raises `InputError` when the file is not one of this architecture with this number of classes.
        """
        load_matching(self, read_weights(path), path)

    def load_stored(self, path: Path) -> None:
        """Load what a run keeps of its adapted teacher, which has a head or has none.

        Raises `InputError` when the file is not one of this architecture with this number of classes.
        """
        self.take_stored(read_weights(path), path)

    def take_stored(self, state: State, path: Path) -> None:
        """`load_stored` of the tensors read from `path`."""
        if "head.weight" not in state:
            self.drop_head()
        load_matching(self, state, path)

    def load_all_but_head(self, state: State, path: Path) -> None:
        """Copy the tensors read from `path`, named as in this module, into it."""
        load_matching(self, state, path, ignore_prefixes=("head.",), reinitialised=("head.",))

    def at_own_rate(self, waveform: Tensor) -> Tensor:
        """The waveform at the network's rate, in float32 even under autocast: half precision would be audible noise."""
        with torch.autocast(waveform.device.type, enabled=False):
            return self._resample(waveform.float())


def repeat_frames(features: Tensor, frames: int) -> Tensor:
    """`(B, C, T, F)` repeated along time to at least `frames`, for clips shorter than a network needs."""
    copies = ceil(frames / features.shape[2])
    return features if copies <= 1 else features.repeat(1, 1, copies, 1)[:, :, :frames]


def mean_and_max(features: Tensor) -> Tensor:
    """`(B, C, T, F)` -> `(B, C)`: mean over frequency, then maximum plus mean over time, as in PANNs."""
    over_time = features.mean(dim=3)
    return over_time.amax(dim=2) + over_time.mean(dim=2)


def _resampler(sample_rate: int, own_rate: int) -> nn.Module:
    """Windowed-sinc resampling, its kernel computed once."""
    if sample_rate == own_rate:
        return nn.Identity()
    from edgekd._torchaudio import transforms

    resample = transforms.Resample(sample_rate, own_rate)
    # The kernel follows from the two rates, so it is no part of a checkpoint.
    resample.register_buffer("kernel", resample.kernel, persistent=False)
    return resample
