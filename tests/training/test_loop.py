"""The epoch loop on a toy: a linear layer with dropout that learns to tell two clouds of points apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd.config import DistillConfig
from edgekd.errors import InputError
from edgekd.models.weights import read_weights
from edgekd.progress import silent
from edgekd.runs.run import Run
from edgekd.training import loop
from edgekd.training.loop import Stage, StepOutput, Validation, batches, fit, seed_all

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


def toy(run: Run, **changes: object) -> Stage:
    """A stage that starts from the same weights each time it is made."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    weighing = Weighing()

    def step(drawn: Tensor, part: slice) -> StepOutput:
        rows = drawn[part]
        value = cross_entropy(model(POINTS[rows]), LABELS[rows])
        return StepOutput(
            weighing(value), {"classification": value}, {"classification": torch.exp(-weighing.log_variance)}
        )

    @torch.no_grad()
    def validate() -> Validation:
        model.eval()
        logits = model(POINTS[22:])
        return Validation(
            float(cross_entropy(logits, LABELS[22:])), float((logits.argmax(1) == LABELS[22:]).float().mean())
        )

    settings: dict[str, object] = {
        "name": "student",
        "run": run,
        "model": model,
        "optimizer": torch.optim.AdamW([*model.parameters(), *weighing.parameters()], lr=0.05),
        "draw": lambda rows, share, generator: rows[share],
        "step": step,
        "validate": validate,
        "rows": ROWS,
        "epochs": 6,
        "batch_size": 5,
        "patience": 50,
        "decay_power": 0.9,
        "loss": weighing,
    }
    return Stage(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


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
def unbroken(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    stage = toy(make_run(tmp_path_factory.mktemp("unbroken")))
    fit(stage, fabric, silent)
    return everything(stage)


def interrupting(stage: Stage, at_step: int) -> Stage:
    step, taken = stage.step, 0

    def counted(rows: Tensor, part: slice) -> StepOutput:
        nonlocal taken
        taken += 1
        if taken == at_step:
            raise Interrupted
        return step(rows, part)

    stage.step = counted
    return stage


def test_training_learns(unbroken: dict[str, object]) -> None:
    metrics = unbroken["metrics"]
    assert isinstance(metrics, list)
    assert len(metrics) == 6
    assert float(metrics[-1]["classification"]) < float(metrics[0]["classification"])
    assert float(metrics[-1]["weight_classification"]) != 1


def test_the_same_seed_gives_the_same_end(fabric: Fabric, tmp_path: Path, unbroken: dict[str, object]) -> None:
    stage = toy(make_run(tmp_path))
    torch.manual_seed(12345)
    fit(stage, fabric, silent)
    assert everything(stage) == unbroken


@pytest.mark.parametrize("at_step", [1, 3, 5, 14, 24])
def test_a_stage_interrupted_in_any_epoch_ends_as_if_it_had_not_been(
    at_step: int, fabric: Fabric, tmp_path: Path, unbroken: dict[str, object]
) -> None:
    run = make_run(tmp_path)
    with pytest.raises(Interrupted):
        fit(interrupting(toy(run), at_step), fabric, silent)
    torch.manual_seed(at_step)
    resumed = toy(run)
    fit(resumed, fabric, silent)
    assert everything(resumed) == unbroken


@pytest.mark.parametrize("name", ["save_weights", "_save"])
def test_a_kill_between_the_files_of_an_epoch_does_no_harm(
    name: str, fabric: Fabric, tmp_path: Path, unbroken: dict[str, object], monkeypatch: pytest.MonkeyPatch
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
            fit(toy(run), fabric, silent)
    resumed = toy(run)
    fit(resumed, fabric, silent)
    assert everything(resumed) == unbroken


def test_a_finished_stage_is_not_trained_again(fabric: Fabric, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fit(toy(run), fabric, silent)
    again = interrupting(toy(run), at_step=1)
    fit(again, fabric, silent)
    best = read_weights(tmp_path / "student" / "best.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in again.model.state_dict().items())


def scripted(scores: list[tuple[float, float]], stage: Stage) -> list[Tensor]:
    """Make `stage` see these `(accuracy, loss)`; returns the list to which each epoch's weights are added."""
    weights: list[Tensor] = []
    script: Iterator[tuple[float, float]] = iter(scores)

    def validate() -> Validation:
        assert isinstance(stage.model, nn.Sequential)
        weights.append(stage.model[0].weight.detach().clone())
        accuracy, loss = next(script)
        return Validation(loss, accuracy)

    stage.validate = validate
    return weights


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
    scores: list[tuple[float, float]], best: int, fabric: Fabric, tmp_path: Path
) -> None:
    stage = toy(make_run(tmp_path), epochs=4)
    weights = scripted(scores, stage)
    fit(stage, fabric, silent)
    assert torch.equal(read_weights(tmp_path / "student" / "best.safetensors")["0.weight"], weights[best - 1])
    assert isinstance(stage.model, nn.Sequential)
    assert torch.equal(stage.model[0].weight, weights[best - 1]), "the stage's model is left with them"


def test_training_stops_when_validation_has_been_no_better_for_so_long(fabric: Fabric, tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path), epochs=20, patience=3)
    weights = scripted([(0.5, 1.0), (0.6, 1.0), *[(0.4, 1.0)] * 18], stage)
    fit(stage, fabric, silent)
    assert len(weights) == 2 + 3


def test_patience_is_remembered_when_resuming(fabric: Fabric, tmp_path: Path) -> None:
    run, scores = make_run(tmp_path), [(0.6, 1.0), *[(0.4, 1.0)] * 18]
    stage = interrupting(toy(run, epochs=20, patience=4), at_step=2 * 4 + 2)  # in the third epoch
    scripted(scores, stage)
    with pytest.raises(Interrupted):
        fit(stage, fabric, silent)
    resumed = toy(run, epochs=20, patience=4)
    weights = scripted(scores[2:], resumed)
    fit(resumed, fabric, silent)
    assert len(weights) == 1 + 4 - 2


def test_the_schedule_decays_polynomially_over_all_steps(fabric: Fabric, tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path), epochs=5)
    rates: list[float] = []
    step = stage.step

    def watched(rows: Tensor, part: slice) -> StepOutput:
        rates.append(stage.optimizer.param_groups[0]["lr"])
        return step(rows, part)

    stage.step = watched
    fit(stage, fabric, silent)
    total = 5 * 4  # 22 rows in batches of about 5
    assert rates == pytest.approx([0.05 * (1 - step / total) ** 0.9 for step in range(total)], rel=1e-6)
    assert float(run_rate(stage)) == pytest.approx(0, abs=1e-9)


def run_rate(stage: Stage) -> str:
    return stage.run.metrics().rows[-1]["learning_rate"]


def test_every_epoch_starts_in_training_mode_and_is_announced(fabric: Fabric, tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path), epochs=3)
    seen: list[tuple[int, bool]] = []
    stage.on_epoch = lambda epoch: seen.append((epoch, stage.model.training))
    fit(stage, fabric, silent)
    assert seen == [(1, True), (2, True), (3, True)]


def test_progress_tells_epochs_and_the_best_at_the_end(fabric: Fabric, tmp_path: Path) -> None:
    told: list[tuple[str, int, int, dict[str, float | str]]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        told.append((stage, done, total, figures))

    stage = toy(make_run(tmp_path), epochs=2)
    scripted([(0.25, 1.0), (0.5, 1.0)], stage)
    fit(stage, fabric, progress)
    assert [call[:3] for call in told[-3:]] == [("student", 1, 2), ("student", 2, 2), ("student", 2, 2)]
    assert told[-3][3]["validation"] == "25.0%"
    assert told[-1][3]["best"] == "50.0% in epoch 2"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_with_advice_and_keeps_the_epochs_before(
    value: float, fabric: Fabric, tmp_path: Path
) -> None:
    stage = toy(make_run(tmp_path))
    step, taken = stage.step, 0

    def broken(rows: Tensor, part: slice) -> StepOutput:
        nonlocal taken
        taken += 1
        output = step(rows, part)
        return output._replace(total=output.total * value) if taken > 4 else output

    stage.step = broken
    with pytest.raises(
        InputError, match=r"student: the loss is (nan|inf) in epoch 2\. Lower the learning rate \(now 0\.05\)"
    ):
        fit(stage, fabric, silent)
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
    torch.save({"epoch": 1, "model": {"0.weight": torch.zeros(3)}}, path)


@pytest.mark.parametrize("damage", [truncated, emptied, replaced_by_text, replaced_by_another_checkpoint])
def test_a_damaged_state_is_named_with_what_to_do(
    damage: Callable[[Path], None], fabric: Fabric, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    fit(toy(run, epochs=1), fabric, silent)
    damage(tmp_path / "student" / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt: cannot be resumed from .*Delete last\.pt to repeat this stage"):
        fit(toy(run), fabric, silent)


def test_batches_are_all_rows_in_random_order_in_sizes_that_differ_by_one() -> None:
    rows = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]
    torch.manual_seed(0)
    first = [batch.tolist() for batch in batches(rows, 3)]
    second = [batch.tolist() for batch in batches(rows, 3)]
    for drawn in (first, second):
        assert sorted(row for batch in drawn for row in batch) == rows
        assert sorted(map(len, drawn)) == [3, 4, 4]
    assert first != second


@pytest.mark.parametrize("rows", [2, 3, 9, 17, 33, 47])
def test_no_batch_has_a_single_clip(rows: int, fabric: Fabric, tmp_path: Path) -> None:
    """Batch norm cannot train on one."""
    sizes: list[int] = []
    stage = toy(
        make_run(tmp_path), rows=tuple(range(22))[:rows] if rows <= 22 else ROWS * 2 + ROWS[:3], batch_size=16, epochs=1
    )
    step = stage.step

    def watched(batch: Tensor, part: slice) -> StepOutput:
        sizes.append(len(batch[part]))
        return step(batch, part)

    stage.step = watched
    fit(stage, fabric, silent)
    assert min(sizes) > 1
    assert max(sizes) < 2 * 16


def test_random_numbers_follow_from_seed_and_place_alone() -> None:
    def drawn(seed: int, *names: str | int) -> list[float]:
        seed_all(seed, *names)
        return torch.rand(3).tolist()

    first = drawn(1, "student", 4)
    assert drawn(1, "student", 4) == first
    others = [drawn(2, "student", 4), drawn(1, "teacher", 4), drawn(1, "student", 5), drawn(1, "student")]
    assert first not in others


def small_memory(stage: Stage, clips: int) -> Stage:
    """A stage whose device holds no more than so many clips."""
    step = stage.step

    def limited(rows: Tensor, part: slice) -> StepOutput:
        output = step(rows, part)
        if len(rows[part]) > clips:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return output

    stage.step = limited
    return stage


def plain(run: Run) -> Stage:
    """A stage in which no row of a batch depends on another."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    weighing = Weighing()

    def step(drawn: Tensor, part: slice) -> StepOutput:
        value = cross_entropy(model(POINTS[drawn[part]]), LABELS[drawn[part]])
        return StepOutput(weighing(value), {"classification": value}, {})

    optimizer = torch.optim.SGD([*model.parameters(), *weighing.parameters()], lr=0.05)
    return toy(run, model=model, loss=weighing, optimizer=optimizer, step=step, validate=lambda: Validation(1.0, 0.5))


@pytest.mark.parametrize("clips", [3, 4])
def test_a_batch_that_is_too_large_for_the_memory_is_computed_in_parts(
    clips: int, fabric: Fabric, tmp_path: Path
) -> None:
    whole, parted = plain(make_run(tmp_path / "whole")), small_memory(plain(make_run(tmp_path / "parted")), clips)
    for stage in (whole, parted):
        fit(stage, fabric, silent)
    torch.testing.assert_close(parted.model.state_dict(), whole.model.state_dict())
    for row, other in zip(parted.run.metrics().rows, whole.run.metrics().rows, strict=True):
        for name in ("total", "classification"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-5)
    (warning,) = parted.run.report()["warnings"]
    assert "did not fit the memory of cpu and were computed in 2 parts" in warning
    assert "warnings" not in whole.run.report()


def test_a_resumed_stage_knows_of_its_parts(fabric: Fabric, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fit(small_memory(plain(run), 3), fabric, silent)
    assert torch.load(tmp_path / "student" / "last.pt", weights_only=True)["parts"] == 2
    again, largest = plain(run), 0
    again.epochs = 7
    step = again.step

    def watched(rows: Tensor, part: slice) -> StepOutput:
        nonlocal largest
        largest = max(largest, len(rows[part]))
        return step(rows, part)

    again.step = watched
    fit(again, fabric, silent)
    assert largest == 3


def test_too_little_memory_for_two_clips_is_an_error_with_advice(fabric: Fabric, tmp_path: Path) -> None:
    stage = small_memory(plain(make_run(tmp_path)), 1)
    with pytest.raises(InputError, match=r"student: cpu is out of memory with \d clips at a time\. Take shorter clips"):
        fit(stage, fabric, silent)


def test_batches_are_drawn_ahead_of_their_step_and_in_order(fabric: Fabric, tmp_path: Path) -> None:
    stage = toy(make_run(tmp_path), epochs=1)
    told: list[str] = []
    draw, step = stage.draw, stage.step

    def drawing(rows: Tensor, share: slice, generator: torch.Generator) -> Tensor:
        told.append("draw")
        return draw(rows, share, generator)

    def stepping(drawn: Tensor, part: slice) -> StepOutput:
        told.append("step")
        return step(drawn, part)

    stage.draw, stage.step = drawing, stepping
    fit(stage, fabric, silent)
    assert told == ["draw"] * 3 + ["step", "draw", "step", "step", "step"]
