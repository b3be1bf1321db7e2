"""What it gains to keep freed memory (`edgekd.process_setup.keep_freed_memory`), in a training step.

    python -m tests.benchmarks.allocator [--students hltdnn_ds hltdnn] [--threads 1 2] [--rounds 3] [--json]

The setting holds for a process, so each measurement is one of its own; with and without take turns, in an order drawn
anew each round. A step is a student's, all four terms of the loss and the optimiser, on random log-mels and taps.
Printed are medians over the rounds: milliseconds a step, page faults a step, peak memory; and the ratio of times.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from edgekd.process_setup import keep_freed_memory, set_up_threads
from tests.benchmarks.measure import table

STEPS, BATCH, TAP = 10, 16, (64, 250, 32)


def measure(student_name: str, threads: int) -> dict[str, float]:
    """In this process: milliseconds and page faults of a step, and the peak of memory in MB."""
    import torch

    from edgekd.config import FrontendConfig, LossConfig
    from edgekd.losses.total import SSATKDLoss
    from edgekd.models.build import build_student
    from edgekd.models.outputs import TeacherOutput
    from edgekd.training.distill import make_optimizer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    student = build_student(student_name, 10, 32_000, FrontendConfig(), 1.0)
    student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = SSATKDLoss(LossConfig(), student.tap_channels, TAP[0])
    optimizer = make_optimizer(student, loss, 1e-3, 1e-5)
    log_mels, labels = torch.randn(BATCH, 1, 501, 64), torch.randint(0, 10, (BATCH,))
    taught = TeacherOutput(torch.randn(BATCH, 10), torch.randn(BATCH, *TAP).relu())
    seconds, faults = [], 0
    for step in range(STEPS + 3):
        if step == 3:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss(student(log_mels), taught, labels).total.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "milliseconds": 1e3 * statistics.median(seconds[3:]),
        "page_faults": (used.ru_minflt - faults) / STEPS,
        "peak_mb": used.ru_maxrss / 1024,
    }


def compare(student: str, threads: int, rounds: int) -> dict[str, Any]:
    """Both settings in turns, each in a process of its own."""
    found: dict[str, list[dict[str, float]]] = {"default": [], "kept": []}
    for _ in range(rounds):
        for setting in random.sample(list(found), 2):
            command = [sys.executable, "-m", "tests.benchmarks.allocator", "--one", setting]
            options = ["--students", student, "--threads", str(threads)]
            done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
            found[setting].append(json.loads(done.stdout))
    row: dict[str, Any] = {"student": student, "threads": threads}
    for setting, runs in found.items():
        row[setting] = {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}
    pairs = zip(found["default"], found["kept"], strict=True)
    row["ratios"] = [round(plain["milliseconds"] / kept["milliseconds"], 3) for plain, kept in pairs]
    return row


def main() -> None:
    set_up_threads()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=["hltdnn_ds", "hltdnn"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=("default", "kept"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.one == "kept":
            keep_freed_memory()
        print(json.dumps(measure(options.students[0], options.threads[0])))
        return
    rows = [compare(student, threads, options.rounds) for student in options.students for threads in options.threads]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    shown = [
        (
            row["student"],
            str(row["threads"]),
            *(f"{row[setting][name]:.0f}" for name in row["default"] for setting in ("default", "kept")),
            " ".join(f"{ratio:.2f}" for ratio in row["ratios"]),
        )
        for row in rows
    ]
    print(table(("student", "threads", "ms", "kept", "faults", "kept", "MB", "kept", "times as fast"), shown))


if __name__ == "__main__":
    main()
