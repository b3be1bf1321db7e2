"""`metrics.csv`: what every epoch of every stage came to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import InputError, shown
from edgekd.files.tables import read_csv, write_csv
from edgekd.losses.terms import TERMS
from edgekd.task import MULTI, SINGLE, Task

SHARES = tuple(task.column for task in (SINGLE, MULTI))


def columns() -> list[str]:
    """The columns of the file: those of every stage, and of each loss term its value and its weight."""
    terms = [*TERMS, *(f"weight_{term}" for term in TERMS)]
    return ["stage", "epoch", "seconds", "learning_rate", "total", *terms, "validation_loss", "validation_accuracy"]


class MetricsLog:
    """`metrics.csv`: a row an epoch of every stage, rewritten whole (it is small) at each epoch."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` where there is such a file, and it is damaged."""
        self.path = path
        self.rows: list[dict[str, str]] = read_metrics(path) if path.exists() else []

    def append(self, stage: str, epoch: int, **figures: float) -> None:
        row = {"stage": stage, "epoch": str(epoch)}
        row.update({name: f"{value:.6g}" for name, value in figures.items()})
        self.rows.append(row)
        self._write()

    def truncate(self, stage: str, epoch: int) -> None:
        """Forget rows of `stage` after `epoch`: a resumed stage writes them again."""
        self.rows = [row for row in self.rows if row["stage"] != stage or int(row["epoch"]) <= epoch]
        self._write()

    def take_over(self, stage: str, log: MetricsLog) -> None:
        """Have the rows that `log` has of `stage`, in place of any here."""
        others = [row for row in self.rows if row["stage"] != stage]
        self.rows = others + [row for row in log.rows if row["stage"] == stage]
        self._write()

    def last_epoch(self, stage: str) -> int:
        return max((int(row["epoch"]) for row in self.rows if row["stage"] == stage), default=0)

    def best(self, stage: str, task: Task) -> float | None:
        """The best measure of a stage on the validation side, that of the checkpoint it kept; None where no row has
        one."""
        values = [row.get(task.column) for row in self.rows if row["stage"] == stage]
        found = [float(value) for value in values if value]
        return max(found, default=None)

    def _write(self) -> None:
        others = [name for row in self.rows for name in row]  # of a later version
        header = list(dict.fromkeys([*columns(), *others]))
        write_csv(self.path, [header, *([row.get(name, "") for name in header] for row in self.rows)])


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a `metrics.csv`: `epoch` is a whole number in each, all other columns but `stage` a number or empty.

    Raises `InputError`, with the line, for a file that is damaged.
    """
    header, *lines = read_csv(path)
    advice = "Delete the file, and the run goes on without what it tells of earlier epochs."
    if header == [] and not lines:
        return []
    absent = [name for name in ("stage", "epoch") if name not in header]
    if absent or len(set(header)) < len(header):
        wrong = f"no column {', '.join(absent)}" if absent else "a column is there twice"
        raise InputError(f"{path}: {wrong}. {advice}")
    for number, line in enumerate(lines, 2):
        mistake = _mistake(header, line)
        if mistake is not None:
            raise InputError(f"{path}, line {number}: {mistake}. {advice}")
    return [dict(zip(header, line, strict=True)) for line in lines]


def _mistake(header: Sequence[str], line: Sequence[str]) -> str | None:
    """What is wrong with a line of the table."""
    if len(line) != len(header):
        return f"{len(line)} values for {len(header)} columns"
    for name, value in zip(header, line, strict=True):
        if name == "epoch" and not (value.isascii() and value.isdigit() and len(value) <= 9):
            return f"epoch = {shown(value)}: a whole number of up to nine digits is wanted"
        if name not in ("stage", "epoch") and value and not _is_number(value):
            return f"{name} = {shown(value)}: a number is wanted"
        if name in SHARES and value and not 0 <= float(value) <= 1:
            return f"{name} = {shown(value)}: a share from 0 to 1 is wanted"
    return None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
