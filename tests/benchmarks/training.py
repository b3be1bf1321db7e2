"""How fast SSATKD trains: a plain implementation, and edgekd with its steps switched on one after the other.

    python -m tests.benchmarks.training [--student hltdnn] [--teacher cnn14] [--batch-size 8] [--json]

`naive` is the data flow of the authors' published code, in our words: workers read and resample each clip's file in
every epoch, the log-mels are computed as they come, the teacher hears every clip in every step, float32, nothing kept.
Its losses, networks and masks are edgekd's own, so that the ratio is one of data flow, not of how a loss is written.

    store          clips from the memory-mapped store, in the views that training draws
    channels-last  and the student's maps in that order
    logits         the teacher's logits from a table, its first layers in every step for the tap
    log-mels       the student's log-mels kept
    taps           the teacher's taps kept: a run's epochs with textures
    no textures    a run's other epochs: no tap is needed

All from the second epoch on: what a run computes before its first is told apart, as seconds, and in epochs of `naive`.
The variants take turns of a few steps, in an order drawn anew each round; the first step of a turn is not timed, and
what is drawn for batches ahead of their steps counts as if it were drawn for those that are timed.
Ratios are medians over the rounds (middle half). Times of sections come from steps of their own, as reading the clock
on a GPU means waiting for it. The floor of a step: its operators one after the other, each as fast as this machine's
best matrix product and copy let it be (see `Work`). Peak memory is a fresh process's, without the workers'.

Files, labels and the teacher's weights are random: nothing here depends on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from edgekd.training.augment import draw_masks, spec_augment
from edgekd.training.lesson import Drawn, Lesson, prepare_lesson, waveform_gain
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd._torchaudio import functional as audio_functional
from edgekd.config import CacheMode, DistillConfig
from edgekd.data.audio import fit as fit_length
from edgekd.data.clip_store import ClipStore, open_store
from edgekd.data.index import ClipIndex, Split
from edgekd.data.load import load_index
from edgekd.losses.total import SSATKDLoss
from edgekd.models.build import build_student, build_teacher
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.processes import join
from edgekd.runs.run import Run
from edgekd.training.distill import make_optimizer
from edgekd.training.loop import Stage, StepOutput, Validation, fit, seed_all, seeded
from tests.benchmarks.measure import Clock, Limits, Timed, Work, limits, ratio, synchronise, table, turns

SECTIONS = ("data", "log-mel", "teacher", "student", "losses", "optimiser", "rest")
PREFETCHED = 2  # batches a worker of the loader holds ready, as is its default


@dataclass(frozen=True)
class Steps:
    """Which of edgekd's steps are on. Each variant has those of the one before it, too."""

    channels_last: bool = True
    cache: CacheMode = "full"
    log_mels_kept: bool = True
    textures: bool = True


VARIANTS: dict[str, Steps | None] = {
    "naive": None,
    "store": Steps(channels_last=False, cache="off", log_mels_kept=False),
    "channels-last": Steps(cache="off", log_mels_kept=False),
    "logits": Steps(cache="logits", log_mels_kept=False),
    "log-mels": Steps(cache="logits"),
    "taps": Steps(),
    "no textures": Steps(cache="logits", textures=False),
}


@dataclass
class Bench:
    """Data and settings, which the variants share, and the teacher of edgekd's."""

    options: argparse.Namespace
    folder: Path
    index: ClipIndex = field(init=False)
    store: ClipStore = field(init=False)
    split: Split = field(init=False)

    def __post_init__(self) -> None:
        if not (self.folder / "clips").exists():
            _write_clips(self.folder / "clips", self.options)
        os.environ["EDGEKD_CACHE_DIR"] = str(self.folder / "cache")
        self.index = load_index(self.config.data)
        self.store = open_store(self.index, self.config.data)
        rows = tuple(range(len(self.index)))
        self.split = Split(train=rows[:-4], validation=rows[-4:-2], test=rows[-2:])

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
        return Run.create(self.config, self.index.classes, self.options.device)

    @cached_property
    def teacher(self) -> Teacher:
        return self.new_teacher()

    def new_teacher(self) -> Teacher:
        seed_all(0, "teacher")
        config = self.config
        rate, front_end = config.data.sample_rate, config.frontend
        teacher = build_teacher(config.teacher.name, len(self.index.classes), None, rate, front_end)
        return teacher.to(self.options.device).eval().requires_grad_(False)

    def new_student(self) -> Student:
        seed_all(0, "student")
        config = self.config
        student = build_student(config.student, len(self.index.classes), config.data.sample_rate, config.frontend)
        student.gain = waveform_gain(self.store, self.split)
        return student.to(self.options.device)

    def lesson(self, steps: Steps) -> Lesson:
        """As a run has it from its second epoch on, less what `steps` does not keep."""
        teacher = self.config.teacher.model_copy(update={"cache": steps.cache})
        run = replace(self.run, config=self.config.model_copy(update={"teacher": teacher}))
        student, epochs = self.new_student(), self.config.training.epochs
        lesson = prepare_lesson(run, self.index, self.split, self.store, self.teacher, student, epochs, self.device)
        lesson.loss.count_textures(steps.textures)
        return lesson if steps.log_mels_kept else replace(lesson, log_mels=None)


