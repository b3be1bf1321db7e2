from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd.errors import UsageError
from edgekd.models.build import build_teacher
from edgekd.models.teachers.convnet import ConvNet
from edgekd.models.weights import read_weights
from edgekd.runs.run import Run
from edgekd.task import SINGLE
from edgekd.training import adapt as room
from edgekd.training.adapt import BACKBONE_RATE, adapted_teacher
from edgekd.training.loop import Stage, fit
from edgekd.training.new_teacher import new_teacher
from edgekd.training.validation import validate
from tests.training.conftest import CPU, Begin


def stored(run: Run) -> dict[str, torch.Tensor]:
    return read_weights(run.folder / "teacher" / "best.safetensors")


def test_head_adaptation_leaves_everything_else_as_published(begin: Begin) -> None:
    desk = begin(adaptation="head", epochs=2)
    teacher = desk.adapt()
    published = read_weights(desk.weights)
    for name, tensor in teacher.state_dict().items():
        same = torch.equal(tensor, published[name])
        assert same != name.startswith("head."), name
    assert not teacher.training


def test_head_adaptation_learns_on_features_computed_once(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = begin(adaptation="head", epochs=40)
    embedded: list[int] = []
    original = ConvNet.embed

    def counted(self: ConvNet, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert not self.training
        embedded.append(len(waveform))
        return original(self, waveform)

    monkeypatch.setattr(ConvNet, "embed", counted)
    teacher = desk.adapt()
    assert sum(embedded) == len(desk.data.split.train) + len(desk.data.split.validation)
    monkeypatch.undo()
    untrained = build_teacher("convnet", 5, desk.weights, 4_000, desk.run.config.frontend)
    side = desk.side(desk.data.split.train)
    after, before = validate(teacher, side, CPU), validate(untrained, side, CPU)
    assert after.loss < before.loss
    assert after.measure > 0.5


def test_the_scaling_of_features_is_folded_into_the_head(begin: Begin) -> None:
    """The adapted teacher scores on validation what the head scored on scaled features."""
    desk = begin(adaptation="head", epochs=20)
    teacher = desk.adapt()
    rows = [row for row in desk.run.metrics().rows if row["stage"] == "teacher"]
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
    found = validate(teacher, desk.side(desk.data.split.validation), CPU)
    assert found.measure == pytest.approx(float(best["validation_accuracy"]), rel=1e-5)
    assert found.loss == pytest.approx(float(best["validation_loss"]), rel=1e-3)


@pytest.mark.parametrize(("pretrained", "top", "bottom"), [(True, BACKBONE_RATE, BACKBONE_RATE / 4), (False, 1.0, 1.0)])
def test_full_adaptation_trains_published_layers_slower_than_the_head_and_slowest_at_the_input(
    pretrained: bool, top: float, bottom: float, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {} if pretrained else {"weights": None}
    desk = begin(adaptation="full", learning_rate=0.01, epochs=1, layer_decay=0.25, **weights)
    rates: dict[int, float] = {}

    def watched(stage: Stage, *rest: object) -> None:
        for group in stage.optimizer.param_groups:
            rates.update((id(parameter), group["lr"]) for parameter in group["params"])
        named = dict(stage.model.named_parameters())
        assert {id(parameter) for parameter in named.values()} == set(rates)
        assert {rates[id(named[name])] for name in ("head.weight", "head.bias")} == {0.01}
        assert rates[id(named["norm.weight"])] == pytest.approx(0.01 * bottom)
        body = [rates[id(parameter)] for name, parameter in named.items() if not name.startswith("head.")]
        assert (min(body), max(body)) == (pytest.approx(0.01 * bottom), pytest.approx(0.01 * top))
        fit(stage, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "fit", watched)
    teacher = desk.adapt()
    assert rates
    published = read_weights(desk.weights)
    assert not torch.equal(teacher.state_dict()["stem.0.weight"], published["stem.0.weight"])


def test_levels_are_changed_in_full_adaptation_alone(begin: Begin) -> None:
    for adaptation in ("full", "head"):
        desk = begin(adaptation=adaptation, epochs=1)
        augment = desk.run.config.augment.model_copy(update={"gain_db": 20.0})
        loud = replace(desk.run, config=desk.run.config.model_copy(update={"augment": augment}))
        plain = desk.adapt()
        shutil.rmtree(desk.run.folder / "teacher")
        desk.run.forget("training")
        louder = adapted_teacher(loud, desk.data, CPU)
        pairs = zip(plain.state_dict().values(), louder.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == (adaptation == "head")
        shutil.rmtree(desk.run.folder)


def test_batch_norms_go_on_learning_the_data_in_full_adaptation(begin: Begin) -> None:
    desk = begin(adaptation="full", epochs=1)
    published = read_weights(desk.weights)
    adapted = desk.adapt().state_dict()
    means = [name for name in adapted if name.endswith("running_mean")]
    assert means
    assert not any(torch.equal(adapted[name], published[name]) for name in means)


def test_a_teacher_used_as_it_is_is_stored_as_it_came(begin: Begin) -> None:
    desk = begin(adaptation="none")
    teacher, published = desk.adapt(), read_weights(desk.weights)
    assert not teacher.training
    assert all(torch.equal(tensor, published[name]) for name, tensor in teacher.state_dict().items())
    assert all(torch.equal(tensor, published[name]) for name, tensor in stored(desk.run).items())
    found = validate(teacher, desk.side(desk.data.split.validation), CPU)
    assert desk.run.metrics().best("teacher", SINGLE) == pytest.approx(found.measure, rel=1e-5)
    assert desk.run.report()["training"]["teacher"]["adaptation"] == "none"
    again = desk.run.teacher()
    assert again is not None
    assert torch.equal(again.head.weight, published["head.weight"])


@pytest.mark.parametrize("adaptation", ["head", "full"])
def test_an_adapted_teacher_is_read_back_not_trained_again(
    adaptation: str, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = begin(adaptation=adaptation, epochs=1)
    first = desk.adapt()
    assert desk.run.report()["training"]["teacher"]["name"] == "convnet"
    for stage in ("_train_head", "_train_all"):
        monkeypatch.setattr(room, stage, None)  # calling it would fail
    again = desk.adapt()
    assert not again.training
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in again.state_dict().items())
    assert all(torch.equal(tensor, stored(desk.run)[name]) for name, tensor in again.state_dict().items())


def test_a_head_interrupted_is_trained_again_to_the_same_end(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = begin(adaptation="head", epochs=4)
    expected = desk.adapt().state_dict()
    (desk.run.folder / "teacher" / "best.safetensors").unlink()
    (desk.run.folder / "report.json").unlink()
    desk.run.metrics().truncate("teacher", 2)
    torch.manual_seed(99)
    again = desk.adapt().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in expected.items())
    assert desk.run.metrics().last_epoch("teacher") == len(desk.run.metrics().rows) == 4


@pytest.mark.parametrize("adaptation", ["head", "full", "none"])
def test_a_teacher_of_the_user_s_own_is_adapted_and_read_back(adaptation: str, begin: Begin, own: Path) -> None:
    chosen = {"name": "my_teacher_of_tests:make", "folder": own, "weights": None}
    desk = begin(adaptation=adaptation, epochs=1, **chosen)
    fresh = new_teacher(desk.run.config, desk.run.classes).state_dict()
    adapted = desk.adapt().state_dict()
    changed = {name for name, tensor in adapted.items() if not torch.equal(tensor, fresh[name])}
    heads = {"network.head.weight", "network.head.bias"}
    assert changed == {"head": heads, "none": set(), "full": set(fresh)}[adaptation]
    read_back = Run.open(desk.run.folder).teacher()
    assert read_back is not None
    assert all(torch.equal(tensor, adapted[name]) for name, tensor in read_back.state_dict().items())


def test_a_teacher_of_the_user_s_own_without_a_head_is_refused_one(begin: Begin, own: Path) -> None:
    desk = begin(adaptation="head", name="my_teacher_of_tests:headless", folder=own, weights=None)
    with pytest.raises(UsageError, match=r"has no 'head' .* pass --adaptation full, or none"):
        new_teacher(desk.run.config, desk.run.classes)
    full = begin(adaptation="full", epochs=1, name="my_teacher_of_tests:headless", folder=own, weights=None)
    assert full.adapt().classifier() is None
