"""How long one clip takes, how much memory, and the state of the machine meanwhile."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.runner.classifier import Runner, open_runner
from edgekd.device.runner.errors import plain
from edgekd.device.runner.machine import machine_state, process_memory


def run_bench(folder: Path, options: argparse.Namespace) -> int:
    """The command `bench`."""
    load = round(os.getloadavg()[0], 2)  # before there is any of our own
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    clip = runner.golden_clips()[0][:1]
    settled = warm_up(runner, clip, options.warmup)
    block = options.runs if runner.engine == "trtexec" else 10
    deadline = time.monotonic() + options.seconds
    times = runner.time(clip, min(block, options.runs))
    while len(times) < options.runs and time.monotonic() < deadline:
        times = np.concatenate([times, runner.time(clip, min(block, options.runs - len(times)))])
    state = machine_state()  # while it is still warm
    memory, peak = process_memory()
    total = times.sum(axis=1)
    quantiles = [round(float(value), 4) for value in np.percentile(total, range(101))]
    parts = [round(float(value), 4) for value in np.median(times, axis=0)]
    clip_ms = runner.clip_samples / runner.sample_rate * 1e3
    outcome = {
        "engine": runner.engine,
        "engine_version": runner.engine_version,
        "precision": runner.precision,
        "threads": options.threads,
        "runs": len(times),
        "settled": settled,
        "mean_ms": round(float(total.mean()), 4),
        "p50_ms": quantiles[50],
        "p50_interval_ms": [round(value, 4) for value in median_interval(total)],
        "p95_ms": quantiles[95],
        "p99_ms": quantiles[99],
        "spread_ms": round(quantiles[75] - quantiles[25], 4),
        "quantiles_ms": quantiles,
        "front_end_ms": parts[0] if runner.log_mel else None,
        "network_ms": parts[1] if runner.log_mel else None,
        "real_time_factor": round(quantiles[50] / clip_ms, 6),
        "memory_bytes": memory,
        "peak_memory_bytes": peak,
        "memory_budget_bytes": runner.manifest["target"]["memory_bytes"],
        "load_average": load,
        "machine": state,
    }
    print(json.dumps(outcome)) if options.json else show_bench(outcome, clip_ms)
    return 0


def median_interval(times: np.ndarray) -> tuple[float, float]:
    """95 % interval of the median of `times (runs,)`: a bootstrap of blocks of 10 runs, as neighbours are alike."""
    size = 10 if len(times) >= 50 else 1
    blocks = times[: len(times) // size * size].reshape(-1, size)
    random = np.random.default_rng(0)
    medians = [np.median(blocks[random.integers(len(blocks), size=len(blocks))]) for _ in range(1000)]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def warm_up(runner: Runner, clip: np.ndarray, runs: int) -> bool:
    """At least `runs` runs, and until two windows of 5 take the same time within 5 %; False if 5 s did not do."""
    if runner.engine == "trtexec":
        return True  # it warms up itself
    end = time.monotonic() + 5
    before, done = math.inf, 0
    while True:
        now = float(np.median(runner.time(clip, 5).sum(axis=1)))
        done += 6
        if done >= runs and abs(now - before) < 0.05 * before:
            return True
        if done >= runs and time.monotonic() > end:
            return False
        before = now


def show_bench(outcome: dict[str, Any], clip_ms: float) -> None:
    """Print the `outcome` of timing clips of `clip_ms`."""
    engine = " ".join(filter(None, (outcome["engine"], outcome["engine_version"], outcome["precision"])))
    print(f"{plain(engine)}, threads: {outcome['threads']}, one clip of {clip_ms / 1e3:g} s, waveform to scores")
    figures = "   ".join(f"p{share} {outcome[f'p{share}_ms']:.2f} ms" for share in (50, 95, 99))
    print(f"{figures}   real-time factor {outcome['real_time_factor']:.2g}   ({outcome['runs']} runs)")
    if outcome["front_end_ms"] is not None:
        print(f"of which front end {outcome['front_end_ms']:.2f} ms, network {outcome['network_ms']:.2f} ms (medians)")
    peak, budget = outcome["peak_memory_bytes"], outcome["memory_budget_bytes"]
    over = ": over the budget" if peak > budget else ""
    print(
        f"memory {outcome['memory_bytes'] / 2**20:.0f} MiB, peak {peak / 2**20:.0f} of {budget / 2**20:.0f} MiB{over}"
    )
    print(f"load average before {outcome['load_average']}")
    for name, value in outcome["machine"].items():
        if value:
            entries = (f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else [str(value)]
            print(plain(f"{name.replace('_', ' ')}: {', '.join(entries)}").translate({ord(c): None for c in "{}[]'"}))
    if not outcome["settled"]:
        print("the time had not settled after 5 s of warm-up: is something else running?")
