"""The epoch loop of every stage: teacher fine-tuning, student distillation, int8 training.

What makes an unbroken run and a resumed one end alike, in one process or in several: random numbers are seeded by
(seed, stage, epoch), those of a batch are drawn for all of its clips on every process (`batches`), and the state
written after each epoch holds weights, optimiser, schedule and the best score. The best checkpoint is the one with the
best *validation* accuracy, ties broken by validation loss, which without labels decides alone.

A batch that the device has no memory for is computed in parts, whose gradients add up to the batch's.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from edgekd import processes
from edgekd.errors import InputError
from edgekd.files.whole import write_bytes
from edgekd.losses.terms import Need
from edgekd.models.weights import load_matching, read_weights, save_weights
from edgekd.progress import Progress
from edgekd.runs.metrics_log import MetricsLog
from edgekd.runs.run import Run
from edgekd.runs.run import Stage as StageName
from edgekd.training.averaging import AveragedWeights
from edgekd.training.batches import Batch, TrainingBatches, check_shares, seed_all
from edgekd.training.saved_state import load_average, load_optimizer, load_part, load_schedule, read_state
from edgekd.training.validation import LossHeldOut, ValidationClips, validate

SMALLEST_PART = 2  # clips: a batch norm of one value a channel cannot learn from one


class StepOutput(NamedTuple):
    """One step's loss: the `total` to differentiate, its raw terms and their weights, all scalars on the device."""

    total: Tensor
    terms: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


class Step(Protocol):
    """What is computed of a batch: `StudentStep`, `TeacherStep`, `Int8Step`."""

    def begin(self, epoch: int) -> frozenset[Need]:
        """Get ready for an epoch, counted from 1, the model in training mode; what its batches must carry."""
        ...

    def __call__(self, batch: Batch) -> StepOutput:
        """The loss of the clips of `batch`, as a mean over them."""
        ...

    def gives_up(self, failure: Exception) -> bool:
        """Whether what failed, there or in the backward pass, can be done without, and will from now on."""
        ...


@dataclass
class Stage:
    """One stage of training: what is trained, on which batches, by which step, and what it is validated on.

    `model` is what `best.safetensors` holds. `loss` is a module with parameters of its own (the learned weights of
    SSATKD), trained and resumed with the model.
    """

    name: StageName
    run: Run
    model: nn.Module
    batches: TrainingBatches
    step: Step
    optimizer: torch.optim.Optimizer
    validation: ValidationClips | LossHeldOut
    device: torch.device
    epochs: int
    patience: int
    loss: nn.Module | None = None
    keeps_start: bool = False
    """Whether the model as it begins is a candidate for the best, epoch 0: one that knows something already."""
    averaged: AveragedWeights | None = None
    """The average of the model's weights, where that is what is validated and kept in place of the last ones."""

    def judged(self) -> AbstractContextManager[None]:
        """Within it the model is what is validated."""
        return nullcontext() if self.averaged is None else self.averaged.lent()


def fit(stage: Stage, progress: Progress) -> None:
    """Train `stage`, resuming from its `last.pt` where there is one, and leave its model with the best weights.

    Raises `InputError` for a state that cannot be resumed from, a loss that is not finite, batches too small for the
    processes, and a device whose memory does not hold two clips.
    """
    batches, seed, last = stage.batches, stage.run.config.seed, _last(stage)
    processes.from_first(lambda: check_shares(stage.name, batches.clips_an_epoch, batches.batch_size))
    decay = stage.run.config.training.decay_power
    schedule = torch.optim.lr_scheduler.PolynomialLR(stage.optimizer, stage.epochs * len(batches), power=decay)
    saved = processes.from_first(lambda: _begin(stage, last))
    state = _State() if saved is None else _restore(saved, last, stage, schedule)
    log = stage.run.metrics()
    processes.from_first(lambda: log.truncate(stage.name, state.epoch))
    if stage.keeps_start and saved is None:
        validation = validate(stage.model, stage.validation, stage.device)
        state.best_score = validation.score
        start = {"total": validation.loss, "seconds": 0.0, **validation.figures()}
        processes.from_first(partial(_write, stage, state, schedule, log, start, True))
    parameters = [each for group in stage.optimizer.param_groups for each in group["params"]]
    if stage.epochs:
        progress(stage.name, state.epoch, stage.epochs)
    while state.epoch < stage.epochs and state.epoch - state.best_epoch < stage.patience:
        epoch, started = state.epoch + 1, time.perf_counter()
        seed_all(seed, stage.name, epoch)
        stage.model.train()
        needs = stage.step.begin(epoch)
        sums = _Sums()
        for batch in batches.epoch(epoch, needs):
            with processes.batch(batch.size):
                sums.add(accumulate(stage, batch, state))
            processes.sum_gradients(parameters)
            stage.optimizer.step()
            schedule.step()
            if stage.averaged is not None:
                stage.averaged.update()
        metrics = sums.means(len(batches))
        with stage.judged():
            validation = validate(stage.model, stage.validation, stage.device)
        metrics |= {
            "seconds": time.perf_counter() - started,
            "learning_rate": float(schedule.get_last_lr()[0]),
            **validation.figures(),
        }
        score = validation.score
        better = score > state.best_score
        state.epoch = epoch
        if better:
            state.best_epoch, state.best_score = epoch, score
        processes.from_first(partial(_write, stage, state, schedule, log, metrics, better))
        progress(stage.name, epoch, stage.epochs, loss=metrics["total"], validation=_shown(stage, score))
    best_score = _shown(stage, state.best_score)
    if stage.epochs:
        progress(stage.name, stage.epochs, stage.epochs, best=f"{best_score} in epoch {state.best_epoch}")
    best = stage.run.weights(stage.name)
    processes.from_first(lambda: load_matching(stage.model, read_weights(best), best))
    processes.spread(stage.model)


