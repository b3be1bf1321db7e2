"""Several teachers as one: the average of what they answer.

Teachers that hear differently make different mistakes, and their average makes fewer. What is averaged are the class
probabilities, the arithmetic mean of Hinton, Vinyals and Dean (2015, arXiv 1503.02531): heads differ in the size of
their logits, and a mean of those would follow whichever is largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.models.checkpoints import State
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.task import SINGLE, Task


class Ensemble(Teacher):
    """The average of `members`, which take the same waveforms and know the same classes; the tap is the first one's."""

    def __init__(self, members: Sequence[Teacher], task: Task = SINGLE) -> None:
        nn.Module.__init__(self)  # `Teacher`'s own would make a head
        first = members[0]
        self.sample_rate, self.tap_channels = first.sample_rate, first.tap_channels
        sizes = [member.embedding_size for member in members]
        self.embedding_size = sum(sizes) if all(sizes) else 0
        self.members = nn.ModuleList(members)
        self.task = task

    def each(self) -> list[Teacher]:
        """The members, in order."""
        return [member for member in self.members if isinstance(member, Teacher)]

    def forward(self, waveform: Tensor) -> TeacherOutput:
        return averaged([member(waveform) for member in self.each()], self.task)

    def tap(self, waveform: Tensor) -> Tensor:
        return self.each()[0].tap(waveform)

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        _, tap, embedding = self(waveform)
        assert embedding is not None
        return embedding, tap

    @property
    def classifies(self) -> bool:
        return all(member.classifies for member in self.each())

    def classifier(self) -> nn.Linear | None:
        return None  # each member is adapted on its own

    def take_stored(self, state: State, path: Path) -> None:
        for number, member in enumerate(self.each()):
            prefix = f"members.{number}."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            member.take_stored(own, path)


def averaged(outputs: Sequence[TeacherOutput], task: Task = SINGLE) -> TeacherOutput:
    """What several teachers say of the same clips, as one.

    The logits `(B, K)` are those of the mean of their probabilities (its logarithm, of shares of one), `(B, 0)` where
    one has none; the tap is the first one's; the embedding `(B, E1 + E2 + ...)` holds each one's, brought to length 1
    so that they count alike, beside each other, and is None where one gives none.
    """
    first = outputs[0]
    logits = next((output.logits for output in outputs if output.logits.numel() == 0), None)
    if logits is None and task.several:
        logits = task.logits(torch.stack([task.probabilities(output.logits.float()) for output in outputs]).mean(0))
    elif logits is None:
        shares = torch.stack([output.logits.float().log_softmax(1) for output in outputs])
        logits = shares.logsumexp(0) - math.log(len(outputs))
    embeddings = [F.normalize(output.embedding.float(), dim=1) for output in outputs if output.embedding is not None]
    together = torch.cat(embeddings, dim=1) if len(embeddings) == len(outputs) else None
    return TeacherOutput(logits, first.tap, together)
