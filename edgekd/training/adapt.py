"""Adapting a teacher to the target classes, before distillation.

`head`: the pre-trained network stays as it is and a new linear head is trained on its embeddings, which are computed
once. `full`: all of it is trained, the pre-trained part at a tenth of the head's learning rate, and less towards the
input where `teacher.layer_decay` says so; batch norms go on learning their statistics, as the target data has its own.
Without pre-trained weights everything starts at random and learns at the full rate. `none`: it is used as it is, a
teacher that was adapted to these classes elsewhere, or that gives embeddings and taps alone. Several teachers are
adapted one after another, each as if it were alone, and their average is what is kept.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd import processes
from edgekd.config import AugmentConfig, TeacherConfig
from edgekd.data.clip_store import ClipStore
from edgekd.losses.response import classification_loss
from edgekd.losses.terms import Need
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.ensemble import Ensemble
from edgekd.models.weights import save_weights
from edgekd.own_code import is_own
from edgekd.progress import Progress, silent
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.task import MULTI, SINGLE, Task
from edgekd.training.balance import balanced_rows, class_weights, on_average_1, weights_of
from edgekd.training.batches import Batch, TrainingBatches, batch_count, seed_all, shuffled
from edgekd.training.device_rows import clips_on
from edgekd.training.layer_rates import parameter_groups
from edgekd.training.loop import Stage, StepOutput, fit
from edgekd.training.new_teacher import new_teacher
from edgekd.training.precision import mixed_precision
from edgekd.training.shared_layers import share_layers
from edgekd.training.spec_augment import masked_front_end
from edgekd.training.validation import Validation, ValidationClips, measured, validate
from edgekd.training.views import FreshShifts

BACKBONE_RATE = 0.1  # learning rate of pre-trained layers, relative to the new head's
WEIGHT_DECAY = 1e-2


def adapted_teacher(run: Run, data: RunData, device: torch.device, progress: Progress = silent) -> Teacher:
    """The run's teacher, adapted to its classes; read back where the run has it already. Raises as `new_teacher`."""
    config = run.config
    finished = finished_teacher(run)
    if finished is not None:
        return finished
    started = time.perf_counter()
    members = config.teacher.members()
    if len(members) > 1:
        adapted = [
            adapted_teacher(_alone(run, number, member), data, device, progress)
            for number, member in enumerate(members, 1)
        ]
        teacher: Teacher = Ensemble(adapted, run.task)
        _store(teacher, run, data, device)
    else:
        teacher = new_teacher(config, run.classes)
        processes.spread(teacher)
        if config.teacher.adaptation == "head":
            _train_head(teacher, run, data, device, progress)
        elif config.teacher.adaptation == "full":
            _train_all(teacher, run, data, device, progress)
        else:
            _store(teacher, run, data, device)
    summary: dict[str, Any] = {
        "name": config.teacher.name,
        "adaptation": config.teacher.adaptation,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if not teacher.classifies:
        summary["scored"] = False
    processes.from_first(lambda: run.update_report("training", {"teacher": summary}))
    return teacher.eval()


def _alone(run: Run, number: int, member: TeacherConfig) -> Run:
    """Where one of several teachers is adapted, as if it were the only one: a folder of its own in that of the stage.

    What is learned there is thrown away once the average is stored; its curves stay.
    """
    alone = Run(run.folder / "teacher" / str(number), run.config.model_copy(update={"teacher": member}), run.classes)
    processes.from_first(lambda: alone.folder.mkdir(parents=True, exist_ok=True))
    return alone


def finished_teacher(run: Run) -> Teacher | None:
    """The adapted teacher of `run` in eval mode, on every process; None where the run has none yet."""
    if not processes.from_first(lambda: run.finished("teacher")):
        return None
    stored = run.teacher() if processes.is_first() else None
    teacher = new_teacher(run.config, run.classes) if stored is None else stored
    processes.spread(teacher)
    return teacher.eval()


class TeacherStep:
    """From a batch to the teacher's own loss: cross-entropy, its log-mel masked where it has one."""

    def __init__(self, teacher: Teacher, augment: AugmentConfig, device: torch.device, task: Task = SINGLE) -> None:
        self.teacher, self.augment, self.device, self.task = teacher, augment, device, task
        self.front_end = teacher.front_end()

    def begin(self, _epoch: int) -> frozenset[Need]:
        """Nobody teaches the teacher."""
        return frozenset()

    def __call__(self, batch: Batch) -> StepOutput:
        """The loss of the clips of `batch`, as a mean over them."""
        assert batch.waveforms is not None
        masked: AbstractContextManager[None] = nullcontext()
        if self.front_end is not None:
            masked = masked_front_end(self.front_end, batch.masks, self.augment)
        with masked, mixed_precision(self.device):
            logits = self.teacher(batch.waveforms).logits
        loss = classification_loss(logits, batch.targets, batch.labelled, self.task)
        return StepOutput(loss, {"classification": loss}, {})

    def gives_up(self, _failure: Exception) -> bool:
        """There is nothing that it could do without."""
        return False


def _train_all(teacher: Teacher, run: Run, data: RunData, device: torch.device, progress: Progress) -> None:
    config, augment, train, truth = run.config.teacher, run.config.augment, data.split.train, data.index.truth
    rates = config.learning_rate, 1.0
    if config.weights is not None or is_own(config.name):
        rates = config.learning_rate * BACKBONE_RATE, config.layer_decay
    example = data.waveforms(train[:1])
    groups = parameter_groups(teacher, teacher.classifier(), example, config.learning_rate, *rates)
    teacher.to(device)
    share_layers(teacher)
    fused = device.type == "cuda" or None
    fit(
        Stage(
            name="teacher",
            run=run,
            model=teacher,
            batches=TrainingBatches(
                stage="teacher",
                seed=run.config.seed,
                rows=train,
                batch_size=config.batch_size,
                clips=clips_on(data.store, train, device, progress),
                labels=torch.tensor(truth),
                num_classes=len(run.classes),
                augment=augment,
                views=FreshShifts(data.store.samples, augment.time_shift, augment.gain_db),
                class_weights=class_weights(
                    run.config.training.class_weights, torch.tensor(truth), train, len(run.classes)
                ),
                balanced=run.config.training.sampling == "balanced",
            ),
            step=TeacherStep(teacher, augment, device, run.task),
            optimizer=torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, fused=fused),
            validation=ValidationClips(data.store, data.split.validation, torch.tensor(truth)),
            device=device,
            epochs=config.epochs,
            patience=run.config.training.patience,
        ),
        progress,
    )
    teacher.cpu()


