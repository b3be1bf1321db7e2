"""`torchrun -m edgekd distill`: two processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.config import DistillConfig
from edgekd.runs.metrics_log import MetricsLog
from edgekd.runs.run import Run
from edgekd.toml_files import to_toml
from edgekd.training.distill import distill
from edgekd.training.pretrain import pretrain

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "edgekd"]


def started(config: DistillConfig, *options: str, command: str = "distill") -> subprocess.Popen[str]:
    """`edgekd distill`, or another command, as `config` says, in two processes."""
    settings = config.out.with_suffix(".toml")
    settings.write_text(to_toml(config.model_dump(mode="json", exclude={"out"})))
    return subprocess.Popen(
        [*TORCHRUN, command, "--config", str(settings), "--out", str(config.out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def process_of_rank(rank: int, torchrun: int) -> int:
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    environment = {int(child): Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children}
    return next(child for child, variables in environment.items() if f"RANK={rank}".encode() in variables)


def epochs_of(out: Path) -> list[dict[str, str]]:
    return [row for row in MetricsLog(out / "metrics.csv").rows if row["stage"] == "student"]


def test_a_process_that_is_killed_ends_the_run_with_advice_and_costs_no_epoch(
    tmp_path: Path, tiny_config: Callable[..., DistillConfig]
) -> None:
    config = tiny_config(tmp_path / "run", training={"epochs": 24}, loss={"terms": ["classification"]})
    torchrun = started(config, "--no-quantize")
    try:
        limit = time.monotonic() + 200
        while len(epochs_of(config.out)) < 2 and torchrun.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        assert torchrun.poll() is None, torchrun.communicate()
        os.kill(process_of_rank(1, torchrun.pid), signal.SIGKILL)
        said = torchrun.communicate(timeout=90)[1]
    finally:
        torchrun.kill()
    assert torchrun.returncode != 0
    lines = [line for line in said.splitlines() if "Go on with" in line]
    assert len(lines) == 1, said
    assert f"torchrun --nproc-per-node 2 --no-python edgekd distill --out {config.out} --resume" in lines[0]

    before = epochs_of(config.out)
    assert 2 <= len(before) < 24
    run = distill(config, resume=True)
    after = epochs_of(config.out)
    assert [int(row["epoch"]) for row in after] == list(range(1, 25))
    assert after[: len(before) - 1] == before[:-1], "the last may have been written without its state"
    assert "student" in run.report()["test"]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_one_of_them_tells(
    tmp_path: Path, tiny_config: Callable[..., DistillConfig], tiny_run: Run
) -> None:
    """Adam makes much of rounding in time, so it is the first epoch that agrees closely."""
    torchrun = started(tiny_config(tmp_path / "run"), "--json")
    told, said = torchrun.communicate(timeout=280)
    assert torchrun.returncode == 0, said
    report = json.loads(told)
    assert set(report["test"]) == {"teacher", "student", "int8"}
    assert said.count("Test side") == 0
    for row, other in zip(MetricsLog(tmp_path / "run" / "metrics.csv").rows, tiny_run.metrics().rows, strict=True):
        assert (row["stage"], row["epoch"]) == (other["stage"], other["epoch"])
        tolerance = 0.01 if (row["stage"], row["epoch"]) == ("teacher", "1") else 0.15
        assert float(row["total"]) == pytest.approx(float(other["total"]), rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["distill", "pretrain"])
def test_two_processes_learn_from_audio_without_labels_as_one_does(
    command: str, tmp_path: Path, tiny_config: Callable[..., DistillConfig], tiny_run: Run
) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    noise = np.random.default_rng(0)
    for number in range(4):
        soundfile.write(audio / f"{number}.wav", 0.1 * noise.standard_normal(3 * 8_000), 8_000)
    sections: dict[str, Any] = {
        "data": {"unlabelled": (audio,)},
        "teacher": {"adaptation": "head", "weights": tiny_run.weights("teacher")},
        "loss": {"terms": ("classification", "distillation"), "weighting": "fixed"},
        "training": {"epochs": 2},
    }
    if command == "pretrain":
        sections["loss"] = {"terms": ("embedding",), "weighting": "fixed"}
    torchrun = started(tiny_config(tmp_path / "two", **sections), "--quiet", command=command)
    try:
        said = torchrun.communicate(timeout=280)[1]
    finally:
        torchrun.kill()
    assert torchrun.returncode == 0, said
    one = tiny_config(tmp_path / "one", **sections)
    alone = distill(one) if command == "distill" else pretrain(one)
    stage = "student" if command == "distill" else "pretrain"
    logs = (MetricsLog(folder / "metrics.csv").rows for folder in (tmp_path / "two", alone.folder))
    ours, theirs = ([row for row in rows if row["stage"] == stage] for rows in logs)
    assert len(ours) == len(theirs) == 2
    for row, other in zip(ours, theirs, strict=True):
        tolerance = 0.01 if row["epoch"] == "1" else 0.15
        for figure in ("total", "validation_loss"):
            assert float(row[figure]) == pytest.approx(float(other[figure]), rel=tolerance)
