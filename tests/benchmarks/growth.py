"""How what a run does with its data grows with the hours of audio: time, and memory that no file backs.

    python -m tests.benchmarks.growth [--hours 1 10] [--keep FOLDER] [--json]

Simulated sonar: recordings of a minute, a vessel each, five classes, at 16 kHz, in clips of 5 s.

    headers      the files found and their headers read, the split dealt out
    prepare      files hashed, decoded, written to the store
    open again   the same store verified, as each later run does
    audit        every clip fingerprinted, near-duplicates looked for
    audit again  what was found before, read
    views        an epoch of the training side: batches in random order, waveforms of random views, targets, log-mels
    table        an epoch from log-mels kept in memory, which is done up to `LOG_MEL_BUDGET` bytes and no further

Each number of hours is measured in a process of its own. Memory is the most that a stage held (RssAnon, looked at ten
times a second), less what the process held before the first. The last line is the straight line through the measured
points, at `EXTRAPOLATED` hours; the exponent of a stage is that of its growth between the first point and the last.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.checks.audit import audit
from edgekd.config import AugmentConfig, DataConfig, FrontendConfig, SimulationConfig
from edgekd.data.clip_store import ClipStore, open_store
from edgekd.data.index import Split
from edgekd.data.load import load_index
from edgekd.data.simulation.sonar import CLASSES, simulate
from edgekd.data.splits import make_split
from edgekd.log_mel import LogMel
from edgekd.training.batches import shuffled
from edgekd.training.student_batches import LOG_MEL_BUDGET
from edgekd.training.views import Views, draw_views
from tests.benchmarks.measure import anonymous_bytes, table

SAMPLE_RATE, CLIP_SECONDS, WINDOWS, BATCH = 16_000, 5.0, 12, 16
FRONTEND = FrontendConfig(f_max=SAMPLE_RATE / 2)
EXTRAPOLATED = 100  # hours
STAGES = ("headers", "prepare", "open again", "audit", "audit again", "views", "table")


class Stages:
    """Wall and processor seconds of stages and the most memory in each."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.memory: dict[str, int] = {}
        self._before = self._most = anonymous_bytes() or 0
        self._last = (time.perf_counter(), time.process_time())
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self, name: str) -> None:
        """What passed since the last one was this one's."""
        now = (time.perf_counter(), time.process_time())
        self.wall[name], self.processor[name] = (new - old for new, old in zip(now, self._last, strict=True))
        self._look()
        self.memory[name] = self._most - self._before
        self._most = 0
        self._last = (time.perf_counter(), time.process_time())

    def _look(self) -> None:
        self._most = max(self._most, anonymous_bytes() or 0)

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._look()