class Ours:
    """edgekd's own loop, `fit`, over a few batches at a time."""

    def __init__(self, bench: Bench, name: str, steps: Steps) -> None:
        self.bench, self.name = bench, name.replace(" ", "-")
        self.lesson = bench.lesson(steps)
        student = bench.new_student()
        if steps.channels_last:
            student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.student = student.to(bench.device)
        training = bench.config.training
        self.optimizer = make_optimizer(student, self.lesson.loss, training.learning_rate, training.weight_decay)

    def __call__(self, steps: int, clock: Clock | None = None) -> float:
        """Seconds a step, of `steps` after one that is not timed."""
        bench, device = self.bench, self.bench.options.device
        device, lesson, student, removed = bench.device, self.lesson, self.student, []
        drawing: list[float] = []  # seconds of each batch
        begun, drawn_before, seconds = 0.0, 0, 0.0
        if clock is not None:
            device, lesson, student, removed = self._timed(clock)

        def draw(rows: Tensor, share: slice, generator: torch.Generator) -> Drawn:
            started = time.perf_counter()
            drawn = lesson.draw(rows, share, generator)
            drawing.append(time.perf_counter() - started)
            return drawn

        asked = 0

        def step(drawn: Drawn, part: slice) -> StepOutput:
            nonlocal asked, begun, drawn_before
            asked += 1
            if asked == 2:
                synchronise(device)
                begun, drawn_before = time.perf_counter(), len(drawing)
                if clock is not None:
                    clock.seconds.clear()
            return lesson.step(student, drawn, part)

        def end() -> Validation:
            nonlocal seconds
            synchronise(device)
            drawn_ahead = steps * float(np.mean(drawing)) - sum(drawing[drawn_before:])
            seconds = time.perf_counter() - begun + drawn_ahead
            if clock is not None:
                clock.seconds["data"] += drawn_ahead
                clock.seconds["rest"] = seconds - sum(clock.seconds.values())
            return Validation(0.0, 0.0)

        (bench.run.stage_folder(self.name) / "last.pt").unlink(missing_ok=True)
        training, wanted = bench.config.training, (steps + 1) * bench.options.batch_size
        rows = bench.split.train * -(-wanted // len(bench.split.train))
        stage = Stage(
            name=self.name,
            run=bench.run,
            model=self.student,
            loss=self.lesson.loss,
            optimizer=self.optimizer,
            draw=draw,
            step=step,
            validate=end,
            rows=rows[:wanted],
            epochs=1,
            batch_size=bench.options.batch_size,
            patience=1,
            decay_power=training.decay_power,
        )
        try:
            fit(stage, device, lambda *_, **__: None)
        finally:
            for handle in removed:
                handle.remove()
        return seconds / steps

    def _timed(self, clock: Clock) -> tuple[Any, Any, Any, list[Any]]:
        """The device, the lesson and the student, their sections timed, and hooks to be removed."""
        timed: dict[str, Any] = {
            "views": _Asking(self.lesson.views, clock, "data"),
            "log_mels": None if self.lesson.log_mels is None else _Asking(self.lesson.log_mels, clock, "data"),
            "teacher": _Asking(self.lesson.teacher, clock, "teacher"),
            "loss": Timed(self.lesson.loss, clock, "losses"),
        }
        lesson: Any = replace(self.lesson, **timed)
        student: Any = self.student
        if lesson.compiled is None:
            student = _Watched(student, clock)
        else:
            lesson.compiled = _Watched(lesson.compiled, clock)
        device = Timed(self.bench.device, clock, "losses", "backward")
        return device, Timed(lesson, clock, "data", "draw"), student, _hooks(self.student, self.optimizer, clock)

    def work(self, limits: Limits) -> Work:
        """What a step does."""
        self.student.train()
        self.optimizer.zero_grad(set_to_none=True)
        rows = torch.tensor(self.bench.split.train[: self.bench.options.batch_size])
        with Work(limits) as work:
            drawn = self.lesson.draw(rows, slice(None), seeded(0, "work"))
            self.bench.device.backward(self.lesson.step(self.student, drawn, slice(None)).total)
            self.optimizer.step()
        return work


class _Asking(Timed):
    """And what its `ask` returns is timed when it is called."""

    def ask(self, *arguments: Any) -> Timed:
        return Timed(self._inner.ask(*arguments), self._clock, self._section)


class Naive:
    """The authors' data flow: files through workers, and the teacher's forward pass in every step."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.teacher, self.student = bench.new_teacher(), bench.new_student()
        loss = SSATKDLoss(bench.config.loss, self.student.tap_channels, self.teacher.tap_channels)
        self.loss = loss.to(bench.options.device)
        parameters = [*self.student.parameters(), *self.loss.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=bench.config.training.learning_rate)
        options, config = bench.options, bench.config.data
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            _Files(bench.index, bench.split.train, config.sample_rate, bench.store.samples),
            batch_size=options.batch_size,
            num_workers=options.workers,
            prefetch_factor=PREFETCHED,
            sampler=_Endless(len(bench.split.train)),  # type: ignore[arg-type]
            pin_memory=options.device == "cuda",
        )
        self.batches = iter(loader)

    def __call__(self, steps: int, clock: Clock | None = None) -> float:
        for _ in range((PREFETCHED + 1) * self.bench.options.workers):
            next(self.batches)  # what the workers read while the others had their turn
        clock = clock or Clock("cpu")  # which does not wait for a GPU
        hooks = _hooks(self.student, self.optimizer, clock)
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
        for hook in hooks:
            hook.remove()
        return seconds / steps

    def work(self, limits: Limits) -> Work:
        """What a step does, but for reading files."""
        self.student.train()
        with Work(limits) as work:
            self._step(Clock("cpu"))
        return work

    def _step(self, clock: Clock) -> None:
        with clock.section("data"):
            waveforms, labels = (tensor.to(self.bench.options.device) for tensor in next(self.batches))
        self.optimizer.zero_grad()
        augment = self.bench.config.augment
        masks = draw_masks(len(labels), augment, torch.default_generator).sent(waveforms.device)
        seen = _Watched(self.student, clock)(waveforms, lambda log_mel: spec_augment(log_mel, masks, augment))
        with clock.section("teacher"), torch.no_grad():
            taught = self.teacher(waveforms)
        with clock.section("losses"):
            self.loss(seen, taught, labels).total.backward()
        self.optimizer.step()


class _Files(Dataset):
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


class _Watched(Timed):
    """A student timed as a section, and from the moment on when the gradient reaches its outputs, again.

    Autograd runs the newest operators first, so those of the losses are all done by then.
    """

    def __init__(self, student: Any, clock: Clock) -> None:
        super().__init__(student, clock, "student")

    def __call__(self, *arguments: Any, **keywords: Any) -> StudentOutput:
        output: StudentOutput = super().__call__(*arguments, **keywords)
        if output.logits.requires_grad:
            output.logits.register_hook(lambda _: self._clock.turn_to("student"))
        return output


def _hooks(student: Student, optimizer: torch.optim.Optimizer, clock: Clock) -> list[Any]:
    return [
        student.frontend.register_forward_pre_hook(lambda *_: clock.enter("log-mel")),
        student.frontend.register_forward_hook(lambda *_: clock.leave()),
        optimizer.register_step_pre_hook(lambda *_: clock.enter("optimiser")),
        optimizer.register_step_post_hook(lambda *_: clock.leave()),
    ]


def _write_clips(folder: Path, options: argparse.Namespace) -> None:
    """A wav file a clip, four classes: noise, as sound does not matter to speed."""
    rng = np.random.default_rng(0)
    for number in range(options.clips + 4):
        path = folder / f"class{number % 4}" / f"{number:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * rng.standard_normal(round(options.seconds * options.file_rate))
        soundfile.write(path, noise, options.file_rate, "PCM_16")


def _variant(bench: Bench, name: str) -> Naive | Ours:
    steps = VARIANTS[name]
    return Naive(bench) if steps is None else Ours(bench, name, steps)


def _peak(options: argparse.Namespace, folder: Path, name: str) -> int | None:
    """Most bytes of memory that a process of its own held, training as variant `name`."""
    command = [sys.executable, "-m", "tests.benchmarks.training", *sys.argv[1:], "--peak-of", name]
    done = subprocess.run([*command, "--folder", str(folder)], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def _own_peak(device: str) -> int | None:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything that is printed."""
    best = limits(options.device)
    bench, started = Bench(options, folder), time.perf_counter()
    bench.lesson(Steps())
    synchronise(options.device)
    prepared = time.perf_counter() - started
    peaks = {name: _peak(options, folder, name) for name in options.variants} if options.memory else {}
    variants = {name: _variant(bench, name) for name in options.variants}
    times = turns({name: lambda v=v: v(options.steps) for name, v in variants.items()}, options.rounds)  # type: ignore[misc]
    base, rows = options.variants[0], []
    for place, (name, variant) in enumerate(variants.items()):
        clock, work = Clock(options.device), variant.work(best)
        variant(options.steps, clock)
        spent = sum(clock.seconds.values())
        seconds = float(np.median(times[name]))
        rows.append(
            {
                "variant": name,
                "seconds_a_step": seconds,
                "steps_a_second": 1 / seconds,
                "clips_a_second": options.batch_size / seconds,
                "times_base": ratio(times[base], times[name]),
                "times_before": ratio(times[options.variants[max(place - 1, 0)]], times[name]),
                "shares": {section: clock.seconds[section] / spent for section in SECTIONS},
                "gflop": work.flops / 1e9,
                "gigabytes": work.bytes / 1e9,
                "floor_flops_seconds": work.flops / best.flops,
                "floor_bytes_seconds": work.bytes / best.bandwidth,
                "floor_seconds": work.seconds,
                "times_floor": seconds / work.seconds,
                "peak_bytes": peaks.get(name),
                "rounds_seconds": times[name],
            }
        )
    return {
        "base": base,
        "student": options.student,
        "teacher": options.teacher,
        "batch_size": options.batch_size,
        "clip_seconds": options.seconds,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "steps": options.steps,
        "gflops_a_second": best.flops / 1e9,
        "gigabytes_a_second": best.bandwidth / 1e9,
        "prepared_seconds_a_view": prepared / (len(bench.split.train) * options.views),
        "rows": rows,
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    rows, base = found["rows"], found["base"]
    yield (
        f"{found['student']} taught by {found['teacher']}: batch {found['batch_size']}, {found['clip_seconds']:g} s, "
        f"{found['device']}, {found['threads']} threads, {found['rounds']} rounds of {found['steps']} steps"
    )
    head = ["", "clips/s", "steps/s", f"times {base}", "times before", "peak MB"]
    yield table(
        head,
        [
            [
                row["variant"],
                f"{row['clips_a_second']:.1f}",
                f"{row['steps_a_second']:.2f}",
                str(row["times_base"]),
                str(row["times_before"]),
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
            ]
            for row in rows
        ],
    )
    yield "\nshare of a step"
    shares = [[row["variant"], *(f"{row['shares'][section]:.0%}" for section in SECTIONS)] for row in rows]
    yield table(["", *SECTIONS], shares)
    yield (
        f"\nfloor of a step, ms, at {found['gflops_a_second']:.0f} GFLOP/s and "
        f"{found['gigabytes_a_second']:.1f} GB/s (best seen here)"
    )
    yield table(
        ["", "GFLOP", "GB", "FLOPs alone", "bytes alone", "floor", "measured", "times floor"],
        [
            [
                row["variant"],
                f"{row['gflop']:.1f}",
                f"{row['gigabytes']:.2f}",
                *(f"{1e3 * row[f'floor_{part}seconds']:.0f}" for part in ("flops_", "bytes_", "")),
                f"{1e3 * row['seconds_a_step']:.0f}",
                f"{row['times_floor']:.1f}",
            ]
            for row in rows
        ],
    )
    view, clip = found["prepared_seconds_a_view"], rows[0]["seconds_a_step"] / found["batch_size"]
    yield (
        f"\nbefore the first epoch: {view:.2f} s a view of a clip (teacher, log-mel): "
        f"{view / clip:.1f} epochs of {base} a view"
    )


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="hltdnn")
    parser.add_argument("--teacher", default="cnn14")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a clip")
    parser.add_argument("--sample-rate", type=int, default=32_000)
    parser.add_argument("--file-rate", type=int, help="of the files; default: --sample-rate")
    parser.add_argument("--clips", type=int, help="of the training side; default: 3 batches")
    parser.add_argument("--views", type=int, default=2, help="of a clip")
    parser.add_argument("--epochs", type=int, default=60, help="of the run that is pretended")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="timed in a turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    parser.add_argument("--workers", type=int, help="that read files for 'naive'; default: one a thread, 8 at most")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="the first is the base")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out the processes for memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.file_rate = options.file_rate or options.sample_rate
    options.clips = options.clips or 3 * options.batch_size
    options.workers = options.workers or min(8, options.threads)
    return options


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.peak_of is not None:
        _variant(Bench(options, options.folder), options.peak_of)(1)
        print(json.dumps(_own_peak(options.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if options.json:
        print(json.dumps(found))
        return
    print(*show(found), sep="\n")


if __name__ == "__main__":
    main()
