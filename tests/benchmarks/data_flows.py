"""The flows of data that `training` compares: the authors', in our words, and edgekd's with more and more of its steps.

Each is called with a number of steps and says how many seconds one took; with a clock it also says in which sections.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd._torchaudio import functional as audio_functional
from edgekd.audio.read import fit as fit_length
from edgekd.config import CacheMode, DistillConfig
from edgekd.data.index import ClipIndex, Split
from edgekd.data.load import load_index
from edgekd.losses.ssatkd.kernels import uses_kernels, without_kernels
from edgekd.losses.terms import Need
from edgekd.losses.total import SSATKDLoss
from edgekd.models.build import build_student, build_teacher
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.processes import join
from edgekd.progress import silent
from edgekd.runs.data import RunData, open_clips
from edgekd.runs.run import Run
from edgekd.training.batches import AHEAD, Batch, TrainingBatches, seed_all
from edgekd.training.distill import make_optimizer
from edgekd.training.loop import Stage, fit
from edgekd.training.spec_augment import draw_masks, spec_augment
from edgekd.training.student_batches import student_batches, student_validation, waveform_gain
from edgekd.training.student_step import StudentStep, compiled_step, computes_in_kernels
from edgekd.training.validation import ValidationClips
from tests.benchmarks.measure import Clock, Limits, Work, synchronise
from tests.benchmarks.sections import TimedLoss, TimedTeacher, Watched, WatchedStep, hooks

PREFETCHED = 2  # batches a worker of the loader holds ready, as is its default


@dataclass(frozen=True)
class Steps:
    """Which of edgekd's steps are on. Each variant has those of the one before it, too."""

    channels_last: bool = True
    cache: CacheMode = "full"
    log_mels_kept: bool = True
    kernels: bool = True
    """On a GPU: textures in kernels, and all of a step compiled; else the student alone is."""
    textures: bool = True


VARIANTS: dict[str, Steps | None] = {
    "naive": None,
    "store": Steps(channels_last=False, cache="off", log_mels_kept=False, kernels=False),
    "channels-last": Steps(cache="off", log_mels_kept=False, kernels=False),
    "logits": Steps(cache="logits", log_mels_kept=False, kernels=False),
    "log-mels": Steps(cache="logits", kernels=False),
    "taps": Steps(kernels=False),
    "compiled step": Steps(),
    "student alone": Steps(cache="logits", kernels=False, textures=False),
    "no textures": Steps(cache="logits", textures=False),
}


@dataclass
class Bench:
    """Data and settings, which the variants share, and the teacher of edgekd's."""

    options: argparse.Namespace
    folder: Path
    data: RunData = field(init=False)

    def __post_init__(self) -> None:
        if not (self.folder / "clips").exists():
            _write_clips(self.folder / "clips", self.options)
        os.environ["EDGEKD_CACHE_DIR"] = str(self.folder / "cache")
        index = load_index(self.config.data)
        rows = tuple(range(len(index)))
        split = Split(train=rows[:-4], validation=rows[-4:-2], test=rows[-2:])
        self.data = RunData(index, split, open_clips(index, self.config.data))

    @cached_property
    def config(self) -> DistillConfig:
        options = self.options
        return DistillConfig.model_validate(
            {
                "out": self.folder / "run",
                "device": options.device,
                "student": options.student,
                "data": {
                    "dataset": "folder",
                    "data_dir": self.folder / "clips",
                    "sample_rate": options.sample_rate,
                    "clip_seconds": options.seconds,
                },
                "frontend": {"f_max": min(14_000, options.sample_rate / 2)},
                "teacher": {"name": options.teacher},
                "augment": {"shifts_per_clip": options.views},
                "training": {"epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": 1e-4},
            }
        )

    @cached_property
    def device(self) -> torch.device:
        return join(self.options.device)

    @cached_property
    def run(self) -> Run:
        return Run.create(self.config, self.data.index.classes, self.options.device)

    @cached_property
    def teacher(self) -> Teacher:
        return self.new_teacher()

    def new_teacher(self) -> Teacher:
        seed_all(0, "teacher")
        config = self.config
        rate, front_end = config.data.sample_rate, config.frontend
        teacher = build_teacher(config.teacher.name, len(self.data.index.classes), None, rate, front_end)
        return teacher.to(self.options.device).eval().requires_grad_(False)

    def new_student(self) -> Student:
        seed_all(0, "student")
        config = self.config
        student = build_student(config.student, len(self.data.index.classes), config.data.sample_rate, config.frontend)
        student.gain = waveform_gain(self.data.store, self.data.split)
        return student.to(self.options.device)

    def batches(self, steps: Steps) -> TrainingBatches:
        """Those of a run from its second epoch on, less what `steps` does not keep."""
        teacher = self.config.teacher.model_copy(update={"cache": steps.cache})
        run = replace(self.run, config=self.config.model_copy(update={"teacher": teacher}))
        student, epochs = self.new_student(), self.config.training.epochs
        batches = student_batches(run, self.data, "student", student, self.teacher, epochs, self.device)
        return batches if steps.log_mels_kept else replace(batches, log_mels=None)

    def validation(self) -> ValidationClips:
        """As log-mels in any case, so that no front end computes anything but what a step asks for."""
        return student_validation(self.data, self.new_student(), max(2, self.config.training.epochs), self.device)


