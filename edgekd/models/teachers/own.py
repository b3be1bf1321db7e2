"""A teacher of the user's own: `--teacher package.module:factory`.

    def factory(num_classes: int, sample_rate: int) -> torch.nn.Module

The module it returns takes waveforms `(B, S)` in [-1, 1] at `sample_rate` Hz and returns a pair, `(logits (B, K), tap
(B, C, T, F))`: a tuple, a named tuple or a `TeacherOutput`. The tap is any early feature map, C channels over time and
frequency (F = 1 where there is no frequency axis).

What can be adapted follows from what it is: `none` takes it as it is, `full` trains all of it, and `head` trains
`module.head` where that is an `nn.Linear` from an embedding `(B, E)` to the logits. A module that is an
`edgekd.models.teachers.base.Teacher` is used as those of the package are.

The factory's module is imported from the installed packages or from the run's `teacher.folder` (see `factories`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.checkpoints import State
from edgekd.models.factories import find_factory, make, try_on
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import load_matching, read_weights

ARGUMENTS = "(num_classes, sample_rate)"


def check_own(name: str, folder: Path | None = None) -> None:
    """Raises as `find_factory` does, where the factory is not there or its module cannot be imported."""
    find_factory(f"Teacher '{name}'", name, folder, ARGUMENTS)


def build_own(name: str, num_classes: int, sample_rate: int, samples: int, folder: Path | None = None) -> Teacher:
    """The teacher that the factory `name` makes, tried on two clips of noise `(2, samples)`.

    Raises `UsageError` for a name that leads nowhere, and `InputError` for a factory or a module that fails or returns
    something else than logits `(B, num_classes)` and a finite tap `(B, C, T, F)`.
    """
    subject = f"Teacher '{name}'"
    network = make(subject, name, find_factory(subject, name, folder, ARGUMENTS), num_classes, sample_rate)
    waveforms = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    with _entering(_head(network)) as seen:
        tap = try_on(subject, network, waveforms, "waveforms", num_classes)
    if isinstance(network, Teacher):
        return network
    return OwnTeacher(network, sample_rate, tap.shape[1], seen[0].shape[1] if _is_embedding(seen) else 0)


class OwnTeacher(Teacher):
    """A module that is no `Teacher`: its logits are what it returns, and its head, where it has one, is its own."""

    def __init__(self, network: nn.Module, sample_rate: int, tap_channels: int, embedding_size: int = 0) -> None:
        nn.Module.__init__(self)  # `Teacher`'s own would put a new head beside the network's
        self.sample_rate = sample_rate
        self.tap_channels = tap_channels
        self.embedding_size = embedding_size
        self.network = network

    def forward(self, waveform: Tensor) -> TeacherOutput:
        with _entering(self.classifier()) as seen:
            logits, tap = self.network(waveform)[:2]
        return TeacherOutput(logits, tap, seen[0] if _is_embedding(seen) else None)

    def tap(self, waveform: Tensor) -> Tensor:
        return self(waveform).tap

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the network's head, `(B, E)`, and the tap. Raises `InputError` where nothing does."""
        _, tap, embedding = self(waveform)
        if embedding is None:
            raise InputError(
                "This teacher has no head to train: its module needs an attribute 'head', an nn.Linear called once "
                "with an embedding (B, E). Give it one, or pass --adaptation full or none."
            )
        return embedding, tap

    def classifier(self) -> nn.Linear | None:
        return _head(self.network)

    def load_pretrained(self, path: Path) -> None:
        """Load weights named as in the user's module; a head for another number of classes stays new."""
        state, head = read_weights(path, self.network.state_dict()), self.classifier()
        given = state.get("head.weight")
        if head is not None and given is not None and given.shape != head.weight.shape:
            load_matching(self.network, state, path, ignore_prefixes=("head.",), reinitialised=("head.",))
        else:
            load_matching(self.network, state, path)

    def load_whole(self, path: Path) -> None:
        load_matching(self.network, read_weights(path), path)

    def take_stored(self, state: State, path: Path) -> None:
        load_matching(self, state, path)

    @property
    def classifies(self) -> bool:
        return True


def _head(network: nn.Module) -> nn.Linear | None:
    head = getattr(network, "head", None)
    return head if isinstance(head, nn.Linear) else None


@contextmanager
def _entering(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """What enters `layer` meanwhile, call by call; nothing where there is none."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _is_embedding(seen: list[Tensor]) -> bool:
    """Whether what entered a head is one embedding `(B, E)`."""
    return len(seen) == 1 and seen[0].ndim == 2
