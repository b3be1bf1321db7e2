"""The average of weights alone, and in a stage that is interrupted, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.weights import read_weights
from edgekd.progress import silent
from edgekd.training import loop
from edgekd.training.averaging import AveragedWeights, averaged_weights
from edgekd.training.batches import Batch
from edgekd.training.loop import Stage, fit
from edgekd.training.validation import Validation
from tests.training.test_loop import Interrupted, everything, interrupting, make_run, toy


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)) + self.get_buffer("mask")


def moved(model: Layers, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in (model.linear.weight, model.norm.get_buffer("running_mean")):
            each.copy_(torch.randn(each.shape, generator=generator))
    model.norm.get_buffer("num_batches_tracked").add_(1)


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_each_step_counts_less_the_longer_ago_it_was_and_the_first_ones_are_soon_forgotten(decay: float) -> None:
    model = Layers()
    average = AveragedWeights(model, decay)
    expected = {name: model.state_dict()[name].clone() for name in ("linear.weight", "norm.running_mean")}
    for step in range(30):
        moved(model, step)
        average.update()
        kept = min(decay, (1 + step) / (10 + step))
        expected = {name: kept * old + (1 - kept) * model.state_dict()[name] for name, old in expected.items()}
    for name, value in expected.items():
        torch.testing.assert_close(average.values[name], value)
    assert average.values["norm.num_batches_tracked"] == 30, "what counts is not averaged"
    assert average.values["mask"].tolist() == [0.0, -torch.inf]


def test_the_model_is_lent_the_average_in_place_and_has_its_own_weights_afterwards() -> None:
    model = Layers()
    average = AveragedWeights(model, 0.9)
    moved(model, 1)
    average.update()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    addresses = {name: value.data_ptr() for name, value in model.state_dict().items()}
    with pytest.raises(Interrupted), average.lent():
        lent = model.state_dict()
        assert {name: value.data_ptr() for name, value in lent.items()} == addresses
        assert all(torch.equal(lent[name], value) for name, value in average.values.items())
        assert not torch.equal(model.linear.weight, own["linear.weight"])
        raise Interrupted
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_without_a_decay_there_is_no_average() -> None:
    assert averaged_weights(Layers(), 0.0) is None


# In a stage


def averaging(stage: Stage, decay: float = 0.8) -> Stage:
    stage.averaged = averaged_weights(stage.model, decay)
    return stage


def all_of(stage: Stage) -> dict[str, object]:
    assert stage.averaged is not None
    values = {name: value.tolist() for name, value in stage.averaged.values.items()}
    return {**everything(stage), "steps": stage.averaged.steps, "averaged": values}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    stage = averaging(toy(make_run(tmp_path_factory.mktemp("averaged"))))
    fit(stage, silent)
    return all_of(stage)


def test_averaging_leaves_the_way_of_the_weights_alone(tmp_path: Path, unbroken: dict[str, object]) -> None:
    plain = toy(make_run(tmp_path))
    fit(plain, silent)
    alone = everything(plain)
    assert unbroken["last"] == alone["last"]
    assert unbroken["best"] != alone["best"]
    assert unbroken["steps"] == 6 * 4


@pytest.mark.parametrize("at_step", [3, 14, 24])
def test_a_stage_interrupted_in_any_epoch_ends_with_the_same_average(
    at_step: int, tmp_path: Path, unbroken: dict[str, object]
) -> None:
    run = make_run(tmp_path)
    with pytest.raises(Interrupted):
        fit(interrupting(averaging(toy(run)), at_step), silent)
    resumed = averaging(toy(run))
    fit(resumed, silent)
    assert all_of(resumed) == unbroken


def test_what_is_validated_and_kept_is_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = averaging(toy(make_run(tmp_path), epochs=3))
    seen: list[dict[str, Tensor]] = []

    def validate(model: nn.Module, *_: object) -> Validation:
        assert stage.averaged is not None
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        assert all(torch.equal(value, seen[-1][name]) for name, value in stage.averaged.values.items())
        return Validation(1.0, [0.4, 0.6, 0.5][len(seen) - 1])

    monkeypatch.setattr(loop, "validate", validate)
    fit(stage, silent)
    best = read_weights(tmp_path / "student" / "best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in seen[1].items())
    assert all(torch.equal(stage.model.state_dict()[name], value) for name, value in best.items())
    last = torch.load(tmp_path / "student" / "last.pt", weights_only=True)
    assert not torch.equal(last["model"]["layers.0.weight"], last["averaged"]["values"]["layers.0.weight"])


def test_the_next_epoch_goes_on_from_the_weights_themselves(tmp_path: Path) -> None:
    stage = averaging(toy(make_run(tmp_path), epochs=2))
    seen: list[Tensor] = []

    def look(_: Batch) -> None:
        weight = stage.model.get_parameter("layers.0.weight")
        seen.append(weight.detach().clone())

    stage.step.before = look  # type: ignore[attr-defined]
    fit(stage, silent)
    plain = toy(make_run(tmp_path / "plain"), epochs=2)
    others: list[Tensor] = []
    plain.step.before = lambda _: others.append(plain.model.get_parameter("layers.0.weight").detach().clone())  # type: ignore[attr-defined]
    fit(plain, silent)
    assert len(seen) == 8
    assert all(torch.equal(one, other) for one, other in zip(seen, others, strict=True))


def test_a_state_without_an_average_is_not_gone_on_from_with_one(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    fit(toy(run, epochs=1), silent)
    with pytest.raises(InputError, match=r"last\.pt: cannot be resumed from \(averaged is None\)"):
        fit(averaging(toy(run, epochs=2)), silent)
