"""The epoch loop every stage shares: teacher fine-tuning, student distillation, int8 training.

What makes an unbroken run and a resumed one end alike: random numbers are seeded by (seed, stage, epoch), and the state
written after each epoch holds weights, optimiser, schedule and the best score. The best checkpoint is the one with the
best *validation* accuracy, ties broken by validation loss.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.console import Progress
from edgekd.errors import InputError
from edgekd.files import write_bytes
from edgekd.models.weights import load_matching, read_weights, save_weights
from edgekd.training.run import Run


class StepOutput(NamedTuple):
    """One step's loss: the `total` to differentiate, its raw terms and their weights, all scalars on the device."""

    total: Tensor
    terms: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


class Validation(NamedTuple):
    """Mean cross-entropy and accuracy on the validation side."""

    loss: float
    accuracy: float


@dataclass
class Stage:
    """One stage of training: what is trained, on which rows, and how a step and a validation are computed.

    `model` is what `best.safetensors` holds. `loss` is a module with parameters of its own (the learned weights of
    SSATKD), trained and resumed with the model. `on_epoch` is called with each epoch's number (from 1) before it
    starts, the model in training mode.
    """

    name: str
    run: Run
    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[Tensor], StepOutput]
    validate: Callable[[], Validation]
    rows: Sequence[int]
    epochs: int
    batch_size: int
    patience: int
    decay_power: float
    loss: nn.Module | None = None
    on_epoch: Callable[[int], None] = field(default=lambda _: None)


def fit(stage: Stage, fabric: Fabric, progress: Progress) -> None:
    """Train `stage`, resuming from its `last.pt` where there is one, and leave its model with the best weights."""
    folder = stage.run.stage_folder(stage.name)
    last, best = folder / "last.pt", folder / "best.safetensors"
    batches_per_epoch = max(1, round(len(stage.rows) / stage.batch_size))
    scheduler = torch.optim.lr_scheduler.PolynomialLR(
        stage.optimizer, stage.epochs * batches_per_epoch, power=stage.decay_power
    )
    state = _Progressed()
    if last.is_file():
        state = _load(last, stage, scheduler)
    log = stage.run.metrics()
    log.truncate(stage.name, state.epoch)
    seed = stage.run.config.seed
    progress(stage.name, state.epoch, stage.epochs)
    while state.epoch < stage.epochs and state.epoch - state.best_epoch < stage.patience:
        epoch = state.epoch + 1
        seed_all(seed, stage.name, epoch)
        stage.model.train()
        stage.on_epoch(epoch)
        started = time.perf_counter()
        figures = _train_epoch(stage, fabric, scheduler, batches_per_epoch)
        validation = stage.validate()
        figures |= {
            "seconds": time.perf_counter() - started,
            "learning_rate": float(scheduler.get_last_lr()[0]),
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
        }
        if not math.isfinite(figures["total"]):
            raise InputError(
                f"{stage.name}: the loss is {figures['total']} in epoch {epoch}. "
                f"Lower the learning rate (now {stage.optimizer.defaults['lr']:g}), or look for broken clips."
            )
        log.append(stage.name, epoch, **figures)
        score = (validation.accuracy, -validation.loss)
        if state.best_epoch == 0 or score > state.best_score:
            state.best_epoch, state.best_score = epoch, score
            save_weights(best, stage.model.state_dict())
        state.epoch = epoch
        _save(last, state, stage, scheduler)
        progress(stage.name, epoch, stage.epochs, loss=figures["total"], validation=f"{validation.accuracy:.1%}")
    progress(stage.name, stage.epochs, stage.epochs, best=f"{state.best_score[0]:.1%} in epoch {state.best_epoch}")
    load_matching(stage.model, read_weights(best), best)


def seed_all(seed: int, *names: str | int) -> None:
    """Seed torch's generators from `seed` and where in the run this is, so that no history is needed to repeat it."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def batches(rows: Sequence[int], count: int) -> Iterator[Tensor]:
    """`rows` in random order in `count` batches whose sizes differ by one at most: no last batch of a single clip."""
    yield from torch.tensor(rows)[torch.randperm(len(rows))].tensor_split(count)


@dataclass
class _Progressed:
    epoch: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)


def _train_epoch(
    stage: Stage, fabric: Fabric, scheduler: torch.optim.lr_scheduler.LRScheduler, count: int
) -> dict[str, float]:
    """One pass over the rows; mean figures, summed on the device so that no step waits for one."""
    sums: dict[str, Tensor] = {}
    for rows in batches(stage.rows, count):
        stage.optimizer.zero_grad(set_to_none=True)
        output = stage.step(rows)
        fabric.backward(output.total)
        stage.optimizer.step()
        scheduler.step()
        values: dict[str, Tensor] = {"total": output.total, **output.terms}
        values.update({f"weight_{name}": weight for name, weight in output.weights.items()})
        for name, value in values.items():
            detached = value.detach().float()
            sums[name] = sums[name] + detached if name in sums else detached
    return {name: value.item() / count for name, value in sums.items()}


def _save(path: Path, state: _Progressed, stage: Stage, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score,
            "model": stage.model.state_dict(),
            "loss": stage.loss.state_dict() if stage.loss is not None else {},
            "optimizer": stage.optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        },
        buffer,
    )
    write_bytes(path, buffer.getvalue())


def _load(path: Path, stage: Stage, scheduler: torch.optim.lr_scheduler.LRScheduler) -> _Progressed:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        stage.model.load_state_dict(saved["model"])
        if stage.loss is not None:
            stage.loss.load_state_dict(saved["loss"])
        stage.optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
    except (pickle.UnpicklingError, EOFError):
        raise _not_resumable(path, "it is damaged") from None
    except (RuntimeError, LookupError, ValueError, OSError) as failure:
        raise _not_resumable(path, str(failure).partition("\n")[0]) from None
    return _Progressed(saved["epoch"], saved["best_epoch"], tuple(saved["best_score"]))


def _not_resumable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: cannot be resumed from ({reason}). Delete {path.name} to repeat this stage from its start."
    )
