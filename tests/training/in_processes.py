"""What `test_processes` has several processes do: `python in_processes.py FOLDER`, started as `torchrun` does.

Each process leaves `rank<N>.pt` in FOLDER. `outcome` is also called by the test itself, in one process.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd import processes
from edgekd.config import AugmentConfig, DistillConfig
from edgekd.errors import InputError
from edgekd.files import row_table
from edgekd.losses.terms import Need
from edgekd.models.outputs import StudentOutput
from edgekd.progress import silent
from edgekd.quantization.fake_quant import magnitude_bound
from edgekd.runs.run import Run
from edgekd.training import fill_cache
from edgekd.training.averaging import averaged_weights
from edgekd.training.batches import Batch, TrainingBatches
from edgekd.training.device_rows import Pending
from edgekd.training.loop import Stage, StepOutput, fit
from edgekd.training.shared_layers import SharedBatchNorm, share_layers
from edgekd.training.validation import ValidationClips
from edgekd.training.views import FreshShifts
from tests.training.test_fill_cache import Listener, answers, fill
from tests.training.test_norm_statistics import reestimated

ROWS = 7  # an odd number
POINTS = torch.randn(ROWS, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.1 - 100  # a quiet band, in dB
LOGIT_BYTES = 4 * 3 * 4  # of a batch of four answers
LABELS = torch.arange(ROWS) % 2


class Network(nn.Module):
    """Both kinds of batch norm, and dropout on a map and on features."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()
        )
        self.features = nn.BatchNorm1d(24, affine=False)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(24, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.layers(self.norm(x))))


