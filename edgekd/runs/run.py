"""The run folder: everything a run leaves on disk, and how it is read back.

    config.toml       the resolved configuration            metrics.csv    a row an epoch
    environment.json  versions, device, seed, git revision  report.json    test scores, times of training
    classes.json      class names in label order            curves.png, confusion.png
    splits.csv        every clip, its group and side        predictions.csv  what was said of each test clip
    unlabelled.csv    clips without labels, and which are dropped, where there are any
    teacher/ student/ int8/   best.safetensors, and last.pt while the stage can be resumed
    profile/          what `edgekd profile` found

Every file is written to a temporary name and renamed, so a run killed at any moment leaves a folder that `--resume`
can use. A new run is begun beside its folder (`files.folders`) and renamed once it can be resumed; one that is to
replace another stays there until its student stands, and the other stays where it is. In an empty folder that was there
before, which may be a disk of its own, a run is begun with the file `.edgekd-begins` in it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from edgekd import __version__, own_code
from edgekd.config import DistillConfig, differences, parse
from edgekd.errors import InputError, UsageError, shown
from edgekd.files import folders
from edgekd.files.locks import SUFFIX as LOCK
from edgekd.files.whole import NotWrittenError, is_partial, write_json, write_text
from edgekd.json_files import read_json
from edgekd.progress import Progress, silent
from edgekd.runs.metrics_log import MetricsLog
from edgekd.runs.run_report import REPORT_VERSION, read_report
from edgekd.task import Task
from edgekd.toml_files import read_toml, to_toml

if TYPE_CHECKING:
    from edgekd.data.index import ClipIndex, Split
    from edgekd.models.students.student import Student
    from edgekd.models.teachers.base import Teacher
    from edgekd.runs.data import RunData, UnlabelledClips

Stage = Literal["pretrain", "teacher", "student", "int8"]

# Where a run is, what it keeps and how it is computed: another value makes no other run of it.
SAME_RUN = ("out", "teacher.cache", "training.compile")
BEGINS = ".edgekd-begins"


@dataclass(frozen=True)
class Run:
    """A run folder, and the configuration and classes read from it."""

    folder: Path
    config: DistillConfig
    classes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, *, trust: Sequence[str] = ()) -> Run:
        """Read a run folder. `trust`: code of your own that it may import later, `[FOLDER/]package.module:factory` (see
        `edgekd.own_code`); to read it imports none. Raises `InputError` where there is none."""
        own_code.trust(trust)
        folders.put_back(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such run folder. 'edgekd distill --out {folder}' makes one.")
        if (folder / BEGINS).is_file():
            raise InputError(f"{folder}: a run that was killed as it began. Start it again with the same command.")
        config_file, classes_file = folder / "config.toml", folder / "classes.json"
        if not config_file.is_file() or not classes_file.is_file():
            missing = config_file.name if not config_file.is_file() else classes_file.name
            raise InputError(f"{folder}: not a run folder of 'edgekd distill' (no {missing} in it).")
        try:
            config = parse(DistillConfig, read_toml(config_file), str(config_file))
        except UsageError as failure:  # nobody's wrong setting now: the run is damaged
            raise InputError(str(failure)) from None
        return cls(folder, config.model_copy(update={"out": folder}), _read_classes(classes_file))

    @classmethod
    def create(cls, config: DistillConfig, classes: tuple[str, ...], device: str) -> Run:
        """A new run for `config` in its place, instead of what is there."""
        with cls.beginning(config, classes, device) as run:
            return run.begun().take_place()

    @classmethod
    @contextmanager
    def beginning(
        cls, config: DistillConfig, classes: tuple[str, ...], device: str, *, resume: bool = False
    ) -> Iterator[Run]:
        """Start a run for `config` (see `check_folder`), or go on with the one that is there.

        The caller has the lock of `config.out`, and calls `begun` within when everything is there that a resume needs.
        Raises `InputError` where it cannot be written; nothing is then left of a new one.
        """
        out, folder = config.out, None
        try:
            folder = cls._folder_to_begin(config, resume)
            write_text(folder / "config.toml", to_toml(config.model_dump(mode="json", exclude={"out"})))
            write_json(folder / "classes.json", list(classes))
            write_json(folder / "environment.json", _environment(config.seed, device))
            yield cls(folder, config, classes)
        except (NotWrittenError, OSError) as failure:
            if resume:
                raise
            if folder is not None and folder != out:
                folders.remove(folder)
            reason = failure.reason if isinstance(failure, NotWrittenError) else str(failure.strerror or failure)
            raise InputError(f"{out}: no run could be begun: {reason}. Make room, or name another (--out).") from None

    @staticmethod
    def _folder_to_begin(config: DistillConfig, resume: bool) -> Path:
        out = config.out
        if resume:
            folder = to_resume(out)
            folders.tidy(folder)
        elif out.is_dir() and _is_scrap(out, config):
            folder = out
            folders.tidy(folder)
            (folder / BEGINS).touch()
        else:
            folder = folders.begin(out)
        return folder

    def begun(self) -> Run:
        """Have the run be one that can be resumed: in its place, unless another is there that it is to replace."""
        if self.folder == self.config.out:
            (self.folder / BEGINS).unlink(missing_ok=True)
            return self
        return self if self.config.out.exists() else self.take_place()

    def take_place(self) -> Run:
        """The run in the folder that it is for; what was there is deleted, and was whole until then."""
        if self.folder == self.config.out:
            return self
        folders.install(self.folder, self.config.out, replace=True)
        return replace(self, folder=self.config.out)

    @property
    def task(self) -> Task:
        """What its classes are to each other."""
        return self.config.data.task

    def require_student(self) -> None:
        """Raise `InputError` unless the float student is finished."""
        if "student" in self.report().get("test", {}):
            return
        if "classification" not in self.config.loss.terms:
            raise InputError(
                f"{self.folder}: a pre-training, whose student has no classes. Give it some first: edgekd distill "
                f"--student-weights {self.folder / 'student.safetensors'}"
            )
        done = self.metrics().last_epoch("student")
        where = f"after epoch {done} of {self.config.training.epochs} of the student" if done else "before the student"
        raise InputError(
            f"{self.folder}: this run is at work or was interrupted, {where}. Wait for it, or finish it: "
            f"edgekd distill --out {quote(str(self.folder))} --resume{trust_flags(self.config)}"
        )

    def stage_folder(self, stage: str) -> Path:
        """`teacher/`, `student/` or `int8/`, made where it is missing."""
        folder = self.folder / stage
        folder.mkdir(exist_ok=True)
        return folder

    def metrics(self) -> MetricsLog:
        return MetricsLog(self.folder / "metrics.csv")

    def report(self) -> dict[str, Any]:
        """The contents of `report.json`; `{"version": 1}` before anything was reported."""
        path = self.folder / "report.json"
        return read_report(path) if path.exists() else {"version": REPORT_VERSION}

    def update_report(self, section: str, values: Mapping[str, Any]) -> None:
        """Merge `values` into one section (`test`, `training`) of `report.json`."""
        report = self.report()
        report[section] = {**report.get(section, {}), **values}
        write_json(self.folder / "report.json", report)

    def warn(self, words: str, section: Literal["warnings", "notes"] = "warnings") -> None:
        """Add a line to a section of `report.json`, once; `notes` are of what is as it should be."""
        report = self.report()
        if words not in (lines := report.get(section, [])):
            write_json(self.folder / "report.json", {**report, section: [*lines, words]})

    def forget(self, section: str, entry: str | None = None) -> None:
        """Take a section, or one entry of it, out of `report.json`, before what it tells of is made anew."""
        report = self.report()
        told = report.pop(section, None) if entry is None else report.get(section, {}).pop(entry, None)
        if told is not None:
            write_json(self.folder / "report.json", report)

    def open_data(self, progress: Progress = silent, *, unlabelled: bool = False) -> RunData:
        """The data of the run, read again: its clips, the sides recorded in `splits.csv`, and the cached samples; with
        `unlabelled` also what it has without labels.

        Several processes open it together. Raises `InputError` where it has moved or changed its classes.
        """
        from edgekd import processes
        from edgekd.data.load import load_index
        from edgekd.data.splits import read_splits
        from edgekd.runs.data import RunData, open_clips

        def read() -> tuple[ClipIndex, Split]:
            index = load_index(self.config.data.model_copy(update={"labels": self.task.labels}), progress)
            if index.classes != self.classes:
                raise InputError(
                    f"{self.folder}: the data at {index.root} now has classes {', '.join(index.classes)}; "
                    f"the run was trained on {', '.join(self.classes)}."
                )
            return index, read_splits(self.folder / "splits.csv", index)

        index, split = processes.from_first(read)
        beside = self.open_unlabelled(progress) if unlabelled else None
        return RunData(index, split, open_clips(index, self.config.data, progress), beside)

    def open_unlabelled(self, progress: Progress = silent) -> UnlabelledClips | None:
        """The clips without labels of the run that may teach; None where it has none. As `open_data` otherwise."""
        from edgekd import processes
        from edgekd.data.unlabelled import load_unlabelled
        from edgekd.runs.data import UnlabelledClips, open_clips
        from edgekd.runs.unlabelled import FILE, read_unlabelled

        if not self.config.data.unlabelled:
            return None

        def read() -> tuple[ClipIndex, tuple[int, ...]]:
            index = load_unlabelled(self.config.data, progress)
            return index, read_unlabelled(self.folder / FILE, index)

        index, rows = processes.from_first(read)
        return UnlabelledClips(index, rows, open_clips(index, self.config.data, progress))

    def weights(self, stage: Stage) -> Path:
        """Where the best weights of a stage are, once there are any."""
        return self.folder / stage / "best.safetensors"

    def finished(self, stage: Stage) -> bool:
        """Whether a stage has come to its end: its weights are the ones to use."""
        section = "training" if stage == "teacher" else "test"  # a teacher is done when adapted, a student when scored
        return stage in self.report().get(section, {}) and self.weights(stage).is_file()

    def classifies(self, stage: Stage) -> bool:
        """Whether what a stage trained has a score to be had: a teacher without a head for the classes has none."""
        return self.report().get("training", {}).get(stage, {}).get("scored") is not False

    def new_student(self) -> Student:
        """The student of the configuration with weights drawn now, on the CPU."""
        from edgekd.models.build import new_student

        return new_student(self.config, len(self.classes))

    def student(self) -> Student:
        """The float student with its best weights, in eval mode, on the CPU."""
        from edgekd.models.weights import load_matching, read_weights

        self.require_student()
        student, path = self.new_student(), self.weights("student")
        load_matching(student, read_weights(path), path)
        return student.eval()

    def teacher(self) -> Teacher | None:
        """The adapted teacher in eval mode, on the CPU; None for a run that had none."""
        from edgekd.models.build import stored_teacher

        path = self.weights("teacher")
        return stored_teacher(self.config, len(self.classes), path).eval() if path.is_file() else None


def trust_flags(config: DistillConfig, *, taught: bool = True) -> str:
    """What a command needs that is to import the student of `config` and, where it is `taught`, its teachers, as far as
    they are code of the user's own: ` --trust ...`, or nothing."""
    from edgekd.losses.terms import needs_teacher

    models = [(config.student, config.student_folder)]
    if taught and needs_teacher(config.loss.terms):
        models += [(each.name, each.folder) for each in config.teacher.members()]
    return own_code.trust_flags(models)


