"""The result of a comparison: what the finished cells of a grid scored, method by method, and their differences.

The accuracy (or mAP) of a method is the mean over its cells of that on the cell's test side, as is the custom on
ESC-50; so is its macro-F1. Its standard deviation is given over seeds, each the mean of its folds (the "runs" of the
method's paper), and over cells, where folds of different difficulty count too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from edgekd.experiments.grid import has_teacher, is_finished, scores_of
from edgekd.experiments.plan import Cell
from edgekd.experiments.pool import Failure
from edgekd.experiments.unknown import UnknownResult, read_trials, results_of
from edgekd.runs.predictions import Predictions, read_predictions
from edgekd.runs.run import Run
from edgekd.scoring import familiarity
from edgekd.scoring.differences import AnyDifference, Difference, LabelDifference, Trial, difference
from edgekd.task import SINGLE, Task


@dataclass(frozen=True)
class Spread:
    """A figure over cells: mean, and standard deviations over seeds (each the mean of its parts) and over cells.

    Of fewer than two there is none; nor is there one over seeds where they do not have the same parts.
    """

    mean: float
    over_seeds: float | None
    over_cells: float | None


@dataclass(frozen=True)
class MethodResult:
    """One method: its cells that are finished, of those `planned`, and what they scored; shares, not per cent.

    `difference`: to the first method of the comparison, paired over the cells both have. `int8_difference`: int8
    students to the float students they come from.
    """

    method: str
    cells: int
    planned: int
    measure: Spread | None
    macro_f1: Spread | None
    difference: AnyDifference | None
    int8_measure: Spread | None
    int8_macro_f1: Spread | None
    int8_difference: AnyDifference | None


@dataclass(frozen=True)
class CellResult:
    """One cell; figures are None where it is not finished, `error` says why it failed when it was last tried."""

    method: str
    part: str
    seed: int
    run: str
    measure: float | None
    macro_f1: float | None
    int8_measure: float | None
    int8_macro_f1: float | None
    error: str | None = None
    exit_code: int = 0


@dataclass(frozen=True)
class Comparison:
    """What is known of a grid. `teachers`: their results, without a difference; `reference`: the first method;
    `unknown`: how well the shipped students' scores tell classes that were left out."""

    folder: Path
    reference: str
    methods: tuple[MethodResult, ...]
    teachers: tuple[MethodResult, ...]
    cells: tuple[CellResult, ...]
    unknown: tuple[UnknownResult, ...] = ()
    task: Task = SINGLE

    @property
    def failed(self) -> list[CellResult]:
        return [cell for cell in self.cells if cell.error is not None]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        values = {**asdict(self), "folder": str(self.folder)}
        del values["task"]
        for results in ("methods", "teachers", "cells"):
            values[results] = [_named(each, self.task) for each in values[results]]
        return {"version": 2, **values}

    def unknown_rows(self) -> list[dict[str, str | int | float | None]]:
        """A flat row for each method, score and class that was left out; the class is empty where it is all of them."""
        return [
            {
                **{name: getattr(result, name) for name in ("method", "subject", "score", "left_out", "cells")},
                **{
                    f"{figure}{end}": value
                    for figure in ("auroc", "false_alarms", "lost")
                    for end, value in zip(
                        ("", "_low", "_high"),
                        (getattr(result.told, figure), *getattr(result.told, f"{figure}_interval")),
                        strict=True,
                    )
                },
            }
            for result in self.unknown
        ]

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """A flat row a method, then a row a teacher."""
        return [_row(result, self.task) for result in (*self.methods, *self.teachers)]

    def cell_rows(self) -> list[dict[str, str | int | float | None]]:
        """A flat row a cell."""
        return [_named(asdict(cell), self.task) for cell in self.cells]


