"""What the study has found: what every finished cell said of its test clips, and what follows from all of them.

    study.json    {"version", "classes", "parts": {fold: groups, labels}, "cells": {name: what it said}, "failed"}

A cell is known by its name and a digest of its settings and clips. The file is written whole after every cell, so it is
all that has to be carried from one machine to the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from edgekd.errors import InputError
from edgekd.experiments.plan import Cell
from edgekd.files.whole import write_text
from edgekd.number_formats import percent
from edgekd.runs.predictions import Predictions, read_predictions
from edgekd.runs.run import Run
from edgekd.scoring.differences import Difference, Trial, difference
from tests.benchmarks.gpu.study_plan import Study, in_order
from tests.benchmarks.measure import table

FILE = "study.json"
VERSION = 1
SUBJECTS = ("teacher", "student", "int8")


class Findings:
    """The file of a study in `folder`, and what it holds for `cells`; cells of other settings are left alone."""

    def __init__(self, folder: Path, study: Study, cells: Sequence[Cell]) -> None:
        self._path, self._study = folder / FILE, study
        self.cells = {cell.name: cell for cell in cells}
        self._digests = {cell.name: study.digest(cell) for cell in cells}
        self._held: dict[str, Any] = {"version": VERSION, "classes": list(study.index.classes)}
        self._held |= {"parts": {}, "cells": {}, "failed": {}}
        if self._path.is_file():
            self._held |= _read(self._path)

    @property
    def done(self) -> dict[str, Any]:
        """What is known of the cells that are finished, by name."""
        found = {name: self._held["cells"].get(name) for name in self.cells}
        return {name: held for name, held in found.items() if held and held["settings"] == self._digests[name]}

    @property
    def failed(self) -> dict[str, str]:
        """Why cells failed when they were last tried, by name."""
        return {name: line for name, line in self._held["failed"].items() if name in self.cells}

    def add(self, cell: Cell, seconds: float | None) -> None:
        """Take up what the run of a finished cell says, which took `seconds` where that is known."""
        run = Run.open(cell.config.out)
        tests = run.report()["test"]
        said = {subject: read_predictions(run.folder, subject, run.classes) for subject in SUBJECTS if subject in tests}
        student = said["student"]
        part = {"groups": list(student.groups), "labels": student.labels.tolist()}
        if self._held["parts"].setdefault(cell.part, part) != part:
            raise InputError(f"{self._path}: {cell.part} has other clips there than here. Name another folder.")
        self._held["cells"][cell.name] = {
            "settings": self._digests[cell.name],
            "device": cell.config.device,
            "seconds": seconds and round(seconds, 1),
            **{subject: {"said": each.predicted.tolist()} for subject, each in said.items()},
        }
        self._held["failed"].pop(cell.name, None)
        self._write()

    def fail(self, cell: Cell, line: str) -> None:
        """Note that a cell failed, and why."""
        self._held["failed"][cell.name] = line
        self._write()

    def seconds(self) -> dict[str, float]:
        """What the last cell of each method took, where that is known of the device of this study."""
        device = self._study.config.device
        known = {name: held for name, held in self.done.items() if held["seconds"] and held["device"] == device}
        return {self.cells[name].method: held["seconds"] for name, held in known.items()}

    def predictions(self, method: str, subject: str) -> dict[Trial, Predictions]:
        """What the `subject` of a method said of each fold with each seed."""
        found = {}
        for name, held in self.done.items():
            cell = self.cells[name]
            if cell.method == method and subject in held:
                found[cell.part, cell.seed] = self._said(cell.part, held[subject]["said"])
        return found

    def summary(self) -> dict[str, Any]:
        """The rows of the table, those of a student together, and how much of the study is done."""
        methods = in_order(list(dict.fromkeys(cell.method for cell in self.cells.values())), self._study.ranks)
        with ThreadPoolExecutor() as threads:  # thousands of resamples a figure
            rows = [row for row in threads.map(self._row, methods) if row is not None]
        done = self.done
        return {
            "cells": len(done),
            "planned": len(self.cells),
            "rows": rows,
            "teachers": [*self._teachers(methods)],
            "failed": self.failed,
        }

    def _row(self, method: str) -> dict[str, Any] | None:
        ours, int8 = self.predictions(method, "student"), self.predictions(method, "int8")
        if not ours:
            return None
        reference = self._study.references[method]
        rival = None if reference == method else self._difference(ours, self.predictions(reference, "student"))
        student, _, way = method.rpartition(".")
        return {
            "student": student,
            "method": way,
            "reference": reference,
            **self._counted(ours),
            "accuracy": self._accuracy(ours),
            "int8_accuracy": _mean(int8),
            "difference": rival and rival.to_dict(),
            "int8_difference": (paired := self._difference(int8, ours)) and paired.to_dict(),
        }

    def _teachers(self, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The teachers, one for all methods that say the same of how it is adapted and at what rate."""
        kinds: dict[str, dict[Trial, Predictions]] = {}
        for method in methods:
            first = next(cell for cell in self.cells.values() if cell.method == method)
            teacher = first.config.teacher
            rate = first.config.data.sample_rate
            kind = f"{teacher.name} ({'trained whole' if teacher.adaptation == 'full' else 'new head'}), {rate} Hz"
            kinds.setdefault(kind, {}).update(self.predictions(method, "teacher"))
        for kind, said in kinds.items():
            if said:
                yield {"teacher": kind, **self._counted(said), "accuracy": self._accuracy(said)}

    @staticmethod
    def _counted(said: Mapping[Trial, Predictions]) -> dict[str, int]:
        return {"cells": len(said), "folds": len({part for part, _ in said}), "seeds": len({seed for _, seed in said})}

    def _difference(self, ours: Mapping[Trial, Predictions], theirs: Mapping[Trial, Predictions]) -> Difference | None:
        return difference(ours, theirs, len(self._study.index.classes))

    def _accuracy(self, said: Mapping[Trial, Predictions]) -> dict[str, Any] | None:
        """The mean over cells, and its interval over recordings and runs: that of the difference to a method that is
        never right."""
        classes = len(self._study.index.classes)
        wrong = {
            trial: Predictions(each.rows, each.groups, each.labels, _certain((each.labels + 1) % classes, classes))
            for trial, each in said.items()
        }
        found = self._difference(said, wrong)
        return found and {"mean": found.accuracy, "interval": list(found.accuracy_interval)}

    def _said(self, part: str, said: Sequence[int]) -> Predictions:
        held = self._held["parts"][part]
        probabilities = _certain(np.array(said), len(self._study.index.classes))
        return Predictions(tuple(range(len(said))), tuple(held["groups"]), np.array(held["labels"]), probabilities)

    def _write(self) -> None:
        write_text(self._path, json.dumps(self._held) + "\n")


