"""What a student minimises: the weighted sum of the terms, and everything in it that is learned.

SSATKD (Ritu et al., arXiv 2501.01921) adds three distillation terms to the cross-entropy, weighted by learned
uncertainties (Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses", CVPR 2018):

    L = sum_i exp(-s_i) * L_i + s_i        over classification, statistical, structural, distillation

The authors' published loss leaves out the structural and the distillation term: a line break ends the sum after the
second, so those two get no gradient there. Here all the configured terms count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from edgekd.config import LossConfig
from edgekd.losses.adapter import Adapter, resize
from edgekd.losses.ssatkd.structural import full_precision
from edgekd.losses.terms import TERMS, Compared, Need, needs_of
from edgekd.models.outputs import StudentOutput, TeacherOutput
from edgekd.task import SINGLE, Task

if TYPE_CHECKING:
    from edgekd.models.students.student import Student
    from edgekd.models.teachers.base import Teacher

LOG_VARIANCE_FLOOR = -5.0
"""The smallest s_i: a term weighs at most exp(5) = 148, and the total is at least -5 times the number of terms."""


class LossOutput(NamedTuple):
    """The scalar `total` to minimise, each term's own value before weighting, and its weight `exp(-s_i)` (detached)."""

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, Tensor]


class SSATKDLoss(nn.Module):
    """The total loss, with everything in it that is learned: the adapter, the projection and the log-variances.

    `adapter` is a 1x1 convolution and ReLU from one tap's channels to the other's; it exists only if a term compares
    taps. The paper's is on the teacher's side, where it can learn to show the student little; with `adapter="student"`
    the teacher's own map is what the student's is held against. `projection`, linear, brings the student's embedding to
    the size of the teacher's; it exists only if a term compares embeddings. Both are thrown away with the loss.

    With `weighting="fixed"` each term counts as
    `config.weights` says, 1 where it says nothing. Else `log_variances (terms,)`, in the order of `config.terms`,
    starts at 0; it exists only if there is more than one term, since a single one needs no weighing: with
    `terms=("classification",)` the total is the plain cross-entropy.

    The best s_i is log(L_i), so a term that reaches 0 would drive it, and the total, to minus infinity. Each forward
    pass first puts the log-variances back to `LOG_VARIANCE_FLOOR` or above. A clamp inside the formula would also bound
    the total, but it stops the gradient: s_i would drift on below the floor, or never come back. Put back on the floor,
    s_i keeps its gradient `1 - exp(-s_i) * L_i` and leaves as soon as the term grows again.
    """

    fixed_weights: Tensor  # (terms,)

    def __init__(
        self,
        config: LossConfig,
        student_channels: int,
        teacher_channels: int,
        *,
        student_embedding: int = 0,
        teacher_embedding: int = 0,
        task: Task = SINGLE,
    ) -> None:
        """The loss between taps of so many channels and embeddings of such sizes, as far as terms compare them."""
        super().__init__()
        self.config, self.task = config, task
        self.adapter: Adapter | None = None
        if "tap" in needs_of(config.terms):
            channels = (teacher_channels, student_channels)
            if config.adapter == "student":
                channels = (student_channels, teacher_channels)
            self.adapter = Adapter(*channels)
        self.projection: nn.Linear | None = None
        if "embedding" in needs_of(config.terms):
            self.projection = nn.Linear(student_embedding, teacher_embedding)
        self.terms = nn.ModuleDict({term: TERMS[term].build(config) for term in config.terms})
        self.active = config.terms
        fixed = torch.tensor([config.weights.get(term, 1.0) for term in config.terms])
        self.register_buffer("fixed_weights", fixed, persistent=False)
        self.log_variances: nn.Parameter | None = None
        if len(config.terms) > 1 and config.weighting == "learned":
            self.log_variances = nn.Parameter(torch.zeros(len(config.terms)))

    @classmethod
    def between(cls, config: LossConfig, student: Student, teacher: Teacher | None, task: Task = SINGLE) -> SSATKDLoss:
        """The loss of these two models; None where no term asks for a teacher."""
        layer = student.embedding_layer
        return cls(
            config,
            student.tap_channels,
            0 if teacher is None else teacher.tap_channels,
            student_embedding=0 if layer is None else layer.size,
            teacher_embedding=0 if teacher is None else teacher.embedding_size,
            task=task,
        )

    @property
    def needs(self) -> frozenset[Need]:
        """What the terms that count now need of the teacher."""
        return needs_of(self.active)

    def count_textures(self, counted: bool) -> None:
        """From now on, have the terms that compare taps count or not, where there are any.

        Textures teach the first layers; once these have learned, the student may be left to answer as well as it can
        (the two stages of FitNets: Romero et al. 2015, arXiv 1412.6550).
        """
        self.active = tuple(term for term in self.config.terms if counted or "tap" not in TERMS[term].needs)

    def forward(
        self,
        student: StudentOutput,
        teacher: TeacherOutput | None,
        targets: Tensor,
        labelled: Tensor | None = None,
    ) -> LossOutput:
        """Compare the two outputs on `targets`, classes `(B,)` or shares of each `(B, K)`; `teacher` may be None if
        no term asks for it. `labelled (B,)`: how much each clip's label counts, see `Compared`.

        Raises `ValueError` if a teacher is needed and there is none.
        """
        terms = self._terms(student, teacher, targets, labelled)
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

    def _terms(
        self, student: StudentOutput, teacher: TeacherOutput | None, targets: Tensor, labelled: Tensor | None
    ) -> dict[str, Tensor]:
        """The value of each active term, in the order of the configuration."""
        needs = self.needs
        if needs and teacher is None:
            raise ValueError(f"the terms {', '.join(self.active)} need a teacher's output")
        logits = taps = embeddings = None
        if teacher is not None and "logits" in needs:
            logits = full_precision(teacher.logits)
        if teacher is not None and "tap" in needs:
            taps = self._matched(student.tap, teacher.tap)
        if teacher is not None and "embedding" in needs:
            assert self.projection is not None and student.embedding is not None and teacher.embedding is not None
            embeddings = full_precision(self.projection(student.embedding)), full_precision(teacher.embedding)
        student_tap, teacher_tap = taps or (None, None)
        student_embedding, teacher_embedding = embeddings or (None, None)
        compared = Compared(
            full_precision(student.logits),
            targets,
            labelled,
            logits,
            student_tap,
            teacher_tap,
            student_embedding,
            teacher_embedding,
            self.task,
        )
        # Gradients add up in the order of computation: in this one a run repeats the bits of its like of version 0.1.0.
        values = {term: self.terms[term](compared) for term in reversed(self.active)}
        return {term: values[term] for term in self.active}

    def _matched(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both taps in the same channels and at the smaller size in each dimension, float32."""
        assert self.adapter is not None
        height, width = (min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
        if self.config.adapter == "teacher":
            return resize(full_precision(student), (height, width)), self.adapter.resized(teacher, (height, width))
        return self.adapter.resized(student, (height, width)), resize(full_precision(teacher), (height, width))
