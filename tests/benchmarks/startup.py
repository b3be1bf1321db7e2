"""How long `edgekd` takes to print what needs no computation, and what takes the time.

    python -m tests.benchmarks.startup [REPETITIONS]

Commands take turns; each is a new process. Prints the least and the median of wall time and of processor time (user
and system, of which a busy machine takes none away), and the modules that `--help` spends most on.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "edgekd --help": ["-m", "edgekd", "--help"],
    "edgekd targets": ["-m", "edgekd", "targets"],
    "edgekd distill --help": ["-m", "edgekd", "distill", "--help"],
}
REPETITIONS = 10
LISTED = 8


def seconds_of(arguments: list[str]) -> tuple[float, float]:
    """Wall and processor time of one run of Python."""
    before, started = _processor_seconds(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started, _processor_seconds() - before


def slowest_imports(arguments: list[str]) -> list[tuple[str, float]]:
    """Modules by the milliseconds that their import alone took; measuring them takes time too."""
    told = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    rows = [line.removeprefix("import time:").split("|") for line in told.stderr.splitlines()[1:] if "|" in line]
    found = [(module.strip(), int(alone) / 1e3) for alone, _, module in rows if alone.strip().isdecimal()]
    return sorted(found, key=lambda row: -row[1])[:LISTED]


def main(repetitions: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(repetitions):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds_of(arguments))
    print(f"seconds of {repetitions:<13}{'least':>8}{'median':>8}{'least':>14}{'median':>8}")
    print(f"{'':24}{'wall':>8}{'':8}{'processor':>14}")
    for name, pairs in taken.items():
        wall, processor = zip(*pairs, strict=True)
        figures = (min(wall), statistics.median(wall), min(processor), statistics.median(processor))
        print(f"{name:<24}{figures[0]:>8.3f}{figures[1]:>8.3f}{figures[2]:>14.3f}{figures[3]:>8.3f}")
    print("\nms of import, edgekd --help")
    for module, milliseconds in slowest_imports(COMMANDS["edgekd --help"]):
        print(f"  {milliseconds:>6.1f} {module}")


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS)
