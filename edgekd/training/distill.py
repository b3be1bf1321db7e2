"""`distill`: data, teacher, SSATKD student, test scores. Read from top to bottom, this is what a run does."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from edgekd.config import DistillConfig
from edgekd.console import Progress, silent
from edgekd.data import load_index
from edgekd.data.cache import ClipStore, open_store
from edgekd.data.index import ClipIndex, Split
from edgekd.data.splits import check_no_leak, make_split, read_splits, write_splits
from edgekd.errors import UsageError
from edgekd.models import build_student, check_names
from edgekd.ssatkd import SSATKDLoss
from edgekd.training.evaluation import Scores, predict_probabilities, score
from edgekd.training.figures import plot_confusion, plot_curves
from edgekd.training.lesson import needs_teacher, prepare_lesson, waveform_gain
from edgekd.training.loop import Stage, fit, seed_all
from edgekd.training.run import Run, check_folder
from edgekd.training.teacher import adapted_teacher, check_teacher


def distill(
    config: DistillConfig, progress: Progress = silent, *, resume: bool = False, overwrite: bool = False
) -> Run:
    """Train a student as `config` says, into the run folder `config.out`, and score it and its teacher on the test
    side.

    Raises `UsageError` (names, an existing folder), `InputError` (data, weights) or `GateError` (a split that leaks).
    """
    taught = needs_teacher(config.loss.terms)
    check_names(config.student, config.teacher.name if taught else None)
    if taught:
        check_teacher(config.teacher.name, config.teacher.weights is not None, config.teacher.adaptation)
    check_folder(config, resume, overwrite)
    fabric = make_fabric(config.device)

    index = load_index(config.data, progress)
    splits_file = config.out / "splits.csv"
    split = read_splits(splits_file, index) if resume and splits_file.is_file() else make_split(index, config.data)
    check_no_leak(index, split)
    store = open_store(index, config.data, progress)
    # Only now, when data and device are known to be good, is an older run given up.
    run = Run.create(config, index.classes, str(fabric.device), replace=overwrite)
    write_splits(splits_file, index, split)

    teacher = adapted_teacher(run, index, split, store, fabric, progress) if taught else None
    if teacher is not None:
        record_scores(run, "teacher", score_test(run, teacher, index, split, store, fabric, progress))

    seed_all(config.seed, "student")
    student = build_student(config.student, len(index.classes), config.data.sample_rate, config.frontend)
    student.gain = waveform_gain(store, split)
    lesson = prepare_lesson(run, index, split, store, teacher, student, fabric, progress)
    wrapped = fabric.setup_module(student)
    training = config.training
    started = time.perf_counter()
    fit(
        Stage(
            name="student",
            run=run,
            model=student,
            loss=lesson.loss,
            optimizer=make_optimizer(student, lesson.loss, training.learning_rate, training.weight_decay),
            step=lambda rows: lesson.step(wrapped, rows),
            validate=lambda: lesson.validate(wrapped),
            rows=split.train,
            epochs=training.epochs,
            batch_size=training.batch_size,
            patience=training.patience,
            decay_power=training.decay_power,
        ),
        fabric,
        progress,
    )
    run.update_report(
        "training", {"student": {"name": config.student, "seconds": round(time.perf_counter() - started, 1)}}
    )
    record_scores(run, "student", score_test(run, student, index, split, store, fabric, progress))
    return run


def make_fabric(device: str, autocast: bool = True) -> Fabric:
    """Lightning Fabric on one device: bfloat16 autocast on CUDA unless not wanted, float32 on the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: this machine has no CUDA device that torch can use. 'edgekd doctor' says more."
        )
    return Fabric(accelerator=device, devices=1, precision="bf16-mixed" if device == "cuda" and autocast else "32-true")


def make_optimizer(
    student: nn.Module, loss: SSATKDLoss, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the student and what the loss learns; the loss's log-variances are not decayed towards 0."""
    return torch.optim.AdamW(
        [
            {"params": list(student.parameters()), "weight_decay": weight_decay},
            {"params": list(loss.parameters()), "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )


def score_test(
    run: Run,
    model: nn.Module,
    index: ClipIndex,
    split: Split,
    store: ClipStore,
    fabric: Fabric,
    progress: Progress = silent,
) -> Scores:
    """Scores of a student or teacher on the run's test side."""
    model.to(fabric.device).eval()
    probabilities = predict_probabilities(
        lambda waveforms: model(waveforms).logits,
        store,
        split.test,
        device=fabric.device,
        progress=progress,
        stage="test",
    )
    labels = [index.clips[row].label for row in split.test]
    groups = [index.clips[row].group for row in split.test]
    return score(probabilities, labels, groups, index.classes, run.config.seed)


def record_scores(run: Run, subject: str, scores: Scores) -> None:
    """Put a subject's test scores into `report.json`, and draw the pictures of the run again."""
    run.update_report("test", {subject: scores.to_dict()})
    confusions = {name: Scores.from_dict(values).confusion for name, values in run.report()["test"].items()}
    plot_confusion(confusions, run.classes, run.folder / "confusion.png")
    plot_curves(Path(run.folder / "metrics.csv"), run.folder / "curves.png")
