"""Adapting a teacher to the target classes, before distillation.

`head`: the pre-trained network stays as it is and a new linear head is trained on its embeddings, which are computed
once. `full`: all of it is trained, the pre-trained part at a tenth of the head's learning rate; without pre-trained
weights everything starts at random and learns at the full rate.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.errors import UsageError
from edgekd.models import build_teacher
from edgekd.models.teachers import TEACHERS
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import save_weights
from edgekd.training.augment import augmented_front_end, shift
from edgekd.training.lesson import validate
from edgekd.training.loop import Stage, StepOutput, batches, fit, seed_all
from edgekd.training.run import Run

BACKBONE_RATE = 0.1  # learning rate of pre-trained layers, relative to the new head's
WEIGHT_DECAY = 1e-2


def adapted_teacher(
    run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric, progress: Progress = silent
) -> Teacher:
    """The run's teacher, adapted to its classes; read back where the run has it already.

    Raises `UsageError` when the head alone is to be trained on a network without weights.
    """
    config = run.config
    done = run.report().get("training", {}).get("teacher")
    if done is not None:
        finished = run.teacher()
        if finished is not None:
            return finished
    seed_all(config.seed, "teacher")
    teacher = build_teacher(
        config.teacher.name,
        len(run.classes),
        config.teacher.weights,
        config.data.sample_rate,
        config.frontend,
    )
    started = time.perf_counter()
    if config.teacher.adaptation == "head":
        _train_head(teacher, run, index, split, store, fabric, progress)
    else:
        _train_all(teacher, run, index, split, store, fabric, progress)
    summary = {"name": config.teacher.name, "seconds": round(time.perf_counter() - started, 1)}
    run.update_report("training", {"teacher": summary})
    return teacher.eval()


def check_teacher(name: str, has_weights: bool, adaptation: str) -> None:
    """Raise `UsageError` for a teacher that could not learn: a random network of which only the head is trained."""
    if has_weights:
        return
    if TEACHERS[name].needs_weights:
        raise UsageError(
            f"Teacher '{name}' needs pre-trained weights: pass --teacher-weights FILE ({TEACHERS[name].weights_from}), "
            "or use --teacher convnet --adaptation full, which learns from your data alone."
        )
    if adaptation == "head":
        raise UsageError(
            f"Teacher '{name}' starts at random: training only its head is no use; pass --adaptation full."
        )


def _train_head(
    teacher: Teacher, run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric, progress: Progress
) -> None:
    config = run.config.teacher
    teacher.to(fabric.device)
    train, validation = _embeddings(teacher, store, (split.train, split.validation), fabric.device, progress)
    # Standardised features let one learning rate suit every teacher; the scaling is folded into the head afterwards.
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-4)
    train, validation = (train - mean) / deviation, (validation - mean) / deviation
    labels = torch.tensor(index.labels)
    train_labels, validation_labels = labels[list(split.train)], labels[list(split.validation)]
    head = nn.Linear(train.shape[1], len(run.classes))
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY)
    log = run.metrics()
    log.truncate("teacher", 0)
    best, best_score, best_epoch = copy.deepcopy(head.state_dict()), (-1.0, 0.0), 0
    count = max(1, round(len(train) / config.batch_size))
    for epoch in range(1, config.epochs + 1):
        seed_all(run.config.seed, "teacher", epoch)
        started, total = time.perf_counter(), 0.0
        for rows in batches(range(len(train)), count):
            optimizer.zero_grad()
            loss = cross_entropy(head(train[rows]), train_labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() / count
        with torch.no_grad():
            logits = head(validation)
        validation_loss = float(cross_entropy(logits, validation_labels))
        accuracy = float((logits.argmax(1) == validation_labels).float().mean())
        if (accuracy, -validation_loss) > best_score:
            best, best_score, best_epoch = copy.deepcopy(head.state_dict()), (accuracy, -validation_loss), epoch
        log.append(
            "teacher",
            epoch,
            seconds=time.perf_counter() - started,
            learning_rate=config.learning_rate,
            total=total,
            classification=total,
            validation_loss=validation_loss,
            validation_accuracy=accuracy,
        )
        progress("teacher head", epoch, config.epochs, loss=total, validation=f"{accuracy:.1%}")
    progress("teacher head", config.epochs, config.epochs, best=f"{best_score[0]:.1%} in epoch {best_epoch}")
    weight = best["weight"] / deviation
    with torch.no_grad():
        teacher.head.weight.copy_(weight)
        teacher.head.bias.copy_(best["bias"] - weight @ mean)
    teacher.cpu()
    save_weights(run.stage_folder("teacher") / "best.safetensors", teacher.state_dict())


@torch.no_grad()
def _embeddings(
    teacher: Teacher,
    store: ClipStore,
    sides: Sequence[Sequence[int]],
    device: torch.device,
    progress: Progress,
    batch_size: int = 16,
) -> list[Tensor]:
    teacher.eval()
    total, done, found = sum(map(len, sides)), 0, []
    for rows in sides:
        parts = []
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            parts.append(teacher.embed(store.waveforms(batch).to(device))[0].float().cpu())
            done += len(batch)
            progress("embeddings", done, total)
        found.append(torch.cat(parts))
    return found


def _train_all(
    teacher: Teacher, run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric, progress: Progress
) -> None:
    config = run.config.teacher
    labels = torch.tensor(index.labels)
    wrapped = fabric.setup_module(teacher)
    head = set(teacher.head.parameters())
    backbone_rate = config.learning_rate * (BACKBONE_RATE if config.weights is not None else 1.0)
    groups: list[dict[str, Any]] = [
        {"params": list(teacher.head.parameters())},
        {"params": [parameter for parameter in teacher.parameters() if parameter not in head], "lr": backbone_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=WEIGHT_DECAY)

    def step(rows: Tensor) -> StepOutput:
        waveforms = store.waveforms(rows.tolist()).to(fabric.device)
        if run.config.augment.time_shift:
            waveforms = shift(waveforms, torch.randint(0, store.samples, (len(rows),)))
        with augmented_front_end(teacher.get_submodule("log_mel"), run.config.augment):
            logits = wrapped(waveforms).logits
        loss = cross_entropy(logits, labels[rows].to(fabric.device))
        return StepOutput(loss, {"classification": loss}, {})

    stage = Stage(
        name="teacher",
        run=run,
        model=teacher,
        optimizer=optimizer,
        step=step,
        validate=lambda: validate(teacher, store, split.validation, labels, fabric.device),
        rows=split.train,
        epochs=config.epochs,
        batch_size=config.batch_size,
        patience=run.config.training.patience,
        decay_power=run.config.training.decay_power,
    )
    fit(stage, fabric, progress)
    teacher.cpu()