def check_folder(config: DistillConfig, resume: bool, overwrite: bool) -> None:
    """Make sure that `config.out` may be written to; nothing is changed yet.

    Raises `UsageError` for an existing folder unless it is to be resumed (by the same configuration) or overwritten,
    and for a resume that would change the configuration of the run.
    """
    folder = config.out
    replaces = to_resume(folder) != folder if resume else overwrite
    if replaces and folder.exists() and folders.is_here(folder):
        raise UsageError(f"{folder} is where you are, and is to be replaced. Go to another folder (cd) first.")
    if resume:
        changed = changes(Run.open(to_resume(folder)).config, config)
        if changed:
            raise UsageError(
                f"{folder}: --resume goes on with the settings of the run, but these differ: {', '.join(changed)}. "
                "Leave them out (options, EDGEKD_* variables), or start another run."
            )
    elif folder.exists() and not (folder.is_dir() and _is_scrap(folder, config)):
        if not overwrite:
            raise UsageError(
                f"{folder} exists already. Go on with it (--resume), replace it (--overwrite) or name another (--out)."
            )
        if not (folder / "config.toml").is_file():
            raise UsageError(f"{folder} is not a run folder, so it is not overwritten. Name another (--out).")
        if os.path.ismount(folder):
            raise UsageError(f"{folder} is a disk of its own and cannot be replaced. Name a folder on it (--out).")


