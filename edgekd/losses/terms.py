"""The terms that a student's loss may have. A new one is a module, a row in `TERMS` and a test.

Every term compares what `Compared` holds and gives a scalar, the mean over the clips of a batch. What it needs of the
teacher is in `needs`: a batch carries what the terms of the epoch need together. The columns of `metrics.csv` are those
of this table. What computes is imported when a term is built, so that the names are quick to have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgekd.errors import UsageError, unknown_name
from edgekd.task import SINGLE, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.config import LossConfig

Need = Literal["logits", "embedding", "tap"]
"""What a term needs of the teacher: its logits, the embedding that they are made of, or its early feature map."""


class Compared(NamedTuple):
    """What a term may compare, all of the same B clips, in float32.

    `targets` are classes `(B,)` or shares of each `(B, K)`; taps `(B, C, T, F)` have one size and one number of
    channels, embeddings `(B, E)` the teacher's size. What no term of the batch needs is None.
    """

    student_logits: Tensor
    targets: Tensor
    labelled: Tensor | None
    """`(B,)`, how much the label of each clip counts, 1 on average over the batch; None where each counts alike."""
    teacher_logits: Tensor | None
    student_tap: Tensor | None
    teacher_tap: Tensor | None
    student_embedding: Tensor | None = None
    teacher_embedding: Tensor | None = None
    task: Task = SINGLE
    """What the classes are to each other, and so the logits."""


@dataclass(frozen=True)
class Term:
    """`build(config)` gives the module that computes the term, `Compared` -> scalar; `needs` is what it asks of the
    teacher."""

    build: Callable[[LossConfig], nn.Module]
    needs: frozenset[Need] = frozenset()


def _classification(_config: LossConfig) -> nn.Module:
    from edgekd.losses.response import Classification

    return Classification()


def _distillation(config: LossConfig) -> nn.Module:
    from edgekd.losses.response import Distillation

    return Distillation(config.distillation, config.temperature, config.unlabelled_confidence)


def _embedding(config: LossConfig) -> nn.Module:
    from edgekd.losses.embedding import Embedding

    return Embedding(config.embedding)


def _statistical(config: LossConfig) -> nn.Module:
    from edgekd.losses.textures import Statistical

    return Statistical(config.statistical_levels, config.bandwidth, config.statistical)


def _structural(config: LossConfig) -> nn.Module:
    from edgekd.losses.textures import Structural

    return Structural(config.structural_levels, config.structural_fusion)


TERMS: dict[str, Term] = {
    "classification": Term(_classification),
    "statistical": Term(_statistical, frozenset({"tap"})),
    "structural": Term(_structural, frozenset({"tap"})),
    "distillation": Term(_distillation, frozenset({"logits"})),
    "embedding": Term(_embedding, frozenset({"embedding"})),
}


OF_PRETRAINING = ("embedding", "statistical", "structural")
"""What a student can learn without classes."""


def needs_of(terms: Iterable[str]) -> frozenset[Need]:
    """What these terms need of the teacher together. Raises `UsageError` as `check_terms` does."""
    terms = tuple(terms)
    check_terms(terms)
    return frozenset().union(*(TERMS[term].needs for term in terms))


def needs_teacher(terms: Iterable[str]) -> bool:
    """Whether any of these terms asks the teacher. Raises `UsageError` as `check_terms` does."""
    return bool(needs_of(terms))


def check_terms(names: Iterable[str]) -> None:
    """Raise `UsageError` for a name that is not in `TERMS`."""
    for name in names:
        if name not in TERMS:
            raise unknown_name("loss term", name, TERMS)


def check_classes(terms: Iterable[str]) -> None:
    """Raise `UsageError` for terms that teach no classes."""
    if "classification" not in terms:
        raise UsageError(
            "loss.terms: 'classification' must be one of the terms; a student without classes is 'edgekd pretrain'."
        )


EMD_NEEDS_ONE = "compares shares of one, which clips of several classes have not. Take kl (--set loss.distillation=kl)."


def check_task(config: LossConfig, task: Task) -> None:
    """Raise `UsageError` for terms that have no form for classes of this kind."""
    if task.several and config.distillation == "emd" and "distillation" in config.terms:
        raise UsageError(f"loss.distillation = emd: {EMD_NEEDS_ONE}")


def check_pretraining(terms: Sequence[str], folders: Collection[Path]) -> None:
    """Raise `UsageError` for a pre-training of no audio, of terms that need classes, or without the embedding."""
    if not folders:
        raise UsageError("Nothing to learn from: pass --unlabelled FOLDER.")
    wrong = [term for term in terms if term not in OF_PRETRAINING]
    if wrong or "embedding" not in terms:
        what = f"'{wrong[0]}' needs classes" if wrong else "'embedding' is missing"
        others = " and ".join(OF_PRETRAINING[1:])
        raise UsageError(f"loss.terms of a pre-training are embedding, with {others} where wanted: {what}.")


def check_unlabelled(terms: Iterable[str], folders: Collection[Path]) -> None:
    """Raise `UsageError` for audio without labels where none of these terms asks a teacher: nothing could be learned of
    it."""
    if folders and not needs_teacher(terms):
        raise UsageError(
            "--unlabelled: audio without labels teaches through a teacher's answers, and loss.terms ask none: leave it "
            "out, or add a term (--terms classification,distillation)."
        )
