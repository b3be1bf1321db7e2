"""What `test_parallel` has several processes do: `python in_processes.py FOLDER`, started as `torchrun` does.

Each process leaves `rank<N>.pt` in FOLDER. `outcome` is also called by the test itself, in one process.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd import processes
from edgekd.config import DistillConfig
from edgekd.errors import InputError
from edgekd.files import row_table
from edgekd.progress import silent
from edgekd.quantization.fake_quant import magnitude_bound
from edgekd.runs.run import Run
from edgekd.training import teacher_cache
from edgekd.training.loop import Stage, StepOutput, Validation, fit
from edgekd.training.shared_layers import share_layers
from tests.training.test_teacher_cache import Listener, answers, fill

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


def outcome() -> dict[str, Any]:
    """Two steps of training on the whole batch, whoever computes which part of it."""
    torch.manual_seed(0)
    model = Network()
    share_layers(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
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


def stage(folder: Path, epochs: int = 4, rows: int = ROWS) -> Stage[Tensor]:
    """A student that learns by plain gradient descent, which rounding does not lead astray as it does Adam."""
    run = processes.from_first(lambda: Run.create(DistillConfig(out=folder, seed=5), ("no", "yes"), "cpu"))
    torch.manual_seed(0)
    model = Network()
    share_layers(model)

    def draw(rows: Tensor, share: slice, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return rows[share], torch.rand(len(rows), generator=generator)[share]

    def step(drawn: tuple[Tensor, Tensor], part: slice) -> StepOutput:
        chosen, gains = drawn[0][part], drawn[1][part]
        value = cross_entropy(model(POINTS[chosen] * (1 + 1e-3 * gains[:, None, None, None])), LABELS[chosen])
        return StepOutput(value, {"classification": value}, {})

    @torch.no_grad()
    def validate() -> Validation:
        share = processes.share_of(ROWS)
        said = processes.put_together([model.eval()(POINTS[share])], ROWS)
        return Validation(float(cross_entropy(said, LABELS)), float((said.argmax(1) == LABELS).float().mean()))

    return Stage(
        name="student",
        run=run,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        draw=draw,
        step=step,
        validate=validate,
        rows=range(rows),
        epochs=epochs,
        batch_size=4,
        patience=50,
        decay_power=0.9,
    )


class Stopped(Exception):
    """A run is to end here."""


def fit_until(stage: Stage[Tensor], epoch: int) -> None:
    """Interrupt `stage` when it begins `epoch`."""

    def on_epoch(begun: int) -> None:
        if begun == epoch:
            raise Stopped

    stage.on_epoch = on_epoch
    with suppress(Stopped):
        fit(stage, processes.make_fabric("cpu"), silent)


def training(folder: Path) -> None:
    """Unbroken; interrupted; and taken up where one process alone was interrupted (by the test)."""
    fabric = processes.make_fabric("cpu")
    fit(stage(folder / "unbroken"), fabric, silent)
    fit_until(stage(folder / "begun by several"), 3)
    fit(stage(folder / "begun by one"), fabric, silent)


def asking() -> dict[str, Any]:
    """A teacher's answers, asked by all; then with a disk that is full for one of the processes."""
    teacher_cache._BATCH = 4  # a few batches for each
    listener = Listener()
    kept = fill(listener)
    found: dict[str, Any] = {
        "mode": kept.mode,
        "said": tuple(answers(kept)),
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
        "too few": raised(lambda: fit(stage(folder / "few", rows=1), processes.make_fabric("cpu"), silent)),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    processes.make_fabric("cpu")
    training(folder)
    os.environ["EDGEKD_CACHE_DIR"] = str(folder / "cache")
    found = {"outcome": outcome(), "agreements": agreements(folder), "answers": asking(), "bounds": bounds()}
    torch.save(found, folder / f"rank{processes.rank()}.pt")


if __name__ == "__main__":
    main()
