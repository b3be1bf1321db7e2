"""The epoch loop on a toy: a linear layer with dropout that learns to tell two clouds of points apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd.config import AugmentConfig, DistillConfig
from edgekd.errors import InputError
from edgekd.losses.terms import Need
from edgekd.models.outputs import StudentOutput
from edgekd.models.weights import read_weights
from edgekd.progress import silent
from edgekd.runs.run import Run
from edgekd.training import loop
from edgekd.training.batches import Batch, TrainingBatches
from edgekd.training.device_rows import Pending
from edgekd.training.loop import Stage, StepOutput, fit
from edgekd.training.validation import Validation, ValidationClips
from edgekd.training.views import FreshShifts

POINTS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = (POINTS[:, 0] > 0).long()
ROWS = tuple(range(22))


class Weighing(nn.Module):
    """A loss with something to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def forward(self, value: Tensor) -> Tensor:
        return torch.exp(-self.log_variance) * value + self.log_variance


class Interrupted(Exception):
    pass


def make_run(folder: Path) -> Run:
    return Run.create(DistillConfig(out=folder, seed=5), ("no", "yes"), "cpu")


class Points:
    """Points in place of clips."""

    device = torch.device("cpu")

    def request(self, rows: Tensor, /) -> Pending:
        return lambda: POINTS[rows]

    def waveforms(self, rows: Sequence[int], /) -> Tensor:
        return POINTS[list(rows)]


class Toy(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, points: Tensor) -> StudentOutput:
        return StudentOutput(self.layers(points), points)


@dataclass
class ToyStep:
    """Cross-entropy; `before` is called with each batch or part of one before it is computed."""

    model: nn.Module
    weighing: Weighing
    before: Callable[[Batch], object] = lambda _: None
    begun: list[tuple[int, bool]] = field(default_factory=list)

    def gives_up(self, _failure: Exception) -> bool:
        return False

    def begin(self, epoch: int) -> frozenset[Need]:
        self.begun.append((epoch, self.model.training))
        return frozenset()

    def __call__(self, batch: Batch) -> StepOutput:
        self.before(batch)
        value = cross_entropy(self.model(batch.waveforms).logits, batch.targets)
        weight = torch.exp(-self.weighing.log_variance)
        return StepOutput(self.weighing(value), {"classification": value}, {"classification": weight})


def batches_of(rows: Sequence[int] = ROWS, batch_size: int = 5) -> TrainingBatches:
    return TrainingBatches(
        stage="student",
        seed=5,
        rows=rows,
        batch_size=batch_size,
        clips=Points(),
        labels=LABELS,
        num_classes=2,
        augment=AugmentConfig(),
        views=FreshShifts(4, enabled=False),
    )


