"""The epoch loop every stage shares: teacher fine-tuning, student distillation, int8 training.

What makes an unbroken run and a resumed one end alike, in one process or in several: random numbers are seeded by
(seed, stage, epoch), those of a batch are drawn for all of its rows on every process, and the state written after each
epoch holds weights, optimiser, schedule and the best score. The best checkpoint is the one with the best *validation*
accuracy, ties broken by validation loss.

A batch that the device has no memory for is computed in parts, whose gradients add up to the batch's.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd import processes
from edgekd.errors import InputError
from edgekd.files.whole import write_bytes
from edgekd.models.weights import load_matching, read_weights, save_weights
from edgekd.progress import Progress
from edgekd.runs.metrics_log import MetricsLog
from edgekd.runs.run import Run

Drawn = TypeVar("Drawn")

AHEAD = 2  # batches drawn before the one that is computed, so that what they need is on its way
SMALLEST_PART = 2  # clips: a batch norm of one value a channel cannot learn from one


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
class Stage(Generic[Drawn]):
    """One stage of training: what is trained, on which rows, and how a step and a validation are computed.

    `draw(rows, share, generator)` decides with `generator` what is random about a batch of `rows (B,)`, in the same way
    on every process, and gets the rows of `share`, this process's, ready; a few batches ahead of their step.
    `step(drawn, part)` gives the loss of the rows `part` of that share, as a mean over them.

    `model` is what `best.safetensors` holds. `loss` is a module with parameters of its own (the learned weights of
    SSATKD), trained and resumed with the model. `on_epoch` is called with each epoch's number (from 1) before it
    starts, the model in training mode.
    """

    name: str
    run: Run
    model: nn.Module
    optimizer: torch.optim.Optimizer
    draw: Callable[[Tensor, slice, torch.Generator], Drawn]
    step: Callable[[Drawn, slice], StepOutput]
    validate: Callable[[], Validation]
    rows: Sequence[int]
    epochs: int
    batch_size: int
    patience: int
    decay_power: float
    loss: nn.Module | None = None
    on_epoch: Callable[[int], None] = field(default=lambda _: None)


def fit(stage: Stage, fabric: Fabric, progress: Progress) -> None:
    """Train `stage`, resuming from its `last.pt` where there is one, and leave its model with the best weights.

    Raises `InputError` for a state that cannot be resumed from, a loss that is not finite, batches too small for the
    processes, and a device whose memory does not hold two clips.
    """
    count = batch_count(len(stage.rows), stage.batch_size)
    processes.from_first(lambda: check_shares(stage.name, len(stage.rows), stage.batch_size))
    last, best = _files(stage)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(stage.optimizer, stage.epochs * count, power=stage.decay_power)
    saved = processes.from_first(lambda: _begin(stage, last))
    state = _Progressed() if saved is None else _restore(saved, last, stage, scheduler)
    log = stage.run.metrics()
    processes.from_first(lambda: log.truncate(stage.name, state.epoch))
    seed = stage.run.config.seed
    progress(stage.name, state.epoch, stage.epochs)
    while state.epoch < stage.epochs and state.epoch - state.best_epoch < stage.patience:
        epoch = state.epoch + 1
        seed_all(seed, stage.name, epoch)
        stage.model.train()
        stage.on_epoch(epoch)
        started = time.perf_counter()
        figures = _train_epoch(stage, fabric, scheduler, count, state, seeded(seed, stage.name, epoch, "batches"))
        validation = stage.validate()
        figures |= {
            "seconds": time.perf_counter() - started,
            "learning_rate": float(scheduler.get_last_lr()[0]),
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
        }
        score = (validation.accuracy, -validation.loss)
        better = state.best_epoch == 0 or score > state.best_score
        state.epoch = epoch
        if better:
            state.best_epoch, state.best_score = epoch, score
        processes.from_first(partial(_keep, stage, state, scheduler, log, figures, better))
        progress(stage.name, epoch, stage.epochs, loss=figures["total"], validation=f"{validation.accuracy:.1%}")
    progress(stage.name, stage.epochs, stage.epochs, best=f"{state.best_score[0]:.1%} in epoch {state.best_epoch}")
    processes.from_first(lambda: load_matching(stage.model, read_weights(best), best))
    processes.spread(stage.model)


def batch_count(clips: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    return max(1, round(clips / batch_size))


def check_shares(stage: str, clips: int, batch_size: int) -> None:
    """Raise `InputError` where a batch of a stage has fewer clips than there are processes."""
    smallest, sharing = clips // batch_count(clips, batch_size), processes.count()
    if smallest < sharing:
        setting = "teacher.batch_size" if stage == "teacher" else "--batch-size"
        raise InputError(
            f"{stage}: batches of {smallest} clips ({clips} training clips in all) are too few for {sharing} "
            f"processes: start {smallest} at most, or take a larger {setting}."
        )


def seed_all(seed: int, *names: str | int) -> None:
    """Seed torch's generators from `seed` and where in the run this is, so that no history is needed to repeat it."""
    torch.manual_seed(_number(seed, *names))