def _store(teacher: Teacher, run: Run, data: RunData, device: torch.device) -> None:
    """Store the teacher as it is and, where it knows the classes, how good that is."""
    started = time.perf_counter()
    side = ValidationClips(data.store, data.split.validation, torch.tensor(data.index.truth))
    validation = validate(teacher.to(device), side, device) if teacher.classifies else None

    def store() -> None:
        log = run.metrics()
        log.truncate("teacher", 0)
        if validation is not None:
            log.append(
                "teacher",
                1,
                seconds=time.perf_counter() - started,
                **validation.figures(),
            )
        folder = run.stage_folder("teacher")
        save_weights(folder / "best.safetensors", teacher.cpu().state_dict())
        for weights in folder.glob("*/teacher"):  # those of the members, one by one
            shutil.rmtree(weights)

    processes.from_first(store)
    teacher.cpu()


def _train_head(teacher: Teacher, run: Run, data: RunData, device: torch.device, progress: Progress) -> None:
    split = data.split
    teacher.to(device)
    train, validation = _embeddings(teacher, data.store, (split.train, split.validation), device, progress)
    # Standardised features let one learning rate suit every teacher; the scaling is folded into the head afterwards.
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-4)
    train, validation = (train - mean) / deviation, (validation - mean) / deviation
    labels = torch.tensor(data.index.truth)
    sides = (train, labels[list(split.train)]), (validation, labels[list(split.validation)])
    best = processes.from_first(lambda: _trained_head(run, *sides, progress))
    weight, bias = best["weight"] / deviation, best["bias"]
    own = teacher.classifier()
    assert own is not None  # `new_teacher` has seen to it
    teacher.cpu()
    with torch.no_grad():
        own.weight.copy_(weight)
        if own.bias is not None:
            own.bias.copy_(bias - weight @ mean)
    processes.from_first(lambda: save_weights(run.stage_folder("teacher") / "best.safetensors", teacher.state_dict()))


def _trained_head(
    run: Run, training: tuple[Tensor, Tensor], validating: tuple[Tensor, Tensor], progress: Progress
) -> dict[str, Tensor]:
    """Weights of the best linear layer from standardised embeddings `(N, D)` to labels `(N,)` or memberships
    `(N, K)`, on the CPU."""
    config = run.config.teacher
    (train, train_labels), (validation, validation_labels) = training, validating
    head = nn.Linear(train.shape[1], len(run.classes))
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY)
    log = run.metrics()
    log.truncate("teacher", 0)
    best, best_score, best_epoch = copy.deepcopy(head.state_dict()), (-1.0, 0.0), 0
    count, rows = batch_count(len(train), config.batch_size), range(len(train))
    weights = class_weights(run.config.training.class_weights, train_labels, rows, len(run.classes))
    balanced = run.config.training.sampling == "balanced"
    for epoch in range(1, config.epochs + 1):
        seed_all(run.config.seed, "teacher", epoch)
        started, total = time.perf_counter(), 0.0
        for batch in shuffled(balanced_rows(rows, train_labels) if balanced else rows, count):
            optimizer.zero_grad()
            loss = _weighed(head(train[batch]), train_labels[batch], weights)
            loss.backward()
            optimizer.step()
            total += loss.item() / count
        with torch.no_grad():
            logits = head(validation)
        found = Validation(float(_weighed(logits, validation_labels)), measured(logits, validation_labels), run.task)
        if found.score > best_score:
            best, best_score, best_epoch = copy.deepcopy(head.state_dict()), found.score, epoch
        log.append(
            "teacher",
            epoch,
            seconds=time.perf_counter() - started,
            learning_rate=config.learning_rate,
            total=total,
            classification=total,
            **found.figures(),
        )
        progress("teacher head", epoch, config.epochs, loss=total, validation=f"{found.score[0]:.1%}")
    progress("teacher head", config.epochs, config.epochs, best=f"{best_score[0]:.1%} in epoch {best_epoch}")
    return best


def _weighed(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The cross-entropy of a batch, in which the labels of each class count by `weights (K,)`."""
    if labels.ndim == 1:
        return cross_entropy(logits, labels, weights)
    counted = None if weights is None else on_average_1(weights_of(labels, weights, several=True))
    return classification_loss(logits, labels, counted, MULTI)


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
    shares = [rows[processes.share_of(len(rows))] for rows in sides]
    total, done, embeddings = sum(map(len, shares)), 0, []
    for rows, share in zip(sides, shares, strict=True):
        parts = []
        for start in range(0, len(share), batch_size):
            batch = share[start : start + batch_size]
            parts.append(teacher.embed(store.waveforms(batch).to(device))[0].float().cpu())
            done += len(batch)
            progress("embeddings", done, total)
        embeddings.append(processes.put_together(parts, len(rows)))
    return embeddings