def measure_one(recordings: Path) -> dict[str, Any]:
    """One folder of simulated recordings."""
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(
            dataset="sonar_sim", data_dir=recordings, sample_rate=SAMPLE_RATE, clip_seconds=CLIP_SECONDS
        )
        torch.manual_seed(0)
        stages = Stages()
        index = load_index(config)
        split = make_split(index, config)
        stages.end("headers")
        store = open_store(index, config, folder=Path(folder))
        stages.end("prepare")
        store = open_store(index, config, folder=Path(folder))
        stages.end("open again")
        audit(index, split, store, config)
        stages.end("audit")
        audit(index, split, store, config)
        stages.end("audit again")
        views, labels, front_end = _drawn(store, split), torch.tensor(index.labels), LogMel(FRONTEND, SAMPLE_RATE)
        for places, choices in _epoch(views):
            front_end(views.waveforms(store, places, choices))
            views.targets(labels, len(CLASSES), places, choices)
        stages.end("views")
        frames, bins = front_end(torch.zeros(1, store.samples)).shape[2:]
        kept = min(len(views.rows), LOG_MEL_BUDGET // (len(views) * frames * bins * 2))
        log_mels = torch.zeros(kept, len(views), frames, bins, dtype=torch.float16)
        for places, choices in _epoch(views):
            log_mels[places % kept, choices].unsqueeze(1).float()
            views.targets(labels, len(CLASSES), places, choices)
        stages.end("table")
    seconds = len(index) * CLIP_SECONDS
    return {
        "hours": seconds / 3600,
        "clips": len(index),
        "wall_seconds": stages.wall,
        "processor_seconds": stages.processor,
        "memory_bytes": stages.memory,
        "view_bytes": sum(t.nbytes for t in (views.shifts, views.partners, views.partner_shifts, views.shares)),
        "log_mel_bytes": len(views.rows) * len(views) * frames * bins * 2,
    }


def _drawn(store: ClipStore, split: Split) -> Views:
    return draw_views(split.train, store.samples, AugmentConfig(), seed=0)


def _epoch(views: Views) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Places and views of every batch, as training draws them."""
    for rows in shuffled(views.rows, max(1, round(len(views.rows) / BATCH))):
        yield views.places(rows), torch.randint(0, len(views), (len(rows),))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        rows = []
        for hours in sorted(options.hours):
            recordings = folder / f"{hours:g}h"
            vessels = max(5, round(hours * 3600 / (len(CLASSES) * WINDOWS * CLIP_SECONDS)))
            started = time.process_time()
            if not recordings.exists():
                config = SimulationConfig(vessels_per_class=vessels, windows_per_vessel=WINDOWS)
                simulate(recordings, config, SAMPLE_RATE, CLIP_SECONDS)
            simulated = time.process_time() - started
            rows.append({**_in_a_process(recordings), "simulation_seconds": simulated})
    return {"threads": torch.get_num_threads(), "rows": rows, "stages": {s: _growth(rows, s) for s in STAGES}}


def _in_a_process(recordings: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.growth", "--one", str(recordings)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def _growth(rows: list[dict[str, Any]], stage: str) -> dict[str, float]:
    """The exponent of a stage's processor time, and its time and memory at `EXTRAPOLATED` hours."""
    hours = [row["hours"] for row in rows]
    seconds = [row["processor_seconds"][stage] for row in rows]
    memory = [row["memory_bytes"][stage] for row in rows]
    if len(rows) == 1:
        return {"seconds": seconds[0] * EXTRAPOLATED / hours[0], "bytes": float(memory[0])}
    at = [float(np.polyval(np.polyfit(hours, values, 1), EXTRAPOLATED)) for values in (seconds, memory)]
    exponent = math.log(seconds[-1] / seconds[0]) / math.log(hours[-1] / hours[0])
    return {"exponent": exponent, "seconds": at[0], "bytes": at[1]}


def show(found: dict[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    rows, stages = found["rows"], found["stages"]
    yield f"processor seconds, {found['threads']} threads"
    lines = [[f"{row['hours']:.2f} h", *(f"{row['processor_seconds'][s]:.2f}" for s in STAGES)] for row in rows]
    lines += [
        [f"{row['hours']:.2f} h, an hour", *(f"{row['processor_seconds'][s] / row['hours']:.3f}" for s in STAGES)]
        for row in rows
    ]
    if len(rows) > 1:
        lines.append(["exponent", *(f"{stages[s]['exponent']:.2f}" for s in STAGES)])
    lines.append([f"{EXTRAPOLATED} h, extrapolated", *(f"{stages[s]['seconds']:.0f}" for s in STAGES)])
    yield table(["", *STAGES], lines)
    yield "\nMB of memory that no file backs"
    lines = [[f"{row['hours']:.2f} h", *(f"{row['memory_bytes'][s] / 1e6:.0f}" for s in STAGES)] for row in rows]
    if len(rows) > 1:
        lines.append([f"{EXTRAPOLATED} h, extrapolated", *(f"{stages[s]['bytes'] / 1e6:.0f}" for s in STAGES)])
    yield table(["", *STAGES], lines)
    last = rows[-1]
    views, log_mels = (last[name] / last["hours"] / 1e6 for name in ("view_bytes", "log_mel_bytes"))
    yield (
        f"\nof these an hour: {views:.2f} MB of views; {log_mels:.0f} MB of log-mels, kept up to "
        f"{LOG_MEL_BUDGET / 1e6:.0f} MB ({LOG_MEL_BUDGET / 1e6 / log_mels:.1f} h) and beyond not at all"
    )


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 10.0], help="of sound")
    parser.add_argument("--keep", type=Path, help="folder where recordings stay, to be measured again")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = _options()
    if options.one is not None:
        print(json.dumps(measure_one(options.one)))
        return
    found = measure(options)
    print(json.dumps(found) if options.json else "\n".join(show(found)))


if __name__ == "__main__":
    main()