def seeded(seed: int, *names: str | int) -> torch.Generator:
    """A generator of its own, seeded as `seed_all` does."""
    return torch.Generator().manual_seed(_number(seed, *names))


def batches(rows: Sequence[int], count: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """`rows` in random order in `count` batches whose sizes differ by one at most: no last batch of a single clip.

    Within a batch they are in the order of the index, so that clips of one recording lie together: they are read
    together, and by the same process.
    """
    order = torch.randperm(len(rows), generator=generator)
    for chosen in torch.tensor(rows)[order].tensor_split(count):
        yield chosen.sort().values


@dataclass
class _Progressed:
    epoch: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-math.inf, -math.inf)
    parts: int = 1
    """In how many parts a batch is computed, for want of memory."""


def _number(seed: int, *names: str | int) -> int:
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _train_epoch(
    stage: Stage,
    fabric: Fabric,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    count: int,
    state: _Progressed,
    generator: torch.Generator,
) -> dict[str, float]:
    """One pass over the rows; mean figures, summed on the device so that no step waits for one."""
    sums: dict[str, Tensor] = {}
    parameters = [each for group in stage.optimizer.param_groups for each in group["params"]]
    for rows, drawn in _drawn(stage, count, generator):
        with processes.batch(len(rows)):
            figures = _gradients(stage, fabric, drawn, len(rows), state)
        processes.sum_gradients(parameters)
        stage.optimizer.step()
        scheduler.step()
        _add(sums, figures)
    means = processes.summed(torch.stack(list(sums.values()))) / count
    return dict(zip(sums, means.tolist(), strict=True))


def _drawn(stage: Stage, count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Any]]:
    """The batches of an epoch, each with what was drawn for it, `AHEAD` of them drawn before they are asked for."""
    ahead: deque[tuple[Tensor, Any]] = deque()
    for rows in batches(stage.rows, count, generator):
        ahead.append((rows, stage.draw(rows, processes.share_of(len(rows)), generator)))
        if len(ahead) > AHEAD:
            yield ahead.popleft()
    yield from ahead


def _gradients(stage: Stage, fabric: Fabric, drawn: Any, rows: int, state: _Progressed) -> dict[str, Tensor]:
    """Put this process's share of a batch's gradients into the parameters, in as many parts as its memory asks for;
    its share of the batch's mean figures."""
    share = processes.share_of(rows)
    here = share.stop - share.start
    while True:
        stage.optimizer.zero_grad(set_to_none=True)
        try:
            return _of_parts(stage, fabric, drawn, rows, here, min(state.parts, _most_parts(here)))
        except torch.OutOfMemoryError:
            pass  # what was computed is let go with the exception, and only then
        _more_parts(stage, here, rows, fabric.device, state)


