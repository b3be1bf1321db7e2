"""What a student cut from a teacher begins with: the teacher's layers, narrower where the width says so."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.config import DistillConfig
from edgekd.errors import UsageError
from edgekd.losses.terms import TERMS, needs_teacher
from edgekd.models.build import build_teacher
from edgekd.models.students.cut import CutNetwork, cut_network
from edgekd.models.students.names import Cut, cut_of, trains_head_alone
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.ensemble import Ensemble
from edgekd.models.teachers.table import TEACHERS, fetched_weights
from edgekd.own_code import is_own
from edgekd.progress import Progress
from edgekd.runs.data import RunData
from edgekd.training.pruning import equalise, prune

MOST_CLIPS = 512  # of the training side, to choose channels by; more say nothing new
BATCH = 32


def take_layers(
    student: Student,
    config: DistillConfig,
    data: RunData,
    teacher: Teacher | None,
    device: torch.device,
    progress: Progress,
) -> None:
    """Give `student`, new and cut from a teacher, the weights of its layers; its head stays as it is.

    They are those of the run's own `teacher`, adapted, where the student is cut from that one, else the published ones.
    Raises `UsageError` where there are none.
    """
    source = _source(config, len(data.index.classes), teacher)
    whole = cut_network(source, student.name, len(data.index.classes), 1.0).to(device).eval()
    norm = source.input_norm()
    if norm is not None:
        _take_norm(student.norm, norm, student.frontend.config.bins_per_step)
    network = student.network
    assert isinstance(network, CutNetwork)
    layers = whole.chain()
    log_mels = _log_mels(student.to(device), data)
    if student.width < 1:

        def done(count: int) -> None:
            progress("channels", count, len(layers), width=student.width)

        layers = prune(layers, student.width, log_mels, done)
    equalise(layers, log_mels)
    for own, taken in zip(network.chain(), layers, strict=True):
        own.load_state_dict(taken.state_dict())


def check_cut(config: DistillConfig) -> None:
    """Raise `UsageError`, before anything slow is done, where a student is cut from a teacher whose weights are not
    there, where terms teach layers of which none is trained, and for an adaptation of a student that has nothing to be
    adapted."""
    cut = cut_of(config.student)
    if cut is None:
        if config.training.adaptation is not None:
            raise UsageError(
                f"Student '{config.student}' starts from nothing and is trained whole: leave --student-adaptation out, "
                "or take a student that is cut from a teacher (edgekd students)."
            )
        return
    if trains_head_alone(config) and config.training.sampling == "balanced":
        raise UsageError(
            f"training.sampling = 'balanced': of student '{config.student}' only the head is trained, on all clips at "
            "once. Pass --set training.class_weights=balanced, or --student-adaptation full."
        )
    if not is_own(cut.teacher) and _weights(config, cut) is None and not _adapted_whole(config, cut):
        _published(config.student, cut)
    idle = [term for term in config.loss.terms if not TERMS[term].needs <= {"logits"}]
    if idle and trains_head_alone(config):
        raise UsageError(
            f"Of student '{config.student}' only the head is trained, and the terms {', '.join(idle)} teach layers: "
            "leave them out of --terms, or pass --student-adaptation full."
        )


def _source(config: DistillConfig, num_classes: int, teacher: Teacher | None) -> Teacher:
    """The teacher that a student is cut from, with its weights."""
    cut = cut_of(config.student)
    assert cut is not None
    member = _member(config, cut)
    if member is not None and teacher is not None:
        return teacher.each()[member] if isinstance(teacher, Ensemble) else teacher
    weights = _weights(config, cut)
    if weights is None and not is_own(cut.teacher):
        weights = _published(config.student, cut)
    return build_teacher(
        cut.teacher,
        num_classes,
        weights,
        config.data.sample_rate,
        config.frontend,
        samples=round(config.data.clip_seconds * config.data.sample_rate),
        folder=config.student_folder or config.teacher.folder,
    ).eval()


def _member(config: DistillConfig, cut: Cut) -> int | None:
    """Which of the run's teachers the student is cut from; None where it is another one."""
    names = [each.name for each in config.teacher.members()]
    return names.index(cut.teacher) if cut.teacher in names else None


def _weights(config: DistillConfig, cut: Cut) -> Path | None:
    """The weights that the run names for the teacher that its student is cut from."""
    member = _member(config, cut)
    return None if member is None else config.teacher.members()[member].weights


def _adapted_whole(config: DistillConfig, cut: Cut) -> bool:
    """Whether the run trains that teacher itself, from nothing."""
    taught = needs_teacher(config.loss.terms)
    return taught and _member(config, cut) is not None and config.teacher.adaptation == "full"


def _published(student: str, cut: Cut) -> Path:
    weights = fetched_weights(cut.teacher)
    if weights is None:
        spec = TEACHERS[cut.teacher]
        how = f"get them with 'edgekd teachers fetch {cut.teacher}', or name them: " if spec.file else ""
        raise UsageError(
            f"Student '{student}' is cut from '{cut.teacher}', whose weights are not there: {how}--teacher "
            f"{cut.teacher} --teacher-weights FILE."
        )
    return weights


@torch.no_grad()
def _take_norm(own: nn.BatchNorm2d, theirs: nn.BatchNorm2d, bins_per_step: int) -> None:
    """The teacher's batch norm over mel bins, as an affine map that holds for averages of bins, too."""
    mean, variance = theirs.get_buffer("running_mean"), theirs.get_buffer("running_var")
    scale = theirs.weight / torch.sqrt(variance + theirs.eps)
    shift = theirs.bias - mean * scale
    bins = len(own.weight)

    def averaged(values: Tensor) -> Tensor:
        return values[: bins * bins_per_step].view(bins, bins_per_step).mean(1)

    own.weight.copy_(averaged(scale))
    own.bias.copy_(averaged(shift))


@torch.no_grad()
def _log_mels(student: Student, data: RunData) -> Tensor:
    """Normalised log-mels `(N, 1, T, F)` of training clips, and of those without labels, evenly spaced."""
    student.eval()
    device, parts = student.gain.device, list[Tensor]()
    stores = [(data.store, data.split.train)]
    if data.unlabelled is not None:
        stores.append((data.unlabelled.store, data.unlabelled.rows))
    for store, all_rows in stores:
        rows = all_rows[:: -(-len(all_rows) // MOST_CLIPS)]
        for start in range(0, len(rows), BATCH):
            parts.append(student.log_mel(store.waveforms(rows[start : start + BATCH]).to(device)))
    return torch.cat(parts)
