"""A bundle that tells the unknown: fitted, exported, verified, and what it then answers."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch

from edgekd.device.edgekd_runner import main as run_runner
from edgekd.device.runner import Runner
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.deployable import Deployable, deployable_of
from edgekd.exporting.export import export
from edgekd.exporting.golden import GoldenExamples, check_golden
from edgekd.exporting.graph import Form, float_onnx, known_nodes, onnx_of
from edgekd.exporting.kept_rejection import Rejection, kept_rejection
from edgekd.exporting.known import KnownScore
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.predict import open_predictor, predict_files
from edgekd.exporting.rejection import (
    fit,
    fit_answering,
    fits,
    forget_rejection,
    keep_rejection,
    kept_fit,
    outputs_on,
    rejecting,
)
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Precision, load_target
from edgekd.exporting.verify import in_onnxruntime, in_reference
from edgekd.quantization.fake_quant import FlavourName
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.runs.thresholds import read_thresholds, write_thresholds
from edgekd.task import MULTI

if TYPE_CHECKING:
    from conftest import Exported


def fitted_to_reject(
    plain: Mapping[Precision, Deployable], rejection: Rejection, data: RunData, flavour: FlavourName = "onnxruntime"
) -> dict[Precision, Deployable]:
    """`plain`, rejecting what is found for them."""
    return rejecting(plain, fits(plain, rejection, data, flavour))


@pytest.fixture(scope="module")
def copied(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run.open(shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("rejecting") / "run"))


@pytest.fixture(scope="module")
def bundle(copied: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "cpu"
    return export(copied, "cpu", out, reject=Rejection.named("energy")).folder


def test_the_threshold_is_that_of_the_validation_side(copied: Run, bundle: Path) -> None:
    reject = read_bundle(bundle).manifest.detection.reject
    assert reject is not None
    data = copied.open_data()
    known = Runner(bundle).answers(data.waveforms(data.split.validation).numpy())[:, -1]
    assert reject.clips == len(known)
    lost = (known < reject.threshold - 1e-3).mean()
    assert lost <= reject.share < (known < reject.threshold + 0.5).mean() + reject.share


def test_the_graph_says_the_energy_of_its_logits(copied: Run) -> None:
    data = copied.open_data()
    rows = data.split.test[:6]
    (whole,) = fitted_to_reject({"fp32": deployable_of(copied, "fp32")}, Rejection.named("energy"), data).values()
    answers = in_onnxruntime(onnx_of(whole, "onnxruntime"))(data.waveforms(rows))
    logits = outputs_on(copied.student(), data, rows).logits.numpy()
    np.testing.assert_allclose(answers[:, -1].numpy(), np.logaddexp.reduce(logits, axis=1), atol=1e-4)


@pytest.mark.parametrize(("precision", "opset"), [("int8", 13), ("fp16", 20), ("fp32", 13)])
def test_a_graph_in_every_precision_says_how_near_the_nearest_class_is(copied: Run, precision: str, opset: int) -> None:
    data = copied.open_data()
    plain = deployable_of(copied, precision)  # type: ignore[arg-type]
    (whole,) = fitted_to_reject({plain.precision: plain}, Rejection.named("mahalanobis"), data, "tensorrt").values()
    waveforms = data.waveforms(data.split.test[:4])
    graph = onnx_of(whole, "tensorrt", Form(opset))
    expected = whole.trained("tensorrt")(waveforms)
    assert whole.reject is not None
    assert known_nodes(graph)[-1] == "known", "what is pinned to float32 goes to the end"
    room = (0.02 if precision == "fp16" else 1e-3 if precision == "fp32" else 0.1) * whole.reject.span
    for run in [in_onnxruntime(graph)] if precision == "fp16" else [in_onnxruntime(graph), in_reference(graph)]:
        np.testing.assert_allclose(run(waveforms)[:, -1], expected[:, -1], atol=room)


def test_one_threshold_holds_for_the_models_of_a_bundle(copied: Run) -> None:
    data = copied.open_data()
    precisions: tuple[Precision, ...] = ("int8", "fp32")
    plain = {precision: deployable_of(copied, precision) for precision in precisions}
    ready = fitted_to_reject(plain, Rejection.named("energy", 0.2), data, "tensorrt")
    own = fit(copied.student(), Rejection.named("energy", 0.2), data).reject.threshold
    int8, floats = ready["int8"], ready["fp32"]
    assert int8.reject == floats.reject and int8.reject is not None
    assert floats.known is not None and floats.known.shift == pytest.approx(int8.reject.threshold - own)
    validation = data.waveforms(data.split.validation)
    rejected = [
        (each.trained("tensorrt")(validation)[:, -1] < int8.reject.threshold - 1e-5).sum() for each in (int8, floats)
    ]
    assert max(rejected) <= 0.2 * len(validation)


def test_the_torch_module_says_what_the_graph_says(copied: Run) -> None:
    data = copied.open_data()
    waveforms = data.waveforms(data.split.test[:3])
    plain = {"fp32": deployable_of(copied, "fp32")}
    (whole,) = fitted_to_reject(plain, Rejection.named("mahalanobis"), data, "tensorrt").values()
    with torch.no_grad():
        probabilities, known = whole.module("tensorrt", "graph")(waveforms)
    answers = in_onnxruntime(onnx_of(whole, "tensorrt"))(waveforms)
    np.testing.assert_allclose(torch.cat([probabilities, known[:, None]], 1), answers, rtol=1e-3, atol=1e-3)


def test_desk_and_device_tell_the_unknown_alike(
    copied: Run, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = GoldenExamples.read(bundle).clips()[0]
    soundfile.write(tmp_path / "known.wav", clip, 4_000, subtype="FLOAT")
    manifest = json.loads((bundle / "manifest.json").read_text())
    threshold = manifest["detection"]["reject"]["threshold"]
    (here,) = predict_files(bundle, [tmp_path / "known.wav"])
    assert here.known is not None and here.unknown == (here.known < threshold)
    assert run_runner(["predict", str(tmp_path / "known.wav"), "--json"], bundle) == 0
    (there,) = json.loads(capsys.readouterr().out)["files"]
    assert there["known"] == pytest.approx(here.known, abs=1e-4)
    assert there["unknown"] == here.unknown
    run = open_predictor(copied.folder)
    answer, _ = run.predict_file(tmp_path / "known.wav")
    assert run.told(answer) and answer[-1] == pytest.approx(here.known, abs=0.3)


def test_a_bundle_that_says_another_known_is_refused(bundle: Path) -> None:
    manifest, golden = read_bundle(bundle).manifest, GoldenExamples.read(bundle)
    assert manifest.detection.reject is not None and golden.known is not None
    classify = RUNTIMES["onnxruntime"].open(bundle)

    def drifted(clips: np.ndarray) -> np.ndarray:
        answers = classify(clips)
        answers[:, -1] += 0.2 * manifest.detection.reject.span  # type: ignore[union-attr]
        return answers

    check_golden(classify, golden, "int8", manifest.target.tolerance, reject=manifest.detection.reject)
    with pytest.raises(GateError, match=r"how familiar clips are: largest difference 0\.2"):
        check_golden(drifted, golden, "int8", manifest.target.tolerance, reject=manifest.detection.reject)
    assert Runner(bundle).verify()["known_difference"] < 0.05


def test_a_run_keeps_what_it_was_told_until_it_is_told_off(tiny_copy: Run, tmp_path: Path) -> None:
    assert kept_rejection(tiny_copy) is None and kept_fit(tiny_copy, "int8") is None
    export(tiny_copy, "cpu", tmp_path / "first", reject=Rejection.named("mahalanobis", 0.1))
    fitted = kept_fit(tiny_copy, "int8")
    assert fitted is not None and fitted.known.gaussians is not None
    assert fitted.reject == read_bundle(tmp_path / "first").manifest.detection.reject
    again = export(tiny_copy, "cpu", tmp_path / "again").manifest
    assert again.detection.reject == fitted.reject
    config = tiny_copy.config.model_copy(
        update={"data": tiny_copy.config.data.model_copy(update={"data_dir": tmp_path})}
    )
    assert kept_fit(replace(tiny_copy, config=config), "int8") is not None, "recordings may move"
    thresholds = read_thresholds(tiny_copy, "int8")
    assert thresholds is not None
    warmer = thresholds.temperature.model_copy(update={"value": 1.5})
    write_thresholds(tiny_copy, "int8", thresholds.model_copy(update={"temperature": warmer}))
    with pytest.raises(InputError, match="of another student than the run's now"):
        kept_fit(tiny_copy, "int8")
    write_thresholds(tiny_copy, "int8", thresholds)
    (tiny_copy.folder / "int8" / "known.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"known\.npz: cannot be used"):
        kept_fit(tiny_copy, "int8")
    forget_rejection(tiny_copy)
    assert kept_rejection(tiny_copy) is None and kept_fit(tiny_copy, "int8") is None


def test_an_export_that_is_refused_leaves_the_run_as_it_was(tiny_copy: Run, tmp_path: Path) -> None:
    strict = load_target("cpu")
    strict = strict.model_copy(update={"storage_bytes": 10_000})
    with pytest.raises(GateError, match="storage_bytes"):
        export(tiny_copy, strict, tmp_path / "first", reject=Rejection.named("energy"))
    assert kept_rejection(tiny_copy) is None and kept_fit(tiny_copy, "int8") is None
    export(tiny_copy, "cpu", tmp_path / "second", reject=Rejection.named("energy"))
    with pytest.raises(GateError, match="storage_bytes"):
        export(tiny_copy, strict, tmp_path / "third", reject="off")
    assert kept_rejection(tiny_copy) is not None and kept_fit(tiny_copy, "int8") is not None


def test_no_student_rejects_by_what_the_run_no_longer_does(tiny_copy: Run) -> None:
    data, energy, distance = tiny_copy.open_data(), Rejection.named("energy"), Rejection.named("mahalanobis")
    float_student = {"fp32": deployable_of(tiny_copy, "fp32")}
    int8_student = {"int8": deployable_of(tiny_copy, "int8")}
    keep_rejection(tiny_copy, distance, fits(int8_student, distance, data, "onnxruntime"))
    keep_rejection(tiny_copy, distance, fits(float_student, distance, data, "onnxruntime"))
    assert kept_fit(tiny_copy, "int8") is not None and kept_fit(tiny_copy, "student") is not None
    keep_rejection(tiny_copy, energy, fits(float_student, energy, data, "onnxruntime"))
    assert kept_rejection(tiny_copy) == energy
    assert kept_fit(tiny_copy, "int8") is None and kept_fit(tiny_copy, "student") is not None


def test_the_student_that_answers_rejects_though_another_was_exported(tiny_copy: Run) -> None:
    data, rejection = tiny_copy.open_data(), Rejection.named("energy", 0.2)
    fit_answering(tiny_copy, data)
    assert kept_fit(tiny_copy, "int8") is None, "the run rejects nothing"
    keep_rejection(
        tiny_copy, rejection, fits({"fp32": deployable_of(tiny_copy, "fp32")}, rejection, data, "onnxruntime")
    )
    expected = fits({"int8": deployable_of(tiny_copy, "int8")}, rejection, data, "onnxruntime")["int8"].reject
    for _ in range(2):
        fit_answering(tiny_copy)
        fitted = kept_fit(tiny_copy, "int8")
        assert fitted is not None and fitted.reject == expected
        (tiny_copy.folder / "int8" / "known.npz").write_bytes(b"PK")


def test_a_run_whose_student_was_not_fitted_says_so(tiny_copy: Run, tmp_path: Path) -> None:
    """As after int8 training by an older version."""
    data, rejection = tiny_copy.open_data(), Rejection.named("energy")
    keep_rejection(
        tiny_copy, rejection, fits({"int8": deployable_of(tiny_copy, "int8")}, rejection, data, "onnxruntime")
    )
    assert open_predictor(tiny_copy.folder).notes == ()
    (tiny_copy.folder / "int8" / "known.npz").unlink()
    soundfile.write(tmp_path / "sound.wav", np.zeros(4_000), 4_000)
    told: list[str] = []
    (prediction,) = predict_files(tiny_copy.folder, [tmp_path / "sound.wav"], told.append)
    (note,) = told
    assert "nothing is unknown to its int8 model" in note and prediction.known is None


def test_a_setting_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'energy'"):
        Rejection.named("energie")
    with pytest.raises(UsageError, match="--reject-share 1"):
        Rejection.named("energy", 1.0)


@pytest.mark.parametrize("target", ["jetson-orin-nano", "rtx"])
def test_every_board_is_offered_it(copied: Run, target: str) -> None:
    board = load_target(target)
    if board.operators:
        assert {"Log", "ReduceMax", "Sub"} <= set(board.operators)


@pytest.mark.parametrize("opset", [13, 20])
def test_the_energy_of_classes_with_a_sigmoid_each_is_a_sum(exported: Exported, opset: int) -> None:
    known = KnownScore("energy", shift=0.5, independent=True)
    student = copy.deepcopy(exported.student)
    student.task = MULTI
    waveforms = exported.waveforms[:3]
    logits = student(waveforms).logits.detach()
    graph = float_onnx(student, waveforms.shape[1], Form(opset), known=known)
    said = in_onnxruntime(graph)(waveforms)
    np.testing.assert_allclose(said[:, :-1], logits.sigmoid(), atol=1e-5)
    np.testing.assert_allclose(said[:, -1], np.logaddexp(0, logits.numpy()).sum(axis=1) + 0.5, atol=1e-4)


def test_several_classes_a_clip_have_no_place_to_be_far_from(tiny_run: Run) -> None:
    student = tiny_run.student()
    student.task = MULTI
    with pytest.raises(UsageError, match="may be of several classes"):
        fit(student, Rejection.named("mahalanobis"), tiny_run.open_data())
