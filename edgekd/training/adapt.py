"""Adapting a teacher to the target classes, before distillation.

`head`: the pre-trained network stays as it is and a new linear head is trained on its embeddings, which are computed
once. `full`: all of it is trained, the pre-trained part at a tenth of the head's learning rate, and less towards the
input where `teacher.layer_decay` says so; batch norms go on learning their statistics, as the target data has its own.
Without pre-trained weights everything starts at random and learns at the full rate. `none`: it is used as it is, a
teacher that was adapted to these classes elsewhere.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd import processes
from edgekd.config import DistillConfig, TeacherConfig
from edgekd.data.clip_store import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_teacher
from edgekd.models.factories import is_own
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.table import TEACHERS, fetched_weights
from edgekd.models.weights import save_weights
from edgekd.progress import Progress, silent
from edgekd.runs.run import Run
from edgekd.training.augment import Masks, augmented_front_end, draw_masks, shift
from edgekd.training.device_rows import Asked, clips_on, sent
from edgekd.training.layer_rates import parameter_groups
from edgekd.training.lesson import needs_teacher, validate
from edgekd.training.loop import Stage, StepOutput, batches, fit, seed_all
from edgekd.training.shared_layers import share_layers

BACKBONE_RATE = 0.1  # learning rate of pre-trained layers, relative to the new head's
WEIGHT_DECAY = 1e-2


def settled(config: DistillConfig) -> DistillConfig:
    """`config` with what follows from where it is used written down, so that a run means the same everywhere.

    These are the weights that `edgekd teachers fetch` got, where none are named, and the folders of a student and a
    teacher of the user's own.
    """
    if config.student_folder is None and is_own(config.student):
        config = config.model_copy(update={"student_folder": Path.cwd()})
    teacher, found = config.teacher, {}
    if not needs_teacher(config.loss.terms):
        return config
    if teacher.weights is None:
        found["weights"] = fetched_weights(teacher.name)
    if teacher.folder is None and is_own(teacher.name):
        found["folder"] = Path.cwd()
    return config.model_copy(update={"teacher": teacher.model_copy(update=found)})


def check_teacher(config: TeacherConfig) -> None:
    """Raise `UsageError` for a teacher that could not learn, or has nothing to go by: before anything slow is done."""
    if is_own(config.name):
        return
    spec = TEACHERS[config.name]
    if config.weights is None and spec.needs_weights:
        fetch = f"get them with 'edgekd teachers fetch {config.name}', or " if spec.file and spec.file.digest else ""
        raise UsageError(
            f"Teacher '{config.name}' needs pre-trained weights: {fetch}pass --teacher-weights "
            f"{'FOLDER' if spec.from_folder else 'FILE'} ({spec.weights_from}), or use --teacher convnet "
            "--adaptation full, which learns from your data alone."
        )
    if spec.from_folder and config.adaptation == "none":
        raise UsageError(f"Teacher '{config.name}' gets a new head for these classes: pass --adaptation head or full.")
    if config.weights is None and config.adaptation != "full":
        raise UsageError(
            f"Teacher '{config.name}' starts at random: training only its head, or nothing, is no use; pass "
            "--adaptation full."
        )


def new_teacher(config: DistillConfig, classes: Sequence[str]) -> Teacher:
    """The teacher of `config` for `classes`, not adapted yet; the same at every call.

    Raises `InputError` for weights that do not fit (another architecture, adapted to other classes or another rate) and
    for a teacher of the user's own that fails on a trial, `UsageError` for one without a head to train.
    """
    teacher = config.teacher
    whole = teacher.adaptation == "none"
    if teacher.weights is not None:
        _check_origin(teacher.weights, config, classes)
    seed_all(config.seed, "teacher")
    built = build_teacher(
        teacher.name,
        len(classes),
        teacher.weights,
        config.data.sample_rate,
        config.frontend,
        whole=whole,
        samples=round(config.data.clip_seconds * config.data.sample_rate),
        folder=teacher.folder,
    )
    if teacher.adaptation == "head" and built.classifier() is None:
        raise UsageError(
            f"Teacher '{teacher.name}' has no 'head' (an nn.Linear) to train: pass --adaptation full, or none to use "
            "it as it is."
        )
    return built


def adapted_teacher(
    run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric, progress: Progress = silent
) -> Teacher:
    """The run's teacher, adapted to its classes; read back where the run has it already. Raises as `new_teacher`."""
    config = run.config
    finished = finished_teacher(run)
    if finished is not None:
        return finished
    teacher = new_teacher(config, run.classes)
    processes.spread(teacher)
    started = time.perf_counter()
    if config.teacher.adaptation == "head":
        _train_head(teacher, run, index, split, store, fabric, progress)
    elif config.teacher.adaptation == "full":
        _train_all(teacher, run, index, split, store, fabric, progress)
    else:
        _keep(teacher, run, index, split, store, fabric)
    summary = {
        "name": config.teacher.name,
        "adaptation": config.teacher.adaptation,
        "seconds": round(time.perf_counter() - started, 1),
    }
    processes.from_first(lambda: run.update_report("training", {"teacher": summary}))
    return teacher.eval()


def warn_of_weaker_teacher(run: Run) -> None:
    """Put a warning into the run's report where its student knows more than the teacher it learned from."""
    sides = []
    best = {stage: run.metrics().best_accuracy(stage) for stage in ("teacher", "student")}
    tested = run.report().get("test", {})
    for side, figures in (
        ("validation", best),
        ("test", {subject: tested[subject]["accuracy"] for subject in best if subject in tested}),
    ):
        teacher, student = figures.get("teacher"), figures.get("student")
        if teacher is not None and student is not None and teacher < student:
            sides.append(f"{teacher:.1%} against {student:.1%} on the {side} side")
    if sides:
        run.warn(
            f"the teacher is worse than its student ({', '.join(sides)}): it can teach little. "
            "Try a stronger one, or --adaptation full."
        )


