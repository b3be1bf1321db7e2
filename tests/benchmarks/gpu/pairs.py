"""Which students learn from which teachers here, in which shapes, and their data: noise, as sound does not matter."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.data_flows import Bench
from tests.benchmarks.training import read_options


@dataclass(frozen=True)
class Pair:
    """A student and its teacher, in clips of `seconds` at `sample_rate`."""

    student: str
    teacher: str
    sample_rate: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.teacher} -> {self.student}"


CNN14 = Pair("hltdnn", "cnn14", 32_000, 5.0)
YAMNET = Pair("hltdnn_ds", "yamnet", 16_000, 5.0)
SMALL = (Pair("hltdnn", "convnet", 8_000, 1.0), Pair("hltdnn_ds", "convnet", 8_000, 1.0))
"""What a CPU computes in their place."""


def pairs(small: bool) -> tuple[Pair, Pair]:
    return SMALL if small else (CNN14, YAMNET)


def open_bench(pair: Pair, folder: Path, device: str, batch_size: int, clips: int) -> Bench:
    """The benchmark's data and settings for `pair`; two of the same `folder` and `clips` share files."""
    folder.mkdir(parents=True, exist_ok=True)
    return Bench(options(pair, device, batch_size, clips), folder)


def options(pair: Pair, device: str, batch_size: int, clips: int) -> argparse.Namespace:
    """Those of `tests.benchmarks.training`."""
    found = read_options(
        [
            *("--student", pair.student, "--teacher", pair.teacher, "--device", device),
            *("--sample-rate", str(pair.sample_rate), "--seconds", str(pair.seconds)),
            *("--batch-size", str(batch_size), "--clips", str(clips), "--views", "1", "--no-memory"),
        ]
    )
    found.threads = torch.get_num_threads()
    found.workers = min(8, len(os.sched_getaffinity(0)))
    return found
