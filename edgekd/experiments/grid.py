"""The grid of a comparison: methods x parts of the data x seeds, each cell an ordinary run folder.

    out/cells/<method>/fold1-seed0/        a run of `distill` (and `quantize`)
    out/cells/<method>/fold1-seed0.log     what it wrote to standard error, if it failed
    out/teachers/fold1-seed0/              the teacher that all the methods of this fold and seed are taught by

Methods differ in their loss (or in the settings of the user's own TOML) and in nothing else: of one fold and seed they
have the same split, the same teacher, the same initial weights of the student and the same augmentation of each clip.

A *part* is what one test side comes from: a fold where the data set has folds, the whole split where its authors gave
one, and else a split by groups drawn from a split seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from edgekd.config import DistillConfig, differences, parse
from edgekd.data.index import ClipIndex
from edgekd.errors import UsageError
from edgekd.experiments.workers import Failure, Worker
from edgekd.files.whole import write_text
from edgekd.losses.terms import needs_teacher
from edgekd.runs.run import SAME_RUN, Run
from edgekd.training.distill import teacher_settings
from edgekd.training.new_teacher import settled

Settings = Mapping[str, Any]

# What each method changes of the shared settings.
METHODS: dict[str, Settings] = {
    "labels": {"loss": {"terms": ["classification"]}},
    "kd": {"loss": {"terms": ["classification", "distillation"], "distillation": "kl"}},
    "ssatkd": {"loss": {"terms": ["classification", "statistical", "structural", "distillation"]}},
    "ssatkd-structural": {"loss": {"terms": ["classification", "structural", "distillation"]}},
    "ssatkd-statistical": {"loss": {"terms": ["classification", "statistical", "distillation"]}},
}
COMMAND = (sys.executable, "-m", "edgekd", "compare-worker")
# What the grid decides, or what makes the cells of two methods pairs: not a method's to change.
THE_GRIDS = (
    "out",
    "seed",
    *(f"data.{name}" for name in ("dataset", "data_dir", "fold", "val_fold", "split", "split_seed", "given_split")),
)


@dataclass(frozen=True)
class Cell:
    """One run: a method on one part of the data with one seed; `config.out` is its folder. `teacher` is the run that
    adapts its teacher, None for a student of labels alone."""

    method: str
    part: str
    seed: int
    config: DistillConfig
    teacher: DistillConfig | None

    @property
    def name(self) -> str:
        return f"{self.method}/{self.part}-seed{self.seed}"


@dataclass(frozen=True)
class Job:
    """What a worker is told: to train the student of `config`, taught by the teacher of the run `teacher`, or, without
    `student`, to adapt the teacher of `config` only."""

    config: DistillConfig
    student: bool = False
    teacher: Path | None = None
    quantize: bool = False

    def to_line(self) -> str:
        """The job as one line of JSON."""
        told = {**vars(self), "config": self.config.model_dump(mode="json")}
        return json.dumps({**told, "teacher": None if self.teacher is None else str(self.teacher)})

    @classmethod
    def from_line(cls, line: str) -> Job:
        """The job that `to_line` told."""
        told = json.loads(line)
        teacher = None if told["teacher"] is None else Path(told["teacher"])
        return cls(**{**told, "config": parse(DistillConfig, told["config"], "job"), "teacher": teacher})


def plan_parts(
    config: DistillConfig, index: ClipIndex, folds: Sequence[int] | None, splits: int
) -> dict[str, Settings]:
    """The parts of the data set `index`, and what each changes of the settings.

    `folds`: those wanted (None: all), where there are folds; `splits`: how many splits by groups, with the split seeds
    from `config.data.split_seed` on, where the data set has none of its own. Raises `UsageError` for what it has not.
    """
    keeps = config.data.given_split
    given = keeps and any(clip.side is not None for clip in index)
    own = sorted({clip.fold for clip in index if clip.fold is not None}) if keeps and not given else []
    if folds is not None and not own:
        what = "comes with its split" if given else "is split by groups: pass --splits N for N such splits"
        raise UsageError(f"--folds: {index.dataset} is used without folds; it {what}.")
    if splits > 1 and (own or given):
        what = f"has folds ({', '.join(map(str, own))}): pass --folds" if own else "comes with its split"
        raise UsageError(f"--splits {splits}: {index.dataset} {what}.")
    if given:
        return {"given": {}}
    if own:
        return {f"fold{fold}": {"data": {"fold": fold}} for fold in (own if folds is None else folds)}
    first = config.data.split_seed
    return {f"split{seed}": {"data": {"split_seed": seed}} for seed in range(first, first + splits)}


def plan_cells(
    config: DistillConfig, methods: Mapping[str, Settings], parts: Mapping[str, Settings], seeds: Sequence[int]
) -> list[Cell]:
    """The cells of the grid in the folder `config.out`: all methods of one part and seed, then of the next, so that a
    grid half done can be compared.

    `methods` and `parts` give, by name, what each changes of `config`. Raises `UsageError` where a method's settings
    are wrong or are the grid's to decide.
    """
    shared = config.model_dump(mode="json")
    cells = []
    for seed in seeds:
        for part, chosen in parts.items():
            name, own = f"{part}-seed{seed}", {"seed": seed}
            common = teacher_settings(_config(_merged(shared, chosen, own), "settings"))
            for method, changes in methods.items():
                _check_changes(method, changes)
                out = config.out / "cells" / method / name
                cell = _config(_merged(shared, changes, chosen, own, {"out": str(out)}), f"method '{method}'")
                teacher = None
                if needs_teacher(cell.loss.terms):
                    decides = teacher_settings(cell)
                    # A method that changes what its teacher is has teachers to itself.
                    folder = name if decides == common else f"{name}-{_digest(decides)}"
                    run = {"device": cell.device, "out": str(config.out / "teachers" / folder)}
                    kept = {"teacher": {"cache": cell.teacher.cache}}
                    teacher = _config(_merged(decides, run, kept), f"method '{method}'")
                cells.append(Cell(method, part, seed, cell, teacher))
    return cells


def is_finished(cell: Cell, quantize: bool) -> bool:
    """Whether the cell has the test scores that it is to have."""
    scored = scores_of(cell.config)
    return "student" in scored and (not quantize or "int8" in scored)


def scores_of(config: DistillConfig) -> dict[str, Any]:
    """The test scores, by subject, that are in the run folder of `config`; none where there is no run."""
    return Run.open(config.out).report().get("test", {}) if is_begun(config.out) else {}


def settle_other_settings(cells: Sequence[Cell], overwrite: bool) -> None:
    """Raise `UsageError` where runs were made with other settings than are wanted now, or with `overwrite` delete
    those."""
    wanted = {cell.config.out: cell.config for cell in cells}
    wanted |= {cell.teacher.out: cell.teacher for cell in cells if cell.teacher is not None}
    other: dict[Path, list[str]] = {}
    for folder, config in wanted.items():
        if is_begun(folder):
            stored = Run.open(folder).config.model_dump(mode="json")
            changed = differences(stored, config.model_dump(mode="json"), SAME_RUN)
            if changed:
                other[folder] = changed
    if other and not overwrite:
        folder, changed = next(iter(other.items()))
        more = f" So were {len(other) - 1} other runs." if len(other) > 1 else ""
        raise UsageError(
            f"{folder}: made with other settings ({', '.join(changed)}).{more} Make them anew (--overwrite), or name "
            "another folder (--out)."
        )
    for folder in other:
        shutil.rmtree(folder)


def run_cells(
    cells: Sequence[Cell],
    quantize: bool,
    workers: int,
    on_end: Callable[[Cell, Failure | None], None],
) -> None:
    """Train every cell that is not finished, `workers` at a time; `on_end` is told of each, in this thread, as it ends.

    A cell that fails leaves the others alone; a teacher that fails takes with it those it was to teach.
    """
    jobs: dict[Path, Job] = {}  # by run folder, in the order they are to be done; a teacher before its first student
    cell_of: dict[Path, Cell] = {}
    for cell in cells:
        out = cell.config.out
        if is_finished(cell, quantize):
            continue
        cell_of[out] = cell
        if cell.teacher is not None and "teacher" not in scores_of(cell.teacher):
            jobs.setdefault(cell.teacher.out, Job(cell.teacher))
        jobs[out] = Job(cell.config, True, None if cell.teacher is None else cell.teacher.out, quantize)

    ended: dict[Path, Failure | None] = {}

    def end(job: Job, failure: Failure | None) -> None:
        ended[job.config.out] = failure
        _keep_log(job, failure)
        if job.config.out in cell_of:
            on_end(cell_of[job.config.out], failure)

    with _pool(min(workers, max(1, len(jobs))), cells) as submit:
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


@contextmanager
def _pool(workers: int, cells: Sequence[Cell]) -> Iterator[Callable[[str], Future[Failure | None]]]:
    """A function that hands a job to a worker that is free, or the next that will be; all are ended on the way out."""
    with ExitStack() as stack:
        free: SimpleQueue[Worker] = SimpleQueue()
        hired = [
            Worker(COMMAND, environment, stack.enter_context(tempfile.TemporaryFile()))
            for environment in _environments(workers, cells)
        ]
        for worker in hired:
            free.put(worker)

        def work(job: str) -> Failure | None:
            worker = free.get()
            try:
                return worker.do(job)
            finally:
                free.put(worker)

        threads = ThreadPoolExecutor(workers)
        try:
            yield lambda job: threads.submit(work, job)
        finally:
            for worker in hired:
                worker.close()
            threads.shutdown(cancel_futures=True)


def _environments(workers: int, cells: Sequence[Cell]) -> list[dict[str, str]]:
    """The environment of each worker: its share of the processor cores and, in turn, one of the CUDA devices."""
    cores = max(1, len(os.sched_getaffinity(0)) // workers)
    environments = [{"OMP_NUM_THREADS": str(cores), "GOMP_SPINCOUNT": "20000", **os.environ} for _ in range(workers)]
    if any(cell.config.device != "cpu" for cell in cells):
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        devices = visible or [str(number) for number in range(torch.cuda.device_count())]
        for number, environment in enumerate(environments):
            if len(devices) > 1:
                environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return environments


def is_begun(folder: Path) -> bool:
    """Whether there is a run folder that can be opened."""
    return all((folder / name).is_file() for name in ("config.toml", "classes.json"))


def _keep_log(job: Job, failure: Failure | None) -> None:
    """What a failed run wrote to standard error, beside its folder; taken away when it has gone well."""
    log = job.config.out.with_name(f"{job.config.out.name}.log")
    if failure is None:
        log.unlink(missing_ok=True)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_text(log, failure.log or failure.line + "\n")


def _config(values: Settings, source: str) -> DistillConfig:
    return settled(parse(DistillConfig, values, source))


def _merged(values: Settings, *changes: Settings) -> dict[str, Any]:
    """Nested `values` with `changes` over them, the last on top."""
    merged = dict(values)
    for change in changes:
        for key, value in change.items():
            inner = merged.get(key)
            merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def _check_changes(method: str, changes: Settings) -> None:
    """Raise `UsageError` where a method would decide what the grid does: then its cells were no pairs."""
    named = [name for name in changes if name in THE_GRIDS]
    data = changes.get("data", {})
    named += [f"data.{name}" for name in data if f"data.{name}" in THE_GRIDS] if isinstance(data, Mapping) else []
    if named:
        raise UsageError(
            f"Method '{method}' sets {', '.join(named)}: it is the same for all methods of a comparison. Leave it out."
        )


def _digest(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
