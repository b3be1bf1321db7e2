"""Students and teachers by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.config import FrontendConfig
from edgekd.errors import InputError, UsageError, unknown_name

if TYPE_CHECKING:
    from edgekd.models.students import Student
    from edgekd.models.teachers.base import Teacher


def build_student(
    name: str,
    num_classes: int,
    sample_rate: int = 32_000,
    frontend: FrontendConfig | None = None,
    width: float = 1.0,
) -> Student:
    """A new student of `name` for waveforms at `sample_rate` Hz, its channels times `width`.

    Raises `UsageError` for an unknown name, and for a width other than 1 of a student that has one size.
    """
    from edgekd.models.students import SIZED, STUDENTS, Student

    mistake = _wrong_student(name, width)
    if mistake is not None:
        raise mistake
    network = STUDENTS[name](num_classes) if width == 1 else SIZED[name](num_classes, width)
    return Student(name, network, network.tap_channels, frontend or FrontendConfig(), sample_rate, width)


def sized(student: str, width: float) -> str:
    """A student as readers are told of it: `hltdnn_ds`, or `hltdnn_ds x0.5` of another width than 1."""
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

    from edgekd.models.teachers import TEACHERS
    from edgekd.models.teachers.own import build_own, is_own

    spec = TEACHERS.get(name)
    if is_own(name):
        teacher = build_own(name, num_classes, sample_rate, samples or 5 * sample_rate, folder)
    elif spec is None:
        raise unknown_name("teacher", name, TEACHERS)
    elif spec.from_folder and weights is None:
        raise UsageError(f"Teacher '{name}' needs weights: {spec.weights_from}.")
    else:
        teacher = spec.build(num_classes, sample_rate, frontend or FrontendConfig(), weights)
    if weights is not None and not (spec is not None and spec.from_folder):
        try:
            (teacher.load_whole if whole else teacher.load_pretrained)(weights)
        except InputError as failure:
            fitting = [other for other in recognised(weights) if other != name]
            if not fitting or name in recognised(weights):
                raise
            raise InputError(f"{failure} It looks like weights of {' or '.join(fitting)}.") from None
    # Depthwise convolutions are up to 1.8 times as fast on a CPU in this order. (`to` says it returns a plain module.)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher


def recognised(weights: Path) -> list[str]:
    """The names of the teachers that the tensors in a file look like those of; none where it cannot be read."""
    import re

    from edgekd.models.teachers import TEACHERS
    from edgekd.models.weights import read_weights

    try:
        tensors = read_weights(weights)
    except InputError:
        return []
    return [name for name, spec in TEACHERS.items() if spec.mark and any(re.match(spec.mark, key) for key in tensors)]


def fetched_weights(name: str) -> Path | None:
    """The file that `edgekd teachers fetch` left for this teacher; None where there is none."""
    from edgekd.models.download import teachers_folder
    from edgekd.models.teachers import TEACHERS

    spec = TEACHERS.get(name)
    if spec is None or spec.file is None:
        return None
    path = teachers_folder() / spec.file.name
    return path if path.is_file() else None


def check_names(student: str, teacher: str | None, folder: Path | None = None, width: float = 1.0) -> None:
    """Raise one `UsageError` for every name that is in no table, before anything slow is done, and for a `width` that
    the student does not come in.

    A teacher of the user's own (`package.module:factory`) is imported, with `folder` on the path.
    """
    from edgekd.models.teachers import TEACHERS
    from edgekd.models.teachers.own import find_factory, is_own

    wrong = _wrong_student(student, width)
    mistakes = [] if wrong is None else [str(wrong)]
    if teacher is not None and is_own(teacher):
        try:
            find_factory(teacher, folder)
        except UsageError as mistake:
            mistakes.append(str(mistake))
    elif teacher is not None and teacher not in TEACHERS:
        mistakes.append(f"{unknown_name('teacher', teacher, TEACHERS)} Your own is named package.module:factory.")
    if mistakes:
        raise UsageError(" ".join(mistakes))


def _wrong_student(name: str, width: float) -> UsageError | None:
    """What is wrong with the name or the width of a student."""
    from edgekd.models.students import SIZED, STUDENTS

    if name not in STUDENTS:
        return unknown_name("student", name, STUDENTS)
    if width != 1 and name not in SIZED:
        return UsageError(f"Student '{name}' has one size: leave --width out, or take {' or '.join(SIZED)}.")
    return None


__all__ = ["build_student", "build_teacher", "check_names", "fetched_weights", "recognised", "sized"]
