"""`predictions.csv`: what each subject of a run said of each test clip, for whoever wants to count otherwise, as it was
trained, before any temperature.

    subject,row,path,start,group,class,predicted,p_<class>...

`subject` is teacher, student or int8; `row` counts the clips of `splits.csv` from 0; `start` is in samples of the file.
Where clips may be of several classes, `class` and `predicted` name them all, parted by `;`, or are `none`.
Probabilities are written with the nine digits that give back the same float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.index import NOTHING, ClipIndex
from edgekd.errors import InputError, shown
from edgekd.escaping import csv_text, from_csv_text
from edgekd.files.tables import read_csv, write_csv
from edgekd.task import SINGLE, THRESHOLD, Task, task_of

FILE = "predictions.csv"
VALIDATION = "validation.csv"  # the same of the validation side, in the folder of a stage
COLUMNS = ("subject", "row", "path", "start", "group", "class", "predicted")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one subject said: `rows (N,)` of the index, the clips' `groups`, true `labels (N,)`, `probabilities (N, K)`.

    Where clips may be of several classes, `labels (N, K)` are 1 for each that a clip is of. A class is answered from
    its `thresholds (K,)` on; None: from `edgekd.task.THRESHOLD`.
    """

    rows: tuple[int, ...]
    groups: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]

    thresholds: npt.NDArray[np.float64] | None = None

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return task_of(self.labels)

    @property
    def predicted(self) -> npt.NDArray[Any]:
        """The class of each clip `(N,)`, or whether it is of each `(N, K)`."""
        if self.task.several:
            return answered(self.probabilities, self.thresholds)
        return self.probabilities.argmax(axis=1)


def answered(
    probabilities: npt.NDArray[np.floating], thresholds: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.bool_]:
    """Which classes are said to be there, `(N, K)`: those whose probability reaches their threshold `(K,)`."""
    return probabilities >= (THRESHOLD if thresholds is None else thresholds)


def write_predictions(
    folder: Path,
    subject: str,
    index: ClipIndex,
    rows: Sequence[int],
    probabilities: npt.NDArray[np.float32],
    file: str = FILE,
) -> None:
    """Put what `subject` says of `rows`, `probabilities (N, K)`, into the file in `folder`, in place of what it said
    before."""
    path = folder / file
    header = [*COLUMNS, *(f"p_{name}" for name in index.classes)]
    kept = [line for line in _read(path, header) if line[0] != subject] if path.is_file() else []
    lines = [[*map(csv_text, line)] for line in (header, *kept)]
    for row, shares in zip(rows, probabilities, strict=True):
        clip = index.clips[row]
        said = index.classes[int(shares.argmax())]
        if index.task.several:
            said = ";".join(index.classes[k] for k in np.flatnonzero(answered(shares))) or NOTHING
        told = (subject, str(row), index.name(clip), str(clip.start), clip.group, index.label_names[clip.label], said)
        lines.append([*map(csv_text, told), *(f"{share:.9g}" for share in shares)])
    write_csv(path, lines)


def read_predictions(
    folder: Path, subject: str, classes: Sequence[str], task: Task = SINGLE, file: str = FILE
) -> Predictions:
    """What `subject` said of clips whose labels are those of `task`. Raises `InputError` where the file is missing,
    damaged, or does not know the subject."""
    path = folder / file
    lines = [line for line in _read(path, [*COLUMNS, *(f"p_{name}" for name in classes)]) if line[0] == subject]
    if not lines:
        raise InputError(f"{path}: nothing of the {subject} in it.")
    try:
        said = Predictions(
            rows=tuple(int(line[1]) for line in lines),
            groups=tuple(line[4] for line in lines),
            labels=np.array([_label(line[5], list(classes), task) for line in lines], dtype=np.int64),
            probabilities=np.array([line[len(COLUMNS) :] for line in lines]).astype(np.float32),
        )
        if min(said.rows) < 0 or len(set(said.rows)) < len(said.rows):
            raise ValueError(f"rows of the {subject} are below 0, or there twice")
        if not ((said.probabilities >= 0) & (said.probabilities <= 1.0001)).all():  # NaN is neither
            raise ValueError(f"probabilities of the {subject} are not from 0 to 1")
    except ValueError as failure:
        raise InputError(f"{path}: damaged: {shown(str(failure))}. Make the run anew (--overwrite).") from None
    return said


def _label(text: str, classes: list[str], task: Task) -> int | list[int]:
    """What `class` says: a class, or for each whether the clip is of it. Raises `ValueError` for another."""
    if not task.several:
        return classes.index(text)
    members = [classes.index(name) for name in text.split(";")] if text != NOTHING else []
    return [int(k in members) for k in range(len(classes))]


def _read(path: Path, header: Sequence[str]) -> list[list[str]]:
    found, *lines = [[*map(from_csv_text, line)] for line in read_csv(path)]
    short = next((number for number, line in enumerate(lines, 2) if len(line) != len(header)), None)
    if found != list(header) or short is not None:
        place = f", line {short}" if short is not None and found == list(header) else ""
        raise InputError(f"{path}{place}: not the columns {', '.join(header)}.")
    return lines