def finished_teacher(run: Run) -> Teacher | None:
    """The adapted teacher of `run` in eval mode, on every process; None where the run has none yet."""

    def is_there() -> bool:
        done = "teacher" in run.report().get("training", {})
        return done and (run.folder / "teacher" / "best.safetensors").is_file()

    if not processes.from_first(is_there):
        return None
    stored = run.teacher() if processes.is_first() else None
    teacher = new_teacher(run.config, run.classes) if stored is None else stored
    processes.spread(teacher)
    return teacher.eval()


def _check_origin(weights: Path, config: DistillConfig, classes: Sequence[str]) -> None:
    """Raise `InputError` for the teacher of another run (`RUN/teacher/best.safetensors`) that does not fit this one."""
    folder = weights.parent.parent
    if weights.parent.name != "teacher" or not (folder / "config.toml").is_file():
        return
    origin = Run.open(folder)
    if origin.config.teacher.name != config.teacher.name:
        raise InputError(
            f"{weights}: this is the teacher {origin.config.teacher.name} of the run {folder}, not "
            f"{config.teacher.name}: pass --teacher {origin.config.teacher.name}, or other weights."
        )
    theirs, ours = origin.config.data.sample_rate, config.data.sample_rate
    at_data_rate = is_own(config.teacher.name) or TEACHERS[config.teacher.name].own_rate is None
    if at_data_rate and theirs != ours:
        raise InputError(
            f"{weights}: adapted to clips at {theirs} Hz, and these are at {ours} Hz: pass --sample-rate {theirs}, or "
            "other weights."
        )
    if config.teacher.adaptation == "none" and origin.classes != tuple(classes):
        raise InputError(
            f"{weights}: adapted to the classes {', '.join(origin.classes)}, and the data has {', '.join(classes)}: "
            "give it a new head (--adaptation head)."
        )


def _keep(teacher: Teacher, run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric) -> None:
    """Store the teacher as it is, and how good that is."""
    started = time.perf_counter()
    found = validate(teacher.to(fabric.device), store, split.validation, torch.tensor(index.labels), fabric.device)

    def keep() -> None:
        log = run.metrics()
        log.truncate("teacher", 0)
        log.append(
            "teacher",
            1,
            seconds=time.perf_counter() - started,
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
        )
        save_weights(run.stage_folder("teacher") / "best.safetensors", teacher.cpu().state_dict())

    processes.from_first(keep)
    teacher.cpu()


def _train_head(
    teacher: Teacher, run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric, progress: Progress
) -> None:
    teacher.to(fabric.device)
    train, validation = _embeddings(teacher, store, (split.train, split.validation), fabric.device, progress)
    # Standardised features let one learning rate suit every teacher; the scaling is folded into the head afterwards.
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-4)
    train, validation = (train - mean) / deviation, (validation - mean) / deviation
    labels = torch.tensor(index.labels)
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
    """Weights of the best linear layer from standardised embeddings `(N, D)` to labels `(N,)`, on the CPU."""
    config = run.config.teacher
    (train, train_labels), (validation, validation_labels) = training, validating
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
    return best


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
    total, done, found = sum(map(len, shares)), 0, []
    for rows, share in zip(sides, shares, strict=True):
        parts = []
        for start in range(0, len(share), batch_size):
            batch = share[start : start + batch_size]
            parts.append(teacher.embed(store.waveforms(batch).to(device))[0].float().cpu())
            done += len(batch)
            progress("embeddings", done, total)
        found.append(processes.put_together(parts, len(rows)))
    return found


class _Drawn(NamedTuple):
    """What was drawn for this process's share of a batch of clips."""

    waveforms: Asked
    shifts: Tensor
    labels: Tensor
    masks: Masks


def _train_all(
    teacher: Teacher, run: Run, index: ClipIndex, split: Split, store: ClipStore, fabric: Fabric, progress: Progress
) -> None:
    config = run.config.teacher
    labels = torch.tensor(index.labels)
    groups = parameter_groups(
        teacher,
        teacher.classifier(),
        store.waveforms(split.train[:1]),
        config.learning_rate,
        *(
            (config.learning_rate * BACKBONE_RATE, config.layer_decay)
            if config.weights is not None or is_own(config.name)
            else (config.learning_rate, 1.0)
        ),
    )
    teacher.to(fabric.device)
    share_layers(teacher)
    fused = fabric.device.type == "cuda" or None
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, fused=fused)
    front_end, augment, device = teacher.front_end(), run.config.augment, fabric.device
    clips = clips_on(store, split.train, device, progress)

    def draw(rows: Tensor, share: slice, generator: torch.Generator) -> _Drawn:
        shifts = torch.randint(0, store.samples, (len(rows),), generator=generator)[share]
        masks = draw_masks(len(rows), augment, generator).at(share)
        own = rows[share]
        return _Drawn(clips.ask(own), sent(shifts, device), sent(labels[own], device), masks.sent(device))

    def step(drawn: _Drawn, part: slice) -> StepOutput:
        waveforms = drawn.waveforms(part)
        if augment.time_shift:
            waveforms = shift(waveforms, drawn.shifts[part])
        masks = drawn.masks.at(part)
        masked = nullcontext() if front_end is None else augmented_front_end(front_end, masks, augment)
        with masked, fabric.autocast():
            logits = teacher(waveforms).logits
        loss = cross_entropy(logits, drawn.labels[part])
        return StepOutput(loss, {"classification": loss}, {})

    stage = Stage(
        name="teacher",
        run=run,
        model=teacher,
        optimizer=optimizer,
        draw=draw,
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
