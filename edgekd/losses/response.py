"""What a student answers, against the labels and against the teacher's answers."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import UsageError, unknown_name
from edgekd.losses.terms import EMD_NEEDS_ONE, Compared
from edgekd.task import SINGLE, Task

Response = Literal["emd", "kl"]


class Classification(nn.Module):
    """`classification_loss` of the student's logits."""

    def forward(self, compared: Compared) -> Tensor:
        return classification_loss(compared.student_logits, compared.targets, compared.labelled, compared.task)


class Distillation(nn.Module):
    """`distillation_loss` of the two logits. On a clip without a label the teacher's answer counts where its best class
    has a probability of `confidence` or more: what it hears may be none of the classes. Where each class is answered
    for itself, so is that: an answer counts that is so sure, yes or no."""

    def __init__(self, kind: Response, temperature: float, confidence: float = 0.0) -> None:
        super().__init__()
        self.kind, self.temperature, self.confidence = kind, temperature, confidence

    def forward(self, compared: Compared) -> Tensor:
        logits, counted = compared.teacher_logits, None
        assert logits is not None
        if compared.labelled is not None:
            sure = compared.task.sureness(logits) >= self.confidence
            known = compared.labelled > 0
            counted = ((known[:, None] if compared.task.several else known) | sure).float()
        return distillation_loss(
            compared.student_logits, logits, self.kind, self.temperature, counted, task=compared.task
        )


def classification_loss(logits: Tensor, targets: Tensor, labelled: Tensor | None = None, task: Task = SINGLE) -> Tensor:
    """Cross-entropy of `logits (B, K)` with `targets`, classes `(B,)` or shares of each `(B, K)`, mean over the batch.

    `labelled (B,)`: how much each clip counts, 0 for one without a label and 1 on average over the whole batch, so that
    the parts of a batch, computed one by one, come to the mean over its labelled clips.

    Where clips may be of several classes: binary cross-entropy of each class with `targets (B, K)`, summed over the
    classes, so that a logit gets the gradient `p - target` as it does of the cross-entropy.
    """
    if task.several:
        each = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").sum(1)
        return each.mean() if labelled is None else (each * labelled).mean()
    if labelled is None:
        return F.cross_entropy(logits, targets)
    return (F.cross_entropy(logits, targets, reduction="none") * labelled).mean()


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: Response = "emd",
    temperature: float = 2.0,
    counted: Tensor | None = None,
    *,
    task: Task = SINGLE,
) -> Tensor:
    """How far the student's class probabilities are from the teacher's, `(B, K)` logits each: a scalar.

    - `kind="emd"`, the paper's: the squared distance of the two cumulative distributions, summed over the classes, mean
      over the batch (Hou, Yu and Samaras, 2016). It takes neighbouring class numbers for similar classes: for nominal
      classes its value depends on their arbitrary order. Logits are divided by `temperature` before the softmax, as in
      the authors' published code, which has T = 2; the value is not multiplied by T^2, as theirs is not.
    - `kind="kl"`: `T^2 * KL(teacher || student)` at `temperature` T (Hinton, Vinyals and Dean, 2015), mean over the
      batch; the order of the classes does not matter. Gradients of softened targets shrink as 1/T^2, hence T^2.

    Where clips may be of several classes, "kl" is the sum over the classes of `T^2 * KL` between the two answers, yes
    and no, at temperature T (the multi-label logits distillation of Yang et al., "Multi-label knowledge distillation",
    ICCV 2023, arXiv 2308.06453, which has no T); "emd", which needs shares of one, is refused.

    `counted (B,)`: how much each clip counts, 0 to 1, or `(B, K)` each answer to a class. The mean stays one over all
    of the batch, as that of FixMatch (Sohn et al. 2020, arXiv 2001.07685), so that the parts of a batch come to it
    without a word to each other.
    """
    if task.several:
        if kind != "kl":
            raise UsageError(f"loss.distillation = {kind}: {EMD_NEEDS_ONE}")
        return _of_each_class(student_logits / temperature, teacher_logits / temperature, counted) * temperature**2
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


def _of_each_class(student: Tensor, teacher: Tensor, counted: Tensor | None) -> Tensor:
    """The KL divergence of yes and no, summed over the classes, mean over the batch; of logits `(B, K)`."""
    sure = teacher.sigmoid()
    yes = sure * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (1 - sure) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    each = yes + no if counted is None else (yes + no) * counted
    return each.sum(1).mean()
