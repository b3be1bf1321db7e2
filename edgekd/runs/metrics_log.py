"""`metrics.csv`: what every epoch of every stage came to."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgekd.files.whole import write_text
from edgekd.losses.terms import TERMS


def columns() -> list[str]:
    """The columns of the file: those of every stage, and of each loss term its value and its weight."""
    terms = [*TERMS, *(f"weight_{term}" for term in TERMS)]
    return ["stage", "epoch", "seconds", "learning_rate", "total", *terms, "validation_loss", "validation_accuracy"]


class MetricsLog:
    """`metrics.csv`: a row an epoch of every stage, rewritten whole (it is small) at each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with open(path, newline="") as file:
                self.rows = list(csv.DictReader(file))

    def append(self, stage: str, epoch: int, **figures: float) -> None:
        row = {"stage": stage, "epoch": str(epoch)}
        row.update({name: f"{value:.6g}" for name, value in figures.items()})
        self.rows.append(row)
        self._write()

    def truncate(self, stage: str, epoch: int) -> None:
        """Forget rows of `stage` after `epoch`: a resumed stage writes them again."""
        self.rows = [row for row in self.rows if row["stage"] != stage or int(row["epoch"]) <= epoch]
        self._write()

    def last_epoch(self, stage: str) -> int:
        return max((int(row["epoch"]) for row in self.rows if row["stage"] == stage), default=0)

    def best_accuracy(self, stage: str) -> float | None:
        """The best validation accuracy of a stage, that of the checkpoint it kept; None where it has no rows."""
        found = [float(row["validation_accuracy"]) for row in self.rows if row["stage"] == stage]
        return max(found, default=None)

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns(), restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
