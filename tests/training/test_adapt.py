from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning_fabric import Fabric

from edgekd.config import DistillConfig, TeacherConfig
from edgekd.data.clip_store import ClipStore
from edgekd.data.index import ClipIndex, Split
from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_teacher
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.convnet import ConvNet
from edgekd.models.weights import read_weights, save_weights
from edgekd.runs.run import Run
from edgekd.training import adapt as room
from edgekd.training.adapt import (
    BACKBONE_RATE,
    adapted_teacher,
    check_teacher,
    new_teacher,
    settled,
    warn_of_weaker_teacher,
)
from edgekd.training.lesson import validate
from edgekd.training.loop import Stage, fit


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
        data = tiny_run.open_data()
        index = data.index
        run = Run.create(config, index.classes, "cpu")
        fabric = Fabric(accelerator="cpu", devices=1)
        return Desk(run, index, data.split, data.store, fabric, weights)

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
    assert found.accuracy == pytest.approx(float(best["validation_accuracy"]), rel=1e-5)
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
    labels = torch.tensor(desk.index.labels)
    found = validate(teacher, desk.store, desk.split.validation, labels, torch.device("cpu"))
    assert desk.run.metrics().best_accuracy("teacher") == pytest.approx(found.accuracy, rel=1e-5)
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


def test_a_teacher_that_could_not_learn_is_refused_with_a_way_out(tmp_path: Path) -> None:
    def check(name: str, adaptation: str, weights: Path | None = None) -> None:
        check_teacher(TeacherConfig.model_validate({"name": name, "adaptation": adaptation, "weights": weights}))

    with pytest.raises(UsageError, match=r"'cnn14' needs pre-trained weights: .*teachers fetch cnn14.* FILE \(C"):
        check("cnn14", "full")
    with pytest.raises(UsageError, match=r"'ast' needs pre-trained weights: pass --teacher-weights FOLDER \("):
        check("ast", "full")
    with pytest.raises(UsageError, match=r"'ast' gets a new head"):
        check("ast", "none", tmp_path)
    for adaptation in ("head", "none"):
        with pytest.raises(UsageError, match=r"'convnet' starts at random.*pass --adaptation full"):
            check("convnet", adaptation)
    check("convnet", "full")
    check("convnet", "head", tmp_path)
    check("yamnet", "head", tmp_path)
    check("my.module:factory", "head")


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 9, stride=4)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, classes)

    def forward(self, waveform):
        tap = self.norm(self.conv(waveform.unsqueeze(1))).relu()
        return self.head(tap.mean(2)), tap.unsqueeze(3)

class Headless(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.top = self._modules.pop("head")

    def forward(self, waveform):
        tap = self.norm(self.conv(waveform.unsqueeze(1))).relu()
        return self.top(tap.mean(2)), tap.unsqueeze(3)

def make(num_classes, sample_rate):
    assert sample_rate == 4_000
    return Net(num_classes)

def headless(num_classes, sample_rate):
    return Headless(num_classes)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a teacher of the user's own, which is not the current one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_teacher_of_tests.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "my_teacher_of_tests", raising=False)
    return folder


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


def test_a_teacher_is_the_same_at_every_call(begin: Begin) -> None:
    config, classes = (desk := begin()).run.config, desk.run.classes
    first, second = new_teacher(config, classes).state_dict(), new_teacher(config, classes).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_teacher_of_another_run_has_to_fit(tiny_run: Run, tiny_config: Callable[..., DistillConfig]) -> None:
    weights = tiny_run.folder / "teacher" / "best.safetensors"

    def build(classes: tuple[str, ...], adaptation: str = "none", name: str = "convnet", rate: int = 4_000) -> Teacher:
        teacher = {"weights": weights, "adaptation": adaptation, "name": name}
        return new_teacher(tiny_config(Path("unused"), teacher=teacher, data={"sample_rate": rate}), classes)

    same = build(tiny_run.classes).state_dict()
    finished = tiny_run.teacher()
    assert finished is not None
    assert all(torch.equal(tensor, same[name]) for name, tensor in finished.state_dict().items())
    assert build(("a", "b"), adaptation="head").head.out_features == 2
    other = tuple(reversed(tiny_run.classes))
    with pytest.raises(InputError, match=rf"adapted to the classes {tiny_run.classes[0]}, .* give it a new head"):
        build(other)
    with pytest.raises(InputError, match=r"adapted to clips at 4000 Hz, and these are at 8000 Hz: pass --sample-rate"):
        build(tiny_run.classes, rate=8_000)
    with pytest.raises(InputError, match=r"this is the teacher convnet of the run .*: pass --teacher convnet"):
        build(tiny_run.classes, name="cnn14")


def test_settings_that_follow_from_the_machine_are_written_down(
    tiny_config: Callable[..., DistillConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def chosen(**settings: object) -> TeacherConfig:
        return settled(tiny_config(tmp_path / "run", **settings)).teacher

    assert chosen(teacher={"name": "cnn14"}).weights is None
    fetched = tmp_path / "cache" / "teachers" / "Cnn14_mAP=0.431.pth"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert chosen(teacher={"name": "cnn14"}).weights == fetched
    assert chosen(teacher={"name": "cnn14", "weights": tmp_path / "other.pth"}).weights == tmp_path / "other.pth"
    assert chosen(teacher={"name": "cnn14"}, loss={"terms": ["classification"]}).weights is None
    assert chosen(teacher={"name": "resnet38"}).weights is None
    assert chosen(teacher={"name": "a.b:c"}).folder == tmp_path
    assert chosen(teacher={"name": "a.b:c", "folder": tmp_path / "code"}).folder == tmp_path / "code"
    assert chosen(teacher={"name": "cnn14"}).folder is None


def test_a_teacher_worse_than_its_student_is_warned_of_once(tiny_copy: Run) -> None:
    run = tiny_copy
    run.forget("warnings")
    log = run.metrics()
    for stage, accuracy in (("teacher", 0.9), ("student", 0.5)):
        log.truncate(stage, 0)
        log.append(stage, 1, validation_accuracy=accuracy)

    def scored(teacher: float, student: float) -> list[str]:
        tested = run.report()["test"]
        run.update_report("test", {"teacher": {**tested["teacher"], "accuracy": teacher}})
        run.update_report("test", {"student": {**tested["student"], "accuracy": student}})
        warn_of_weaker_teacher(run)
        return run.report().get("warnings", [])

    assert scored(0.8, 0.8) == []
    (warning,) = scored(0.7, 0.75)
    assert warning.startswith("the teacher is worse than its student (70.0% against 75.0% on the test side)")
    assert scored(0.7, 0.75) == [warning]
    run.forget("warnings")
    log.append("student", 2, validation_accuracy=0.95)
    (warning,) = scored(0.8, 0.8)
    assert "90.0% against 95.0% on the validation side" in warning