class Naive:
    """The authors' data flow: files through workers, and the teacher's forward pass in every step."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.teacher, self.student = bench.new_teacher(), bench.new_student()
        loss = SSATKDLoss(bench.config.loss, self.student.tap_channels, self.teacher.tap_channels)
        self.loss = loss.to(bench.options.device)
        parameters = [*self.student.parameters(), *self.loss.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=bench.config.training.learning_rate)
        options, config, data = bench.options, bench.config.data, bench.data
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            Files(data.index, data.split.train, config.sample_rate, data.store.samples),
            batch_size=options.batch_size,
            num_workers=options.workers,
            prefetch_factor=PREFETCHED,
            sampler=_Endless(len(data.split.train)),  # type: ignore[arg-type]
            pin_memory=options.device == "cuda",
        )
        self.batches = iter(loader)

    def __call__(self, steps: int, clock: Clock | None = None) -> float:
        for _ in range((PREFETCHED + 1) * self.bench.options.workers):
            next(self.batches)  # what the workers read while the others had their turn
        clock = clock or Clock("cpu")  # which does not wait for a GPU
        removed = hooks(self.student, self.optimizer, clock)
        self.student.train()
        self._step(clock)
        synchronise(self.bench.options.device)
        clock.seconds.clear()
        started = time.perf_counter()
        for _ in range(steps):
            self._step(clock)
        synchronise(self.bench.options.device)
        seconds = time.perf_counter() - started
        clock.seconds["rest"] = seconds - sum(clock.seconds.values())
        for hook in removed:
            hook.remove()
        return seconds / steps

    def work(self, limits: Limits) -> Work:
        """What a step does, but for reading files."""
        self.student.train()
        with Work(limits) as work:
            self._step(Clock("cpu"))
        return work

    @without_kernels()
    def _step(self, clock: Clock) -> None:
        with clock.section("data"):
            waveforms, labels = (tensor.to(self.bench.options.device) for tensor in next(self.batches))
        self.optimizer.zero_grad()
        augment = self.bench.config.augment
        masks = draw_masks(len(labels), augment, torch.default_generator).to(waveforms.device)
        student = Watched(self.student, clock)(waveforms, lambda log_mel: spec_augment(log_mel, masks, augment))
        with clock.section("teacher"), torch.no_grad():
            teacher = self.teacher(waveforms)
        with clock.section("losses"):
            self.loss(student, teacher, labels).total.backward()
        self.optimizer.step()


class Ours:
    """edgekd's own loop, `fit`, over a few batches at a time."""

    def __init__(self, bench: Bench, name: str, steps: Steps) -> None:
        self.bench, self.name = bench, name.replace(" ", "-")
        self.batches, self.validation = bench.batches(steps), bench.validation()
        student = bench.new_student()
        if steps.channels_last:
            student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.student = student.to(bench.device)
        loss = bench.config.loss.model_copy(update={"texture_share": 1.0 if steps.textures else 0.0})
        config = bench.config.model_copy(update={"loss": loss})
        self.loss = SSATKDLoss(loss, student.tap_channels, bench.teacher.tap_channels).to(bench.device)
        how = "on" if steps.kernels and bench.device.type == "cuda" else "auto"
        training = bench.config.training.model_copy(update={"compile": how})
        self.run = replace(bench.run, config=bench.config.model_copy(update={"training": training}))
        compiled = compiled_step(self.run, bench.device)
        self.kernels = steps.kernels
        self.step = StudentStep(self.student, self.loss, config, bench.device, compiled=compiled)
        training = config.training
        self.optimizer = make_optimizer(student, self.loss, training.learning_rate, training.weight_decay)

    def __call__(self, steps: int, clock: Clock | None = None) -> float:
        """Seconds a step, of `steps` after one that is not timed."""
        bench = self.bench
        device = bench.options.device
        computes_in_kernels(self.run, bench.device)  # another flow may have been the last
        step, removed = self.step, []
        if clock is not None:
            step, removed = self._timed(clock), hooks(self.student, self.optimizer, clock)
        turn = Turn(self.batches, steps, clock or Clock("cpu"), device)
        (bench.run.stage_folder(self.name) / "last.pt").unlink(missing_ok=True)  # type: ignore[arg-type]
        stage = Stage(
            name=self.name,  # type: ignore[arg-type]
            run=bench.run,
            model=self.student,
            batches=turn,  # type: ignore[arg-type]
            step=step,
            optimizer=self.optimizer,
            validation=self.validation,
            device=bench.device,
            epochs=1,
            patience=1,
            loss=self.loss,
        )
        try:
            fit(stage, silent)
        finally:
            for hook in removed:
                hook.remove()
        return turn.seconds / steps

    def _timed(self, clock: Clock) -> StudentStep:
        """The step, with the student and the losses timed as sections."""
        student: Any = self.student
        compiled: Any = self.step.compiled
        if compiled is None:
            student = Watched(student, clock)
        elif self.kernels and uses_kernels(self.bench.device):
            compiled = WatchedStep(compiled, clock, "student")
            return StudentStep(student, self.loss, self.step.config, self.bench.device, compiled=compiled)
        else:
            compiled = Watched(compiled, clock)
        loss: Any = TimedLoss(self.loss, clock, "losses")
        return StudentStep(student, loss, self.step.config, self.bench.device, compiled=compiled)

    def work(self, limits: Limits) -> Work:
        """What a step does, in torch's operators, each by itself."""
        self.student.train()
        self.optimizer.zero_grad(set_to_none=True)
        rows = self.batches.rows[: self.bench.options.batch_size]
        needs = self.step.begin(1)
        step = copy.copy(self.step)
        step.compiled = None
        with without_kernels(), Work(limits) as work:
            (batch,) = replace(self.batches, rows=rows).epoch(1, needs)
            step(batch).total.backward()
            self.optimizer.step()
        return work


