"""A student that learns from audio without labels, and what is made of it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from edgekd.data.index import Clip, ClipIndex
from edgekd.errors import GateError, InputError, UsageError
from edgekd.models.weights import read_weights, save_weights
from edgekd.runs.run import Run
from edgekd.training import outcome
from edgekd.training.distill import distill
from edgekd.training.pretrain import held_out, pretrain
from edgekd.training.student_step import StudentStep
from edgekd.training.student_weights import load_student_weights, origin

TinyConfig = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(outcome, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(outcome, "plot_curves", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of noise of changing level and colour in five files."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for number in range(5):
        noise = rng.standard_normal(4 * 8_000) * np.repeat(rng.uniform(0.01, 0.2, 16), 2_000)
        smooth = np.convolve(noise, np.ones(1 + 3 * number) / (1 + 3 * number), "same")
        soundfile.write(folder / f"{number}.wav", smooth, 8_000)
    return folder


@pytest.fixture(scope="module")
def config_of(tiny_config: TinyConfig, tiny_run: Run, audio: Path) -> TinyConfig:
    teacher = {"adaptation": "head", "weights": tiny_run.weights("teacher")}

    def build(out: Path, **changes: Any) -> Any:
        sections: dict[str, Any] = {
            "data": {"unlabelled": (audio,), "dataset": None, "data_dir": None},
            "loss": {"terms": ("embedding",), "weighting": "fixed"},
            "teacher": teacher,
            "training": {"epochs": 4},
        }
        for name, change in changes.items():
            sections[name] = {**sections[name], **change} if isinstance(change, dict) and name in sections else change
        return tiny_config(out, **sections)

    return build


@pytest.fixture(scope="module")
def pretrained(config_of: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pretrain(config_of(tmp_path_factory.mktemp("runs") / "pretrained"))
    finally:
        torch.set_num_threads(threads)


def figures(run: Run) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in run.metrics().rows]


# The pre-training


def test_the_epoch_with_the_least_loss_on_held_out_audio_is_kept(pretrained: Run) -> None:
    rows = pretrained.metrics().rows
    assert [(row["stage"], row["epoch"]) for row in rows] == [("pretrain", str(epoch)) for epoch in (1, 2, 3, 4)]
    losses = [float(row["validation_loss"]) for row in rows]
    assert losses[-1] < losses[0]
    assert {row["validation_accuracy"] for row in rows} == {""}
    assert pretrained.report()["audit"]["clips"] == {"train": 16, "validation": 4}
    assert (pretrained.folder / "student.safetensors").read_bytes() == pretrained.weights("pretrain").read_bytes()
    with open(pretrained.folder / "unlabelled.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 20


def test_one_that_was_stopped_ends_as_an_unbroken_one(
    pretrained: Run, config_of: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, begin = config_of(tmp_path / "stopped"), StudentStep.begin

    def stop(step: StudentStep, epoch: int) -> Any:
        if epoch == 3:
            raise KeyboardInterrupt
        return begin(step, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(StudentStep, "begin", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)
    resumed = pretrain(config, resume=True)
    assert figures(resumed) == figures(pretrained)
    ours, theirs = ((run.folder / "student.safetensors").read_bytes() for run in (resumed, pretrained))
    assert ours == theirs


def test_the_average_of_the_weights_is_kept_with_statistics_of_the_audio_as_it_is(
    pretrained: Run, config_of: TinyConfig, tmp_path: Path
) -> None:
    averaged = pretrain(config_of(tmp_path / "averaged", training={"weight_average": 0.9}))
    training = {"weight_average": 0.9, "norm_statistics": "precise"}
    precise = pretrain(config_of(tmp_path / "precise", training=training))
    losses = [[row["embedding"] for row in run.metrics().rows] for run in (averaged, pretrained)]
    assert losses[0] == losses[1], "the way of the weights is the same"
    weights = [read_weights(run.folder / "student.safetensors") for run in (pretrained, averaged, precise)]
    trained = next(name for name in weights[0] if name.startswith("network") and name.endswith("weight"))
    assert not torch.equal(weights[1][trained], weights[0][trained])
    different = {name for name, each in weights[2].items() if not torch.equal(each, weights[1][name])}
    assert different == {name for name in weights[2] if "running" in name}


def test_textures_are_learned_where_they_are_asked_for(config_of: TinyConfig, tmp_path: Path) -> None:
    run = pretrain(config_of(tmp_path / "run", loss={"terms": ("embedding", "structural")}, training={"epochs": 1}))
    (row,) = run.metrics().rows
    assert float(row["structural"]) > 0
    assert row["statistical"] == row["classification"] == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"unlabelled": ()}}, r"Nothing to learn from: pass --unlabelled FOLDER\."),
        ({"loss": {"terms": ("embedding", "distillation")}}, "embedding, with statistical and structural where wanted"),
        ({"loss": {"terms": ("classification", "embedding")}}, "'classification' needs classes"),
        ({"teacher": {"adaptation": "full"}}, r"teacher\.adaptation = 'full': without labels no teacher is adapted"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_done(
    changes: dict[str, Any], words: str, config_of: TinyConfig, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        pretrain(config_of(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def index_of(*groups: str) -> ClipIndex:
    return ClipIndex("unlabelled", Path(), (), tuple(Clip(Path("x"), -1, group, None, 0, 1) for group in groups))


def test_whole_groups_are_held_out_and_of_a_single_one_its_end() -> None:
    index = index_of(*"aabbbccdde" * 3)
    split = held_out(index, range(30), 0.2, 1)
    sides = [{index.clips[row].group for row in side} for side in (split.train, split.validation)]
    assert not sides[0] & sides[1]
    assert sorted(split.train + split.validation) == list(range(30))
    assert 6 <= len(split.validation) <= 15
    assert split != held_out(index, range(30), 0.2, 2)
    assert held_out(index_of(*"aaaaaaaaaa"), range(10), 0.2, 1).validation == (8, 9)
    assert len(held_out(index_of("a", "b"), range(2), 0.1, 1).train) == 1
    with pytest.raises(InputError, match="one clip to learn from"):
        held_out(index_of("a"), [0], 0.1, 1)


# What is made of it


def test_a_run_begins_with_all_but_the_classifier(pretrained: Run, config_of: TinyConfig, tmp_path: Path) -> None:
    weights = pretrained.folder / "student.safetensors"
    student = replace(pretrained, classes=("a", "b", "c")).new_student()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    load_student_weights(student, weights)
    stored = read_weights(weights)
    for name, tensor in student.state_dict().items():
        expected = before if name.startswith("network.classifier.") else stored
        assert torch.equal(tensor, expected[name]), name
    assert not torch.equal(before["norm.running_mean"], stored["norm.running_mean"])


def begun_with(tiny_config: TinyConfig, out: Path, weights: Path, **changes: Any) -> Any:
    sections: dict[str, Any] = {"loss": {"terms": ("classification",)}, "training": {"epochs": 1}}
    return tiny_config(out, **{**sections, **changes}, student_weights=weights)


def test_a_run_that_began_so_is_read_without_the_file(pretrained: Run, tiny_config: TinyConfig, tmp_path: Path) -> None:
    folder = shutil.copytree(pretrained.folder, tmp_path / "pretrained")
    run = distill(begun_with(tiny_config, tmp_path / "run", folder / "student.safetensors"))
    assert run.report()["training"]["student"]["weights"] == str(folder / "student.safetensors")
    plain = distill(begun_with(tiny_config, tmp_path / "plain", None))  # type: ignore[arg-type]
    assert figures(run) != figures(plain)
    shutil.rmtree(folder)
    Run.open(run.folder).student()
    assert figures(distill(run.config, resume=True)) == figures(run)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"width": 0.5}, "--width 1.0"),
        ({"student": "hltdnn_micro"}, "--student hltdnn_ds"),
        ({"data": {"sample_rate": 8_000}}, "--sample-rate 4000"),
        ({"frontend": {"n_mels": 40}}, "--set frontend.n_mels=32"),
    ],
)
def test_other_settings_than_it_learned_with_are_refused_with_what_to_pass(
    changes: dict[str, Any], passed: str, pretrained: Run, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    config = begun_with(tiny_config, tmp_path / "run", pretrained.folder / "student.safetensors", **changes)
    with pytest.raises(InputError, match=f"learned with other settings than this run has. Pass {passed}"):
        distill(config)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_missing_or_anothers_are_refused(
    tiny_config: TinyConfig, pretrained: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no such file\. Check --student-weights"):
        distill(begun_with(tiny_config, tmp_path / "run", tmp_path / "nothing.safetensors"))
    state = read_weights(pretrained.folder / "student.safetensors")
    state.pop("norm.weight")
    save_weights(tmp_path / "less" / "student.safetensors", state)
    with pytest.raises(InputError, match=r"not weights of Student: .* missing: norm\.weight"):
        distill(begun_with(tiny_config, tmp_path / "run", tmp_path / "less" / "student.safetensors"))


def test_the_student_of_another_run_will_do(tiny_run: Run, tiny_config: TinyConfig, tmp_path: Path) -> None:
    found = origin(tiny_run.weights("student"))
    assert found is not None
    assert found.folder == tiny_run.folder
    distill(begun_with(tiny_config, tmp_path / "run", tiny_run.weights("student")))


def test_weights_of_unknown_origin_are_warned_of(pretrained: Run, tiny_config: TinyConfig, tmp_path: Path) -> None:
    alone = Path(shutil.copy(pretrained.folder / "student.safetensors", tmp_path / "student.safetensors"))
    run = distill(begun_with(tiny_config, tmp_path / "run", alone))
    assert any("what this student has learned from before is not known" in line for line in run.report()["warnings"])


def test_what_is_scored_must_not_have_been_heard_in_the_pre_training(
    config_of: TinyConfig, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    data_dir = tiny_config(tmp_path).data.data_dir
    distill(tiny_config(tmp_path / "first", loss={"terms": ("classification",)}, training={"epochs": 1}))
    with open(tmp_path / "first" / "splits.csv", newline="") as file:
        tested = next(row["path"] for row in csv.DictReader(file) if row["side"] == "test")
    more = tmp_path / "more"
    more.mkdir()
    sound, rate = soundfile.read(data_dir / tested)
    soundfile.write(more / "copy.flac", 0.5 * sound[444:], rate)
    for number in range(3):
        noise = np.random.default_rng(number).standard_normal(2 * rate)
        soundfile.write(more / f"{number}.wav", 0.1 * noise, rate)
    blind = pretrain(config_of(tmp_path / "blind", data={"unlabelled": (more,)}, training={"epochs": 1}))
    assert blind.report()["audit"]["unlabelled"]["dropped"] == {}
    with pytest.raises(GateError, match=r"learned from copy\.flac, which shares audio with .* on the test side"):
        distill(begun_with(tiny_config, tmp_path / "run", blind.folder / "student.safetensors"))
    audited = {"unlabelled": (more,), "data_dir": data_dir, "dataset": "sonar_sim"}
    seeing = pretrain(config_of(tmp_path / "seeing", data=audited, training={"epochs": 1}))
    assert seeing.report()["audit"]["unlabelled"]["dropped"]["audio"] > 0
    distill(begun_with(tiny_config, tmp_path / "run", seeing.folder / "student.safetensors"))


def test_a_narrower_cut_learns_from_its_teacher_and_then_gets_its_head(
    config_of: TinyConfig, tiny_config: TinyConfig, tiny_run: Run, tmp_path: Path
) -> None:
    cut = {"student": "convnet-cut3", "width": 0.5}
    whole = {"epochs": 2, "adaptation": "full"}
    run = pretrain(config_of(tmp_path / "pre", **cut, training=whole))
    losses = [float(row["validation_loss"]) for row in run.metrics().rows]
    assert len(losses) == 3, "the cut as it begins is a candidate, too"
    assert min(losses) < losses[0]
    with pytest.raises(UsageError, match="only the head is trained, and the terms embedding teach layers"):
        pretrain(config_of(tmp_path / "idle", **cut))
    teacher = {"adaptation": "head", "weights": tiny_run.weights("teacher")}
    begun = begun_with(tiny_config, tmp_path / "run", run.folder / "student.safetensors", **cut, teacher=teacher)
    done = distill(begun)
    stored = read_weights(run.folder / "student.safetensors")
    trained = done.student().state_dict()
    layers = [
        name for name in stored if name.startswith(("network.early", "network.late")) and "num_batches" not in name
    ]
    assert layers
    assert all(torch.equal(trained[name], stored[name]) for name in layers), "of a cut the head alone is trained"
