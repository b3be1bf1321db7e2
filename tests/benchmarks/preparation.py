"""How fast recordings become clips ready to train with, and how that grows with their hours.

    python -m tests.benchmarks.preparation [--hours 0.1 0.5] [--json]

Recordings of a minute, of noise, are cut into clips of 5 s at 32 kHz, as `distill` does before its first epoch: read
the headers, hash the files, decode, resample, write the store; then open it again, which verifies it; then read every
clip once in a random view, as an epoch does. "Times real time" is the length of the sound over the processor time of
all threads: what one core does, whatever else the machine is doing. Memory is the most that is not backed by a file:
the store itself is mapped, and the system takes its pages back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from edgekd.config import AugmentConfig, DataConfig
from edgekd.data import load_index
from edgekd.data.cache import open_store
from edgekd.training.augment import draw_views
from tests.benchmarks.measure import table

SECONDS, BATCH = 60, 8
KINDS = {  # suffix, format of libsndfile, rate, channels
    "wav 32 kHz": ("wav", "PCM_16", 32_000, 1),
    "wav 44.1 kHz stereo": ("wav", "PCM_16", 44_100, 2),
    "wav 52.734 kHz": ("wav", "PCM_16", 52_734, 1),
    "flac 32 kHz": ("flac", "PCM_16", 32_000, 1),
    "ogg 32 kHz": ("ogg", "VORBIS", 32_000, 1),
}
GROWTH = "wav 32 kHz"
EXTRAPOLATED = (1, 10, 100)  # hours


def write_recordings(folder: Path, kind: str, hours: float) -> float:
    """Two classes of recordings; the hours that were written."""
    suffix, subtype, rate, channels = KINDS[kind]
    noise = 0.1 * np.random.default_rng(0).standard_normal((SECONDS * rate, channels))
    count = max(2, round(hours * 3600 / SECONDS))
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.roll(noise, 977 * number, axis=0), rate, subtype)
    return count * SECONDS / 3600


class Stages:
    """Wall and processor seconds of stages, and the most memory seen in any."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.memory: int | None = None
        self._last = (time.perf_counter(), time.process_time())

    def end(self, name: str) -> None:
        """What passed since the last one was this one's."""
        now = (time.perf_counter(), time.process_time())
        self.wall[name], self.processor[name] = (new - old for new, old in zip(now, self._last, strict=True))
        self.look()
        self._last = (time.perf_counter(), time.process_time())

    def look(self, *_told: object, **_figures: object) -> None:
        """A `Progress` that tells nothing."""
        held = _anonymous_bytes()
        if held is not None:
            self.memory = max(held, self.memory or 0)


def measure_one(kind: str, hours: float) -> dict[str, Any]:
    """One kind of file, in folders of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_recordings(folder / "recordings", kind, hours)
        config = DataConfig(dataset="folder", data_dir=folder / "recordings")
        torch.manual_seed(0)
        stages = Stages()
        before = _anonymous_bytes()
        index = load_index(config)
        stages.end("headers")
        store = open_store(index, config, stages.look, folder / "cache")
        stages.end("prepare")
        store = open_store(index, config, stages.look, folder / "cache")
        stages.end("open again")
        views = draw_views(range(len(index)), store.samples, AugmentConfig(), seed=0)
        for places in torch.randperm(len(index)).split(BATCH):
            views.waveforms(store, places, torch.randint(0, len(views), (len(places),)))
            stages.look()
        stages.end("epoch")
    return {
        "kind": kind,
        "hours": written,
        "clips": len(index),
        "wall_seconds": stages.wall,
        "processor_seconds": stages.processor,
        "times_real_time": {stage: 3600 * written / used for stage, used in stages.processor.items()},
        "memory_bytes": None if stages.memory is None or before is None else stages.memory - before,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    measure_one(GROWTH, 0.0)  # imports, filters and pools are not timed
    return {
        "threads": len(os.sched_getaffinity(0)),
        "kinds": [measure_one(kind, min(options.hours)) for kind in KINDS],
        "growth": [measure_one(GROWTH, hours) for hours in sorted(options.hours)],
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    stages = ("headers", "prepare", "open again", "epoch")
    yield f"times real time a core, {found['kinds'][0]['hours']:.2f} h"
    yield table(
        ["", *stages], [[row["kind"], *(f"{row['times_real_time'][s]:.0f}" for s in stages)] for row in found["kinds"]]
    )
    yield f"\nprocessor seconds an hour of {GROWTH}, and memory"
    yield table(
        ["hours", *stages, "MB"],
        [
            [
                f"{row['hours']:.2f}",
                *(f"{row['processor_seconds'][stage] / row['hours']:.2f}" for stage in stages),
                "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f}",
            ]
            for row in found["growth"]
        ],
    )
    most = found["growth"][-1]
    yield f"\nminutes on {found['threads']} cores, extrapolated from {most['hours']:.2f} h"
    yield table(
        ["hours", *stages],
        [
            [str(hours), *(f"{most['wall_seconds'][stage] / most['hours'] * hours / 60:.2f}" for stage in stages)]
            for hours in EXTRAPOLATED
        ],
    )


def _anonymous_bytes() -> int | None:
    """Memory in use that is not a file's; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.1, 0.5], help="of sound; the least for each kind")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    options = _options()
    found = measure(options)
    print(json.dumps(found) if options.json else "\n".join(show(found)))


if __name__ == "__main__":
    main()