def _of_parts(stage: Stage, fabric: Fabric, drawn: Any, rows: int, here: int, parts: int) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    for number in range(parts):
        part = processes.part_of(here, number, parts)
        output, share = stage.step(drawn, part), (part.stop - part.start) / rows
        fabric.backward(output.total * share)
        values: dict[str, Tensor] = {"total": output.total, **output.terms}
        values.update({f"weight_{name}": weight for name, weight in output.weights.items()})
        _add(sums, {name: value.detach().float() * share for name, value in values.items()})
    return sums


def _add(sums: dict[str, Tensor], figures: Mapping[str, Tensor]) -> None:
    for name, figure in figures.items():
        sums[name] = sums[name] + figure if name in sums else figure


def _most_parts(clips: int) -> int:
    return max(1, clips // SMALLEST_PART)


def _more_parts(stage: Stage, here: int, rows: int, device: torch.device, state: _Progressed) -> None:
    """Have more parts, twice as many at most. Raises `InputError` where there can be no more."""
    if processes.count() > 1:  # the others are waiting for this one in the middle of the batch
        raise InputError(
            f"{stage.name}: {device} is out of memory with {here} clips, this process's share of a batch of {rows}. "
            "Start more processes, or take a smaller --batch-size."
        )
    most = _most_parts(here)
    if state.parts >= most:
        raise InputError(
            f"{stage.name}: {device} is out of memory with {-(-here // most)} clips at a time. Take shorter "
            "clips (--clip-seconds), a smaller --width, or --device cpu."
        )
    state.parts = min(2 * state.parts, most)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    stage.run.warn(
        f"{stage.name}: batches of {rows} clips did not fit the memory of {device} and were computed in {state.parts} "
        "parts; batch norms saw a part at a time."
    )


def _keep(
    stage: Stage,
    state: _Progressed,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    log: MetricsLog,
    figures: dict[str, float],
    better: bool,
) -> None:
    """Write down an epoch that is done. Raises `InputError` where its loss is not finite, and writes nothing."""
    _check_finite(stage, state.epoch, figures["total"])
    log.append(stage.name, state.epoch, **figures)
    if better:
        save_weights(_files(stage).best, stage.model.state_dict())
    _save(_files(stage).last, state, stage, scheduler)


def _check_finite(stage: Stage, epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"{stage.name}: the loss is {loss} in epoch {epoch}. "
            f"Lower the learning rate (now {stage.optimizer.defaults['lr']:g}), or look for broken clips."
        )


def _save(path: Path, state: _Progressed, stage: Stage, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score,
            "parts": state.parts,
            "model": stage.model.state_dict(),
            "loss": stage.loss.state_dict() if stage.loss is not None else {},
            "optimizer": stage.optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        },
        buffer,
    )
    write_bytes(path, buffer.getvalue())


class _Files(NamedTuple):
    last: Path
    best: Path


def _files(stage: Stage) -> _Files:
    """The state to resume from, and the best weights."""
    folder = stage.run.folder / stage.name
    return _Files(folder / "last.pt", folder / "best.safetensors")


def _begin(stage: Stage, last: Path) -> dict[str, Any] | None:
    """The state of `last.pt`, None where there is none."""
    stage.run.stage_folder(stage.name)
    return _load(last) if last.is_file() else None


def _load(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError):
        raise _not_resumable(path, "it is damaged") from None
    except (RuntimeError, LookupError, ValueError, OSError) as failure:
        raise _not_resumable(path, str(failure).partition("\n")[0]) from None
    return saved


def _restore(
    saved: dict[str, Any], path: Path, stage: Stage, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> _Progressed:
    try:
        stage.model.load_state_dict(saved["model"])
        if stage.loss is not None:
            stage.loss.load_state_dict(saved["loss"])
        stage.optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        epoch, best_epoch, best_score = saved["epoch"], saved["best_epoch"], tuple(saved["best_score"])
    except (RuntimeError, LookupError, ValueError) as failure:
        raise _not_resumable(path, str(failure).partition("\n")[0]) from None
    return _Progressed(epoch, best_epoch, best_score, saved.get("parts", 1))


def _not_resumable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: cannot be resumed from ({reason}). Delete {path.name} to repeat this stage from its start."
    )
