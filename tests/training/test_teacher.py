from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning_fabric import Fabric

from edgekd.config import DistillConfig
from edgekd.data.cache import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.errors import UsageError
from edgekd.models import build_teacher
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.convnet import ConvNet
from edgekd.models.weights import read_weights, save_weights
from edgekd.training import teacher as room
from edgekd.training.lesson import validate
from edgekd.training.loop import Stage, fit
from edgekd.training.run import Run
from edgekd.training.teacher import BACKBONE_RATE, adapted_teacher, check_teacher


class Desk(NamedTuple):
    """A run that has only begun, on the tiny run's data, and a file of teacher weights to adapt."""

    run: Run
    index: ClipIndex
    split: Split
    store: ClipStore
    fabric: Fabric
    weights: Path

    def adapt(self) -> Teacher:
        return adapted_teacher(self.run, self.index, self.split, self.store, self.fabric)


Begin = Callable[..., Desk]


@pytest.fixture
def begin(tiny_run: Run, tiny_config: Callable[..., DistillConfig], tmp_path: Path) -> Begin:
    """`begin(adaptation="head", ...)`: keys of the teacher's section; it starts from `weights` unless they are None."""

    def build(**teacher: object) -> Desk:
        weights = tmp_path / "donor.safetensors"
        finished = tiny_run.teacher()
        assert finished is not None
        save_weights(weights, finished.state_dict())
        config = tiny_config(tmp_path / "run", teacher={"weights": weights, **teacher})
        index = tiny_run.index()
        run = Run.create(config, index.classes, "cpu")
        fabric = Fabric(accelerator="cpu", devices=1)
        return Desk(run, index, tiny_run.split(index), tiny_run.store(index), fabric, weights)

    return build


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
    assert sum(embedded) == len(desk.split.train) + len(desk.split.validation)
    monkeypatch.undo()
    labels = torch.tensor(desk.index.labels)
    untrained = build_teacher("convnet", 5, desk.weights, 4_000, desk.run.config.frontend)
    rows = desk.split.train
    after = validate(teacher, desk.store, rows, labels, torch.device("cpu"))
    before = validate(untrained, desk.store, rows, labels, torch.device("cpu"))
    assert after.loss < before.loss
    assert after.accuracy > 0.5


def test_the_scaling_of_features_is_folded_into_the_head(begin: Begin) -> None:
    """The adapted teacher scores on validation what the head scored on scaled features."""
    desk = begin(adaptation="head", epochs=20)
    teacher = desk.adapt()
    rows = [row for row in desk.run.metrics().rows if row["stage"] == "teacher"]
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
    found = validate(teacher, desk.store, desk.split.validation, torch.tensor(desk.index.labels), torch.device("cpu"))
    assert found.accuracy == pytest.approx(float(best["validation_accuracy"]))
    assert found.loss == pytest.approx(float(best["validation_loss"]), rel=1e-3)


@pytest.mark.parametrize(("pretrained", "relative"), [(True, BACKBONE_RATE), (False, 1.0)])
def test_full_adaptation_trains_published_layers_slower_than_the_head(
    pretrained: bool, relative: float, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = begin(adaptation="full", learning_rate=0.01, epochs=1, **({} if pretrained else {"weights": None}))
    rates: dict[int, float] = {}

    def watched(stage: Stage, *rest: object) -> None:
        for group in stage.optimizer.param_groups:
            rates.update((id(parameter), group["lr"]) for parameter in group["params"])
        assert {id(parameter) for parameter in stage.model.parameters()} == set(rates)
        named = dict(stage.model.named_parameters())
        for name, parameter in named.items():
            expected = 0.01 if name.startswith("head.") else 0.01 * relative
            assert rates[id(parameter)] == pytest.approx(expected), name
        fit(stage, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "fit", watched)
    teacher = desk.adapt()
    assert rates
    published = read_weights(desk.weights)
    assert not torch.equal(teacher.state_dict()["stem.0.weight"], published["stem.0.weight"])


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


def test_a_teacher_that_could_not_learn_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match=r"'cnn14' needs pre-trained weights: pass --teacher-weights FILE \(.*Cnn14"):
        check_teacher("cnn14", has_weights=False, adaptation="full")
    with pytest.raises(UsageError, match=r"'convnet' starts at random.*pass --adaptation full"):
        check_teacher("convnet", has_weights=False, adaptation="head")
    check_teacher("convnet", has_weights=False, adaptation="full")
    check_teacher("convnet", has_weights=True, adaptation="head")
    check_teacher("yamnet", has_weights=True, adaptation="head")
