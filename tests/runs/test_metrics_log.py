"""`metrics.csv`: written whole at each epoch, read back by whoever opens the run next."""

from __future__ import annotations

import csv
from pathlib import Path

from edgekd.runs.metrics_log import MetricsLog, columns
from edgekd.task import SINGLE


def test_metrics_are_rows_of_the_known_columns(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv")
    log.append("teacher", 1, total=0.123456789, validation_accuracy=1.0)
    log.append("student", 1, total=2.0)
    log.append("student", 2, total=1.0)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns()
    assert [(row["stage"], row["epoch"], row["total"]) for row in rows] == [
        ("teacher", "1", "0.123457"),
        ("student", "1", "2"),
        ("student", "2", "1"),
    ]
    assert rows[1]["validation_accuracy"] == ""
    again = MetricsLog(tmp_path / "metrics.csv")
    assert (again.last_epoch("student"), again.last_epoch("teacher"), again.last_epoch("int8")) == (2, 1, 0)


def test_truncating_forgets_later_epochs_of_one_stage_on_disk_too(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv")
    for stage in ("teacher", "student"):
        for epoch in (1, 2, 3):
            log.append(stage, epoch, total=1.0)
    log.truncate("student", 1)
    again = MetricsLog(tmp_path / "metrics.csv")
    assert (again.last_epoch("teacher"), again.last_epoch("student")) == (3, 1)
    assert len(again.rows) == 4


def test_the_best_measure_is_that_of_one_stage_and_none_before_it_has_a_row(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv")
    for accuracy in (0.5, 0.75, 0.25):
        log.append("student", 1, validation_accuracy=accuracy)
    log.append("teacher", 1, validation_accuracy=0.875)
    assert (log.best("student", SINGLE), log.best("int8", SINGLE)) == (0.75, None)


def test_a_row_without_an_accuracy_has_no_best_one(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv")
    log.append("student", 1, total=1.0)
    assert log.best("student", SINGLE) is None
    log.append("student", 2, validation_accuracy=0.5)
    assert MetricsLog(tmp_path / "metrics.csv").best("student", SINGLE) == 0.5