def toy(run: Run, **changes: object) -> Stage:
    """A stage that starts from the same weights each time it is made."""
    torch.manual_seed(0)
    model = Toy(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    weighing = Weighing()
    settings: dict[str, object] = {
        "name": "student",
        "run": run,
        "model": model,
        "batches": batches_of(),
        "step": ToyStep(model, weighing),
        "optimizer": torch.optim.AdamW([*model.parameters(), *weighing.parameters()], lr=0.05),
        "validation": ValidationClips(Points(), range(22, 30), LABELS),
        "device": torch.device("cpu"),
        "epochs": 6,
        "patience": 50,
        "loss": weighing,
    }
    return Stage(**{**settings, **changes})  # type: ignore[arg-type]


def step_of(stage: Stage) -> ToyStep:
    assert isinstance(stage.step, ToyStep)
    return stage.step


def everything(stage: Stage) -> dict[str, object]:
    """What a stage leaves: its two checkpoints, the trained modules, and its metrics but for the time they took."""
    assert stage.loss is not None
    folder = stage.run.folder / stage.name
    last = torch.load(folder / "last.pt", weights_only=True)
    return {
        "best": (folder / "best.safetensors").read_bytes(),
        "last": {name: tensor.tolist() for name, tensor in last["model"].items()},
        "loss": float(last["loss"]["log_variance"]),
        "model": {name: tensor.tolist() for name, tensor in stage.model.state_dict().items()},
        "metrics": [{**row, "seconds": ""} for row in stage.run.metrics().rows],
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    stage = toy(make_run(tmp_path_factory.mktemp("unbroken")))
    fit(stage, silent)
    return everything(stage)


def interrupting(stage: Stage, at_step: int) -> Stage:
    taken = 0

    def interrupt(_: Batch) -> None:
        nonlocal taken
        taken += 1
        if taken == at_step:
            raise Interrupted

    step_of(stage).before = interrupt
    return stage


def test_training_learns(unbroken: dict[str, object]) -> None:
    metrics = unbroken["metrics"]
    assert isinstance(metrics, list)
    assert len(metrics) == 6
    assert float(metrics[-1]["classification"]) < float(metrics[0]["classification"])
    assert float(metrics[-1]["weight_classification"]) != 1


def test_the_same_seed_gives_the_same_end(tmp_path: Path, unbroken: dict[str, object]) -> None:
    stage = toy(make_run(tmp_path))
    torch.manual_seed(12345)
    fit(stage, silent)
    assert everything(stage) == unbroken


@pytest.mark.parametrize("at_step", [1, 3, 5, 14, 24])
def test_a_stage_interrupted_in_any_epoch_ends_as_if_it_had_not_been(
    at_step: int, tmp_path: Path, unbroken: dict[str, object]
) -> None:
    run = make_run(tmp_path)
    with pytest.raises(Interrupted):
        fit(interrupting(toy(run), at_step), silent)
    torch.manual_seed(at_step)
    resumed = toy(run)
    fit(resumed, silent)
    assert everything(resumed) == unbroken


@pytest.mark.parametrize("name", ["save_weights", "_save"])
def test_a_kill_between_the_files_of_an_epoch_does_no_harm(
    name: str, tmp_path: Path, unbroken: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the epoch is in metrics.csv, its weights or its state are not."""
    run, write, calls = make_run(tmp_path), getattr(loop, name), 0

    def killed(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interrupted
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, name, killed)
        with pytest.raises(Interrupted):
            fit(toy(run), silent)
    resumed = toy(run)
    fit(resumed, silent)
    assert everything(resumed) == unbroken


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fit(toy(run), silent)
    again = interrupting(toy(run), at_step=1)
    fit(again, silent)
    best = read_weights(tmp_path / "student" / "best.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in again.model.state_dict().items())


Script = Callable[[list[tuple[float, float]], Stage], list[Tensor]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Make a stage see these `(accuracy, loss)`; returns the list to which each epoch's weights are added."""

    def script(scores: list[tuple[float, float]], stage: Stage) -> list[Tensor]:
        weights: list[Tensor] = []
        left: Iterator[tuple[float, float]] = iter(scores)

        def validate(*_: object) -> Validation:
            weights.append(first_weight(stage).detach().clone())
            accuracy, loss = next(left)
            return Validation(loss, accuracy)

        monkeypatch.setattr(loop, "validate", validate)
        return weights

    return script


def first_weight(stage: Stage) -> Tensor:
    assert isinstance(stage.model, Toy)
    weight = stage.model.layers[0].weight
    assert isinstance(weight, Tensor)
    return weight


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1), (0.6, 0.1)], 2),  # accuracy counts, not loss
        ([(0.5, 1.0), (0.5, 0.8), (0.5, 0.9), (0.5, 0.8)], 2),  # a tie is broken by loss, and then by time
        ([(0.0, 9.0), (0.0, 9.0), (0.0, 9.0), (0.0, 9.0)], 1),  # even the worst score has a best epoch
        ([(0.1, 1.0), (0.2, 1.0), (0.3, 1.0), (0.4, 1.0)], 4),
    ],
)
def test_the_best_checkpoint_is_the_one_of_the_best_validation(
    scores: list[tuple[float, float]], best: int, tmp_path: Path, scripted: Script
) -> None:
    stage = toy(make_run(tmp_path), epochs=4)
    weights = scripted(scores, stage)
    fit(stage, silent)
    assert torch.equal(read_weights(tmp_path / "student" / "best.safetensors")["layers.0.weight"], weights[best - 1])
    assert torch.equal(first_weight(stage), weights[best - 1]), "the stage's model is left with them"


def test_training_stops_when_validation_has_been_no_better_for_so_long(tmp_path: Path, scripted: Script) -> None:
    stage = toy(make_run(tmp_path), epochs=20, patience=3)
    weights = scripted([(0.5, 1.0), (0.6, 1.0), *[(0.4, 1.0)] * 18], stage)
    fit(stage, silent)
    assert len(weights) == 2 + 3


def test_patience_is_remembered_when_resuming(tmp_path: Path, scripted: Script) -> None:
    run, scores = make_run(tmp_path), [(0.6, 1.0), *[(0.4, 1.0)] * 18]
    stage = interrupting(toy(run, epochs=20, patience=4), at_step=2 * 4 + 2)  # in the third epoch
    scripted(scores, stage)
    with pytest.raises(Interrupted):
        fit(stage, silent)
    resumed = toy(run, epochs=20, patience=4)
    weights = scripted(scores[2:], resumed)
    fit(resumed, silent)
    assert len(weights) == 1 + 4 - 2


def test_the_schedule_decays_polynomially_over_all_steps(tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path), epochs=5)
    rates: list[float] = []
    step_of(stage).before = lambda _: rates.append(stage.optimizer.param_groups[0]["lr"])
    fit(stage, silent)
    total = 5 * 4  # 22 rows in batches of about 5
    assert rates == pytest.approx([0.05 * (1 - step / total) ** 0.9 for step in range(total)], rel=1e-6)
    assert float(run_rate(stage)) == pytest.approx(0, abs=1e-9)


def run_rate(stage: Stage) -> str:
    return stage.run.metrics().rows[-1]["learning_rate"]


