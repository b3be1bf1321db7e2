"""What both sides of distillation return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TeacherOutput(NamedTuple):
    """`logits (B, K)`, the early feature map `tap (B, C, T, F)` whose texture is distilled, and the `embedding (B, E)`
    that its head classifies.

    The embedding is None of a teacher of the user's own without a head, and where nothing asked for it.
    """

    logits: Tensor
    tap: Tensor
    embedding: Tensor | None = None

    def at(self, part: slice) -> TeacherOutput:
        """Of some of the clips."""
        embedding = None if self.embedding is None else self.embedding[part]
        return TeacherOutput(self.logits[part], self.tap[part], embedding)


class StudentOutput(NamedTuple):
    """`logits (B, K)`, the student's early feature map `tap (B, C, T, F)`, and the `embedding (B, D)` that enters its
    classifier, which a student gives where a loss asks for it (`Student.give_embedding`)."""

    logits: Tensor
    tap: Tensor
    embedding: Tensor | None = None
