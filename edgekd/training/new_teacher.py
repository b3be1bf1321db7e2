"""The teacher of a configuration before it is adapted, and whether it can be one at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.config import DistillConfig, TeacherConfig
from edgekd.errors import InputError, UsageError
from edgekd.losses.terms import TERMS, needs_of, needs_teacher
from edgekd.models.build import build_teacher
from edgekd.models.factories import is_own
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.table import TEACHERS, fetched_weights
from edgekd.runs.run import Run
from edgekd.training.batches import seed_all


def settled(config: DistillConfig) -> DistillConfig:
    """`config` with what follows from where it is used written down, so that a run means the same everywhere.

    These are the weights that `edgekd teachers fetch` got, where none are named, and the folders of a student and a
    teacher of the user's own.
    """
    if config.student_folder is None and is_own(config.student):
        config = config.model_copy(update={"student_folder": Path.cwd()})
    teacher, known = config.teacher, {}
    if not needs_teacher(term for term in config.loss.terms if term in TERMS):  # others are refused with all names
        return config
    if teacher.weights is None:
        known["weights"] = fetched_weights(teacher.name)
    if teacher.folder is None and is_own(teacher.name):
        known["folder"] = Path.cwd()
    return config.model_copy(update={"teacher": teacher.model_copy(update=known)})


def check_teacher(config: TeacherConfig) -> None:
    """Raise `UsageError` for a teacher that could not learn, or has nothing to go by: before anything slow is done."""
    if is_own(config.name):
        return
    spec = TEACHERS[config.name]
    if config.weights is None and spec.needs_weights:
        fetch = f"get them with 'edgekd teachers fetch {config.name}', or " if spec.file and spec.file.digest else ""
        raise UsageError(
            f"Teacher '{config.name}' needs pre-trained weights: {fetch}pass --teacher-weights "
            f"{'FOLDER' if spec.from_folder else 'FILE'} ({spec.weights_from}), or use --teacher convnet "
            "--adaptation full, which learns from your data alone."
        )
    if spec.from_folder and config.adaptation == "none":
        raise UsageError(f"Teacher '{config.name}' gets a new head for these classes: pass --adaptation head or full.")
    if config.weights is None and config.adaptation != "full":
        raise UsageError(
            f"Teacher '{config.name}' starts at random: training only its head, or nothing, is no use; pass "
            "--adaptation full."
        )


def new_teacher(config: DistillConfig, classes: Sequence[str]) -> Teacher:
    """The teacher of `config` for `classes`, not adapted yet; the same at every call.

    Raises `InputError` for weights that do not fit (another architecture, adapted to other classes or another rate) and
    for a teacher of the user's own that fails on a trial, `UsageError` for one without a head to train.
    """
    teacher = config.teacher
    whole = teacher.adaptation == "none"
    if teacher.weights is not None:
        _check_origin(teacher.weights, config, classes)
    seed_all(config.seed, "teacher")
    built = build_teacher(
        teacher.name,
        len(classes),
        teacher.weights,
        config.data.sample_rate,
        config.frontend,
        whole=whole,
        samples=round(config.data.clip_seconds * config.data.sample_rate),
        folder=teacher.folder,
    )
    if teacher.adaptation == "head" and built.classifier() is None:
        raise UsageError(
            f"Teacher '{teacher.name}' has no 'head' (an nn.Linear) to train: pass --adaptation full, or none to use "
            "it as it is."
        )
    if "embedding" in needs_of(config.loss.terms) and not built.embedding_size:
        raise UsageError(
            f"Teacher '{teacher.name}' gives no embedding to distil: its module needs an attribute 'head', an "
            "nn.Linear called once with an embedding (B, E). Give it one, or leave 'embedding' out of --terms."
        )
    return built


def _check_origin(weights: Path, config: DistillConfig, classes: Sequence[str]) -> None:
    """Raise `InputError` for the teacher of another run (`RUN/teacher/best.safetensors`) that does not fit this one."""
    folder = weights.parent.parent
    if weights.parent.name != "teacher" or not (folder / "config.toml").is_file():
        return
    origin = Run.open(folder)
    if origin.config.teacher.name != config.teacher.name:
        raise InputError(
            f"{weights}: this is the teacher {origin.config.teacher.name} of the run {folder}, not "
            f"{config.teacher.name}: pass --teacher {origin.config.teacher.name}, or other weights."
        )
    theirs, ours = origin.config.data.sample_rate, config.data.sample_rate
    at_data_rate = is_own(config.teacher.name) or TEACHERS[config.teacher.name].own_rate is None
    if at_data_rate and theirs != ours:
        raise InputError(
            f"{weights}: adapted to clips at {theirs} Hz, and these are at {ours} Hz: pass --sample-rate {theirs}, or "
            "other weights."
        )
    if config.teacher.adaptation == "none" and origin.classes != tuple(classes):
        raise InputError(
            f"{weights}: adapted to the classes {', '.join(origin.classes)}, and the data has {', '.join(classes)}: "
            "give it a new head (--adaptation head)."
        )