@dataclass
class Results:
    """The cells of a grid, what is on disk of them (predictions are read once), and what has failed, by cell name."""

    folder: Path
    cells: Sequence[Cell]
    task: Task = SINGLE
    failures: dict[str, Failure] = field(default_factory=dict)
    _read: dict[tuple[Path, str], Predictions] = field(default_factory=dict)
    _told: dict[tuple[str | int, ...], list[UnknownResult]] = field(default_factory=dict)
    _computed: dict[tuple[str | int, ...], AnyDifference | None] = field(default_factory=dict)  # cells are only added

    def comparison(self) -> Comparison:
        """What is known now."""
        methods = list(dict.fromkeys(cell.method for cell in self.cells))
        students = {method: [cell for cell in self.cells if cell.method == method] for method in methods}
        taught: dict[str, dict[Path, Cell]] = {}  # the cells of a teacher, one a folder
        for cell in self.cells:
            if cell.teacher is not None:
                own = cell.teacher.out.name != f"{cell.part}-seed{cell.seed}"
                title = f"teacher of {cell.method}" if own else "teacher"
                taught.setdefault(title, {}).setdefault(cell.teacher.out, cell)
        return Comparison(
            folder=self.folder,
            reference=methods[0],
            methods=tuple(self._method(method, members, students[methods[0]]) for method, members in students.items()),
            teachers=tuple(self._teacher(title, list(members.values())) for title, members in taught.items()),
            cells=tuple(self._cell(cell) for cell in self.cells),
            unknown=tuple(each for method, members in students.items() for each in self._unknown(method, members)),
            task=self.task,
        )

    def _unknown(self, method: str, cells: Sequence[Cell]) -> list[UnknownResult]:
        """Of the students that ship: int8 where there are such."""
        measured = [cell for cell in cells if cell.config.data.leave_out and is_finished(cell, quantize=False)]
        subject = "int8" if any("int8" in _test(cell, "int8") for cell in measured) else "student"
        trials: dict[str, list[dict[familiarity.ScoreName, familiarity.Trial]]] = {}
        for cell in measured:
            found = read_trials(Run.open(cell.config.out), subject)
            if found:
                trials.setdefault(cell.config.data.leave_out[-1], []).append(found)
        key: tuple[str | int, ...] = (method, subject, *(len(members) for members in trials.values()))
        if key not in self._told:
            self._told[key] = results_of(method, subject, trials)
        return self._told[key]

    def _method(self, method: str, cells: Sequence[Cell], reference: Sequence[Cell]) -> MethodResult:
        students, int8 = (self._scores(cells, subject) for subject in ("student", "int8"))
        rival = None
        if cells[0].method != reference[0].method:
            rival = self._difference(cells, "student", reference, "student")
        return MethodResult(
            method=method,
            cells=len(students),
            planned=len(cells),
            measure=_spread(students, self.task.measure),
            macro_f1=_spread(students, "macro_f1"),
            difference=rival,
            int8_measure=_spread(int8, self.task.measure),
            int8_macro_f1=_spread(int8, "macro_f1"),
            int8_difference=self._difference(cells, "int8", cells, "student"),
        )

    def _teacher(self, title: str, cells: Sequence[Cell]) -> MethodResult:
        scores = self._scores(cells, "teacher")
        measure, macro_f1 = _spread(scores, self.task.measure), _spread(scores, "macro_f1")
        done = sum(cell.teacher is not None and has_teacher(cell.teacher) for cell in cells)
        return MethodResult(title, done, len(cells), measure, macro_f1, None, None, None, None)

    def _cell(self, cell: Cell) -> CellResult:
        test, failure = _test(cell, "student"), self.failures.get(cell.name)
        student, int8 = test.get("student", {}), test.get("int8", {})
        return CellResult(
            method=cell.method,
            part=cell.part,
            seed=cell.seed,
            run=str(cell.config.out),
            measure=student.get(self.task.measure),
            macro_f1=student.get("macro_f1"),
            int8_measure=int8.get(self.task.measure),
            int8_macro_f1=int8.get("macro_f1"),
            error=None if failure is None else failure.line,
            exit_code=0 if failure is None else failure.exit_code,
        )

    def _scores(self, cells: Sequence[Cell], subject: str) -> dict[Trial, Mapping[str, float]]:
        """The test scores of `subject` in each cell that has them."""
        tests = {(cell.part, cell.seed): _test(cell, subject) for cell in cells}
        return {trial: test[subject] for trial, test in tests.items() if subject in test}

    def _difference(
        self, first: Sequence[Cell], subject: str, second: Sequence[Cell], other: str
    ) -> AnyDifference | None:
        ours, theirs = self._predictions(first, subject), self._predictions(second, other)
        key = (first[0].method, subject, second[0].method, other, len(ours), len(theirs))
        if key not in self._computed:
            classes = max((each.probabilities.shape[1] for each in ours.values()), default=0)
            self._computed[key] = difference(ours, theirs, classes)
        return self._computed[key]

    def _predictions(self, cells: Sequence[Cell], subject: str) -> dict[Trial, Predictions]:
        predictions = {}
        for cell in cells:
            key = (cell.config.out, subject)
            if subject in _test(cell, subject):
                if key not in self._read:
                    run = Run.open(cell.config.out)
                    self._read[key] = read_predictions(run.folder, subject, run.classes, run.task)
                predictions[cell.part, cell.seed] = self._read[key]
        return predictions


def _test(cell: Cell, subject: str) -> dict[str, Any]:
    """The test scores of a cell, or those of its teacher."""
    config = cell.teacher if subject == "teacher" else cell.config
    return {} if config is None else scores_of(config)


def _spread(scores: Mapping[Trial, Mapping[str, float]], figure: str) -> Spread | None:
    if not scores:
        return None
    values = {trial: float(score[figure]) for trial, score in scores.items()}
    parts: dict[int, set[str]] = {}
    for part, seed in values:
        parts.setdefault(seed, set()).add(part)
    by_seed = [fmean(values[part, seed] for part in sorted(members)) for seed, members in parts.items()]
    same = all(members == next(iter(parts.values())) for members in parts.values())
    return Spread(
        mean=fmean(values.values()),
        over_seeds=stdev(by_seed) if same and len(by_seed) > 1 else None,
        over_cells=stdev(values.values()) if len(values) > 1 else None,
    )


def _named(values: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """`values` with the measure under the name that it has."""
    names = {"measure": task.measure, "int8_measure": f"int8_{task.measure}"}
    return {names.get(key, key): value for key, value in values.items()}


def _row(result: MethodResult, task: Task) -> dict[str, Any]:
    """A result as a flat row; columns of what is not known are there, and empty."""
    row: dict[str, Any] = {"method": result.method, "cells": result.cells, "planned": result.planned}
    for key in ("measure", "macro_f1", "int8_measure", "int8_macro_f1"):
        spread, name = getattr(result, key), key.replace("measure", task.measure)
        row |= {
            name: spread and spread.mean,
            f"{name}_sd_seeds": spread and spread.over_seeds,
            f"{name}_sd_cells": spread and spread.over_cells,
        }
    kind = LabelDifference if task.several else Difference
    for name in ("difference", "int8_difference"):
        paired = getattr(result, name)
        values = dict.fromkeys(column.name for column in fields(kind)) if paired is None else paired.to_dict()
        for column, value in values.items():
            if column.endswith("_interval"):
                low, high = value or (None, None)
                figure = f"{name}_{column.removesuffix('_interval')}"
                row |= {f"{figure}_low": low, f"{figure}_high": high}
            else:
                row[f"{name}_{column}"] = value
    return row
