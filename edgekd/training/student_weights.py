"""A student that begins with weights that it has learned elsewhere: in a pre-training, or in another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.checks.unlabelled_audit import audit_unlabelled
from edgekd.config import DistillConfig
from edgekd.data.clip_store import open_store
from edgekd.data.unlabelled import load_unlabelled
from edgekd.errors import GateError, InputError
from edgekd.models.students.student import Student
from edgekd.models.tracing import classifier_of
from edgekd.models.weights import load_matching, read_weights
from edgekd.progress import Progress
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.runs.unlabelled import FILE, read_unlabelled

WEIGHTS = "student.safetensors"
"""What a pre-training leaves in its folder."""


def load_student_weights(student: Student, path: Path) -> None:
    """Everything but the classifier, which stays as it is. Raises `InputError` for tensors that are missing, unknown or
    of other shapes."""
    classifier = classifier_of(student.network)
    new = () if classifier is None else (f"network.{classifier}.",)
    load_matching(student, read_weights(path), path, ignore_prefixes=new, reinitialised=new)


def origin(path: Path) -> Run | None:
    """The run whose student `path` holds, a pre-training or another; None where there is none beside it."""
    folder = path.parent if path.name == WEIGHTS else path.parent.parent
    return Run.open(folder) if (folder / "config.toml").is_file() else None


def check_student_weights(config: DistillConfig) -> None:
    """Raise `InputError` for `config.student_weights` of another student, width, rate or front end, as far as the run
    beside them tells: the message says what to pass."""
    path = config.student_weights
    if path is None:
        return
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check --student-weights: 'edgekd pretrain' leaves FOLDER/{WEIGHTS}.")
    run = origin(path)
    if run is None:
        return
    theirs, ours = _heard(run.config), _heard(config)
    different = [name for name in theirs if theirs[name] != ours[name]]
    given = {f"frontend.{name}" for name in run.config.frontend.model_dump()}  # the others follow from the rate
    told = [name for name in different if name in given or name in _FLAGS] or different
    if different:
        passed = " ".join(f"{_FLAGS.get(name, f'--set {name}=')}{theirs[name]}" for name in told)
        raise InputError(f"{path}: learned with other settings than this run has. Pass {passed}, or other weights.")


def check_origin(config: DistillConfig, data: RunData, progress: Progress) -> str | None:
    """Raise `GateError` where the student of `config.student_weights` has learned from audio that is on the validation
    or test side of `data`; a line where that cannot be known."""
    path = config.student_weights
    if path is None:
        return None
    run = origin(path)
    if run is None:
        return (
            f"{path}: what this student has learned from before is not known, so nothing says it was not scored here."
        )
    if not run.config.data.unlabelled or not (run.folder / FILE).is_file():
        return None
    heard = run.config.data
    index = load_unlabelled(heard, progress)
    rows = read_unlabelled(run.folder / FILE, index)
    store = open_store(index, heard, progress)
    found = audit_unlabelled(index, store, data.index, data.split, data.store, config.data, progress)
    shared = [each for each in found.shared if any(index.clips[row].group == each.group for row in rows)]
    if shared:
        raise GateError(
            f"{path}: this student has learned from {shared[0].file}, which shares {_WHAT[shared[0].why]} with "
            f"{shared[0].of} on the {shared[0].side} side ({len(shared)} such recordings). Pre-train it with "
            f"--data-dir {data.index.root}, which leaves them out."
        )
    return None


_WHAT = {"audio": "audio", "group": "its group"}
_FLAGS = {"student": "--student ", "width": "--width ", "data.sample_rate": "--sample-rate "}


def _heard(config: DistillConfig) -> dict[str, Any]:
    """The settings that weights depend on, by their names."""
    frontend = {f"frontend.{name}": value for name, value in dict(config.frontend).items() if value is not None}
    return {
        "student": config.student,
        "width": config.width,
        "data.sample_rate": config.data.sample_rate,
        **frontend,
    }
