"""The teacher of a configuration before it is adapted, and whether it can be one at all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from edgekd.config import DistillConfig, TeacherConfig
from edgekd.errors import InputError, UsageError
from edgekd.losses.terms import TERMS, Need, needs_of, needs_teacher
from edgekd.models.build import as_teacher_hears, build_teacher
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.ensemble import Ensemble
from edgekd.models.teachers.table import TEACHERS, fetched_weights
from edgekd.models.weights import read_weights
from edgekd.own_code import is_own
from edgekd.runs.run import Run
from edgekd.training.batches import seed_all

_HEAD = ("head.weight",)


def settled(config: DistillConfig) -> DistillConfig:
    """`config` with what follows from where it is used written down, so that a run means the same everywhere.

    These are the weights that `edgekd teachers fetch` got, where none are named, the folders of a student and a teacher
    of the user's own, and the rate and front end of a student that is cut from a teacher.
    """
    config = as_teacher_hears(config)
    if config.student_folder is None and is_own(config.student):
        config = config.model_copy(update={"student_folder": Path.cwd()})
    teacher, known = config.teacher, dict[str, Any]()
    if not needs_teacher(term for term in config.loss.terms if term in TERMS):  # others are refused with all names
        return config
    members = teacher.members()
    if len(members) > 1:
        found = {each.name: each.weights or fetched_weights(each.name) for each in members}
        known["weights_of"] = {name: path for name, path in found.items() if path is not None}
    elif teacher.weights is None:
        known["weights"] = fetched_weights(teacher.name)
    if teacher.folder is None and any(is_own(each.name) for each in members):
        known["folder"] = Path.cwd()
    return config.model_copy(update={"teacher": teacher.model_copy(update=known)})


def check_teacher(config: TeacherConfig, needs: Collection[Need] = frozenset({"logits"})) -> None:
    """Raise `UsageError` for a teacher, or one of several, that could not learn, has nothing to go by, or cannot give
    what a loss `needs`: before anything slow is done."""
    members = config.members()
    if len(members) > 1:
        for each in members:
            check_teacher(each, needs)
        return
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
    if spec.from_folder and config.adaptation == "none" and "logits" in needs:
        raise UsageError(f"Teacher '{config.name}' gets a new head for these classes: pass --adaptation head or full.")
    if config.weights is None and config.adaptation != "full":
        raise UsageError(
            f"Teacher '{config.name}' starts at random: training only its head, or nothing, is no use; pass "
            "--adaptation full."
        )


def new_teacher(config: DistillConfig, classes: Sequence[str]) -> Teacher:
    """The teacher of `config` for `classes`, not adapted yet; the same at every call.

    Not adapted at all, and where the loss does not ask what it answers, it needs no head for these classes: then it has
    one only if its weights do. Raises `InputError` for weights that do not fit (another architecture, adapted to other
    classes or another rate) and for a teacher of the user's own that fails on a trial, `UsageError` for one without a
    head to train or an embedding to give.
    """
    teacher, needs = config.teacher, needs_of(config.loss.terms)
    members = teacher.members()
    if len(members) > 1:
        each = [new_teacher(config.model_copy(update={"teacher": member}), classes) for member in members]
        return Ensemble(each, config.data.task)
    whole = teacher.adaptation == "none"
    if whole and "logits" not in needs and not is_own(teacher.name):
        whole = teacher.weights is not None and _has_head(teacher.weights, classes)
    if teacher.weights is not None:
        _check_origin(teacher.weights, config, classes, whole)
        if whole and not is_own(teacher.name) and "head.weight" not in read_weights(teacher.weights, _HEAD):
            raise InputError(
                f"{teacher.weights}: holds no head for these classes, which {_asking(config)} needs: pass --adaptation "
                "head, or --terms classification,embedding, which ask for none."
            )
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
    if teacher.adaptation == "none" and not whole and not is_own(teacher.name):
        built.drop_head()
    if "embedding" in needs and not built.embedding_size:
        raise UsageError(
            f"Teacher '{teacher.name}' gives no embedding to distil: its module needs an attribute 'head', an "
            "nn.Linear called once with an embedding (B, E). Give it one, or leave 'embedding' out of --terms."
        )
    return built


def _asking(config: DistillConfig) -> str:
    """The first term of the loss that asks what the teacher answers."""
    return next(term for term in config.loss.terms if "logits" in TERMS[term].needs)


def _has_head(weights: Path, classes: Sequence[str]) -> bool:
    """Whether the file or folder `weights` holds a head for these classes, as far as it says."""
    if weights.is_dir():
        return False
    head, origin = read_weights(weights, _HEAD).get("head.weight"), _origin(weights)
    known = origin is None or origin.classes == tuple(classes)
    return head is not None and len(head) == len(classes) and known


def _origin(weights: Path) -> Run | None:
    """The run that a file is the teacher of (`RUN/teacher/best.safetensors`); None where it is none's."""
    folder = weights.parent.parent
    of_run = weights.parent.name == "teacher" and (folder / "config.toml").is_file()
    return Run.open(folder) if of_run else None


def _check_origin(weights: Path, config: DistillConfig, classes: Sequence[str], whole: bool) -> None:
    """Raise `InputError` for the teacher of another run (`RUN/teacher/best.safetensors`) that does not fit this one."""
    origin = _origin(weights)
    if origin is None:
        return
    if origin.config.teacher.name != config.teacher.name:
        raise InputError(
            f"{weights}: this is the teacher {origin.config.teacher.name} of the run {origin.folder}, not "
            f"{config.teacher.name}: pass --teacher {origin.config.teacher.name}, or other weights."
        )
    theirs, ours = origin.config.data.sample_rate, config.data.sample_rate
    at_data_rate = is_own(config.teacher.name) or TEACHERS[config.teacher.name].own_rate is None
    if at_data_rate and theirs != ours:
        raise InputError(
            f"{weights}: adapted to clips at {theirs} Hz, and these are at {ours} Hz: pass --sample-rate {theirs}, or "
            "other weights."
        )
    if whole and origin.classes != tuple(classes):
        raise InputError(
            f"{weights}: adapted to the classes {', '.join(origin.classes)}, and the data has {', '.join(classes)}: "
            "give it a new head (--adaptation head)."
        )
