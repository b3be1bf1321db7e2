"""Clips of several classes at once, from the table to the board: what each step makes of them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

import edgekd
from edgekd.checks.inspection import inspect_data
from edgekd.config import DataConfig, DistillConfig, ProfileConfig
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.predict import predict_files
from edgekd.profiling.profiler import profile
from edgekd.quantization.sensitivity import sensitivity
from edgekd.report.gate import check_profile
from edgekd.report.page import report_html
from edgekd.report.results import Profile
from edgekd.report.terminal import print_run
from edgekd.report.terminal_profile import print_profile
from edgekd.runs.predictions import read_predictions
from edgekd.runs.run import Run, changes
from edgekd.scoring.average_precision import mean_average_precision
from edgekd.scoring.differences import LabelDifference
from edgekd.scoring.label_scores import LabelScores
from edgekd.task import MULTI
from edgekd.training.distill import distill

CLASSES = ("high", "low", "middle")


def run_bundle(bundle: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(bundle / "edgekd_runner.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_records_what_its_table_asked_for(several_run: Run, several_data: Path) -> None:
    again = Run.open(several_run.folder)
    assert again.config.data.labels == "multi"
    assert again.task == MULTI
    assert again.classes == CLASSES
    asked = again.config.model_copy(update={"data": again.config.data.model_copy(update={"labels": None})})
    assert changes(again.config, asked) == []  # so that it is resumed by the command that began it
    assert any("each class is answered for itself" in warning for warning in again.report()["warnings"])
    assert (
        inspect_data(DataConfig(data_dir=several_data, sample_rate=4_000, clip_seconds=1.0))[0].classes[0].clips == 36
    )


def test_teacher_student_and_int8_learn_it_and_are_scored_by_map(
    several_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = several_run.report()["test"]
    for subject in ("teacher", "student", "int8"):
        said = read_predictions(several_run.folder, subject, CLASSES, MULTI)
        found = LabelScores.from_dict(tested[subject])
        assert found.mean_average_precision == pytest.approx(
            mean_average_precision(said.probabilities, said.labels), abs=1e-6
        )
        assert found.mean_average_precision > 0.85  # at random 0.5
        assert np.abs(said.probabilities.sum(axis=1) - 1).max() > 0.2  # no shares of one
    rows = several_run.metrics().rows
    assert all(row["validation_mean_average_precision"] and not row["validation_accuracy"] for row in rows)
    assert (several_run.folder / "average_precision.png").is_file()
    assert not (several_run.folder / "confusion.png").exists()
    print_run(several_run)
    printed = capsys.readouterr().out
    assert "mAP" in printed
    assert f"Macro-F1 is at 0.5 for all; of the run's own thresholds: edgekd thresholds {several_run.folder}" in printed
    assert "accuracy" not in printed.replace("average_precision", "")


def test_the_bundle_answers_each_class_for_itself(several_run: Run, several_bundle: Path, several_data: Path) -> None:
    manifest = read_bundle(several_bundle).manifest
    assert manifest.classifier.activation == "sigmoid"
    assert manifest.provenance.test_accuracy is None
    assert manifest.provenance.test_mean_average_precision is not None
    assert manifest.parity.agreement >= 0.97
    graph = onnx.load(several_bundle / "model.onnx").graph
    assert [node.op_type for node in graph.node if graph.output[0].name in node.output] == ["Sigmoid"]

    files = [several_data / f"{number}.wav" for number in range(6)]  # a tone, two, three, none
    desk = list(predict_files(several_bundle, files))
    done = run_bundle(several_bundle, "predict", *files, "--json")
    assert done.returncode == 0
    device = json.loads(done.stdout)["files"]
    for here, there in zip(desk, device, strict=True):
        assert list(here.answers or ()) == there["classes"] == [row["class"] for row in there["top"]]
    assert max(len(row["classes"]) for row in device) > 1
    assert device[5]["classes"] == []
    assert "none of the classes" in run_bundle(several_bundle, "predict", files[5]).stdout
    student = list(predict_files(several_run.folder, files))
    for trained, here in zip(student, desk, strict=True):
        for name, score in here.ranked:
            assert dict(trained.ranked)[name] == pytest.approx(score, abs=0.05)


def test_a_device_verifies_and_streams_it(several_bundle: Path) -> None:
    verified = json.loads(run_bundle(several_bundle, "verify", "--json").stdout)
    assert verified["agrees"]
    assert "same answers" in run_bundle(several_bundle, "verify").stdout
    command = [sys.executable, str(several_bundle / "edgekd_runner.py"), "stream", "--hop", "1"]
    tones = sum(0.1 * np.sin(2 * np.pi * hertz * np.arange(8_000) / 4_000) for hertz in (300, 700, 1_500))
    heard = subprocess.run(command, input=(tones * 32767).astype("<i2").tobytes(), capture_output=True, check=True)
    for row in map(json.loads, heard.stdout.splitlines()):
        assert row["classes"] == [name for name, score in row["scores"].items() if score >= 0.5]
        assert row["classes"]


def test_events_of_each_class_are_found_for_itself_here_and_on_the_device(several_bundle: Path, tmp_path: Path) -> None:
    time = np.arange(40_000) / 4_000  # 10 s
    sound = np.random.default_rng(3).normal(0, 0.02, len(time))
    for begin, end, hertz in ((2, 7, 300), (4, 9, 1_500)):  # low, high
        sound += 0.1 * np.sin(2 * np.pi * hertz * time) * ((time >= begin) & (time < end))
    soundfile.write(tmp_path / "night.wav", sound, 4_000)
    here = edgekd.detect(several_bundle, [tmp_path / "night.wav"], tmp_path / "here.csv", thresholds={"low": 0.4})
    arguments = ("detect", tmp_path / "night.wav", "--out", tmp_path / "there.csv", "--threshold", "low=0.4")
    assert run_bundle(several_bundle, *arguments).returncode == 0
    found = [list(csv.DictReader((tmp_path / name).open())) for name in ("here.csv", "there.csv")]
    events = [[(row["annotation"], row["start_time"], row["end_time"]) for row in rows] for rows in found]
    assert sorted(events[0]) == sorted(events[1])
    low, high = (
        max((row for row in found[0] if row["annotation"] == name), key=lambda row: float(row["end_time"]))
        for name in ("low", "high")
    )
    assert float(high["start_time"]) < float(low["end_time"]), "one over the other"
    assert here is not None


def test_a_bundle_whose_activation_is_another_is_refused_in_a_line(several_bundle: Path, tmp_path: Path) -> None:
    from edgekd.device import runner

    copy = Path(shutil.copytree(several_bundle, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["classifier"]["activation"] = "relu"
    manifest["sha256"] = runner.manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = run_bundle(copy, "verify")
    assert done.returncode == 3
    assert "classifier.activation = 'relu': not 'softmax' or 'sigmoid'" in done.stderr


@pytest.fixture(scope="module")
def several_profile(several_run: Run, several_bundle: Path) -> Profile:
    config = ProfileConfig(repetitions=3, seconds=0.2, batches=(), memory=False, energy=False)
    return profile([several_run, several_bundle], config)


def test_a_profile_compares_by_map(
    several_profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [subject.scores for subject in several_profile.subjects]
    assert all(isinstance(each, LabelScores) for each in scores)
    student = several_profile.subject("student")
    assert student.versus is not None
    assert isinstance(student.versus.measured, LabelDifference)
    assert student.robustness is not None
    assert student.robustness.noise[0].mean_average_precision is not None
    assert Profile.model_validate_json(json.dumps(several_profile.to_dict())) == several_profile
    page = report_html(several_profile)
    assert "mAP against latency" in page
    assert "Average precision of each class" in page
    assert "Confusion" not in page
    print_profile(several_profile, tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "mAP" in printed
    assert "McNemar" not in printed
    assert "Macro-F1, precision and recall are at 0.5 for every subject" in printed


def test_the_gate_holds_map(several_profile: Profile) -> None:
    check_profile(several_profile, several_profile, max_drop=0.0, max_slowdown=10)
    worse = several_profile.to_dict()
    for subject in worse["subjects"]:
        subject["scores"]["mean_average_precision"] = 0.3
        subject["scores"]["mean_average_precision_interval"] = [0.2, 0.4]
    with pytest.raises(GateError, match="mAP fell by"):
        check_profile(Profile.model_validate_json(json.dumps(worse)), several_profile, max_drop=1, max_slowdown=10)


def test_sensitivity_is_in_points_of_map(several_run: Run, tmp_path: Path) -> None:
    copy = Run.open(Path(shutil.copytree(several_run.folder, tmp_path / "copy")))
    found = sensitivity(copy)
    assert 0.5 < found.float_accuracy <= 1
    assert all(np.isfinite(layer.alone.drop) for layer in found.layers)


def test_what_has_no_form_for_several_classes_is_refused(
    tiny_config: Callable[..., DistillConfig], several_data: Path, tmp_path: Path
) -> None:
    data = {"dataset": None, "data_dir": several_data}
    with pytest.raises(UsageError, match=r"loss\.distillation = emd: compares shares of one"):
        distill(tiny_config(tmp_path / "emd", data=data, loss={"distillation": "emd"}))
    assert not (tmp_path / "emd").exists()


def test_a_run_of_one_class_a_clip_is_read_as_it_was(several_run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(several_run.folder, tmp_path / "copy"))
    settings = (copy / "config.toml").read_text()
    assert 'labels = "multi"' in settings
    (copy / "config.toml").write_text(settings.replace('labels = "multi"\n', ""))
    with pytest.raises(InputError, match="now has classes low, low;high, low;middle;high"):
        Run.open(copy).open_data()


def test_student_probabilities_are_sigmoids(several_run: Run) -> None:
    student = several_run.student()
    logits = torch.randn(3, 3)
    torch.testing.assert_close(student.task.probabilities(logits), logits.sigmoid())
    torch.testing.assert_close(student.task.logits(logits.sigmoid()), logits, rtol=1e-4, atol=1e-4)
