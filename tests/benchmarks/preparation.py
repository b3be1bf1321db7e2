"""How fast recordings of different kinds become clips ready to train with.

    python -m tests.benchmarks.preparation [--hours 0.1] [--json]

Recordings of a minute, of noise, are cut into clips of 5 s at 32 kHz, as `distill` does before its first epoch: read
the headers, hash the files, decode, resample, write the store; then open it again, which verifies it; then read every
clip once in a random view, as an epoch does. "Times real time" is the length of the sound over the processor time of
all threads: what one core does, whatever else the machine is doing. How it grows with the hours: `growth`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from edgekd.config import AugmentConfig, DataConfig
from edgekd.data.clip_store import open_store
from edgekd.data.load import load_index
from edgekd.training.views import draw_views
from tests.benchmarks.measure import table

SECONDS, BATCH = 60, 8
KINDS = {  # suffix, format of libsndfile, rate, channels
    "wav 32 kHz": ("wav", "PCM_16", 32_000, 1),
    "wav 44.1 kHz stereo": ("wav", "PCM_16", 44_100, 2),
    "wav 52.734 kHz": ("wav", "PCM_16", 52_734, 1),
    "flac 32 kHz": ("flac", "PCM_16", 32_000, 1),
    "ogg 32 kHz": ("ogg", "VORBIS", 32_000, 1),
}
STAGES = ("headers", "prepare", "open again", "epoch")


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
    """Processor seconds of stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def end(self, name: str) -> None:
        """What passed since the last one was this one's."""
        now = time.process_time()
        self.seconds[name], self._last = now - self._last, now


def measure_one(kind: str, hours: float) -> dict[str, Any]:
    """One kind of file, in folders of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_recordings(folder / "recordings", kind, hours)
        config = DataConfig(dataset="folder", data_dir=folder / "recordings")
        torch.manual_seed(0)
        stages = Stages()
        index = load_index(config)
        stages.end("headers")
        store = open_store(index, config, folder=folder / "cache")
        stages.end("prepare")
        store = open_store(index, config, folder=folder / "cache")
        stages.end("open again")
        views = draw_views(range(len(index)), store.samples, AugmentConfig(), seed=0)
        for places in torch.randperm(len(index)).split(BATCH):
            views.waveforms(store, places, torch.randint(0, len(views), (len(places),)))
        stages.end("epoch")
    return {
        "kind": kind,
        "hours": written,
        "clips": len(index),
        "processor_seconds": stages.seconds,
        "times_real_time": {stage: 3600 * written / used for stage, used in stages.seconds.items()},
    }


def measure(hours: float) -> list[dict[str, Any]]:
    """Everything that is printed, a row a kind of file."""
    measure_one(next(iter(KINDS)), 0.0)  # imports, filters and pools are not timed
    return [measure_one(kind, hours) for kind in KINDS]


def show(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The table, line by line."""
    yield f"times real time a core, {rows[0]['hours']:.2f} h"
    yield table(["", *STAGES], [[row["kind"], *(f"{row['times_real_time'][s]:.0f}" for s in STAGES)] for row in rows])


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=0.1, help="of sound, of each kind")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    options = _options()
    found = measure(options.hours)
    print(json.dumps(found) if options.json else "\n".join(show(found)))


if __name__ == "__main__":
    main()
