"""Runs that are made up in this process: what a student says is drawn, not learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgekd.data.load import load_index
from edgekd.data.splits import make_split, write_splits
from edgekd.experiments.grid import Job
from edgekd.experiments.pool import Failure
from edgekd.runs.predictions import write_predictions
from edgekd.runs.run import Run
from edgekd.scoring.scores import score

CHANCE = {"labels": 0.5, "kd": 0.7, "ssatkd": 0.8, "mine": 0.6, "teachers": 0.9}
STOPPED = Failure(3, "edgekd: error: recordings/cargo-01.wav: no such file.", "edgekd: error: no such file.\n")


class Made:
    """Stands for the workers: makes the run that a job is for at once, and keeps an account."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.environment: Mapping[str, str] = {}
        self.failing: set[str] = set()
        self.closed = 0
        self.started = 0
        self.at_job: Callable[[Job], None] = lambda _: None
        self.at_end: Callable[[Job], None] = lambda _: None

    def start(self, _command: Sequence[str], environment: Mapping[str, str], _errors: object) -> Made:
        self.environment = environment
        self.started += 1
        return self

    def do(self, line: str, /) -> Failure | None:
        job = Job.from_line(line)
        self.jobs.append(job)
        self.at_job(job)
        if short(job) in self.failing:
            return STOPPED
        make_run(job)
        self.at_end(job)
        return None

    def close(self) -> None:
        self.closed += 1

    @property
    def order(self) -> list[str]:
        return [short(job) for job in self.jobs]


def short(job: Job) -> str:
    return f"{job.config.out.parent.name}/{job.config.out.name}"


def make_run(job: Job) -> None:
    config = job.config
    index = load_index(config.data)
    split = make_split(index, config.data)
    run = Run.create(config, index.classes, "cpu")
    write_splits(run.folder / "splits.csv", index, split)
    labels, groups = [index.clips[row].label for row in split.test], [index.clips[row].group for row in split.test]
    rng = np.random.default_rng([config.seed, config.data.split_seed, len(config.out.parent.name)])
    subjects = ["teacher"] if not job.student else ["student", "int8"] if job.quantize else ["student"]
    hit = rng.random(len(labels)) < CHANCE[config.out.parent.name]
    for subject in subjects:
        right = hit if subject != "int8" else hit & (np.arange(len(hit)) != 0)  # int8 never knows the first clip
        classes = len(index.classes)
        said = np.eye(classes, dtype=np.float32)[np.where(right, labels, (np.array(labels) + 1) % classes)]
        write_predictions(run.folder, subject, index, split.test, said)
        run.update_report("test", {subject: score(said, labels, groups, index.classes).to_dict()})
