"""How fast SSATKD trains: a plain implementation, and edgekd with its steps switched on one after the other.

    python -m tests.benchmarks.training [--student hltdnn] [--teacher cnn14] [--batch-size 8] [--json]

`naive` is the data flow of the authors' published code, in our words: workers read and resample each clip's file in
every epoch, the log-mels are computed as they come, the teacher hears every clip in every step, float32, nothing kept.
Its losses, networks and masks are edgekd's own, so that the ratio is one of data flow, not of how a loss is written.

    store          clips from the memory-mapped store, in the views that training draws
    channels-last  and the student's maps in that order
    logits         the teacher's logits from a table, its first layers in every step for the tap
    log-mels       the student's log-mels kept
    taps           the teacher's taps kept: a run's epochs with textures
    compiled step  on a GPU, textures in kernels and the whole step compiled; before, the student alone was
    student alone  a run's other epochs, where no tap is needed, as "taps" is computed
    no textures    and as "compiled step" is

All from the second epoch on: what a run computes before its first is told apart, as seconds, and in epochs of `naive`.
The variants take turns of a few steps, in an order drawn anew each round; the first step of a turn is not timed, and
what is drawn for batches ahead of their steps counts as if it were drawn for those that are timed.
Ratios are medians over the rounds (middle half). Times of sections come from steps of their own, as reading the clock
on a GPU means waiting for it. The floor of a step: its operators one after the other, each as fast as this machine's
best matrix product and copy let it be (see `Work`). Peak memory is a fresh process's, without the workers'.

Files, labels and the teacher's weights are random: nothing here depends on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.data_flows import VARIANTS, Bench, Steps, variant
from tests.benchmarks.measure import Clock, Limits, limits, ratio, synchronise, table, turns

SECTIONS = ("data", "log-mel", "teacher", "student", "losses", "optimiser", "rest")


def _peak(options: argparse.Namespace, folder: Path, name: str) -> int | None:
    """Most bytes of memory that a process of its own held, training as variant `name`."""
    command = [sys.executable, "-m", "tests.benchmarks.training", *sys.argv[1:], "--peak-of", name]
    done = subprocess.run([*command, "--folder", str(folder)], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def _own_peak(device: str) -> int | None:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(options: argparse.Namespace, folder: Path, best: Limits) -> dict[str, Any]:
    """Everything that is printed; `best` is what the machine can do."""
    bench, started = Bench(options, folder), time.perf_counter()
    bench.batches(Steps())
    bench.validation()
    synchronise(options.device)
    prepared = time.perf_counter() - started
    peaks = {name: _peak(options, folder, name) for name in options.variants} if options.memory else {}
    flows = {name: variant(bench, name) for name in options.variants}
    times = turns({name: lambda f=f: f(options.steps) for name, f in flows.items()}, options.rounds)  # type: ignore[misc]
    base, rows = options.variants[0], []
    for place, (name, flow) in enumerate(flows.items()):
        clock, work = Clock(options.device), flow.work(best)
        flow(options.steps, clock)
        spent = sum(clock.seconds.values())
        seconds = float(np.median(times[name]))
        rows.append(
            {
                "variant": name,
                "seconds_a_step": seconds,
                "steps_a_second": 1 / seconds,
                "clips_a_second": options.batch_size / seconds,
                "times_base": ratio(times[base], times[name]),
                "times_before": ratio(times[options.variants[max(place - 1, 0)]], times[name]),
                "shares": {section: clock.seconds[section] / spent for section in SECTIONS},
                "gflop": work.flops / 1e9,
                "gigabytes": work.bytes / 1e9,
                "floor_flops_seconds": work.flops / best.flops,
                "floor_bytes_seconds": work.bytes / best.bandwidth,
                "floor_seconds": work.seconds,
                "times_floor": seconds / work.seconds,
                "peak_bytes": peaks.get(name),
                "rounds_seconds": times[name],
            }
        )
    return {
        "base": base,
        "student": options.student,
        "teacher": options.teacher,
        "batch_size": options.batch_size,
        "clip_seconds": options.seconds,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "steps": options.steps,
        "gflops_a_second": best.flops / 1e9,
        "gigabytes_a_second": best.bandwidth / 1e9,
        "prepared_seconds_a_view": prepared / (len(bench.data.split.train) * options.views),
        "rows": rows,
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    rows, base = found["rows"], found["base"]
    yield (
        f"{found['student']} taught by {found['teacher']}: batch {found['batch_size']}, {found['clip_seconds']:g} s, "
        f"{found['device']}, {found['threads']} threads, {found['rounds']} rounds of {found['steps']} steps"
    )
    head = ["", "clips/s", "steps/s", f"times {base}", "times before", "peak MB"]
    yield table(
        head,
        [
            [
                row["variant"],
                f"{row['clips_a_second']:.1f}",
                f"{row['steps_a_second']:.2f}",
                str(row["times_base"]),
                str(row["times_before"]),
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
            ]
            for row in rows
        ],
    )
    yield "\nshare of a step"
    shares = [[row["variant"], *(f"{row['shares'][section]:.0%}" for section in SECTIONS)] for row in rows]
    yield table(["", *SECTIONS], shares)
    yield (
        f"\nfloor of a step, ms, at {found['gflops_a_second']:.0f} GFLOP/s and "
        f"{found['gigabytes_a_second']:.1f} GB/s (best seen here)"
    )
    yield table(
        ["", "GFLOP", "GB", "FLOPs alone", "bytes alone", "floor", "measured", "times floor"],
        [
            [
                row["variant"],
                f"{row['gflop']:.1f}",
                f"{row['gigabytes']:.2f}",
                *(f"{1e3 * row[f'floor_{part}seconds']:.0f}" for part in ("flops_", "bytes_", "")),
                f"{1e3 * row['seconds_a_step']:.0f}",
                f"{row['times_floor']:.1f}",
            ]
            for row in rows
        ],
    )
    view, clip = found["prepared_seconds_a_view"], rows[0]["seconds_a_step"] / found["batch_size"]
    yield (
        f"\nbefore the first epoch: {view:.2f} s a view of a clip (teacher, log-mel): "
        f"{view / clip:.1f} epochs of {base} a view"
    )


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="hltdnn")
    parser.add_argument("--teacher", default="cnn14")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a clip")
    parser.add_argument("--sample-rate", type=int, default=32_000)
    parser.add_argument("--file-rate", type=int, help="of the files; default: --sample-rate")
    parser.add_argument("--clips", type=int, help="of the training side; default: 3 batches")
    parser.add_argument("--views", type=int, default=2, help="of a clip")
    parser.add_argument("--epochs", type=int, default=60, help="of the run that is pretended")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="timed in a turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    parser.add_argument("--workers", type=int, help="that read files for 'naive'; default: one a thread, 8 at most")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="the first is the base")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out the processes for memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.file_rate = options.file_rate or options.sample_rate
    options.clips = options.clips or 3 * options.batch_size
    options.workers = options.workers or min(8, options.threads)
    return options


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    if options.peak_of is not None:
        variant(Bench(options, options.folder), options.peak_of)(1)
        print(json.dumps(_own_peak(options.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder), limits(options.device))
    if options.json:
        print(json.dumps(found))
        return
    print(*show(found), sep="\n")


if __name__ == "__main__":
    main()