def to_resume(out: Path) -> Path:
    """Where the run is that `--resume` of `out` goes on with: the one that was to replace it, if that was begun."""
    new = folders.unfinished(out)
    return new if new is not None and is_begun(new) else out


def is_begun(folder: Path) -> bool:
    """Whether there is a run folder that can be opened."""
    return (
        all((folder / name).is_file() for name in ("config.toml", "classes.json")) and not (folder / BEGINS).is_file()
    )


def run_of(config: DistillConfig) -> Run | None:
    """The run in `config.out`, if there is one and it was made with these settings."""
    folders.put_back(config.out)
    return _run_of(config, config.out)


def can_go_on(config: DistillConfig) -> bool:
    """Whether there is a run of these settings for `--resume` to go on with."""
    return _run_of(config, to_resume(config.out)) is not None


def _run_of(config: DistillConfig, folder: Path) -> Run | None:
    run = Run.open(folder) if is_begun(folder) else None
    return run if run is not None and not changes(run.config, config) else None


def changes(stored: DistillConfig, wanted: DistillConfig) -> list[str]:
    """The settings in which `wanted` is another run than `stored`."""
    unsaid = wanted.data.labels is None or wanted.data.task == stored.data.task  # then it was found out of the data
    ignored = (*SAME_RUN, "data.labels") if unsaid else SAME_RUN
    return differences(stored.model_dump(mode="json"), wanted.model_dump(mode="json"), ignored)


