"""The study that a CPU cannot afford: students x methods x folds x seeds on a GPU, as far as the time goes.

    python -m tests.benchmarks.gpu.study --data esc10 --weights yamnet.npz --seconds 180 --out study

It does the cells of `study_plan` in their order, several at a time in processes that share the device, and keeps what
they said in one file, `study.json` of the folder. A later call goes on from that file, on another machine, too. A cell
that would not end in time is not begun; one that has not ended in time is ended, and is resumed by a later call that
finds what it left in the cache folder, else made anew: the result is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from edgekd.data.clip_store import open_store
from edgekd.experiments.grid import Job, is_finished, run_cells
from edgekd.experiments.plan import Cell
from edgekd.experiments.pool import Failure, Hand, Start, Worker
from edgekd.files.caches import cache_folder
from edgekd.files.folders import held, settle
from edgekd.progress import ConsoleProgress, Progress
from tests.benchmarks.gpu.study_plan import Study, plan_study
from tests.benchmarks.gpu.study_results import Findings, show

NOT_NOW = Failure(130, "no time for it", "")
SETTLING = 5.0  # seconds that ending the workers and counting take at the end
LARGE_CARD = 40e9  # bytes of memory


class _TimeIsUp(Exception):
    """What is at work is to be ended."""


def run(
    folder: Path,
    device: str,
    seconds: float,
    data: Path | None,
    weights: Path | None,
    progress: Progress,
    *,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Do as much of the study as `seconds` allow, going on from the `study.json` in `folder`, and return what all the
    cells together say, as `show` prints it.

    `data`: ESC-10 or another data set (None: simulated sonar); `weights`: YAMNet's (None: the teacher is a small
    network, trained on the data). `jobs` cells are trained at a time (None: as many as the card and the cores bear).

    Raises `InputError` and `UsageError` for data and weights that no cell could use, and for a `study.json` of other
    clips.
    """
    clock = Clock(seconds)
    study = plan_study(device, data, weights, progress)
    place = cache_folder() / "study" / folder.resolve().name
    return conduct(study, folder, place, clock, jobs or jobs_at_once(device), progress)


def conduct(
    study: Study,
    folder: Path,
    place: Path,
    clock: Clock,
    jobs: int,
    progress: Progress,
    start: Start = Worker,
) -> dict[str, Any]:
    """`run` of any study; `place` is where its run folders lie, and `start` starts what trains them."""
    folder.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    with held(place):
        place.mkdir(exist_ok=True)
        for inner in (place, place / "teachers", *place.glob("cells/*")):
            settle(inner)
        cells = study.cells(place)
        findings = Findings(folder, study, cells)
        heard = {cell.config.data.model_dump_json(exclude={"fold", "split_seed"}): cell.config.data for cell in cells}
        for config in heard.values():
            open_store(study.index, config, progress)  # decoded once, not by every worker at the same time
        _train(cells, findings, clock, jobs, progress, start)
        if len(findings.done) == len(cells):
            shutil.rmtree(place)
    return {"jobs": jobs, "seconds": round(clock.passed(), 1), **findings.summary()}


def _train(
    cells: Sequence[Cell], findings: Findings, clock: Clock, jobs: int, progress: Progress, start: Start
) -> None:
    """Train the cells that are not done, those that failed before last, and take up what each said."""
    hands = Hands(clock, {cell.config.out: cell.method for cell in cells}, findings.seconds(), start)

    def take_up() -> None:
        for cell in cells:
            if cell.name not in findings.done and is_finished(cell, quantize=True):
                findings.add(cell, hands.took.get(cell.config.out))
                shutil.rmtree(cell.config.out)

    def end(cell: Cell, failure: Failure | None) -> None:
        if failure is None:
            findings.add(cell, hands.took.get(cell.config.out))
            shutil.rmtree(cell.config.out)
        elif clock.left() <= 0:
            raise _TimeIsUp
        elif not failure.line.endswith(NOT_NOW.line):
            if is_finished(cell, quantize=False):  # all but its int8 student
                findings.add(cell, hands.took.get(cell.config.out))
            findings.fail(cell, failure.line)
        progress("study", len(findings.done), len(cells), last=cell.name)

    take_up()  # of a call that was killed
    waiting = [cell for cell in cells if cell.name not in findings.done]
    waiting.sort(key=lambda cell: cell.name in findings.failed)
    try:
        if waiting:
            run_cells(waiting, True, jobs, end, hands.start)
    except _TimeIsUp:
        take_up()  # several may have ended at once
    finally:
        hands.rest()


@dataclass
class Clock:
    """The time there is: `seconds` from now on, some of which the end takes."""

    seconds: float
    now: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.now()

    def passed(self) -> float:
        return self.now() - self.began

    def left(self) -> float:
        return self.seconds - SETTLING - self.passed()


class Hands:
    """Starts hands that begin no job which would not end in time, and are all closed when the time is up.

    What a job takes is what the last one of its method took, at first in an earlier call; where none is known of the
    method, what the quickest of the others took; where nothing is known, it is tried.
    """

    def __init__(self, clock: Clock, methods: Mapping[Path, str], seconds: Mapping[str, float], start: Start) -> None:
        self._clock, self._methods, self._start = clock, methods, start
        self._known = dict(seconds)
        self.took: dict[Path, float] = {}
        self._hands: list[Hand] = []
        self._timer = threading.Timer(max(0.0, clock.left()), self._close)
        self._timer.daemon = True
        self._timer.start()

    def start(self, command: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]) -> Hand:
        hand = self._start(command, environment, errors)
        self._hands.append(hand)
        return _Timed(hand, self)

    def rest(self) -> None:
        """Nothing is to be closed any more."""
        self._timer.cancel()

    def do(self, hand: Hand, line: str) -> Failure | None:
        """Have the hand do the job, where there is time for it."""
        out = Job.from_line(line).config.out
        method = self._methods.get(out, "a teacher")
        expected = self._known.get(method, min(self._known.values(), default=0.0))
        left = self._clock.left()
        if left <= 0 or expected > left:
            return NOT_NOW
        failure = hand.do(line)
        if failure is None:
            self.took[out] = self._known[method] = left - self._clock.left()
        return failure

    def _close(self) -> None:
        for hand in self._hands:
            hand.close()


class _Timed:
    """A hand that asks whether there is time."""

    def __init__(self, hand: Hand, hands: Hands) -> None:
        self._hand, self._hands = hand, hands

    def do(self, job: str, /) -> Failure | None:
        return self._hands.do(self._hand, job)

    def close(self) -> None:
        self._hand.close()


def jobs_at_once(device: str) -> int:
    """Cells that are trained at a time. A step of a small student leaves most of a large card idle, and keeps a core
    busy that starts its kernels."""
    cores = len(os.sched_getaffinity(0))
    if device == "cpu" or not torch.cuda.is_available():
        return max(1, cores // 2)
    large = torch.cuda.get_device_properties(0).total_memory > LARGE_CARD
    return max(1, min(6 if large else 2, cores // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ESC-10, or another data set; without it sonar is simulated")
    parser.add_argument("--weights", type=Path, help="of YAMNet; without them a small teacher is trained on the data")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--jobs", type=int, help="cells at a time")
    parser.add_argument("--out", type=Path, required=True, help="folder of study.json")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ConsoleProgress() as progress:
        found = run(
            options.out, options.device, options.seconds, options.data, options.weights, progress, jobs=options.jobs
        )
    print(json.dumps(found) if options.json else "\n".join(show(found)))


if __name__ == "__main__":
    main()
