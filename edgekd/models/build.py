"""Students and teachers by name: of the tables, or of the user's own (`package.module:factory`)."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.config import DistillConfig, FrontendConfig, parse
from edgekd.errors import InputError, UsageError, check_all, unknown_name
from edgekd.layers_of_settings import displaced
from edgekd.models.students.names import CUTS, cut_of, trains_head_alone
from edgekd.models.students.table import STUDENTS
from edgekd.models.teachers.table import TEACHERS
from edgekd.own_code import is_own

if TYPE_CHECKING:
    from torch import nn

    from edgekd.models.students.student import Student
    from edgekd.models.teachers.base import Teacher

# What a head alone is taught with where nothing is said: no terms about layers, which stand still; mixtures where a
# teacher says what is in them; int8 is calibrated only, for training moves the layers.
HEAD_TERMS = ("classification", "distillation")
HEAD_QUANTIZATION = "ptq"
HEAD_SHIFTS, HEAD_MIXES = 2, 2
DEFAULT_CUTS = {"yamnet": ("yamnet-cut9", 0.65)}  # teacher -> the student, and its width, where none is named
LARGE = 512  # steps of a log-mel, of time or frequency, which no student's pooling uses up
YOUR_OWN = "Your own is named package.module:factory."


def build_student(
    name: str,
    num_classes: int,
    sample_rate: int = 32_000,
    frontend: FrontendConfig | None = None,
    width: float = 1.0,
    *,
    samples: int | None = None,
    folder: Path | None = None,
) -> Student:
    """A new student of `name` for waveforms at `sample_rate` Hz, its channels times `width`.

    `name` may also be `package.module:factory`, a student of the user's own, imported with `folder` on the path and
    tried on clips of `samples` (default: 5 s). Raises `UsageError` for an unknown name, and for a width other than 1 of
    a student that has one size; for one of the user's own also `InputError` (see `students.own`).
    """
    from edgekd.models.students.own import build_own
    from edgekd.models.students.student import Student

    cut = cut_of(name)
    frontend = frontend or cut_front_end(name).at(sample_rate)
    shape = frontend.shape(samples or 5 * sample_rate)
    network: Any
    if cut is None and is_own(name):
        network, tap_channels = build_own(name, num_classes, width, shape, folder)
    else:
        _check_student(name, width, folder)
        if cut is None:
            network = STUDENTS[name].network(num_classes, width)
        else:
            from edgekd.models.students.cut import cut_network

            source = build_teacher(
                cut.teacher, num_classes, None, sample_rate, frontend, samples=samples, folder=folder
            )
            _check_hearing(name, source, frontend, sample_rate)
            network = cut_network(source, name, num_classes, width)
        tap_channels = network.tap_channels
        _check_size(name, network, shape)
    return Student(name, network, tap_channels, frontend, sample_rate, width, keeps_norms=cut is not None)


def new_student(config: DistillConfig, num_classes: int) -> Student:
    """The student of a run's configuration, with weights drawn now. Raises as `build_student` does."""
    student = build_student(
        config.student,
        num_classes,
        config.data.sample_rate,
        config.frontend,
        config.width,
        samples=round(config.data.clip_seconds * config.data.sample_rate),
        folder=config.student_folder,
    )
    student.task = config.data.task
    return student


def sized(student: str, width: float) -> str:
    """A student as readers know it: `hltdnn_ds`, or `hltdnn_ds x0.5` of another width than 1."""
    return student if width == 1 else f"{student} x{width:g}"


def build_teacher(
    name: str,
    num_classes: int,
    weights: Path | None = None,
    sample_rate: int = 32_000,
    frontend: FrontendConfig | None = None,
    *,
    whole: bool = False,
    samples: int | None = None,
    folder: Path | None = None,
) -> Teacher:
    """A teacher of `name` for waveforms at `sample_rate` Hz, with pre-trained `weights` where they are given.

    Its head is new, unless the file is `whole`: a teacher adapted earlier to the same classes. `name` may also be
    `package.module:factory`, a teacher of the user's own, imported with `folder` on the path and tried on clips of
    `samples` (default: 5 s). Raises `UsageError` for an unknown name, `InputError` when the weights do not fit the
    architecture; the message names the teacher they would fit.
    """
    import torch

    from edgekd.models.teachers.own import build_own

    spec = TEACHERS.get(name)
    if is_own(name):
        teacher = build_own(name, num_classes, sample_rate, samples or 5 * sample_rate, folder)
    elif spec is None:
        raise unknown_name("teacher", name, TEACHERS)
    elif spec.from_folder and weights is None:
        raise UsageError(f"Teacher '{name}' needs weights: {spec.weights_from}.")
    else:
        teacher = spec.build(num_classes, sample_rate, frontend or FrontendConfig().at(sample_rate), weights)
    if weights is not None and not (spec is not None and spec.from_folder):
        try:
            (teacher.load_whole if whole else teacher.load_pretrained)(weights)
        except InputError as failure:
            fitting = [other for other in teachers_of(weights) if other != name]
            if not fitting or name in teachers_of(weights):
                raise
            raise InputError(f"{failure} It looks like weights of {' or '.join(fitting)}.") from None
    # Depthwise convolutions are up to 1.8 times as fast on a CPU in this order. (`to` says it returns a plain module.)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher


