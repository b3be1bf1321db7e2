"""What the student minimises: classification, and the teacher's textures and answers.

SSATKD (Ritu et al., arXiv 2501.01921) adds three distillation terms to the cross-entropy, weighted by learned
uncertainties (Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018):

    L = sum_i exp(-s_i) * L_i + s_i        over classification, statistical, structural, distillation

The authors' published loss leaves out the structural and the distillation term: a line break ends the sum after the
second, so those two get no gradient there. Here all the configured terms count.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.config import LossConfig, Term
from edgekd.errors import unknown_name
from edgekd.losses.ssatkd.statistical import StatisticalTexture, statistical_loss
from edgekd.losses.ssatkd.structural import StructuralTexture, full_precision
from edgekd.models.outputs import StudentOutput, TeacherOutput

LOG_VARIANCE_FLOOR = -5.0
"""The smallest s_i: a term weighs at most exp(5) = 148, and the total is at least -5 times the number of terms."""


TEXTURES = frozenset[Term](("statistical", "structural"))


class LossOutput(NamedTuple):
    """The scalar `total` to minimise, each term's own value before weighting, and its weight `exp(-s_i)` (detached)."""

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, Tensor]


class SSATKDLoss(nn.Module):
    """The total loss, with everything in it that is learned: the adapter and the log-variances.

    `adapter` is a 1x1 convolution and ReLU from one tap's channels to the other's; it exists only if a texture term is
    active. The paper's is on the teacher's side, where it can learn to show the student little; with
    `adapter="student"` the teacher's own map is what the student's is held against. With `weighting="fixed"` each term
    counts as `config.weights` says. Else `log_variances (terms,)`, in the order of `config.terms`, starts at 0; it
    exists only if there is more than one term, since a single one needs no weighing: with `terms=("classification",)`
    the total is the plain cross-entropy.

    The best s_i is log(L_i), so a term that reaches 0 would drive it, and the total, to minus infinity. Each forward
    pass first puts the log-variances back to `LOG_VARIANCE_FLOOR` or above. A clamp inside the formula would also bound
    the total, but it stops the gradient: s_i would drift on below the floor, or never come back. Put back on the floor,
    s_i keeps its gradient `1 - exp(-s_i) * L_i` and leaves as soon as the term grows again.
    """

    fixed_weights: Tensor  # (terms,)

    def __init__(self, config: LossConfig, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.config = config
        self.adapter: nn.Sequential | None = None
        if TEXTURES & set(config.terms):
            channels = (teacher_channels, student_channels)
            if config.adapter == "student":
                channels = (student_channels, teacher_channels)
            self.adapter = nn.Sequential(nn.Conv2d(*channels, kernel_size=1), nn.ReLU())
        self.structural = StructuralTexture(config.structural_levels, config.structural_fusion)
        self.statistical = StatisticalTexture(config.statistical_levels, config.bandwidth)
        self.active: tuple[Term, ...] = config.terms
        fixed = torch.tensor([getattr(config.weights, term) for term in config.terms])
        self.register_buffer("fixed_weights", fixed, persistent=False)
        self.log_variances: nn.Parameter | None = None
        if len(config.terms) > 1 and config.weighting == "learned":
            self.log_variances = nn.Parameter(torch.zeros(len(config.terms)))

    @property
    def needs_taps(self) -> bool:
        """Whether one of the terms that count now compares taps."""
        return bool(TEXTURES & set(self.active))

    def count_textures(self, wanted: bool) -> None:
        """From now on, have the texture terms count or not, where they are among the terms at all.

        Textures teach the first layers; once these have learned, the student may be left to answer as well as it can
        (the two stages of FitNets: Romero et al. 2015, arXiv 1412.6550).
        """
        self.active = tuple(term for term in self.config.terms if wanted or term not in TEXTURES)

    def forward(self, student: StudentOutput, teacher: TeacherOutput | None, labels: Tensor) -> LossOutput:
        """Compare the two outputs on `labels`, classes `(B,)` or shares of each `(B, K)`; `teacher` may be None if
        classification is the only term.

        Raises `ValueError` if a teacher is needed and there is none.
        """
        terms = self._terms(student, teacher, labels)
        values = torch.stack(list(terms.values()))
        if self.log_variances is None:
            weights = self._of_active(self.fixed_weights) if len(terms) > 1 else torch.ones_like(values)
            return LossOutput((weights * values).sum(), terms, dict(zip(terms, weights, strict=True)))
        with torch.no_grad():
            self.log_variances.clamp_(min=LOG_VARIANCE_FLOOR)
        log_variances = self._of_active(self.log_variances)
        weights = torch.exp(-log_variances)
        total = (weights * values + log_variances).sum()
        return LossOutput(total, terms, dict(zip(terms, weights.detach(), strict=True)))

    def _of_active(self, values: Tensor) -> Tensor:
        """Of `values`, one for each term of the configuration, those of the terms that count now; taken one by one, as
        an index would be copied to the device, and waited for."""
        return torch.stack([values[self.config.terms.index(term)] for term in self.active])

    def _terms(self, student: StudentOutput, teacher: TeacherOutput | None, labels: Tensor) -> dict[str, Tensor]:
        """The value of each active term, in the order of the configuration."""
        logits = full_precision(student.logits)
        values = {"classification": F.cross_entropy(logits, labels)}
        active = self.active
        if len(active) > 1 and teacher is None:
            raise ValueError(f"the terms {', '.join(active)} need a teacher's output")
        if teacher is not None and "distillation" in active:
            values["distillation"] = distillation_loss(
                logits, full_precision(teacher.logits), self.config.distillation, self.config.temperature
            )
        if teacher is not None and self.adapter is not None and self.needs_taps:
            ours, theirs = student.tap, teacher.tap
            if self.config.adapter == "teacher":
                theirs = self.adapter(theirs)
            else:
                ours = self.adapter(ours)
            ours, theirs = _same_size(full_precision(ours), full_precision(theirs))
            if "structural" in active:
                values["structural"] = self.structural.distance(ours, theirs)
            if "statistical" in active:
                values["statistical"] = statistical_loss(
                    self.statistical(ours), self.statistical(theirs), self.config.statistical
                )
        return {term: values[term] for term in active}


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, kind: Literal["emd", "kl"] = "emd", temperature: float = 2.0
) -> Tensor:
    """How far the student's class probabilities are from the teacher's, `(B, K)` logits each: a scalar.

    - `kind="emd"`, the paper's: the squared distance of the two cumulative distributions, summed over the classes, mean
      over the batch (Hou, Yu and Samaras, 2016). It takes neighbouring class numbers for similar classes: for nominal
      classes its value depends on their arbitrary order. It has no temperature.
    - `kind="kl"`: `T^2 * KL(teacher || student)` at `temperature` T (Hinton, Vinyals and Dean, 2015), mean over the
      batch; the order of the classes does not matter. Gradients of softened targets shrink as 1/T^2, hence T^2.
    """
    match kind:
        case "emd":
            difference = student_logits.softmax(1) - teacher_logits.softmax(1)
            return difference.cumsum(1).square().sum(1).mean()
        case "kl":
            student = F.log_softmax(student_logits / temperature, dim=1)
            teacher = F.log_softmax(teacher_logits / temperature, dim=1)
            return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        case _:
            raise unknown_name("distillation loss", kind, ("emd", "kl"))


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps `(B, C, H, W)` at the smaller size in each dimension, bilinear."""
    size = [min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])]

    def resize(x: Tensor) -> Tensor:
        return x if list(x.shape[2:]) == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    return resize(a), resize(b)
