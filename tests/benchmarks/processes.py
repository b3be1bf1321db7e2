"""What several processes on one machine's cores gain in training, against one process with as many threads.

    python -m tests.benchmarks.processes [--student hltdnn_ds] [--batch-size 16] [--processes 2] [--rounds 5] [--json]

A step is the student's on its share of random log-mels, the loss, the sums over the processes (gradients, and the
statistics of batch norms forward and back) and the optimiser. One process with a thread, one with as many threads as
there are processes, and the processes with a thread each take turns, in an order drawn anew each round; who has no turn
sleeps. Printed are medians over the rounds: milliseconds a step, processor milliseconds a step of all processes
together, and the ratio of times to that of one process with threads. `--beside FOLDER` lets the processes of another
checkout take turns, too. `--alone` gives whoever has the turn priority over all else on the machine (as root, on Linux;
other work stands still meanwhile, so keep it short): where there is other work, threads that wait for one another are
slowed by it more than processes are, and nothing is measured but that.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgekd.process_setup import keep_freed_memory, set_up_threads
from tests.benchmarks.measure import ratio, table, turns

TERMS = {"no textures": ("classification", "distillation")}
TERMS["textures"] = ("classification", "statistical", "structural", "distillation")


def work(options: argparse.Namespace) -> None:
    """In a process of its own: as many steps as each line of standard input says; a line of JSON when they are done."""
    keep_freed_memory()
    import torch

    from edgekd import processes
    from edgekd.config import FrontendConfig, LossConfig
    from edgekd.losses.total import SSATKDLoss
    from edgekd.models.build import build_student
    from edgekd.models.outputs import TeacherOutput
    from edgekd.training.distill import make_optimizer
    from edgekd.training.shared_layers import share_layers

    processes.join("cpu")
    torch.manual_seed(0)
    student = build_student(options.student, 10, 32_000, FrontendConfig(), 1.0)
    student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    share_layers(student)
    loss = SSATKDLoss(LossConfig(terms=TERMS[options.terms]), student.tap_channels, 32)
    parameters = [*student.parameters(), *loss.parameters()]
    optimizer = make_optimizer(student, loss, 1e-3, 1e-5)
    share = processes.share_of(options.batch_size)
    log_mels = torch.randn(options.batch_size, 1, 501, 64)[share]
    labels = torch.randint(0, 10, (options.batch_size,))[share]
    taught = TeacherOutput(torch.randn(options.batch_size, 10)[share], torch.randn(len(labels), 32, 250, 32).relu())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with processes.batch(options.batch_size):
            (loss(student(log_mels), taught, labels).total * len(labels) / options.batch_size).backward()
        processes.sum_gradients(parameters)
        optimizer.step()

    for line in sys.stdin:
        step()
        started, used = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        spent = {"seconds": time.perf_counter() - started, "processor": time.process_time() - used}
        print(json.dumps({name: each / int(line) for name, each in spent.items()}), flush=True)


class Team:
    """Processes that train together, each with some threads."""

    def __init__(self, count: int, threads: int, arguments: list[str], root: Path, alone: bool) -> None:
        self._alone = alone
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        joined = {"TORCHELASTIC_RUN_ID": "benchmark", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        joined |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "tests.benchmarks.processes", *arguments, "--work"]
        self.processor: list[float] = []
        self._processes = [
            subprocess.Popen(
                command,
                env={**os.environ, **joined, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(root)},
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]

    def __call__(self, steps: int) -> float:
        """Seconds a step."""
        self._before_all_else(self._alone)
        try:
            return self._timed(steps)
        finally:
            self._before_all_else(False)

    def _timed(self, steps: int) -> float:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for process in self._processes if process.stdout is not None]
        self.processor.append(sum(answer["processor"] for answer in answers))
        return max(answer["seconds"] for answer in answers)

    def _before_all_else(self, first: bool) -> None:
        if self._alone:
            policy = os.SCHED_FIFO if first else os.SCHED_OTHER
            for process in self._processes:
                for thread in Path(f"/proc/{process.pid}/task").iterdir():
                    os.sched_setscheduler(int(thread.name), policy, os.sched_param(int(first)))

    def close(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    here, count = Path(__file__).resolve().parents[2], options.processes
    shapes = {"one, a thread": (1, 1, here), f"one, {count} threads": (1, count, here)}
    shapes[f"{count}, a thread each"] = (count, 1, here)
    if options.beside is not None:
        shapes[f"{count}, a thread each, {options.beside.name}"] = (count, 1, options.beside.resolve())
    arguments = ["--student", options.student, "--batch-size", str(options.batch_size), "--terms", options.terms]
    with ExitStack() as stack:
        teams = {
            name: Team(each, threads, arguments, root, options.alone) for name, (each, threads, root) in shapes.items()
        }
        for team in teams.values():
            stack.callback(team.close)
            team(1)
            team.processor.clear()
        times = turns({name: lambda team=team: team(options.steps) for name, team in teams.items()}, options.rounds)  # type: ignore[misc]
        processor = {name: team.processor for name, team in teams.items()}
    base = times[f"one, {count} threads"]
    return {
        "student": options.student,
        "batch_size": options.batch_size,
        "terms": options.terms,
        "load": os.getloadavg()[0],
        "cores": len(os.sched_getaffinity(0)),
        "rows": [
            {
                "processes": name,
                "milliseconds": 1e3 * statistics.median(times[name]),
                "processor_milliseconds": 1e3 * statistics.median(processor[name]),
                "times_as_fast": ratio(base, times[name]),
            }
            for name in teams
        ],
    }


def main() -> None:
    set_up_threads()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="hltdnn_ds")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--terms", choices=TERMS, default="no textures")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed in a turn, after one that is not")
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--alone", action="store_true", help="with priority over all else; needs root")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    found = measure(options)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['student']}, batch {found['batch_size']}, {found['terms']}: {found['cores']} cores, "
        f"load {found['load']:.1f}, {options.rounds} rounds of {options.steps} steps"
    )
    rows = [
        (
            row["processes"],
            f"{row['milliseconds']:.0f}",
            f"{row['processor_milliseconds']:.0f}",
            str(row["times_as_fast"]),
        )
        for row in found["rows"]
    ]
    print(table(("processes", "ms", "processor ms", "times as fast"), rows))


if __name__ == "__main__":
    main()
