"""What a student answers, against the labels and against the teacher's answers."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import unknown_name
from edgekd.losses.terms import Compared

Response = Literal["emd", "kl"]


class Classification(nn.Module):
    """`classification_loss` of the student's logits."""

    def forward(self, compared: Compared) -> Tensor:
        return classification_loss(compared.student_logits, compared.targets, compared.labelled)


class Distillation(nn.Module):
    """`distillation_loss` of the two logits. On a clip without a label the teacher's answer counts where its best class
    has a probability of `confidence` or more: what it hears may be none of the classes."""

    def __init__(self, kind: Response, temperature: float, confidence: float = 0.0) -> None:
        super().__init__()
        self.kind, self.temperature, self.confidence = kind, temperature, confidence

    def forward(self, compared: Compared) -> Tensor:
        logits, counted = compared.teacher_logits, None
        assert logits is not None
        if compared.labelled is not None:
            counted = ((compared.labelled > 0) | (logits.softmax(1).amax(1) >= self.confidence)).float()
        return distillation_loss(compared.student_logits, logits, self.kind, self.temperature, counted)


def classification_loss(logits: Tensor, targets: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Cross-entropy of `logits (B, K)` with `targets`, classes `(B,)` or shares of each `(B, K)`, mean over the batch.

    `labelled (B,)`: how much each clip counts, 0 for one without a label and 1 on average over the whole batch, so that
    the parts of a batch, computed one by one, come to the mean over its labelled clips.
    """
    if labelled is None:
        return F.cross_entropy(logits, targets)
    return (F.cross_entropy(logits, targets, reduction="none") * labelled).mean()


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: Response = "emd",
    temperature: float = 2.0,
    counted: Tensor | None = None,
) -> Tensor:
    """How far the student's class probabilities are from the teacher's, `(B, K)` logits each: a scalar.

    - `kind="emd"`, the paper's: the squared distance of the two cumulative distributions, summed over the classes, mean
      over the batch (Hou, Yu and Samaras, 2016). It takes neighbouring class numbers for similar classes: for nominal
      classes its value depends on their arbitrary order. Logits are divided by `temperature` before the softmax, as in
      the authors' published code, which has T = 2; the value is not multiplied by T^2, as theirs is not.
    - `kind="kl"`: `T^2 * KL(teacher || student)` at `temperature` T (Hinton, Vinyals and Dean, 2015), mean over the
      batch; the order of the classes does not matter. Gradients of softened targets shrink as 1/T^2, hence T^2.

    `counted (B,)`: how much each clip counts, 0 to 1. The mean stays one over all of the batch, as that of FixMatch
    (Sohn et al. 2020, arXiv 2001.07685), so that the parts of a batch come to it without a word to each other.
    """
    match kind:
        case "emd":
            difference = (student_logits / temperature).softmax(1) - (teacher_logits / temperature).softmax(1)
            distance = difference.cumsum(1).square().sum(1)
        case "kl":
            student = F.log_softmax(student_logits / temperature, dim=1)
            teacher = F.log_softmax(teacher_logits / temperature, dim=1)
            if counted is None:
                return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
            distance = temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        case _:
            raise unknown_name("distillation loss", kind, ("emd", "kl"))
    return distance.mean() if counted is None else (distance * counted).mean()
