"""Classes that a run never learned: how well its students' scores tell their clips from those of its own classes.

A run with `data.leave_out` has the clips of its own test side, and of each class that was left out those that would be
on the test side: of the test fold, or of the side that the data set's authors call test, and where there is neither all
of them; none whose recording is on another side. What is said of them is kept in the run folder, `unknown.csv`:

    subject,set,path,start,group,class,softmax,energy,mahalanobis

`set` is validation, which gives each score its threshold, test or unknown. Thresholds and figures are made of it anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd.data.index import ClipIndex
from edgekd.data.load import load_index
from edgekd.errors import InputError
from edgekd.escaping import csv_text, from_csv_text
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.known import KnownScore
from edgekd.exporting.rejection import Outputs, as_it_computes, outputs_on
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.files.tables import read_csv, write_csv
from edgekd.models.students.student import Student
from edgekd.progress import Progress, silent
from edgekd.runs.data import LabelledClips, RunData, open_clips
from edgekd.runs.run import Run
from edgekd.scoring.familiarity import (
    Gaussians,
    ScoreName,
    ToldApart,
    Trial,
    known_threshold,
    told_apart,
)
from edgekd.scoring.intervals import Floats

FILE = "unknown.csv"
SCORES: tuple[ScoreName, ...] = ("softmax", "energy", "mahalanobis")
COLUMNS = ("subject", "set", "path", "start", "group", "class", *SCORES)


@dataclass(frozen=True)
class UnknownResult:
    """How well one score of one method tells `left_out`, or, where that is None, all classes that were left out, each
    in its cells."""

    method: str
    subject: str
    score: ScoreName
    left_out: str | None
    cells: int
    told: ToldApart


def measure_unknown(run: Run, progress: Progress = silent) -> None:
    """Write what each student of a finished `run` says of the classes that it was not taught.

    Raises `InputError` where a class that was left out has no clip to test with.
    """
    data = run.open_data(progress)
    unknown = left_out_clips(run, data, progress)
    lines = []
    for subject in _subjects(run):
        deployable = deployable_of(run, "int8" if subject == "int8" else "fp32")
        student = as_it_computes(deployable, OnnxRuntime.flavour)
        for name, scores, clips, classes in _scored(student, data, unknown, progress):
            for row in range(len(clips)):
                path, start = clips.names[row]
                told = (subject, name, path, str(start), clips.groups[row], classes[clips.labels[row]])
                shown = ["" if each is None else f"{each[row]:.9g}" for each in scores]
                lines.append([*map(csv_text, told), *shown])
    write_csv(run.folder / FILE, [[*COLUMNS], *lines])


def is_measured(run: Run, quantize: bool) -> bool:
    """Whether `measure_unknown` has seen all students that there are to be."""
    path = run.folder / FILE
    if not path.is_file():
        return False
    subjects = {line[0] for line in _lines(path)}
    return "student" in subjects and (not quantize or "int8" in subjects)


def left_out_clips(run: Run, data: RunData, progress: Progress = silent) -> RunData:
    """The clips of the classes that `run` leaves out which may test it."""
    config = run.config.data
    whole = load_index(config.model_copy(update={"leave_out": ()}), progress)
    labels = {whole.classes.index(name) for name in config.leave_out}
    sides = {clip.side for clip in data.index}
    taught = {data.index.clips[row].group for row in (*data.split.train, *data.split.validation)}
    by_fold = config.given_split and sides == {None} and all(clip.fold is not None for clip in data.index)

    def tests(index: ClipIndex) -> list[int]:
        found = []
        for row, clip in enumerate(index):
            apart = clip.side in (None, "test") if config.given_split else True
            apart = apart and (clip.fold == config.fold if by_fold else True)
            if clip.label in labels and apart and clip.group not in taught:
                found.append(row)
        return found

    rows = tests(whole)
    for name in config.leave_out:
        if not any(whole.clips[row].label == whole.classes.index(name) for row in rows):
            raise InputError(
                f"{whole.root}: class '{name}' has no clip to test with: all are of recordings, folds or sides that "
                f"{run.folder} was trained on. Leave out another."
            )
    alone = replace(whole, clips=tuple(whole.clips[row] for row in rows))
    places = tuple(range(len(alone)))
    return RunData(
        alone, replace(data.split, train=(), validation=(), test=places), open_clips(alone, config, progress)
    )


def _subjects(run: Run) -> list[str]:
    return [stage for stage in ("student", "int8") if stage in run.report().get("test", {})]


def _scored(
    student: Student, data: RunData, unknown: RunData, progress: Progress
) -> list[tuple[str, list[Floats | None], LabelledClips, tuple[str, ...]]]:
    """Of each set its scores, in the order of `SCORES`, its clips and what their labels are called."""
    train, gaussians = data.side("train"), None
    if student.embedding_layer is not None:
        taught = outputs_on(student, data, train.rows, progress, "unknown: training side").embeddings
        assert taught is not None
        gaussians = Gaussians.fit(taught.numpy(), train.labels, len(data.index.classes))
    sets = {"validation": (data, "validation"), "test": (data, "test"), "unknown": (unknown, "test")}
    found = []
    for name, (source, side) in sets.items():
        clips = source.side("validation" if side == "validation" else "test")
        outputs = outputs_on(student, source, clips.rows, progress, f"unknown: {name}")
        found.append((name, _scores(outputs, gaussians), clips, source.index.classes))
    return found


def _scores(outputs: Outputs, gaussians: Gaussians | None) -> list[Floats | None]:
    probabilities = outputs.logits.softmax(dim=1)
    softmax = probabilities.amax(dim=1).double().numpy()
    energy = KnownScore("energy").of(outputs.logits, probabilities, None).double().numpy()
    if gaussians is None:
        return [softmax, energy, None]
    near = KnownScore("mahalanobis", gaussians).of(outputs.logits, probabilities, outputs.embeddings)
    return [softmax, energy, near.double().numpy()]


def read_trials(run: Run, subject: str) -> dict[ScoreName, Trial]:
    """What one student of `run` said, by score. Raises `InputError` for a damaged file."""
    path = run.folder / FILE
    lines = [line for line in _lines(path) if line[0] == subject]
    trials: dict[ScoreName, Trial] = {}
    try:
        for place, score in enumerate(SCORES, len(COLUMNS) - len(SCORES)):
            sets: dict[str, tuple[Floats, list[str]]] = {}
            for name in ("validation", "test", "unknown"):
                chosen = [line for line in lines if line[1] == name and line[place]]
                sets[name] = np.array([float(line[place]) for line in chosen]), [line[4] for line in chosen]
            if all(len(values) and np.isfinite(values).all() for values, _ in sets.values()):
                (known, groups), (unknown, others) = sets["test"], sets["unknown"]
                trials[score] = Trial(known, groups, unknown, others, known_threshold(sets["validation"][0]))
    except ValueError as failure:
        raise InputError(f"{path}: damaged: {failure}. Delete it, and give the command again.") from None
    return trials


def results_of(
    method: str, subject: str, trials: Mapping[str, Sequence[Mapping[ScoreName, Trial]]]
) -> list[UnknownResult]:
    """Of all `trials` of a method together, then by the class that was left out, each score in turn."""
    found = []
    for left_out in (None, *trials):
        chosen = [each for name, members in trials.items() if left_out in (None, name) for each in members]
        for score in SCORES:
            told = [each[score] for each in chosen if score in each]
            if told:
                found.append(UnknownResult(method, subject, score, left_out, len(told), told_apart(told)))
    return found


def _lines(path: Path) -> list[list[str]]:
    header, *lines = [[*map(from_csv_text, line)] for line in read_csv(path)]
    if tuple(header) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines):
        raise InputError(f"{path}: not the columns {', '.join(COLUMNS)}. Delete it, and give the command again.")
    return lines
