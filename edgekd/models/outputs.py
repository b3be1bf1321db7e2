"""What both sides of distillation return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TeacherOutput(NamedTuple):
    """`logits (B, K)` and the early feature map `tap (B, C, T, F)` whose texture is distilled."""

    logits: Tensor
    tap: Tensor


class StudentOutput(NamedTuple):
    """`logits (B, K)` and the student's early feature map `tap (B, C, T, F)`."""

    logits: Tensor
    tap: Tensor