def show(summary: Mapping[str, Any]) -> Iterator[str]:
    """The table, line by line: accuracies in per cent, differences in points, 95 % intervals."""
    yield f"{summary['cells']} of {summary['planned']} cells"
    if summary["rows"]:
        head = [
            "student",
            "method",
            "cells",
            "folds",
            "seeds",
            "accuracy",
            "int8",
            "int8 less float",
            "less",
            "that of",
        ]
        yield table(head, [_line(row) for row in summary["rows"]])
    for row in summary["teachers"]:
        yield f"teacher {row['teacher']}, {row['cells']} of {row['folds']} folds: {_share(row['accuracy'])}"
    for name, line in summary["failed"].items():
        yield f"failed: {name}: {line}"


def _line(row: Mapping[str, Any]) -> list[str]:
    int8 = "-" if row["int8_accuracy"] is None else percent(row["int8_accuracy"])
    figures = [_share(row["accuracy"]), int8, _gap(row["int8_difference"])]
    rival = [_gap(row["difference"]), row["reference"]] if row["difference"] else ["-", ""]
    return [row["student"], row["method"], *map(str, (row["cells"], row["folds"], row["seeds"])), *figures, *rival]


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval"]
    return f"{percent(found['mean'])} ({100 * low:.1f}-{100 * high:.1f})"


def _gap(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["accuracy_interval"]
    return f"{100 * found['accuracy']:+.1f} ({100 * low:+.1f}, {100 * high:+.1f})"


def _mean(said: Mapping[Trial, Predictions]) -> float | None:
    shares = [float((each.predicted == each.labels).mean()) for each in said.values()]
    return fmean(shares) if shares else None


def _certain(said: Any, classes: int) -> Any:
    return np.eye(classes, dtype=np.float32)[said]


def _read(path: Path) -> dict[str, Any]:
    """What an earlier call left. Raises `InputError` where it is none of ours."""
    try:
        held = json.loads(path.read_text())
        if held["version"] == VERSION and all(isinstance(held[key], dict) for key in ("parts", "cells", "failed")):
            return held
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"{path}: not the file of a study, or of another version. Name another folder.")