def outcome(compiled: bool = False) -> dict[str, Any]:
    """Two steps of training on the whole batch, whoever computes which part of it."""
    torch.manual_seed(0)
    model = Network()
    share_layers(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for norm in (each for each in model.modules() if compiled and isinstance(each, SharedBatchNorm)):
        norm.compile(backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    figures = []
    for _ in range(2):
        share = processes.share_of(ROWS)
        optimizer.zero_grad()
        with processes.batch(ROWS):
            loss = cross_entropy(model(POINTS[share]), LABELS[share])
        weight = (share.stop - share.start) / ROWS
        (loss * weight).backward()
        processes.sum_gradients(model.parameters())
        gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
        optimizer.step()
        figures.append(processes.summed(loss.detach() * weight))
    said = model.eval()(POINTS[processes.share_of(ROWS)]).detach()
    return {
        "gradients": gradients,
        "state": {name: each.clone() for name, each in model.state_dict().items()},
        "figures": torch.stack(figures),
        "said": processes.put_together([said[:1], said[1:]], ROWS),
    }


class Clips:
    """Points in place of clips."""

    device = torch.device("cpu")

    def request(self, rows: Tensor, /) -> Pending:
        return lambda: POINTS[rows]

    def waveforms(self, rows: Sequence[int], /) -> Tensor:
        return POINTS[list(rows)]


class Noisy(nn.Module):
    """`Network` with the output of a student."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, points: Tensor) -> StudentOutput:
        return StudentOutput(self.network(points), points)


class Step:
    """Cross-entropy of points whose level depends on what was drawn for them."""

    def __init__(self, model: nn.Module, stop_before: int) -> None:
        self.model, self.stop_before = model, stop_before

    def gives_up(self, _failure: Exception) -> bool:
        return False

    def begin(self, epoch: int) -> frozenset[Need]:
        if epoch == self.stop_before:
            raise Stopped
        return frozenset()

    def __call__(self, batch: Batch) -> StepOutput:
        assert batch.waveforms is not None
        gains = 1 + 1e-3 * batch.masks.time[:, 0, 0]
        value = cross_entropy(self.model(batch.waveforms * gains[:, None, None, None]).logits, batch.targets)
        return StepOutput(value, {"classification": value}, {})


class Stopped(Exception):
    """A run is to end here."""


def stage(folder: Path, epochs: int = 4, rows: int = ROWS, stop_before: int = 0, average: float = 0.0) -> Stage:
    """A student that learns by plain gradient descent, which rounding does not lead astray as it does Adam."""
    run = processes.from_first(lambda: Run.create(DistillConfig(out=folder, seed=5), ("no", "yes"), "cpu"))
    torch.manual_seed(0)
    model = Noisy()
    share_layers(model)
    return Stage(
        name="student",
        run=run,
        model=model,
        batches=TrainingBatches(
            stage="student",
            seed=5,
            rows=range(rows),
            batch_size=4,
            clips=Clips(),
            labels=LABELS,
            num_classes=2,
            augment=AugmentConfig(),
            views=FreshShifts(3, enabled=False),
        ),
        step=Step(model, stop_before),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        validation=ValidationClips(Clips(), range(ROWS), LABELS),
        device=torch.device("cpu"),
        epochs=epochs,
        patience=50,
        averaged=averaged_weights(model, average),
    )


def fit_until(folder: Path, epoch: int) -> None:
    """Interrupt a stage when it begins `epoch`."""
    with suppress(Stopped):
        fit(stage(folder, stop_before=epoch), silent)


def training(folder: Path) -> None:
    """Unbroken; interrupted; and taken up where one process alone was interrupted (by the test)."""
    fit(stage(folder / "unbroken"), silent)
    fit_until(folder / "begun by several", 3)
    fit(stage(folder / "begun by one"), silent)
    fit(stage(folder / "averaged", average=0.8), silent)


def asking() -> dict[str, Any]:
    """A teacher's answers, asked by all; then with a disk that is full for one of the processes."""
    fill_cache._BATCH = 4  # a few batches for each
    listener = Listener()
    needs: tuple[Need, ...] = ("logits", "embedding", "tap")
    kept = fill(listener, needs=needs)
    found: dict[str, Any] = {
        "mode": kept.mode,
        "said": tuple(answers(kept, needs)),
        "heard": listener.heard,
        "files": (kept.folder, kept.summary()["megabytes"]),
    }
    again = Listener()
    fill(again)
    found["heard again"] = again.heard

    def full_disk(file: int, data: bytes, offset: int) -> None:
        if processes.rank() == processes.count() - 1 and len(data) > LOGIT_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_at(file, data, offset)

    write_at, row_table.write_at = row_table.write_at, full_disk
    try:
        spared = fill(Listener(seed=7), "auto")
        found["spared"] = (spared.mode, "there is no space for them" in spared.warning)
        try:
            fill(Listener(seed=8), "full")
        except Exception as error:
            found["refused"] = (type(error).__name__, str(error))
    finally:
        row_table.write_at = write_at

    def closed_to_one(*arguments: Any) -> row_table.RowTable:
        if processes.rank() == processes.count() - 1:
            raise PermissionError(errno.EACCES, "Permission denied")
        return row_table.RowTable(*arguments)

    fill_cache.RowTable = closed_to_one  # type: ignore[assignment, misc]
    try:
        fill(Listener(seed=9), "full")
    except Exception as error:
        found["closed"] = (type(error).__name__, str(error))
    finally:
        fill_cache.RowTable = row_table.RowTable  # type: ignore[misc]
    return found


def bounds() -> list[Tensor]:
    """What int8 training takes for the range of an activation."""
    values = torch.randn(ROWS, 50, generator=torch.Generator().manual_seed(2))[processes.share_of(ROWS)]
    return [magnitude_bound(values, coverage) for coverage in (1.0, 0.99, 0.5)]


def agreements(folder: Path) -> dict[str, Any]:
    """What the processes tell one another."""
    rank = processes.rank()

    def failing() -> None:
        raise InputError(f"only process {processes.rank()} says this")

    def raised(step: Any) -> tuple[str, str, int]:
        try:
            step()
        except Exception as error:
            return type(error).__name__, str(error), getattr(error, "exit_code", 1)
        return "", "", 0

    def failing_on_one() -> None:
        with processes.together():
            if rank == 1:
                failing()

    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, float(rank))
    processes.spread(module)
    marker = folder / "made by the first of the machine"
    return {
        "rank": rank,
        "processes": processes.count(),
        "share": processes.share_of(ROWS),
        "from first": processes.from_first(lambda: {"rank": processes.rank()}),
        "first failing": raised(lambda: processes.from_first(failing)),
        "after it": processes.from_first(lambda: "they go on"),
        "one failing": raised(failing_on_one),
        "on node": processes.first_on_node(lambda: marker.write_text("x"), marker.read_text),
        "node failing": raised(lambda: processes.first_on_node(failing, lambda: None)),
        "node": (processes.node().processes, processes.node().place, processes.node().gathered(rank)),
        "gathered": processes.gathered([rank] * rank),
        "few rows": processes.put_together([torch.tensor([[5.0]])] if rank == processes.count() - 1 else [], 1),
        "largest": processes.largest(torch.tensor([float(rank), -float(rank)])),
        "spread": module.weight.detach(),
        "too few": raised(lambda: fit(stage(folder / "few", rows=1), silent)),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    processes.join("cpu")
    training(folder)
    os.environ["EDGEKD_CACHE_DIR"] = str(folder / "cache")
    found = {"outcome": outcome(), "agreements": agreements(folder), "answers": asking(), "bounds": bounds()}
    found["statistics"] = reestimated()
    found["outcome, compiled"] = outcome(compiled=True)
    found["sockets"] = len(processes.NEIGHBOURS)
    processes.NEIGHBOURS.clear()  # what follows goes the way of processes on several machines, and of GPUs
    found["outcome of collectives"] = outcome()
    torch.save(found, folder / f"rank{processes.rank()}.pt")


if __name__ == "__main__":
    main()