def _shown(stage: Stage, score: tuple[float, float]) -> str:
    accuracy, less = score
    return f"{accuracy:.1%}" if isinstance(stage.validation, ValidationClips) else f"{-less:.4g}"


@dataclass
class _State:
    epoch: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    parts: int = 1
    """In how many parts a batch is computed, for want of memory."""


class _Sums:
    """Sums of scalars by name, on the device, so that no step waits for one."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor], share: float = 1.0) -> None:
        """Add so much of each value; on a GPU all at one go."""
        added = torch._foreach_mul([value.detach().float() for value in values.values()], share)
        if self.values:
            added = torch._foreach_add([self.values[name] for name in values], added)
        self.values.update(zip(values, added, strict=True))

    def means(self, count: int) -> dict[str, float]:
        """Over `count` batches, of all processes."""
        sums = processes.summed(torch.stack(list(self.values.values())))
        return dict(zip(self.values, (sums / count).tolist(), strict=True))


def accumulate(stage: Stage, batch: Batch, state: _State) -> dict[str, Tensor]:
    """Put this process's share of a batch's gradients into the parameters, in as many parts as its memory asks for;
    its share of the batch's mean metrics."""
    while True:
        stage.optimizer.zero_grad(set_to_none=True)
        try:
            return _of_parts(stage.step, batch, min(state.parts, _most_parts(len(batch))))
        except torch.OutOfMemoryError:
            pass  # what was computed is let go with the exception, and only then
        except (AssertionError, RuntimeError) as failure:  # what compiled code raises
            if not stage.step.gives_up(failure):
                raise
            continue
        _more_parts(stage, batch, state)


def _of_parts(step: Step, batch: Batch, count: int) -> dict[str, Tensor]:
    sums = _Sums()
    for part in batch.parts(count):
        output, share = step(part), len(part) / batch.size
        (output.total * share).backward()
        values: dict[str, Tensor] = {"total": output.total, **output.terms}
        values.update({f"weight_{name}": weight for name, weight in output.weights.items()})
        sums.add(values, share)
    return sums.values


def _most_parts(clips: int) -> int:
    return max(1, clips // SMALLEST_PART)


def _more_parts(stage: Stage, batch: Batch, state: _State) -> None:
    """Have more parts, twice as many at most. Raises `InputError` where there can be no more."""
    clips, device = len(batch), stage.device
    if processes.count() > 1:  # the others are waiting for this one in the middle of the batch
        raise InputError(
            f"{stage.name}: {device} is out of memory with {clips} clips, this process's share of a batch of "
            f"{batch.size}. Start more processes, or take a smaller --batch-size."
        )
    most = _most_parts(clips)
    if state.parts >= most:
        raise InputError(
            f"{stage.name}: {device} is out of memory with {-(-clips // most)} clips at a time. Take shorter "
            "clips (--clip-seconds), a smaller --width, or --device cpu."
        )
    state.parts = min(2 * state.parts, most)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    stage.run.warn(
        f"{stage.name}: batches of {batch.size} clips did not fit the memory of {device} and were computed in "
        f"{state.parts} parts; batch norms saw a part at a time."
    )


def _write(
    stage: Stage,
    state: _State,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    log: MetricsLog,
    metrics: dict[str, float],
    better: bool,
) -> None:
    """Write down an epoch that is done. Raises `InputError` where its loss is not finite, and writes nothing."""
    _check_finite(stage, state.epoch, metrics["total"])
    log.append(stage.name, state.epoch, **metrics)
    if better:
        kept = stage.model.state_dict() if stage.averaged is None else stage.averaged.values
        save_weights(stage.run.weights(stage.name), kept)
    _save(_last(stage), state, stage, schedule)


def _check_finite(stage: Stage, epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"{stage.name}: the loss is {loss} in epoch {epoch}. "
            f"Lower the learning rate (now {stage.optimizer.defaults['lr']:g}), or look for broken clips."
        )


def _save(path: Path, state: _State, stage: Stage, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score,
            "parts": state.parts,
            "model": stage.model.state_dict(),
            **({} if stage.averaged is None else {"averaged": stage.averaged.state_dict()}),
            "loss": stage.loss.state_dict() if stage.loss is not None else {},
            "optimizer": stage.optimizer.state_dict(),
            "scheduler": schedule.state_dict(),
        },
        buffer,
    )
    write_bytes(path, buffer.getvalue())


def _last(stage: Stage) -> Path:
    """The file of the state to resume from."""
    return stage.run.folder / stage.name / "last.pt"


def _begin(stage: Stage, last: Path) -> dict[str, Any] | None:
    """The state of `last.pt`, None where there is none."""
    stage.run.stage_folder(stage.name)
    return read_state(last) if last.exists() else None


def _restore(saved: dict[str, Any], path: Path, stage: Stage, schedule: torch.optim.lr_scheduler.LRScheduler) -> _State:
    load_part(stage.model, saved, "model", path)
    if stage.averaged is not None:
        load_average(stage.averaged, saved, path)
    if stage.loss is not None:
        load_part(stage.loss, saved, "loss", path)
    load_optimizer(stage.optimizer, saved, path)
    load_schedule(schedule, saved, path)
    return _State(saved["epoch"], saved["best_epoch"], tuple(saved["best_score"]), saved.get("parts", 1))
