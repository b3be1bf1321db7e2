"""The process that trains, as `compare` starts it, and what it does with a job, in this process."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edgekd.config import DistillConfig
from edgekd.experiments.compare import compare, write_tables
from edgekd.experiments.grid import Job
from edgekd.experiments.pool import COMMAND, INTERRUPTED, Worker
from edgekd.experiments.worker import train
from edgekd.runs.run import Run

TinyConfig = Callable[..., DistillConfig]

# A teacher of the user's own is imported by the worker, and notes what it sees there.
PROBE = """
import json, os, resource, sys

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

bytearray(50 << 20)
before = faults()
for _ in range(10):
    bytearray(50 << 20)
seen = {"spin": os.environ.get("GOMP_SPINCOUNT"), "path": sys.path, "faults": faults() - before}
open(__file__ + ".json", "w").write(json.dumps(seen))

def teacher(num_classes, sample_rate):
    raise ValueError("seen enough")
"""


@pytest.fixture
def in_a_worker(tmp_path: Path) -> Callable[[DistillConfig], str]:
    """The line that a worker ends with which is to adapt the teacher of a configuration."""

    def work(config: DistillConfig) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        with open(tmp_path / "errors", "w+b") as errors:
            worker = Worker(COMMAND, environment | {"OMP_NUM_THREADS": "1"}, errors)
            failure = worker.do(Job(config, trust=(f"{config.teacher.folder}/{config.teacher.name}",)).to_line())
            worker.close()
        assert failure is not None
        assert failure.exit_code == 3
        return failure.line

    return work


@pytest.mark.timeout(300)  # two processes that load torch
def test_a_worker_is_set_up_for_training_and_imports_nothing_from_the_folder_it_is_in(
    tiny_config: TinyConfig, tmp_path: Path, in_a_worker: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, factory = tmp_path / "data", tmp_path / "factory"
    data.mkdir()
    factory.mkdir()
    for name in ("torch", "typer", "pydantic", "edgekd", "secrets"):
        (data / f"{name}.py").write_text("raise SystemExit(77)")
    (factory / "probe.py").write_text(PROBE)
    monkeypatch.chdir(data)
    config = tiny_config(tmp_path / "run", teacher={"name": "probe:teacher", "folder": factory})
    line = in_a_worker(config)
    assert line.startswith("edgekd: error: Teacher 'probe:teacher': ")
    assert line.count("seen enough") == 1
    seen = json.loads((factory / "probe.py.json").read_text())
    assert seen["spin"] == "20000"
    assert str(data) not in map(os.path.abspath, seen["path"])
    if platform.libc_ver()[0] == "glibc":
        assert seen["faults"] < 10 * (50 << 20) // os.sysconf("SC_PAGESIZE") // 10, "what is freed is used again"
    done = subprocess.run([sys.executable, *COMMAND[2:]], input="", text=True, check=False, capture_output=True)
    assert done.returncode == 77, "without -P the trap works"


def test_a_worker_ends_when_there_is_nobody_to_work_for() -> None:
    done = subprocess.run(COMMAND, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, b"", b"")


class InThisProcess:
    """A worker that needs no seconds to start."""

    def __init__(self, *_: object) -> None: ...

    def do(self, job: str, /) -> None:
        train(Job.from_line(job))

    def close(self) -> None: ...


def test_a_grid_is_really_trained_and_its_students_share_a_teacher(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "grid", teacher={"epochs": 1}, training={"epochs": 1}, quantize={"epochs": 1, "frozen_epochs": 0}
    )
    train_grid = partial(compare, config, seeds=[0], start=InThisProcess, write=write_tables)
    first = train_grid(["labels", "kd"])
    assert [(method.method, method.cells) for method in first.methods] == [("labels", 1), ("kd", 1)]
    kd = Run.open(tmp_path / "grid" / "cells" / "kd" / "split0-seed0")
    lent = tmp_path / "grid" / "teachers" / "split0-seed0" / "teacher" / "best.safetensors"
    assert lent.samefile(kd.weights("teacher"))
    assert set(kd.report()["test"]) == {"teacher", "student"}
    assert [row["stage"] for row in kd.metrics().rows] == ["teacher", "student"]

    begun = kd.folder / "environment.json"
    before = begun.stat().st_mtime_ns
    second = train_grid(["labels", "kd"], quantize=True)
    assert all(cell.int8_measure is not None for cell in second.cells)
    assert begun.stat().st_mtime_ns == before, "a finished student is only quantised"