def test_every_epoch_starts_in_training_mode_and_is_announced(tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path), epochs=3)
    fit(stage, silent)
    assert step_of(stage).begun == [(1, True), (2, True), (3, True)]


def test_progress_tells_epochs_and_the_best_at_the_end(tmp_path: Path, scripted: Script) -> None:
    told: list[tuple[str, int, int, dict[str, float | str]]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        told.append((stage, done, total, figures))

    stage = toy(make_run(tmp_path), epochs=2)
    scripted([(0.25, 1.0), (0.5, 1.0)], stage)
    fit(stage, progress)
    assert [call[:3] for call in told[-3:]] == [("student", 1, 2), ("student", 2, 2), ("student", 2, 2)]
    assert told[-3][3]["validation"] == "25.0%"
    assert told[-1][3]["best"] == "50.0% in epoch 2"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_with_advice_and_keeps_the_epochs_before(value: float, tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path))
    taken = 0

    def break_it(batch: Batch) -> None:
        nonlocal taken
        taken += 1
        if taken > 4:
            assert batch.waveforms is not None
            batch.waveforms.mul_(value)

    step_of(stage).before = break_it
    with pytest.raises(
        InputError, match=r"student: the loss is (nan|inf) in epoch 2\. Lower the learning rate \(now 0\.05\)"
    ):
        fit(stage, silent)
    assert torch.load(tmp_path / "student" / "last.pt", weights_only=True)["epoch"] == 1
    assert stage.run.metrics().last_epoch("student") == 1
    assert all(tensor.isfinite().all() for tensor in read_weights(tmp_path / "student" / "best.safetensors").values())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_text(path: Path) -> None:
    path.write_text("not weights")


def replaced_by_another_checkpoint(path: Path) -> None:
    torch.save({"epoch": 1, "model": {"layers.0.weight": torch.zeros(3)}}, path)


@pytest.mark.parametrize("damage", [truncated, emptied, replaced_by_text, replaced_by_another_checkpoint])
def test_a_damaged_state_is_named_with_what_to_do(damage: Callable[[Path], None], tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fit(toy(run, epochs=1), silent)
    damage(tmp_path / "student" / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt: cannot be resumed from .*Delete last\.pt to repeat this stage"):
        fit(toy(run), silent)


@pytest.mark.parametrize("rows", [2, 3, 9, 17, 33, 47])
def test_no_batch_has_a_single_clip(rows: int, tmp_path: Path) -> None:
    """Batch norm cannot train on one."""
    sizes: list[int] = []
    chosen = tuple(range(22))[:rows] if rows <= 22 else ROWS * 2 + ROWS[:3]
    stage = toy(make_run(tmp_path), batches=batches_of(chosen, 16), epochs=1)
    step_of(stage).before = lambda batch: sizes.append(len(batch))
    fit(stage, silent)
    assert min(sizes) > 1
    assert max(sizes) < 2 * 16


def small_memory(stage: Stage, clips: int) -> Stage:
    """A stage whose device holds no more than so many clips."""

    def limit(batch: Batch) -> None:
        if len(batch) > clips:
            raise torch.OutOfMemoryError("CUDA out of memory")

    step_of(stage).before = limit
    return stage


def plain(run: Run, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Stage:
    """A stage in which no row of a batch depends on another, with a score that stays."""
    torch.manual_seed(0)
    model, weighing = Toy(nn.Linear(4, 2)), Weighing()
    optimizer = torch.optim.SGD([*model.parameters(), *weighing.parameters()], lr=0.05)
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(1.0, 0.5))
    return toy(run, model=model, loss=weighing, optimizer=optimizer, step=ToyStep(model, weighing), **changes)


@pytest.mark.parametrize("clips", [3, 4])
def test_a_batch_that_is_too_large_for_the_memory_is_computed_in_parts(
    clips: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plain(make_run(tmp_path / "whole"), monkeypatch)
    parted = small_memory(plain(make_run(tmp_path / "parted"), monkeypatch), clips)
    for stage in (whole, parted):
        fit(stage, silent)
    torch.testing.assert_close(parted.model.state_dict(), whole.model.state_dict())
    for row, other in zip(parted.run.metrics().rows, whole.run.metrics().rows, strict=True):
        for name in ("total", "classification"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-5)
    (warning,) = parted.run.report()["warnings"]
    assert "did not fit the memory of cpu and were computed in 2 parts" in warning
    assert "warnings" not in whole.run.report()


def test_a_resumed_stage_knows_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    fit(small_memory(plain(run, monkeypatch), 3), silent)
    assert torch.load(tmp_path / "student" / "last.pt", weights_only=True)["parts"] == 2
    again, sizes = plain(run, monkeypatch, epochs=7), []
    step_of(again).before = lambda batch: sizes.append(len(batch))
    fit(again, silent)
    assert max(sizes) == 3


def test_too_little_memory_for_two_clips_is_an_error_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = small_memory(plain(make_run(tmp_path), monkeypatch), 1)
    with pytest.raises(InputError, match=r"student: cpu is out of memory with \d clips at a time\. Take shorter clips"):
        fit(stage, silent)
