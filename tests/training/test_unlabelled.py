"""Whole runs that are taught on audio without labels, too."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from edgekd.errors import InputError, UsageError
from edgekd.quantization.qat import quantize
from edgekd.runs.run import Run
from edgekd.training import outcome
from edgekd.training.distill import adapt_teacher, distill
from edgekd.training.lent_teacher import teacher_settings
from edgekd.training.student_batches import unlabelled_views
from edgekd.training.student_step import StudentStep

TinyConfig = Callable[..., Any]
KD = {"terms": ("classification", "distillation"), "weighting": "fixed"}


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
    """Seven clips and a silent one."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    soundfile.write(folder / "long.wav", 0.1 * rng.standard_normal(6 * 8_000), 8_000)
    soundfile.write(folder / "short.flac", 0.1 * rng.standard_normal(3_000), 8_000)
    soundfile.write(folder / "silence.wav", np.zeros(8_000), 8_000)
    return folder


@pytest.fixture(scope="module")
def config_of(tiny_config: TinyConfig, audio: Path) -> TinyConfig:
    def build(out: Path, **changes: Any) -> Any:
        sections: dict[str, dict[str, Any]] = {"data": {"unlabelled": (audio,)}, "loss": KD, "training": {"epochs": 3}}
        for name, change in changes.items():
            sections[name] = {**sections.get(name, {}), **change}
        return tiny_config(out, **sections)

    return build


@pytest.fixture(scope="module")
def taught(config_of: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return distill(config_of(tmp_path_factory.mktemp("runs") / "taught"))
    finally:
        torch.set_num_threads(threads)


def figures(run: Run) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in run.metrics().rows]


def test_a_run_tells_what_it_was_taught_on(taught: Run, audio: Path) -> None:
    told = taught.report()["audit"]["unlabelled"]
    assert (told["clips"], told["used"], told["dropped"]) == (8, 7, {"silence": 1})
    with open(taught.folder / "unlabelled.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["start"], row["dropped"]) for row in rows][-2:] == [
        ("short.flac", "0", ""),
        ("silence.wav", "0", "silence"),
    ]
    assert {row["group"] for row in rows} == {str(path) for path in audio.iterdir()}
    assert taught.report()["training"]["student"]["unlabelled_cache"]["mode"] == "logits"
    # What is scored, and on which side each labelled clip is, is as without.
    assert taught.report()["audit"]["clips"] == {"train": 45, "validation": 15, "test": 15}


def test_it_learns_something_else_than_without(taught: Run, config_of: TinyConfig, tmp_path: Path) -> None:
    without = distill(config_of(tmp_path / "without", data={"unlabelled": ()}))
    assert not (without.folder / "unlabelled.csv").exists()
    same = [row for row in figures(taught) if row["stage"] == "teacher"]
    assert same == [row for row in figures(without) if row["stage"] == "teacher"]
    assert figures(without) != figures(taught)


def test_a_run_that_was_stopped_ends_as_an_unbroken_one(
    taught: Run, config_of: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, begin = config_of(tmp_path / "stopped"), StudentStep.begin

    def stop(step: StudentStep, epoch: int) -> Any:
        if epoch == 3:
            raise KeyboardInterrupt
        return begin(step, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(StudentStep, "begin", stop)
        with pytest.raises(KeyboardInterrupt):
            distill(config)
    resumed = distill(config, resume=True)
    assert figures(resumed) == figures(taught)
    ours, theirs = (run.weights("student").read_bytes() for run in (resumed, taught))
    assert ours == theirs


def test_int8_training_hears_the_same_audio(taught: Run, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(taught.folder, tmp_path / "run"))
    data = run.open_data(unlabelled=True)
    assert data.unlabelled is not None
    assert len(data.unlabelled.rows) == 7
    quantize(run)
    assert "int8" in run.report()["test"]
    assert run.open_data().unlabelled is None  # whoever scores needs none


def test_audio_that_has_changed_since_is_refused(taught: Run, audio: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(audio, tmp_path / "audio")
    data = taught.config.data.model_copy(update={"unlabelled": (moved,)})
    run = replace(taught, config=taught.config.model_copy(update={"data": data}))
    (moved / "short.flac").unlink()
    with pytest.raises(InputError, match=r"unlabelled\.csv: 8 clips, which are not the 7"):
        run.open_unlabelled()


def test_a_loss_without_a_teacher_has_no_use_for_it(config_of: TinyConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--unlabelled: audio without labels teaches through a teacher's answers"):
        distill(config_of(tmp_path / "labels", loss={"terms": ("classification",)}))
    assert not (tmp_path / "labels").exists()


def test_teachers_are_lent_between_runs_with_and_without(taught: Run, config_of: TinyConfig, tmp_path: Path) -> None:
    plain = config_of(tmp_path / "teacher", data={"unlabelled": ()})
    assert teacher_settings(plain) == teacher_settings(taught.config)
    run = distill(config_of(tmp_path / "borrows"), teacher_run=adapt_teacher(plain))
    assert json.dumps(figures(run)) == json.dumps(figures(taught))


def test_a_teacher_is_asked_about_no_more_than_is_heard(taught: Run) -> None:
    data = taught.open_data(unlabelled=True)

    def views(epochs: int, share: float = 0.5) -> tuple[int, int]:
        training = taught.config.training.model_copy(update={"epochs": epochs, "unlabelled_share": share})
        found = unlabelled_views(taught.config.model_copy(update={"training": training}), data)
        assert found is not None
        return len(found.rows), len(found)

    assert views(1, 0.1) == (5, 1)  # 45 clips with a label go with 5 without
    assert views(1, 0.2) == (7, 2)
    assert views(9) == (7, 3)
