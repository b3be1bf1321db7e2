"""How fast a step of training is in this checkout and in another one, side by side.

    git worktree add ../before COMMIT
    python -m tests.benchmarks.checkouts ../before [--student hltdnn_ds] [--threads 1] [--json]

Each checkout has a process of its own, and the two take turns of a few steps, so that what else the machine does hits
both alike. A step has all that a run's has from its second epoch on but the reading ahead: log-mels of a table, masks,
the student, the teacher's answers of a table, the loss, its gradient, the optimiser. Tables are random, and the taps in
them are as large as YAMNet's of 5 s. Run of a student: half its epochs with textures, half without.

Printed are medians over the rounds: milliseconds a step by the clock and of the processor, and how many times as fast
this checkout is, with the middle half of the quotients. The clock is right on an idle machine, the processor's time on
one thread of a busy one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgekd.process_setup import keep_freed_memory, set_up_threads

HERE, CLIPS, TAP, CLASSES = Path(__file__).resolve().parents[2], 48, (64, 250, 32), 10
FLOWS = ("textures", "no textures")


def steps_of(options: argparse.Namespace, textures: bool) -> Callable[[], None]:
    """A step of training, to be called again and again."""
    import torch

    from edgekd.config import AugmentConfig, FrontendConfig, LossConfig
    from edgekd.losses.total import SSATKDLoss
    from edgekd.models.build import build_student
    from edgekd.training.device_rows import rows_on
    from edgekd.training.distill import make_optimizer
    from edgekd.training.spec_augment import draw_masks, spec_augment
    from edgekd.training.teacher_cache import TeacherRequest

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cpu, augment, generator = torch.device("cpu"), AugmentConfig(), torch.Generator().manual_seed(0)
    student = build_student(options.student, CLASSES, 32_000, FrontendConfig(), 1.0).train()
    student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = SSATKDLoss(LossConfig(), student.tap_channels, TAP[0])
    loss.count_textures(textures)
    optimizer = make_optimizer(student, loss, 1e-4, 1e-5)
    log_mels = torch.randn(CLIPS, 501, 64).half()
    taps = rows_on(torch.randn(CLIPS, *TAP).relu().half().numpy(), cpu)
    answers: Any = SimpleNamespace(device=cpu)
    logits = torch.randn(CLIPS, CLASSES)

    def step() -> None:
        rows = torch.randint(0, CLIPS, (options.batch_size,), generator=generator)
        masks = draw_masks(len(rows), augment, generator)
        stored: Any = {"logits": lambda: logits[rows]}
        if textures:
            stored["tap"] = taps.request(rows)
        taught = TeacherRequest(answers, stored, frozenset()).outputs(None)
        optimizer.zero_grad(set_to_none=True)
        output = student(log_mels[rows].unsqueeze(1).float(), lambda log_mel: spec_augment(log_mel, masks, augment))
        loss(output, taught, rows % CLASSES).total.backward()
        optimizer.step()

    return step


def work(options: argparse.Namespace) -> None:
    """In the process of a checkout: for each line that names a flow, the seconds of a step of it."""
    keep_freed_memory()
    flows = {name: steps_of(options, name == "textures") for name in FLOWS}
    for line in sys.stdin:
        step = flows[line.strip()]
        step()
        began, used = time.perf_counter(), time.process_time()
        for _ in range(options.steps):
            step()
        spent = (time.perf_counter() - began) / options.steps, (time.process_time() - used) / options.steps
        print(json.dumps(spent), flush=True)


def worker(checkout: Path) -> subprocess.Popen[str]:
    """The process of a checkout, which has its own `edgekd` and this file."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--work"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def asked(process: subprocess.Popen[str], flow: str) -> tuple[float, float]:
    """Seconds of a step of `flow`, by the clock and of the processor."""
    to, back = process.stdin, process.stdout
    assert to is not None and back is not None
    print(flow, file=to, flush=True)
    clock, processor = json.loads(back.readline())
    return clock, processor


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each flow, and one for a run of both."""
    from tests.benchmarks.measure import ratio  # not in a worker, beside which the other checkout's may lie

    processes = {"before": worker(options.other), "now": worker(HERE)}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {flow: {name: [] for name in processes} for flow in FLOWS}
    for _ in range(options.rounds + 1):
        for flow in FLOWS:
            for name in random.sample(list(processes), 2):
                found[flow][name].append(asked(processes[name], flow))
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    rows = []
    both = {
        name: [_sum(*pair) for pair in zip(*(found[flow][name] for flow in FLOWS), strict=True)] for name in processes
    }
    for flow, times in {**found, "a run": both}.items():
        row: dict[str, Any] = {"flow": flow}
        for place, kind in enumerate(("clock", "processor")):
            before, now = ([each[place] for each in times[name][1:]] for name in ("before", "now"))
            row[kind] = {
                "before_ms": 1e3 * statistics.median(before),
                "now_ms": 1e3 * statistics.median(now),
                "times": ratio(before, now),
            }
        rows.append(row)
    return rows


def _sum(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] + second[0], first[1] + second[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--student", default="hltdnn_ds")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="timed in a turn, after one that is not")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.other / "edgekd" / "__init__.py").is_file():  # this one's would be measured twice
        parser.error(f"{options.other}: no checkout of edgekd")
    set_up_threads()
    if options.work:
        work(options)
        return
    rows = measure(options)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    from tests.benchmarks.measure import table

    print(f"{options.student}, batch {options.batch_size}, {options.threads} threads, {options.rounds} rounds")
    lines = [
        (f"{row['flow']}, {kind}", f"{each['before_ms']:.1f}", f"{each['now_ms']:.1f}", str(each["times"]))
        for row in rows
        for kind in ("clock", "processor")
        for each in [row[kind]]
    ]
    print(table(("", "before ms", "now ms", "times as fast"), lines))


if __name__ == "__main__":
    main()
