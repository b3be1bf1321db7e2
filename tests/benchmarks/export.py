"""What `edgekd export` takes: graphs that are written here against those of PyTorch's exporter, by stage.

    python -m tests.benchmarks.export RUN [TARGET...] [--rounds N]

Each round exports the finished run RUN in new processes on one thread, by the writer and by the exporter in turn, for
each target (cpu and gpu where none is named). Prints the median of processor seconds, user and system, of the process
and of its stages, and the median over the rounds of the ratio. What else has changed since the exporter was the only
way, such as imports, is in both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAYS = ("writer", "exporter")
ROUNDS = 5


def export_one(way: str, run: str, target: str, out: str) -> None:
    """Export in this process, and print processor seconds by stage as JSON."""
    seconds: dict[str, float] = {"python": time.process_time()}

    def timed(owner: Any, name: str, stage: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def measured(*arguments: Any, **options: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - begun

        setattr(owner, name, measured)

    begun = time.process_time()
    import torch

    seconds["import torch"] = time.process_time() - begun
    begun = time.process_time()
    from edgekd.cli.app import app
    from edgekd.exporting import export, graph
    from edgekd.exporting.onnx_writer.sheet import Unknown
    from edgekd.exporting.runtimes import RUNTIMES
    from edgekd.runs.run import Run

    seconds["import edgekd"] = time.process_time() - begun
    if way == "exporter":

        def unknown(*_arguments: object) -> None:
            raise Unknown

        graph.write = unknown  # type: ignore[assignment]
    timed(export, "deployable_of", "student")
    timed(Run, "open_data", "open data")
    timed(export, "verify", "parity")
    timed(export, "choose_golden", "golden")
    timed(export, "write_bundle", "bundle")
    for runtime in RUNTIMES.values():
        for name, stage in (("emit", "graphs"), ("check", "structure"), ("figures", "figures")):
            timed(type(runtime), name, stage)
    arguments = ["export", run, "--target", target, "--out", out, "--overwrite", "--quiet"]
    with open(os.devnull, "w") as nowhere:
        sys.stdout, shown = nowhere, sys.stdout
        app(arguments, standalone_mode=False)
        sys.stdout = shown
    assert torch.get_num_threads() == 1
    seconds["all"] = time.process_time()
    print(json.dumps(seconds))


def measured(way: str, run: Path, target: str, folder: str) -> dict[str, float]:
    """Seconds by stage of one export in a new process."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    out = str(Path(folder) / target)
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.export", "--one", way, str(run), target, out],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        export_one(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("targets", nargs="*", default=["cpu", "gpu"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    for target in given.targets:
        with tempfile.TemporaryDirectory() as folder:
            rounds = [
                {way: measured(way, given.run.resolve(), target, folder) for way in WAYS} for _ in range(given.rounds)
            ]
        print(f"\n{target}: processor seconds, medians of {given.rounds}")
        print(f"{'':14}{'writer':>9}{'exporter':>9}")
        for stage in rounds[0]["writer"]:
            median = {way: statistics.median(each[way][stage] for each in rounds) for way in WAYS}
            print(f"{stage:14}{median['writer']:>9.2f}{median['exporter']:>9.2f}")
        ratio = statistics.median(each["writer"]["all"] / each["exporter"]["all"] for each in rounds)
        print(f"{'ratio':14}{ratio:>9.2f}")


if __name__ == "__main__":
    main()
