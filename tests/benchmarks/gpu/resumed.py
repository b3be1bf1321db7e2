"""A run that is killed and resumed on the device, against an unbroken one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from edgekd.config import DistillConfig
from edgekd.demo import SETTINGS
from edgekd.models.weights import read_weights
from edgekd.runs.run import Run
from edgekd.toml_files import to_toml
from edgekd.training.distill import distill
from tests.benchmarks.gpu.parts import NotHere, Task

EPOCHS = 12
KILLED_AFTER = 3  # epochs of the student
BOUND = 1e-3  # relative, of the weights after all epochs, where sums are not taken in the same order each time


def run(task: Task) -> None:
    """Into the checks of `task`."""
    task.check("a run killed and resumed", lambda: killed_and_resumed(task))


def settings(task: Task, name: str) -> DistillConfig:
    """A small run on simulated sonar; not compiled, as that takes most of the time and the states are the same."""
    folder = task.scratch / "resumed"
    data = {
        **SETTINGS["data"],
        "data_dir": folder / "recordings",
        "sample_rate": 4_000,
        "clip_seconds": 1.0,
        "simulation": {"vessels_per_class": 5, "windows_per_vessel": 4, "snr_db": (5.0, 15.0), "seed": 1},
    }
    changed = {
        "out": folder / name,
        "device": task.device,
        "seed": 5,
        "data": data,
        "frontend": {"n_fft": 256, "hop_length": 128, "n_mels": 32, "f_max": 1_900.0},
        "teacher": {**SETTINGS["teacher"], "epochs": 2},
        "training": {**SETTINGS["training"], "epochs": EPOCHS, "batch_size": 8, "compile": "off"},
    }
    return DistillConfig.model_validate(SETTINGS | changed)


def killed_and_resumed(task: Task) -> dict[str, Any]:
    """Whether weights and metrics are the same, and how far they are apart where not."""
    whole = distill(settings(task, "whole"))
    again = distill(settings(task, "again"))  # what two unbroken runs differ by is no fault of resuming
    config = settings(task, "killed")
    file = config.out.parent / "killed.toml"
    file.write_text(to_toml(config.model_dump(mode="json", exclude_none=True)))
    done = _killed(file, config.out, task)
    resumed = distill(config, resume=True)
    off, own = _difference(resumed, whole), _difference(again, whole)
    bitwise = off == 0 and _figures(resumed) == _figures(whole)
    words = (
        f"killed after epoch {done} of {EPOCHS}; "
        + ("bitwise equal to an unbroken run" if bitwise else f"weights differ by {off:.1e}")
        + f"; two unbroken runs by {own:.1e}"
    )
    return {
        "killed_after_epoch": done,
        "bitwise": bitwise,
        "weights_difference": off,
        "own_difference": own,
        "holds": bitwise or off <= max(BOUND, 4 * own),
        "words": words,
    }


def _killed(file: Path, out: Path, task: Task) -> int:
    """Begin the run of a settings `file` in a process of its own, kill it, and say how many epochs it had done."""
    command = [sys.executable, "-m", "edgekd", "distill", "--config", str(file), "--no-quantize"]
    log = task.scratch / "killed.log"
    with open(log, "wb") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "EDGEKD_QUIET": "1"})
        try:
            while child.poll() is None and _epochs(out) < KILLED_AFTER:
                time.sleep(0.01)
        finally:
            child.kill()
            child.wait()
    done = _epochs(out)
    if not done:
        raise RuntimeError(f"the run that was to be killed failed: {log.read_text()[-300:].strip()}")
    if done >= EPOCHS:
        raise NotHere("the run was over before it could be killed")
    return done


def _epochs(out: Path) -> int:
    """Epochs of the student that a run has written down, wherever it writes until it takes its place."""
    return max((_student_rows(path) for path in out.parent.glob(f"*{out.name}*/metrics.csv")), default=0)


def _student_rows(metrics: Path) -> int:
    try:
        return sum(line.startswith("student,") for line in metrics.read_text().splitlines())
    except OSError:
        return 0


def _difference(run: Run, other: Run) -> float:
    """Relative, of all weights of the student as one vector."""
    ours, theirs = (_vector(each) for each in (run, other))
    return float((ours - theirs).norm() / theirs.norm())


def _vector(run: Run) -> torch.Tensor:
    weights = read_weights(run.weights("student"))
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


def _figures(run: Run) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in run.metrics().rows if row["stage"] == "student"]