def stored_teacher(config: DistillConfig, num_classes: int, path: Path) -> Teacher:
    """The teacher of a run's configuration with the weights that the run keeps of it in the file `path`; the average
    where there are several. Raises as `build_teacher` does."""
    from edgekd.models.teachers.ensemble import Ensemble

    members = []
    for each in config.teacher.members():
        spec = TEACHERS.get(each.name)
        members.append(
            build_teacher(
                each.name,
                num_classes,
                each.weights if spec is not None and spec.from_folder else None,  # the folder tells the shape
                config.data.sample_rate,
                config.frontend,
                samples=round(config.data.clip_seconds * config.data.sample_rate),
                folder=each.folder,
            )
        )
    teacher = members[0] if len(members) == 1 else Ensemble(members, config.data.task)
    teacher.load_stored(path)
    return teacher


def teacher_front_end(config: DistillConfig) -> dict[str, Any]:
    """The settings of the run's front end as far as its teacher hears through it: none for one with its own rate and
    front end, and no averages, which are the student's alone."""
    specs = [TEACHERS.get(each.name) for each in config.teacher.members()]
    if all(spec is not None and spec.own_rate is not None for spec in specs):
        return {}
    return config.frontend.whole().model_dump(mode="json")


def teachers_of(weights: Path) -> list[str]:
    """The names of the teachers that the tensors in a file look like those of; none where it cannot be read."""
    from edgekd.models.weights import read_weights

    try:
        tensors = read_weights(weights)
    except InputError:
        return []
    return [name for name, spec in TEACHERS.items() if spec.mark and any(re.match(spec.mark, key) for key in tensors)]


def check_models(config: DistillConfig, taught: bool) -> None:
    """Raise one `UsageError` for the names of student and, where it is `taught`, teacher that are in no table, and for
    a width that the student does not come in: before anything slow is done.

    Models of the user's own are imported.
    """
    checks: list[Callable[[], object]] = [partial(_check_student, config.student, config.width, config.student_folder)]
    if taught:
        for each in config.teacher.members():
            checks.append(partial(_check_teacher, each.name, each.folder))
    check_all(checks)


def _check_size(name: str, network: nn.Module, shape: tuple[int, int]) -> None:
    """Raise `UsageError` where a log-mel `(T, F)` is too small for a student: its pooling leaves nothing of it."""
    import torch

    from edgekd.models.factories import UserCode

    tried = copy.deepcopy(network).eval()
    frames, bins = shape
    try:
        # With numbers: tensors without any would have PyTorch import a second of code for their shapes.
        with torch.no_grad():
            tried(torch.zeros(1, 1, min(frames, LARGE), min(bins, LARGE)))
    except RuntimeError:
        enough = (1, 1, LARGE, LARGE)
        with UserCode(f"Student '{name}': its network, given a log-mel of shape {enough},"), torch.no_grad():
            tried(torch.zeros(enough))  # for another reason
        raise UsageError(
            f"Student '{name}' cannot take a log-mel of {frames} frames of {bins} mel bins: it is too small. Pass more "
            "with a longer clip, frontend.n_mels, or a lower frontend.hop_ms, frames_per_step or bins_per_step."
        ) from None


def cut_front_end(student: str) -> FrontendConfig:
    """The front end of `student` where the user says nothing of it: the teacher's, where it is cut from one."""
    cut = cut_of(student)
    spec = None if cut is None else TEACHERS.get(cut.teacher)
    return FrontendConfig.model_validate({} if spec is None or spec.cut is None else dict(spec.cut))