def _is_scrap(folder: Path, config: DistillConfig) -> bool:
    """Whether an existing folder is empty but for what a run of `config` has left that was killed as it began."""
    names = {path.name for path in folder.iterdir() if not is_partial(path.name)} - {LOCK}
    if names == {"config.toml"}:  # which older versions wrote first; anybody else's is not ours to write over
        with suppress(UsageError, InputError):
            stored = parse(DistillConfig, read_toml(folder / "config.toml"), "config.toml")
            return not changes(stored, config)
    return BEGINS in names or not names


def _read_classes(path: Path) -> tuple[str, ...]:
    advice = "The run is damaged: restore the file, or make the run anew (--overwrite)."
    names = read_json(path, advice)
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{path}: {shown(names)}: a list of the names of classes is wanted. {advice}")
    if len(set(names)) < len(names):
        raise InputError(f"{path}: {shown(names)}: a class is named twice. {advice}")
    return tuple(names)


def _environment(seed: int, device: str) -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("torch", "torchaudio", "numpy", "onnx", "onnxruntime")
    return {
        "edgekd": __version__,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "device": device,
        "seed": seed,
        "command": sys.argv,
    }


def _git_revision() -> str | None:
    """The revision of the checkout that edgekd runs from; None where it is installed from a wheel."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
