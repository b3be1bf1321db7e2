"""`distill`: data, teacher, SSATKD student, test scores. Read from top to bottom, this is what a run does."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import nn

from edgekd import processes
from edgekd.config import DistillConfig
from edgekd.data.checks.audit import audit, check_audit
from edgekd.data.clip_store import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.data.load import check_clip_length, load_index
from edgekd.data.splits import check_no_leak, make_split, read_splits, write_splits
from edgekd.errors import InputError, UsageError
from edgekd.losses.total import SSATKDLoss
from edgekd.models.build import check_models, new_student
from edgekd.models.factories import is_own
from edgekd.models.teachers.base import Teacher
from edgekd.models.tracing import check_layers, trace
from edgekd.processes import make_fabric
from edgekd.progress import Progress, silent
from edgekd.runs.data import open_clips
from edgekd.runs.pictures import plot_confusion, plot_curves
from edgekd.runs.predictions import read_predictions, write_predictions
from edgekd.runs.run import Run, check_folder
from edgekd.scoring.scores import Scores, predict_probabilities, score
from edgekd.training.adapt import adapted_teacher, check_teacher, new_teacher, settled, warn_of_weaker_teacher
from edgekd.training.augment import draw_views
from edgekd.training.frozen_teacher import FrozenTeacher
from edgekd.training.lesson import needs_teacher, prepare_lesson, waveform_gain
from edgekd.training.loop import Stage, check_shares, fit, seed_all
from edgekd.training.shared_layers import share_layers
from edgekd.training.teacher_cache import fill_cache

Probabilities = npt.NDArray[np.float32]


def distill(
    config: DistillConfig,
    progress: Progress = silent,
    *,
    resume: bool = False,
    overwrite: bool = False,
    teacher_run: Run | None = None,
    quantized: bool = False,
) -> Run:
    """Train a student as `config` says, into the run folder `config.out`, and score it and its teacher on the test
    side.

    `teacher_run`, a run whose teacher was adapted by the same settings (see `adapt_teacher`), lends that teacher and,
    through the cache, its answers: the outcome is the same, and sooner. `quantized`: an int8 student is to follow, so
    one of the user's own that cannot be made int8 is refused now. Several processes that `torchrun` started share the
    work (see `edgekd.processes`).

    Raises `UsageError` (names, an existing folder, a teacher of other settings), `InputError` (data, weights) or
    `GateError` (a split that leaks).
    """
    taught = needs_teacher(config.loss.terms)
    begun = _begin(config, progress, taught, resume, overwrite, quantized)
    run, index, split, store, fabric = begun.run, begun.index, begun.split, begun.store, begun.fabric
    teacher = _teacher(begun, teacher_run, progress) if taught else None

    seed_all(config.seed, "student")
    student = run.new_student()
    student.gain = waveform_gain(store, split)
    student.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.4 times as fast on a CPU
    processes.spread(student)
    share_layers(student)
    lesson = prepare_lesson(run, index, split, store, teacher, student, config.training.epochs, fabric, progress)
    student.to(fabric.device)
    training = config.training
    started = time.perf_counter()
    fit(
        Stage(
            name="student",
            run=run,
            model=student,
            loss=lesson.loss,
            optimizer=make_optimizer(student, lesson.loss, training.learning_rate, training.weight_decay),
            draw=lesson.draw,
            step=lambda drawn, part: lesson.step(student, drawn, part),
            validate=lambda: lesson.validate(student),
            rows=split.train,
            epochs=training.epochs,
            batch_size=training.batch_size,
            patience=training.patience,
            decay_power=training.decay_power,
            on_epoch=lesson.begin_epoch,
        ),
        fabric,
        progress,
    )
    summary: dict[str, Any] = {"name": config.student, "seconds": round(time.perf_counter() - started, 1)}
    if lesson.teacher is not None:
        summary["teacher_cache"] = lesson.teacher.summary()
    processes.from_first(lambda: run.update_report("training", {"student": summary}))
    record_test(run, "student", index, split, predict_test(student, split, store, fabric, progress))
    processes.from_first(lambda: warn_of_weaker_teacher(run))
    return run


def adapt_teacher(
    config: DistillConfig, progress: Progress = silent, *, resume: bool = False, overwrite: bool = False
) -> Run:
    """The teacher's part of `distill` alone: adapt it, score it, and ask it about every view of every training clip.

    What the run folder `config.out` then holds can be lent to any number of students. Raises as `distill` does.
    """
    begun = _begin(config, progress, True, resume, overwrite)
    teacher = _teacher(begun, None, progress)
    train, store, device = begun.split.train, begun.store, begun.fabric.device
    views = draw_views(train, store.samples, config.augment, config.seed)
    fill_cache(
        begun.run.config, FrozenTeacher(teacher, device), store, views, taps=False, repeated=False, progress=progress
    )
    return begun.run


def teacher_settings(config: DistillConfig) -> dict[str, Any]:
    """All of `config` that decides the adapted teacher and what it is asked: where it is equal, one run's teacher can
    be lent to another."""
    kept = {"teacher": {"cache"}}
    asked = {"time_shift", "shifts_per_clip", "mixes_per_clip", "mix_share"}
    plain = config.teacher.adaptation != "full"  # a head is trained on the embeddings of clips as they are
    return {
        **config.model_dump(mode="json", include={"data", "frontend", "teacher", "seed"}, exclude=kept),
        "augment": config.augment.model_dump(mode="json", include=asked if plain else None),
        "training": {} if plain else config.training.model_dump(mode="json", include={"patience", "decay_power"}),
    }


def make_optimizer(
    student: nn.Module, loss: SSATKDLoss, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the student and what the loss learns; the loss's log-variances are not decayed towards 0.

    In one kernel on CUDA; on a CPU that gained nothing.
    """
    return torch.optim.AdamW(
        [
            {"params": list(student.parameters()), "weight_decay": weight_decay},
            {"params": list(loss.parameters()), "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=next(student.parameters()).is_cuda or None,
    )


def predict_test(
    model: nn.Module, split: Split, store: ClipStore, fabric: Fabric, progress: Progress = silent
) -> Probabilities:
    """What a student or teacher says of the test side, `(N, K)`."""
    model.to(fabric.device).eval()
    return predict_probabilities(
        lambda waveforms: model(waveforms).logits,
        store,
        split.test,
        device=fabric.device,
        progress=progress,
        stage="test",
    )


def record_test(run: Run, subject: str, index: ClipIndex, split: Split, probabilities: Probabilities) -> None:
    """Put what `subject` says of the test side into `predictions.csv` and its scores into `report.json`, and draw the
    pictures of the run again."""

    def record() -> None:
        labels = [index.clips[row].label for row in split.test]
        groups = [index.clips[row].group for row in split.test]
        scores = score(probabilities, labels, groups, index.classes, run.config.seed)
        write_predictions(run.folder, subject, index, split.test, probabilities)
        run.update_report("test", {subject: scores.to_dict()})
        confusions = {name: Scores.from_dict(values).confusion for name, values in run.report()["test"].items()}
        plot_confusion(confusions, run.classes, run.folder / "confusion.png")
        plot_curves(Path(run.folder / "metrics.csv"), run.folder / "curves.png")

    processes.from_first(record)


@dataclass(frozen=True)
class _Begun:
    """A run folder that was begun, its data, and the device."""

    run: Run
    index: ClipIndex
    split: Split
    store: ClipStore
    fabric: Fabric


def _begin(
    config: DistillConfig, progress: Progress, taught: bool, resume: bool, overwrite: bool, quantized: bool = False
) -> _Begun:
    """Check device, names, folder and data, in this order, and begin the run folder only then."""
    config = settled(config)
    fabric = make_fabric(config.device)
    index, split = processes.from_first(lambda: _data(config, progress, taught, resume, overwrite, quantized))
    store = open_clips(index, config.data, progress)

    def create() -> Run:
        audited = audit(index, split, store, config.data, progress)
        let_pass = check_audit(audited, index, config.data)
        # Only now, when data and device are known to be good, is an older run given up.
        run = Run.create(config, index.classes, _devices(fabric), replace=overwrite)
        write_splits(config.out / "splits.csv", index, split)
        run.update_report("audit", audited.to_dict())
        if let_pass is not None:
            run.warn(let_pass)
        return run

    return _Begun(processes.from_first(create), index, split, store, fabric)


def _data(
    config: DistillConfig, progress: Progress, taught: bool, resume: bool, overwrite: bool, quantized: bool
) -> tuple[ClipIndex, Split]:
    """The clips and their sides, when what the configuration names has been found good."""
    check_models(config, taught)
    if taught:
        check_teacher(config.teacher)
    check_folder(config, resume, overwrite)
    index = load_index(config.data, progress)
    check_clip_length(index, config.data)
    if taught and not resume:
        new_teacher(config, index.classes)  # weights or a factory that do not fit are found out now, not in an hour
    if is_own(config.student) and not resume:  # likewise
        student = new_student(config, len(index.classes))
        if quantized:
            check_layers(f"Student '{config.student}'", trace(student.name, student.network))
    splits_file = config.out / "splits.csv"
    split = read_splits(splits_file, index) if resume and splits_file.is_file() else make_split(index, config.data)
    check_no_leak(index, split)
    check_shares("student", len(split.train), config.training.batch_size)
    if taught and config.teacher.adaptation == "full":
        check_shares("teacher", len(split.train), config.teacher.batch_size)
    return index, split


def _devices(fabric: Fabric) -> str:
    """What the run is computed on, for a person to read."""
    return str(fabric.device) if processes.count() == 1 else f"{processes.count()} x {fabric.device.type}"


def _teacher(begun: _Begun, lender: Run | None, progress: Progress) -> Teacher:
    """The adapted teacher, scored: the run's own where it has one, else the lender's, else one adapted now."""
    run = begun.run
    borrowed = None
    if lender is not None and "teacher" not in run.report().get("training", {}):  # a cell of a grid: one process
        borrowed = _borrow_teacher(begun, lender)
    teacher = adapted_teacher(run, begun.index, begun.split, begun.store, begun.fabric, progress)
    said = borrowed
    if said is None:
        said = predict_test(teacher, begun.split, begun.store, begun.fabric, progress)
    record_test(run, "teacher", begun.index, begun.split, said)
    return teacher


def _borrow_teacher(begun: _Begun, lender: Run) -> Probabilities:
    """Take over the teacher of `lender`, its curves and its answers; return what it says of the test side."""
    run, own, theirs = begun.run, teacher_settings(begun.run.config), teacher_settings(lender.config)
    different = [name for name, value in own.items() if theirs.get(name) != value]
    if different:
        raise UsageError(
            f"{lender.folder}: its teacher was adapted with other settings ({', '.join(different)}) than {run.folder} "
            "asks for. Take the same, or let the run adapt its own."
        )
    summary = lender.report().get("training", {}).get("teacher")
    weights = lender.folder / "teacher" / "best.safetensors"
    if summary is None or not weights.is_file():
        raise InputError(f"{lender.folder}: its teacher is not finished, so it cannot be lent.")
    said = read_predictions(lender.folder, "teacher", run.classes)
    if said.rows != begun.split.test or read_splits(lender.folder / "splits.csv", begun.index) != begun.split:
        raise InputError(f"{lender.folder}: its split is not that of {run.folder}: its teacher would know test clips.")
    folder = run.stage_folder("teacher")
    _link(weights, folder / weights.name)
    log = run.metrics()
    log.truncate("teacher", 0)
    for row in lender.metrics().rows:
        if row["stage"] == "teacher":
            figures = {name: float(value) for name, value in row.items() if value and name not in ("stage", "epoch")}
            log.append("teacher", int(row["epoch"]), **figures)
    run.update_report("training", {"teacher": {**summary, "from": str(lender.folder)}})  # last: now it is finished
    return said.probabilities


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk has no such links; files are replaced, not changed."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