def as_teacher_hears(config: DistillConfig) -> DistillConfig:
    """`config` with the rate and the front end of the teacher that its student is cut from, where it says nothing of
    them; any other configuration as it is."""
    cut = cut_of(config.student)
    spec = None if cut is None else TEACHERS.get(cut.teacher)
    if spec is None or spec.cut is None:
        return config
    values = config.model_dump(mode="json", exclude_unset=True)
    data, frontend = values.setdefault("data", {}), values.setdefault("frontend", {})
    if spec.own_rate is not None:
        data.setdefault("sample_rate", spec.own_rate)
    for name, value in spec.cut.items():
        if not displaced(f"frontend.{name}", frontend) & frontend.keys():
            frontend.setdefault(name, value)
    if trains_head_alone(config):
        terms = values.setdefault("loss", {}).setdefault("terms", HEAD_TERMS)
        augment = values.setdefault("augment", {})
        augment.setdefault("shifts_per_clip", HEAD_SHIFTS)
        augment.setdefault("mixes_per_clip", HEAD_MIXES if "distillation" in terms else 0)
        values.setdefault("quantize", {}).setdefault("method", HEAD_QUANTIZATION)
    return parse(DistillConfig, values, "settings")


def with_default_student(config: DistillConfig) -> DistillConfig:
    """`config` with the student that is worth most under its teacher, where it names none: one cut from that teacher,
    where a head is all that the terms teach and nothing else than what the teacher hears is said of what it hears."""
    default = DEFAULT_CUTS.get(config.teacher.name)
    said = config.model_fields_set
    rate = config.data.sample_rate if "sample_rate" in config.data.model_fields_set else None
    hears = config.frontend.model_fields_set or (rate is not None and rate != _own_rate(config.teacher.name))
    terms = config.loss.terms if "terms" in config.loss.model_fields_set else HEAD_TERMS
    if default is None or {"student", "width"} & said or hears or not set(terms) <= set(HEAD_TERMS):
        return config
    name, width = default
    values = config.model_dump(mode="json", exclude_unset=True) | {"student": name, "width": width}
    return parse(DistillConfig, values, "settings")


def _own_rate(teacher: str) -> int | None:
    spec = TEACHERS.get(teacher)
    return None if spec is None else spec.own_rate


def _check_hearing(name: str, teacher: Teacher, frontend: FrontendConfig, sample_rate: int) -> None:
    """Raise `UsageError` where a student cut from `teacher` would not hear what the teacher's layers know."""
    from edgekd.log_mel import LogMel

    own = teacher.front_end()
    if not isinstance(own, LogMel):
        raise UsageError(
            f"Student '{name}': its teacher has no log-mel front end (edgekd.log_mel.LogMel) to take along."
        )
    if own.sample_rate != sample_rate:
        raise UsageError(
            f"Student '{name}' hears {own.sample_rate} Hz, as its teacher does, and not {sample_rate}: leave "
            "--sample-rate out."
        )
    for what in ("convention", "window_length", "n_fft", "n_mels", "f_min", "f_max"):
        theirs, ours = getattr(own.config, what), getattr(frontend, what)
        if theirs != ours:
            raise UsageError(
                f"Student '{name}' has its teacher's front end: frontend.{what} is {theirs}, not {ours}. Leave it out."
            )


def _check_student(name: str, width: float, folder: Path | None = None) -> None:
    cut = cut_of(name)
    if cut is not None:
        _check_teacher(cut.teacher, folder)
        if not is_own(cut.teacher) and TEACHERS[cut.teacher].cut is None:
            able = ", ".join(other for other, spec in TEACHERS.items() if spec.cut is not None)
            raise UsageError(f"Student '{name}': '{cut.teacher}' is no chain of convolutions. Cut one of {able}.")
        if width > 1:
            raise UsageError(
                f"Student '{name}' is cut from a teacher: --width leaves channels out, so it is 1 at most."
            )
    elif is_own(name):
        from edgekd.models.students.own import check_own

        check_own(name, width, folder)
    elif name not in STUDENTS:
        raise UsageError(f"{unknown_name('student', name, [*STUDENTS, *CUTS])} {YOUR_OWN}")
    elif width != 1 and not STUDENTS[name].sized:
        in_sizes = [other for other, spec in STUDENTS.items() if spec.sized]
        raise UsageError(f"Student '{name}' has one size: leave --width out, or take {' or '.join(in_sizes)}.")


def _check_teacher(name: str, folder: Path | None) -> None:
    if is_own(name):
        from edgekd.models.teachers.own import check_own

        check_own(name, folder)
    elif name not in TEACHERS:
        raise UsageError(f"{unknown_name('teacher', name, TEACHERS)} {YOUR_OWN}")
