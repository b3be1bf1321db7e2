"""Whole runs on 75 clips of simulated sonar, and what interrupting them does: nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import CacheMode, DistillConfig, LossConfig
from edgekd.errors import GateError, InputError, UsageError
from edgekd.losses.total import SSATKDLoss
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.ensemble import Ensemble
from edgekd.models.weights import read_weights, save_weights
from edgekd.quantization.int8_student import load_int8
from edgekd.quantization.qat import quantize
from edgekd.runs.metrics_log import MetricsLog
from edgekd.runs.run import Run
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.scores import score
from edgekd.toml_files import to_toml
from edgekd.training import adapt, frozen_teacher, outcome
from edgekd.training.distill import adapt_teacher, distill, make_optimizer

TinyConfig = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order end in other bits, so all runs that are compared use one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a run this small."""
    monkeypatch.setattr(outcome, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(outcome, "plot_curves", lambda *_: None)


class Interrupted(Exception):
    pass


def figures(run: Run) -> list[dict[str, str]]:
    """The metrics but for the time they took."""
    return [{**row, "seconds": ""} for row in run.metrics().rows]


def weights(run: Run, stage: str) -> bytes:
    return (run.folder / stage / "best.safetensors").read_bytes()


def with_only_a_teacher(run: Run, folder: Path, **training: object) -> Run:
    """A copy of a finished `run` as if it had been stopped after its teacher, perhaps with other training settings."""
    shutil.copytree(run.folder, folder)
    for stage in ("student", "int8"):
        shutil.rmtree(folder / stage)
    log = MetricsLog(folder / "metrics.csv")
    log.truncate("student", 0)
    log.truncate("int8", 0)
    report = run.report()
    kept = {section: {"teacher": report[section]["teacher"]} for section in ("training", "test")}
    (folder / "report.json").write_text(json.dumps({"version": 1, **kept}))
    values = run.config.model_dump(mode="json", exclude={"out"})
    values["training"] |= training
    (folder / "config.toml").write_text(to_toml(values))
    return Run.open(folder)


# What a run leaves


def test_a_run_folder_holds_every_file_of_the_design(tiny_run: Run) -> None:
    found = {path.relative_to(tiny_run.folder).as_posix() for path in tiny_run.folder.rglob("*") if path.is_file()}
    stages = {f"{stage}/{name}" for stage in ("teacher", "student", "int8") for name in ("best.safetensors", "last.pt")}
    stages |= {f"{stage}/{name}" for stage in ("student", "int8") for name in ("thresholds.json", "validation.csv")}
    assert found == stages | {
        *("config.toml", "environment.json", "classes.json", "splits.csv", "metrics.csv", "report.json"),
        *("predictions.csv", "curves.png", "confusion.png", "int8/quantize.toml"),
    }
    for picture in ("curves.png", "confusion.png"):
        assert (tiny_run.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_no_recording_is_on_two_sides(tiny_run: Run) -> None:
    with open(tiny_run.folder / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 75
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["path"], set()).add(row["side"])
        assert row["group"] == Path(row["path"]).name or row["group"] in row["path"]
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(row["side"] for row in rows) == {"train": 45, "validation": 15, "test": 15}
    for side in ("train", "validation", "test"):
        assert {row["class"] for row in rows if row["side"] == side} == set(tiny_run.classes)


def test_metrics_have_a_row_an_epoch_with_every_term(tiny_run: Run) -> None:
    rows = tiny_run.metrics().rows
    assert Counter(row["stage"] for row in rows) == {"teacher": 4, "student": 8, "int8": 3}
    for row in rows:
        if row["stage"] == "teacher":
            continue
        for term in ("classification", "statistical", "structural", "distillation"):
            assert float(row[term]) >= 0
            assert float(row[f"weight_{term}"]) > 0
        parts = sum(
            float(row[term]) * float(row[f"weight_{term}"]) - torch.log(torch.tensor(float(row[f"weight_{term}"])))
            for term in ("classification", "statistical", "structural", "distillation")
        )
        assert float(row["total"]) == pytest.approx(float(parts), rel=0.02), "L = sum exp(-s) L_i + s_i"


def test_the_student_learns_what_the_teacher_says(tiny_run: Run) -> None:
    rows = [row for row in tiny_run.metrics().rows if row["stage"] == "student"]
    # Not of the distillation: this teacher is sure of nothing, and so is a student that knows nothing.
    for figure in ("total", "classification", "structural", "statistical"):
        assert float(rows[-1][figure]) < float(rows[0][figure]), figure


def test_best_weights_are_those_of_the_best_validation(tiny_run: Run) -> None:
    for stage in ("teacher", "student", "int8"):
        rows = [row for row in tiny_run.metrics().rows if row["stage"] == stage]
        best = max(rows, key=lambda row: (float(row["validation_accuracy"]), -float(row["validation_loss"])))
        last = torch.load(tiny_run.folder / stage / "last.pt", weights_only=True)
        assert last["best_epoch"] == int(best["epoch"])
        assert last["epoch"] == len(rows)


@pytest.mark.parametrize("subject", ["teacher", "student"])
def test_stored_scores_are_those_of_the_stored_weights_on_the_test_side(subject: str, tiny_run: Run) -> None:
    model = tiny_run.teacher() if subject == "teacher" else tiny_run.student()
    assert isinstance(model, nn.Module)
    data = tiny_run.open_data()
    index = data.index
    rows = data.split.test
    probabilities = predict_probabilities(lambda clips: model(clips).logits, data.store, rows)
    labels, groups = [index.clips[row].label for row in rows], [index.clips[row].group for row in rows]
    found = score(probabilities, labels, groups, index.classes, tiny_run.config.seed)
    assert json.loads(json.dumps(found.to_dict())) == tiny_run.report()["test"][subject]


# The teacher's part


@pytest.mark.usefixtures("no_pictures")
def test_the_teacher_is_asked_once_about_each_view_frozen_and_in_eval_mode(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    run = with_only_a_teacher(tiny_run, tmp_path / "run", epochs=2)
    asked, forward = [], Teacher.forward

    def watched(self: Teacher, waveform: Tensor) -> TeacherOutput:
        assert not any(module.training for module in self.modules())
        assert not torch.is_grad_enabled()
        asked.extend(tuple(clip[:64].tolist()) for clip in waveform)
        return forward(self, waveform)

    monkeypatch.setattr(Teacher, "forward", watched)
    distill(run.config, resume=True)
    assert len(asked) == 45 * 3 + 15, "training clips in every view, and the test side for its scores"
    assert len(set(asked)) == len(asked)
    assert weights(run, "teacher") == weights(tiny_run, "teacher"), "distillation does not touch it"


@pytest.mark.usefixtures("no_pictures")
def test_every_mode_of_the_teacher_cache_trains_the_same_student(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within rounding, which Adam's first steps make larger; a run may go on in another mode than it was begun in."""
    monkeypatch.setattr(frozen_teacher, "fast_precision", lambda _: "float32")  # whatever this processor can do
    modes, rows, ends = ("off", "logits", "full"), {}, {}
    for mode in modes:
        run = with_only_a_teacher(tiny_run, tmp_path / mode, epochs=2)
        teacher = run.config.teacher.model_copy(update={"cache": mode})
        distill(run.config.model_copy(update={"teacher": teacher}), resume=True)
        assert run.report()["training"]["student"]["teacher_cache"]["mode"] == mode
        assert Run.open(run.folder).config.teacher.cache == mode
        figures = ("total", "statistical", "structural", "distillation", "validation_loss")
        rows[mode] = [float(row[name]) for row in run.metrics().rows if row["stage"] == "student" for name in figures]
        last = torch.load(run.folder / "student" / "last.pt", weights_only=True)["model"]
        ends[mode] = torch.cat([last[name].flatten() for name, _ in run.student().named_parameters()])
    for mode, losses, parameters in (("logits", 1e-4, 1e-4), ("full", 1e-2, 1e-2)):
        assert rows[mode] == pytest.approx(rows["off"], rel=losses)
        assert (ends[mode] - ends["off"]).norm() < parameters * ends["off"].norm()


def without_seconds(run: Run, stage: str) -> list[dict[str, str]]:
    return [row for row in figures(run) if row["stage"] == stage]


@pytest.mark.usefixtures("no_pictures")
def test_a_teacher_that_is_lent_teaches_as_ones_own(
    tiny_run: Run, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender = adapt_teacher(tiny_config(tmp_path / "teacher"))
    assert set(lender.report()["test"]) == {"teacher"}
    assert not (lender.folder / "student").exists()
    assert weights(lender, "teacher") == weights(tiny_run, "teacher")

    monkeypatch.setattr(adapt, "fit", lambda *_: pytest.fail("the teacher is adapted already"))
    run = distill(tiny_config(tmp_path / "run"), teacher_run=lender)
    assert weights(run, "student") == weights(tiny_run, "student")
    assert without_seconds(run, "teacher") == without_seconds(tiny_run, "teacher")
    assert {name: run.report()["test"][name] for name in ("teacher", "student")} == {
        name: tiny_run.report()["test"][name] for name in ("teacher", "student")
    }
    assert run.report()["training"]["teacher"]["from"] == str(lender.folder)


def test_a_teacher_of_other_settings_or_clips_is_not_lent(
    tiny_copy: Run, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    for changes, words in (
        ({"seed": 4}, r"adapted with other settings \(seed\)"),
        ({"teacher": {"epochs": 9}}, r"\(teacher\)"),
        ({"data": {"split_seed": 1}}, r"\(data\)"),
    ):
        with pytest.raises(UsageError, match=words):
            distill(tiny_config(tmp_path / str(changes), **changes), teacher_run=tiny_copy)
    (tiny_copy.folder / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"predictions\.csv: no such file"):
        distill(tiny_config(tmp_path / "old"), teacher_run=tiny_copy)
    tiny_copy.forget("training", "teacher")
    with pytest.raises(InputError, match=r"its teacher is not finished"):
        distill(tiny_config(tmp_path / "unfinished"), teacher_run=tiny_copy)


@pytest.mark.usefixtures("no_pictures")
def test_labels_alone_need_no_teacher(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "run",
        teacher={"name": "cnn14", "adaptation": "head"},  # which would need weights
        loss={"terms": ("classification",)},
        training={"epochs": 1},
        quantize={"epochs": 2},
    )
    run = distill(config)
    assert run.teacher() is None
    assert set(run.report()["test"]) == {"student"}
    assert {row["stage"] for row in run.metrics().rows} == {"student"}
    (row,) = run.metrics().rows
    assert (row["structural"], row["total"]) == ("", row["classification"])
    quantize(run)
    assert set(run.report()["test"]) == {"student", "int8"}
    assert load_int8(run).network is not None


# Embeddings, and teachers without a head for the classes


EMBEDDED = {
    "loss": {"terms": ("classification", "distillation", "embedding"), "weighting": "learned"},
    "training": {"epochs": 3},
}


@pytest.fixture(scope="module")
def embedded_run(tmp_path_factory: pytest.TempPathFactory, tiny_run: Run) -> Run:
    """Taught by answers and embeddings, as a float and as an int8 student. Read-only."""
    run = with_terms(tiny_run, tmp_path_factory.mktemp("embedded") / "run", **EMBEDDED)
    torch.set_num_threads(1)
    return quantize(distill(run.config, resume=True))


def with_terms(run: Run, folder: Path, **sections: Any) -> Run:
    """A copy of a finished `run` as if it had been stopped after its teacher, to go on with other settings."""
    copied = with_only_a_teacher(run, folder)
    values = copied.config.model_dump(mode="json", exclude={"out"})
    for name, section in sections.items():
        values[name] |= section
    (folder / "config.toml").write_text(to_toml(values))
    return Run.open(folder)


def test_a_student_learns_the_teachers_embedding_in_float_and_in_int8(embedded_run: Run) -> None:
    for stage in ("student", "int8"):
        rows = [row for row in embedded_run.metrics().rows if row["stage"] == stage]
        assert len(rows) == 3
        values = [float(row["embedding"]) for row in rows]
        assert all(0 < value < 1 for value in values)
        assert all(float(row["weight_embedding"]) > 0 and row["structural"] == "" for row in rows)
        if stage == "student":
            assert values[-1] < values[0]
    folder = Path(embedded_run.report()["training"]["student"]["teacher_cache"]["folder"])
    assert (folder / "embeddings.f16").is_file()


def test_no_trace_of_the_embedding_is_in_what_ships(embedded_run: Run, tiny_run: Run) -> None:
    for stage in ("student", "int8"):
        assert set(read_weights(embedded_run.weights(stage))) == set(read_weights(tiny_run.weights(stage)))


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_embeddings_interrupted_in_every_stage_ends_as_an_unbroken_one(
    embedded_run: Run, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    run = with_terms(tiny_run, tmp_path / "run", **EMBEDDED)
    for stage, done in (("teacher outputs", 50), ("student", 1), ("student", 2)):
        with pytest.raises(Interrupted):
            distill(run.config, interrupting(stage, done), resume=True)
    distill(run.config, resume=True)
    with pytest.raises(Interrupted):
        quantize(run, progress=interrupting("int8", 2))
    quantize(run, resume=True)
    assert figures(run) == figures(embedded_run)
    for stage in ("student", "int8"):
        assert weights(run, stage) == weights(embedded_run, stage), stage
    last = [torch.load(each.folder / "student" / "last.pt", weights_only=True)["loss"] for each in (run, embedded_run)]
    assert torch.equal(last[0]["projection.weight"], last[1]["projection.weight"])


@pytest.fixture
def published(tiny_run: Run, tmp_path: Path) -> Path:
    """Weights of the teacher as others publish them: without a head for these classes."""
    path = tmp_path / "published.safetensors"
    state = read_weights(tiny_run.weights("teacher"))
    save_weights(path, {name: tensor for name, tensor in state.items() if not name.startswith("head.")})
    return path


def frozen(weights: Path, terms: tuple[str, ...] = ("classification", "embedding")) -> dict[str, Any]:
    return {
        "teacher": {"adaptation": "none", "weights": weights},
        "loss": {"terms": terms},
        "training": {"epochs": 2},
        "quantize": {"epochs": 2},
    }


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("terms", [("classification", "embedding"), ("classification", "structural")])
def test_a_frozen_teacher_needs_no_head_where_nothing_asks_what_it_answers(
    terms: tuple[str, ...], published: Path, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    run = quantize(distill(tiny_config(tmp_path / "run", **frozen(published, terms))))
    assert set(run.report()["test"]) == {"student", "int8"}
    assert run.report()["training"]["teacher"]["scored"] is False
    assert not run.classifies("teacher") and run.classifies("student")
    assert not run.report().get("warnings")
    assert {row["stage"] for row in run.metrics().rows} == {"student", "int8"}
    teacher = run.teacher()
    assert teacher is not None
    assert not teacher.classifies
    assert teacher(torch.randn(2, 4_000)).logits.shape == (2, 0)
    assert not [name for name in read_weights(run.weights("teacher")) if name.startswith("head.")]
    cache = Path(run.report()["training"]["student"]["teacher_cache"]["folder"])
    assert not (cache / "logits.f32").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_frozen_teacher_that_knows_the_classes_is_scored_though_nothing_asks(
    tiny_run: Run, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    run = distill(tiny_config(tmp_path / "run", **frozen(tiny_run.weights("teacher"))))
    assert run.report()["test"]["teacher"] == tiny_run.report()["test"]["teacher"]
    assert run.classifies("teacher")


@pytest.mark.usefixtures("no_pictures")
def test_a_teacher_without_a_head_is_lent_too(published: Path, tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", **frozen(published))
    lender = adapt_teacher(tiny_config(tmp_path / "teacher", **frozen(published)))
    assert lender.report().get("test", {}) == {}
    run = distill(config, teacher_run=lender)
    alone = distill(tiny_config(tmp_path / "alone", **frozen(published)))
    assert weights(run, "student") == weights(alone, "student")
    assert set(run.report()["test"]) == {"student"}


def test_who_asks_what_it_answers_gets_no_teacher_without_a_head(
    published: Path, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no head for these classes, which distillation needs: pass"):
        distill(tiny_config(tmp_path / "run", **frozen(published, ("classification", "distillation"))))


WITHOUT_EMBEDDING = """
from torch import nn

class Mapped(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.early, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, classes, 1)

    def forward(self, log_mel):
        tap = self.early(log_mel)
        return self.last(tap).mean((2, 3)), tap

class Headless(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.early, self.last = nn.Conv1d(1, 4, 9), nn.Linear(4, classes)

    def forward(self, waveform):
        tap = self.early(waveform[:, None])
        return self.last(tap.mean(2)), tap[..., None]

def student(num_classes):
    return Mapped(num_classes)

def teacher(num_classes, sample_rate):
    return Headless(num_classes)
"""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student": "without:student"}, r"Student 'without:student' gives no embedding to distil: its logits must be"),
        ({"teacher": {"name": "without:teacher"}}, r"Teacher 'without:teacher' gives no embedding .* attribute 'head'"),
    ],
)
@pytest.mark.usefixtures("own_code_trusted")
def test_models_that_give_no_embedding_are_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without.py").write_text(WITHOUT_EMBEDDING)
    monkeypatch.chdir(tmp_path)
    terms = {"loss": {"terms": ("classification", "embedding")}}
    with pytest.raises(UsageError, match=words):
        distill(tiny_config(tmp_path / "run", **changes, **terms))
    assert not (tmp_path / "run").exists()


# Several teachers

OTHER = """
import torch
from edgekd.config import FrontendConfig
from edgekd.models.teachers.convnet import ConvNet

def other(num_classes, sample_rate):
    return ConvNet(num_classes, sample_rate, FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1900.0))
"""


@pytest.mark.usefixtures("no_pictures", "own_code_trusted")
def test_several_teachers_are_adapted_and_cached_one_by_one_and_averaged(
    tiny_run: Run, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others.py").write_text(OTHER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    short = {"training": {"epochs": 2}, "quantize": {"epochs": 2}}
    config = tiny_config(tmp_path / "both", teacher={"name": "convnet,others:other"}, **EMBEDDED | short)
    with pytest.raises(Interrupted):
        distill(config, interrupting("teacher", 2))
    run = quantize(distill(config, resume=True))
    told = run.report()["training"]["teacher"]
    assert told["name"] == "convnet,others:other"
    caches = run.report()["training"]["student"]["teacher_cache"]["folder"].split(", ")
    assert len(set(caches)) == 2

    teacher, alone = run.teacher(), tiny_run.teacher()
    assert isinstance(teacher, Ensemble) and alone is not None
    first, second = teacher.each()
    for name, tensor in alone.state_dict().items():
        assert torch.equal(first.state_dict()[name], tensor), "as it is alone"
    waveforms = torch.randn(2, 4_000)
    mean = (first.eval()(waveforms).logits.softmax(1) + second.eval()(waveforms).logits.softmax(1)) / 2
    torch.testing.assert_close(teacher(waveforms).logits.softmax(1), mean)
    assert set(run.report()["test"]) == {"teacher", "student", "int8"}
    assert not list((run.folder / "teacher").glob("*/teacher")), "the average has them all"

    single = with_terms(tiny_run, tmp_path / "one", **EMBEDDED)
    distill(single.config, resume=True)
    assert single.report()["training"]["student"]["teacher_cache"]["folder"] == caches[0]
    asked = [path for path in (tmp_path / "cache").glob("teacher-*") if path.is_dir()]
    assert sorted(map(str, asked)) == sorted(caches)


@pytest.mark.parametrize("mode", ["off", "full"])
@pytest.mark.usefixtures("no_pictures", "own_code_trusted")
def test_several_teachers_say_the_same_in_every_mode_of_the_cache(
    mode: CacheMode, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Structural terms too: the tap is the first teacher's."""
    monkeypatch.setattr(frozen_teacher, "fast_precision", lambda _: "float32")
    (tmp_path / "others.py").write_text(OTHER)
    monkeypatch.chdir(tmp_path)
    said = []
    for each in (mode, "logits"):
        teacher = {"name": "others:other,convnet", "cache": each, "epochs": 1}
        terms = {"loss": {"terms": ("classification", "structural", "distillation", "embedding")}}
        run = distill(tiny_config(tmp_path / each, teacher=teacher, training={"epochs": 1}, **terms))
        (row,) = [row for row in run.metrics().rows if row["stage"] == "student"]
        said.append([float(row[name]) for name in ("total", "structural", "distillation", "embedding")])
        assert run.report()["training"]["student"]["teacher_cache"]["mode"] == each
    assert said[0] == pytest.approx(said[1], rel=1e-2)


# Interruptions


def interrupting(stage: str, done: int) -> Callable[..., None]:
    def progress(current: str, units: int, total: int, /, **_: float | str) -> None:
        if (current, units) == (stage, done):
            raise Interrupted

    return progress


@pytest.mark.usefixtures("no_pictures")
def test_a_run_interrupted_in_every_stage_ends_as_an_unbroken_one(
    tiny_run: Run, tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    config = tiny_config(tmp_path / "run")
    with pytest.raises(Interrupted):
        distill(config, interrupting("teacher", 2))
    with pytest.raises(InputError, match=r"interrupted, before the student\. Wait for it, or finish it"):
        load_int8(Run.open(config.out))
    for stage, done in (("teacher outputs", 50), ("student", 3), ("student", 7)):
        with pytest.raises(Interrupted):
            distill(config, interrupting(stage, done), resume=True)
    with pytest.raises(InputError, match=r"interrupted, after epoch 7 of 8 of the student\. Wait for it, or finish it"):
        load_int8(Run.open(config.out))
    run = distill(config, resume=True)
    with pytest.raises(InputError, match=r"this run has no int8 student\. First: edgekd quantize"):
        load_int8(run)
    with pytest.raises(Interrupted):
        quantize(run, progress=interrupting("int8", 2))
    with pytest.raises(InputError, match=r"interrupted after epoch 2 of its int8 training\. First: .* --resume"):
        load_int8(run)
    quantize(run, resume=True)

    assert figures(run) == figures(tiny_run)
    for stage in ("teacher", "student", "int8"):
        assert weights(run, stage) == weights(tiny_run, stage), stage
    assert run.report()["test"] == tiny_run.report()["test"]


KILLED = """
import sys, torch
from pathlib import Path
from edgekd.runs.run import Run
from edgekd.training.distill import distill
torch.set_num_threads(1)
distill(Run.open(Path(sys.argv[1])).config, resume=True)
"""


@pytest.mark.usefixtures("no_pictures")
def test_a_killed_run_resumes_to_the_bytes_of_an_unbroken_one(tiny_run: Run, tmp_path: Path) -> None:
    run = with_only_a_teacher(tiny_run, tmp_path / "run")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(run.folder)], env=environment)
    try:
        give_up = time.monotonic() + 120
        while run.metrics().last_epoch("student") < 2 and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still running"
    killed_after = run.metrics().last_epoch("student")
    assert 2 <= killed_after < 8
    assert "student" not in run.report()["test"]

    distill(run.config, resume=True)
    assert weights(run, "student") == weights(tiny_run, "student")
    assert figures(run) == [row for row in figures(tiny_run) if row["stage"] != "int8"]
    assert run.report()["test"]["student"] == tiny_run.report()["test"]["student"]


@pytest.mark.usefixtures("no_pictures")
def test_resuming_a_finished_run_changes_nothing(tiny_copy: Run, tiny_run: Run) -> None:
    distill(tiny_copy.config, resume=True)
    quantize(tiny_copy, resume=True)
    assert figures(tiny_copy) == figures(tiny_run)
    assert tiny_copy.report()["test"] == tiny_run.report()["test"]
    for stage in ("teacher", "student", "int8"):
        assert weights(tiny_copy, stage) == weights(tiny_run, stage)


# Refusals


def test_a_split_made_to_leak_is_refused(tiny_copy: Run) -> None:
    path = tiny_copy.folder / "splits.csv"
    lines = path.read_text().splitlines()
    number = next(place for place, line in enumerate(lines) if line.endswith(",train"))
    lines[number] = lines[number].removesuffix("train") + "test"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        GateError, match=r"the split leaks: group '.*' is on the (train|test) and the (train|test) side"
    ):
        distill(tiny_copy.config, resume=True)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"student": "hltdn"}, UsageError, "Unknown student 'hltdn'"),
        ({"teacher": {"name": "convnett"}}, UsageError, "Unknown teacher 'convnett'"),
        ({"teacher": {"name": "yamnet"}}, UsageError, "'yamnet' needs pre-trained weights"),
        ({"teacher": {"adaptation": "head"}}, UsageError, "pass --adaptation full"),
        (
            {"student": "hltdnn", "frontend": {"n_mels": 8}},
            UsageError,
            "cannot take a log-mel of 32 frames of 8 mel bins",
        ),
        ({"data": {"dataset": "esc"}}, UsageError, "Unknown data set 'esc'"),
        ({"data": {"dataset": "esc10", "data_dir": Path("nowhere")}}, InputError, "nowhere: no such folder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    changes: dict[str, Any], error: type[Exception], words: str, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        distill(tiny_config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_trained_over(tiny_run: Run) -> None:
    before = weights(tiny_run, "student")
    with pytest.raises(UsageError, match="exists already"):
        distill(tiny_run.config)
    assert weights(tiny_run, "student") == before


def test_overwriting_gives_up_the_older_run_only_when_the_data_are_good(tiny_copy: Run) -> None:
    changed = {
        "data": {**tiny_copy.config.data.model_dump(), "data_dir": tiny_copy.folder / "nowhere", "dataset": "folder"}
    }
    config = DistillConfig.model_validate(tiny_copy.config.model_dump() | changed)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        distill(config, overwrite=True)
    tiny_copy.require_student()


def test_learned_weights_of_the_terms_are_not_decayed() -> None:
    student, loss = nn.Linear(3, 2), SSATKDLoss(LossConfig(weighting="learned"), student_channels=4, teacher_channels=6)
    optimizer = make_optimizer(student, loss, learning_rate=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {decay[id(parameter)] for parameter in student.parameters()} == {0.5}
    assert {decay[id(parameter)] for parameter in loss.parameters()} == {0.0}
    assert len(decay) == len([*student.parameters(), *loss.parameters()])


@pytest.mark.usefixtures("no_pictures")
def test_a_full_disk_ends_a_run_that_can_be_resumed(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_only_a_teacher(tiny_run, tmp_path / "run", epochs=2)
    fsync = os.fsync

    def full(file: int) -> None:
        if ".last.pt." in str(Path(f"/proc/self/fd/{file}").readlink()):
            raise OSError(28, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"last\.pt: no space left on the disk"):
            distill(run.config, resume=True)
    assert not list(run.folder.rglob("*.partial"))
    distill(run.config, resume=True)
    assert run.report()["test"]["student"]["clips"] == 15
    assert read_weights(run.folder / "student" / "best.safetensors")
