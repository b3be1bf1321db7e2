"""Runs on a device that is not there end as on a CPU: no tensor is made or left on the wrong one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd.runs.metrics_log import read_metrics
from tests.training import on_elsewhere

ROOT = Path(__file__).parents[2]


def there(work: str, out: Path, recordings: Path) -> list[dict[str, str]]:
    """The metrics of a run elsewhere."""
    command = [
        sys.executable,
        "-m",
        "tests.elsewhere",
        f"tests.training.on_elsewhere:{work}",
        str(out),
        str(recordings),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_metrics(out / "metrics.csv")


def test_a_run_elsewhere_is_that_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recordings = tmp_path / "recordings"
    found = there("short", tmp_path / "there", recordings)
    on_elsewhere.short(torch.device("cpu"), tmp_path / "here", recordings)
    expected = read_metrics(tmp_path / "here" / "metrics.csv")
    assert [row["stage"] for row in found] == [row["stage"] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for column in ("total", "structural", "statistical", "distillation", "validation_loss"):
            if theirs[column]:  # sums are taken in another order, and steps magnify that
                assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=5e-3), column


@pytest.mark.slow
def test_int8_elsewhere(tmp_path: Path) -> None:
    rows = there("chain", tmp_path / "there", tmp_path / "recordings")
    assert [row["stage"] for row in rows] == ["teacher", "student", "student"]  # int8 was calibrated last
    assert (tmp_path / "there" / "int8-sensitivity.json").is_file()