class Turn:
    """Stands in for the batches of a stage: `steps` of them are timed, after one that is not.

    More batches are drawn than are given out, so that as in the midst of an epoch each timed step draws one, too.
    """

    def __init__(self, batches: TrainingBatches, steps: int, clock: Clock, device: str) -> None:
        self.steps, self.clock, self.device = steps, clock, device
        self.batch_size, self.seconds = batches.batch_size, 0.0
        drawn, given = ((steps + 1 + more) * batches.batch_size for more in (AHEAD, 0))
        rows = tuple(islice(cycle(batches.rows), drawn))
        self.rows, self.clips_an_epoch = rows[:given], given
        teacher: Any = None if batches.teacher is None else TimedTeacher(batches.teacher, clock, "teacher")
        self._batches = replace(batches, rows=rows, teacher=teacher)

    def __len__(self) -> int:
        return self.steps + 1

    def epoch(self, number: int, needs: Collection[Need] = ()) -> Iterator[Batch]:
        clock, batches = self.clock, self._batches.epoch(number, needs)
        yield next(batches)
        synchronise(self.device)
        clock.seconds.clear()
        begun = time.perf_counter()
        for _ in range(self.steps):
            with clock.section("data"):
                batch = next(batches)
            yield batch
        synchronise(self.device)
        self.seconds = time.perf_counter() - begun
        clock.seconds["rest"] = self.seconds - sum(clock.seconds.values())


def variant(bench: Bench, name: str) -> Naive | Ours:
    steps = VARIANTS[name]
    return Naive(bench) if steps is None else Ours(bench, name, steps)


class Files(Dataset):
    """Clips read from their files at every access."""

    def __init__(self, index: ClipIndex, rows: tuple[int, ...], sample_rate: int, samples: int) -> None:
        self.clips = [index.clips[row] for row in rows]
        self.sample_rate, self.samples = sample_rate, samples

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        clip = self.clips[place]
        waveform, rate = soundfile.read(clip.path, dtype="float32", start=clip.start, frames=clip.length)
        if rate != self.sample_rate:
            waveform = audio_functional.resample(torch.from_numpy(waveform), rate, self.sample_rate).numpy()
        return torch.from_numpy(fit_length(waveform, self.samples, "repeat")), clip.label


class _Endless:
    """Places in random order, again and again."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.count).tolist()


def _write_clips(folder: Path, options: argparse.Namespace) -> None:
    """A wav file a clip, four classes: noise, as sound does not matter to speed."""
    rng = np.random.default_rng(0)
    for number in range(options.clips + 4):
        path = folder / f"class{number % 4}" / f"{number:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * rng.standard_normal(round(options.seconds * options.file_rate))
        soundfile.write(path, noise, options.file_rate, "PCM_16")
