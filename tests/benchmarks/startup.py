"""How long `edgekd` takes before it computes anything, and what takes the time.

    python -m tests.benchmarks.startup [REPETITIONS]

Commands take turns; each is a new process. Prints the least and the median of wall time and of processor time (user
and system, of which a busy machine takes none away). What loads torch is set against `import torch`: `distill` up to
its first line about the data, `export` and `profile` up to their first line about the run, each of which is that there
is none. The ratio is the median over the rounds; that of `distill` may be 1.4 at most, and exit code 1 says that it was
not. Then the modules that the commands spend most on, without those that `import torch` loads.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

IMPORT_TORCH = "python -c 'import torch'"
BAR = 1.4
REPETITIONS = 10
LISTED = 8


class Command(NamedTuple):
    """Arguments of Python, the exit code that is expected, and what the last line of standard error holds."""

    arguments: tuple[str, ...]
    exit_code: int = 0
    last_line: str = ""


def edgekd(*arguments: str, exit_code: int = 0, last_line: str = "") -> Command:
    return Command(("-m", "edgekd", *arguments), exit_code, last_line)


NO_RUN, NO_DATA = ("nowhere: no such run folder", "nowhere: no such folder")
COMMANDS = {
    "python -c pass": Command(("-c", "pass")),
    "edgekd --help": edgekd("--help"),
    "edgekd targets": edgekd("targets"),
    "edgekd distill --help": edgekd("distill", "--help"),
    IMPORT_TORCH: Command(("-c", "import torch")),
    "edgekd distill": edgekd(
        *("distill", "--data-dir", "nowhere", "--teacher", "convnet", "--adaptation", "full"),
        exit_code=3,
        last_line=NO_DATA,
    ),
    "edgekd export": edgekd("export", "nowhere", "--target", "cpu", exit_code=3, last_line=NO_RUN),
    "edgekd profile": edgekd("profile", "nowhere", exit_code=3, last_line=NO_DATA),
}
WITH_TORCH = ("edgekd distill", "edgekd export", "edgekd profile")


class Taken(NamedTuple):
    """Seconds of one process."""

    wall: float
    processor: float


def run(command: Command, folder: str, *options: str) -> str:
    """What one run of Python in `folder` writes to standard error; `RuntimeError` unless it ends as is expected."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *options, *command.arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.rstrip().rpartition("\n")[2]
    if done.returncode != command.exit_code or command.last_line not in last:
        raise RuntimeError(f"{' '.join(command.arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stderr


def seconds_of(command: Command, folder: str) -> Taken:
    """Wall and processor time of one run."""
    before, started = _processor_seconds(), time.perf_counter()
    run(command, folder)
    return Taken(time.perf_counter() - started, _processor_seconds() - before)


def imports(command: Command, folder: str) -> dict[str, float]:
    """Milliseconds that the import of each module alone took; measuring them takes time too."""
    lines = run(command, folder, "-X", "importtime").splitlines()
    rows = [line.removeprefix("import time:").split("|") for line in lines]
    return {row[2].strip(): int(row[0]) / 1e3 for row in rows if len(row) == 3 and row[0].strip().isdecimal()}


def ratios(taken: dict[str, list[Taken]]) -> dict[str, float]:
    """Processor time of what loads torch, in times of `import torch` in the same round; the median over the rounds."""
    return {
        name: statistics.median(
            own.processor / torch.processor for own, torch in zip(taken[name], taken[IMPORT_TORCH], strict=True)
        )
        for name in WITH_TORCH
    }


def main(repetitions: int) -> int:
    taken: dict[str, list[Taken]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repetitions):
            for name, command in COMMANDS.items():
                taken[name].append(seconds_of(command, folder))
        print(f"seconds of {repetitions:<13}{'least':>8}{'median':>8}{'least':>14}{'median':>8}")
        print(f"{'':24}{'wall':>8}{'':8}{'processor':>14}")
        for name, each in taken.items():
            wall, processor = zip(*each, strict=True)
            columns = (min(wall), statistics.median(wall), min(processor), statistics.median(processor))
            print(f"{name:<24}{columns[0]:>8.3f}{columns[1]:>8.3f}{columns[2]:>14.3f}{columns[3]:>8.3f}")
        print(f"\nprocessor time, in times of {IMPORT_TORCH}; distill at most {BAR}")
        found = ratios(taken)
        for name, ratio in found.items():
            print(f"{name:<24}{ratio:>8.2f}")
        with_torch = imports(COMMANDS[IMPORT_TORCH], folder)
        for name in ("edgekd --help", *WITH_TORCH):
            print(f"\nms of import, {name}")
            own = {module: ms for module, ms in imports(COMMANDS[name], folder).items() if module not in with_torch}
            for module in sorted(own, key=lambda module: -own[module])[:LISTED]:
                print(f"  {own[module]:>6.1f} {module}")
    return int(found["edgekd distill"] > BAR)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS))
