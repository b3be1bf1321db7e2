"""Training the cells of a grid that are not finished, in worker processes, and what is on disk of them.

out/cells/<method>/fold1-seed0/        a cell, see `plan`
out/cells/<method>/fold1-seed0.log     what it wrote to standard error, if it failed
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.config import DistillConfig, parse
from edgekd.errors import UsageError
from edgekd.experiments.plan import Cell
from edgekd.experiments.pool import Failure, Start, Worker, open_pool
from edgekd.experiments.unknown import is_measured
from edgekd.files.whole import write_text
from edgekd.own_code import trusted
from edgekd.runs.run import Run, changes, is_begun, run_of


@dataclass(frozen=True)
class Job:
    """What a worker does: train the student of `config`, taught by the teacher of the run `teacher`, or, without
    `student`, adapt the teacher of `config` only. It may import what this process may: `trust`."""

    config: DistillConfig
    student: bool = False
    teacher: Path | None = None
    quantize: bool = False
    trust: tuple[str, ...] = ()

    def to_line(self) -> str:
        """The job as one line of JSON."""
        teacher = None if self.teacher is None else str(self.teacher)
        return json.dumps({**vars(self), "config": self.config.model_dump(mode="json"), "teacher": teacher})

    @classmethod
    def from_line(cls, line: str) -> Job:
        """The job that `to_line` wrote."""
        values = json.loads(line)
        teacher = None if values["teacher"] is None else Path(values["teacher"])
        config, trust = parse(DistillConfig, values["config"], "job"), tuple(values["trust"])
        return cls(**{**values, "config": config, "teacher": teacher, "trust": trust})


def is_finished(cell: Cell, quantize: bool) -> bool:
    """Whether the cell has the test scores that it is to have, and those of what it was not taught."""
    scored = scores_of(cell.config)
    done = "student" in scored and (not quantize or "int8" in scored)
    if not done or not cell.config.data.leave_out:
        return done
    run = run_of(cell.config)
    return run is not None and is_measured(run, quantize)


def scores_of(config: DistillConfig) -> dict[str, Any]:
    """The test scores, by subject, that are in the run folder of `config`; none without a run of these settings."""
    run = run_of(config)
    return {} if run is None else run.report().get("test", {})


def has_teacher(config: DistillConfig) -> bool:
    """Whether the teacher in the run folder of `config` is there, and scored where it can be."""
    run = run_of(config)
    if run is None:
        return False
    return "teacher" in run.report().get("test", {}) or (run.finished("teacher") and not run.classifies("teacher"))


def refuse_other_settings(cells: Sequence[Cell]) -> None:
    """Raise `UsageError` where runs were made with other settings than are wanted now."""
    wanted = {cell.config.out: cell.config for cell in cells}
    wanted |= {cell.teacher.out: cell.teacher for cell in cells if cell.teacher is not None}
    other: dict[Path, list[str]] = {}
    for folder, config in wanted.items():
        if is_begun(folder):
            changed = changes(Run.open(folder).config, config)
            if changed:
                other[folder] = changed
    if other:
        folder, changed = next(iter(other.items()))
        more = f" So were {len(other) - 1} other runs." if len(other) > 1 else ""
        raise UsageError(
            f"{folder}: made with other settings ({', '.join(changed)}).{more} Make them anew (--overwrite), or name "
            "another folder (--out)."
        )


def run_cells(
    cells: Sequence[Cell],
    quantize: bool,
    workers: int,
    on_end: Callable[[Cell, Failure | None], None],
    start: Start = Worker,
) -> None:
    """Train every cell that is not finished, `workers` at a time; `on_end` gets each, in this thread, as it ends.

    A cell that fails leaves the others alone; a teacher that fails takes with it those it was to teach.
    """
    jobs: dict[Path, Job] = {}  # by run folder, in the order they are to be done; a teacher before its first student
    cell_of: dict[Path, Cell] = {}
    named = tuple(trusted())
    for cell in cells:
        out = cell.config.out
        if is_finished(cell, quantize):
            continue
        cell_of[out] = cell
        if cell.teacher is not None and not has_teacher(cell.teacher):
            jobs.setdefault(cell.teacher.out, Job(cell.teacher, trust=named))
        jobs[out] = Job(cell.config, True, None if cell.teacher is None else cell.teacher.out, quantize, named)

    ended: dict[Path, Failure | None] = {}

    def end(job: Job, failure: Failure | None) -> None:
        ended[job.config.out] = failure
        _keep_log(job, failure)
        if job.config.out in cell_of:
            on_end(cell_of[job.config.out], failure)

    cuda = any(cell.config.device != "cpu" for cell in cells)
    with open_pool(min(workers, max(1, len(jobs))), cuda, start) as submit:
        waiting, running = list(jobs.values()), dict[Future[Failure | None], Job]()
        while waiting or running:
            for job in list(waiting):
                if job.teacher in jobs and job.teacher not in ended:
                    continue
                if job.teacher is not None and (lost := ended.get(job.teacher)) is not None:
                    waiting.remove(job)
                    end(job, replace(lost, line=f"its teacher failed: {lost.line}"))
                elif len(running) < workers:
                    waiting.remove(job)
                    running[submit(job.to_line())] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                end(running.pop(future), future.result())


def _keep_log(job: Job, failure: Failure | None) -> None:
    """What a failed run wrote to standard error, beside its folder; taken away when it has gone well."""
    log = job.config.out.with_name(f"{job.config.out.name}.log")
    if failure is None:
        log.unlink(missing_ok=True)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_text(log, failure.log or failure.line + "\n")
