"""Bundles: written whole or not at all, within budget, and refused when anything in them has changed."""

from __future__ import annotations

import dataclasses
import errno
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.config import FrontendConfig
from edgekd.data.audio import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.device import runner
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.bundle import (
    Bundle,
    Check,
    Classifier,
    Findings,
    FloatOperators,
    GoldenExamples,
    Parity,
    Provenance,
    read_bundle,
    write_bundle,
)
from edgekd.exporting.targets import Target, load_target

CLASSES = ("cargo", "tanker", "tug")
SAMPLES = 400
WEIGHTS = np.random.default_rng(0).standard_normal((SAMPLES, len(CLASSES))).astype(np.float32)


def toy_model() -> bytes:
    """softmax(waveform @ WEIGHTS)."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["waveform", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "toy",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", SAMPLES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def golden_examples(clips: int = 5) -> GoldenExamples:
    random = np.random.default_rng(1)
    waveform = random.integers(-32767, 32768, (clips, SAMPLES), dtype=np.int16)
    scale = random.uniform(0.05, 0.2, clips).astype(np.float32)
    logits = (waveform * (scale / 32767)[:, None]) @ WEIGHTS
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return GoldenExamples(waveform, scale, probabilities.astype(np.float32), probabilities.argmax(axis=1))


def write(out: Path, target: str | Target = "cpu", **changes: Any) -> Bundle:
    fields: dict[str, Any] = {
        "classifier": Classifier(
            student="hltdnn_ds",
            classes=CLASSES,
            sample_rate=8_000,
            clip_samples=SAMPLES,
            padding="repeat",
            frontend=FrontendConfig.model_validate({"f_max": 4_000}),
            gain=1.5,
        ),
        "provenance": Provenance(run="runs/toy", dataset="sonar_sim", fold=None, seed=0, test_accuracy=0.875),
        "findings": Findings(Parity(clips=64, agreement=1.0, largest_difference=0.004)),
        "golden": golden_examples(),
        "target": load_target(target) if isinstance(target, str) else target,
    }
    models = changes.pop("models", {"int8": toy_model()})
    return write_bundle(out, models, **(fields | changes))


def test_a_bundle_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = write(tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle") == written
    assert written.manifest.classifier.classes == CLASSES
    assert written.size_bytes == sum(path.stat().st_size for path in (tmp_path / "bundle").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]  # nothing temporary is left


def test_a_bundle_from_before_there_were_widths_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle").folder
    contents = json.loads((folder / "manifest.json").read_text())
    assert contents["classifier"].pop("width") == 1.0
    contents["sha256"] = runner.manifest_digest(contents)
    (folder / "manifest.json").write_text(json.dumps(contents))
    assert read_bundle(folder).manifest.classifier.width == 1.0


def test_the_hop_is_half_a_clip_unless_said(tmp_path: Path) -> None:
    assert write(tmp_path / "bundle").manifest.classifier.hop_samples == SAMPLES // 2


def test_the_device_resamples_with_the_constants_of_the_training_data(tmp_path: Path) -> None:
    resampler = write(tmp_path / "bundle").manifest.classifier.resampler
    assert (resampler.lowpass_filter_width, resampler.rolloff) == (RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("cpu", {"README.md", "edgekd_runner.py", "golden.npz", "manifest.json", "model.onnx"}),
        ("jetson", {"README.md", "build_engine.sh", "edgekd_runner.py", "golden.npz", "manifest.json", "model.onnx"}),
    ],
)
def test_a_bundle_holds_what_its_target_needs(tmp_path: Path, target: str, names: set[str]) -> None:
    bundle = write(tmp_path / "bundle", target)
    assert {path.name for path in bundle.folder.iterdir()} == names
    assert set(bundle.manifest.files) == names - {"manifest.json"}


def test_other_precisions_lie_beside_the_model_and_are_built_too(tmp_path: Path) -> None:
    models = {"int8": toy_model(), "fp16": toy_model(), "fp32": toy_model()}
    bundle = write(tmp_path / "bundle", "jetson", models=models)
    assert bundle.manifest.precision == "int8"
    assert bundle.manifest.alternatives == {"fp16": "model-fp16.onnx", "fp32": "model-fp32.onnx"}
    script = (bundle.folder / "build_engine.sh").read_text()
    for file in ("model.onnx", *bundle.manifest.alternatives.values()):
        assert file == "model.onnx" or file in bundle.manifest.files
        assert f"--onnx={file}" in script


def test_what_was_checked_and_what_stays_in_float_is_in_the_manifest(tmp_path: Path) -> None:
    findings = Findings(
        Parity(clips=64, agreement=1.0, largest_difference=0.004),
        (
            Check(by="onnxruntime 1.32.0", precision="int8", figures={"clips": 64}),
            Check(by="a parser", precision="int8", not_run="not here"),
        ),
        FloatOperators(frontend={"Log": 1}, network=("network/softmax",)),
    )
    manifest = read_bundle(write(tmp_path / "bundle", findings=findings).folder).manifest
    assert (manifest.parity, manifest.checks, manifest.float_operators) == (
        findings.parity,
        findings.checks,
        findings.float_operators,
    )


def test_golden_examples_hold_the_float_students_answers(tmp_path: Path) -> None:
    golden = golden_examples()
    for given in (None, golden.probabilities[:, ::-1].copy()):
        bundle = write(tmp_path / f"b{given is None}", golden=dataclasses.replace(golden, float_probabilities=given))
        with np.load(bundle.folder / "golden.npz") as read:
            expected = golden.probabilities if given is None else given
            np.testing.assert_array_equal(read["float_probabilities"], expected)


def test_other_users_may_read_the_bundle_and_run_the_script(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle", "jetson")
    reference = tmp_path / "reference"
    reference.mkdir()
    assert stat.S_IMODE(bundle.folder.stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)
    assert (bundle.folder / "build_engine.sh").stat().st_mode & stat.S_IXUSR


def test_the_same_run_exported_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "first").manifest == write(tmp_path / "second").manifest


def test_golden_examples_need_no_pickle(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    with np.load(bundle.folder / "golden.npz", allow_pickle=False) as golden:
        assert {name: golden[name].dtype.name for name in golden.files} == {
            "waveform": "int16",
            "scale": "float32",
            "probabilities": "float32",
            "labels": "int64",
            "float_probabilities": "float32",
        }


@pytest.mark.parametrize(
    ("target", "typed"),
    [("cpu", "pip install numpy onnxruntime"), ("raspberry-pi-5", "python3 -m venv"), ("jetson", "sh build_engine.sh")],
)
def test_the_readme_says_what_to_type_on_this_device(tmp_path: Path, target: str, typed: str) -> None:
    text = (write(tmp_path / "bundle", target).folder / "README.md").read_text()
    assert typed in text
    assert load_target(target).title in text
    assert "87.5% right on its test clips" in text


def test_an_existing_folder_is_refused_without_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    with pytest.raises(UsageError, match=r"already exists.*--overwrite"):
        write(out)
    assert list(out.iterdir()) == []


def test_overwrite_replaces_a_bundle_whole(tmp_path: Path) -> None:
    write(tmp_path / "bundle", "jetson")
    (tmp_path / "bundle" / "model.engine").write_text("of the old model")
    assert read_bundle(write(tmp_path / "bundle", "cpu", overwrite=True).folder).manifest.target.name == "cpu"
    assert not (tmp_path / "bundle" / "model.engine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_overwrite_never_deletes_what_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not a bundle"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_bundle_over_the_storage_budget_is_refused_with_both_figures(tmp_path: Path) -> None:
    small = load_target("cpu").model_copy(update={"storage_bytes": 2_000})
    with pytest.raises(GateError, match=r"takes [\d,]+ bytes; target 'cpu' allows 2,000"):
        write(tmp_path / "bundle", small)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_whose_own_runner_disagrees_is_not_written(tmp_path: Path) -> None:
    golden = golden_examples()
    wrong = replace(golden, probabilities=np.roll(golden.probabilities, 1, axis=1))
    with pytest.raises(GateError, match="does not get the golden probabilities"):
        write(tmp_path / "bundle", golden=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_leaves_the_older_bundle(tmp_path: Path) -> None:
    older = write(tmp_path / "bundle")
    small = load_target("cpu").model_copy(update={"storage_bytes": 2_000})
    with pytest.raises(GateError):
        write(tmp_path / "bundle", small, overwrite=True)
    assert read_bundle(tmp_path / "bundle") == older


def test_a_failed_swap_puts_the_older_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = write(tmp_path / "bundle")
    rename = Path.rename

    def fail_for_the_new_one(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(InputError, match="Input/output error"):
        write(tmp_path / "bundle", overwrite=True)
    assert read_bundle(tmp_path / "bundle") == older


def test_a_folder_made_by_another_process_meanwhile_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    check = runner.file_digest

    def another_process(path: Path) -> str:
        out.mkdir(exist_ok=True)
        (out / "theirs").touch()
        return check(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "file_digest", another_process)
        with pytest.raises(UsageError, match="made by another process"):
            write(out)
    assert [path.name for path in out.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_no_space_left_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(InputError, match=r"bundle: cannot be written: no space left on the device\."):
        write(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "bundle")


@pytest.mark.parametrize(
    "name", ["model.onnx", "golden.npz", "edgekd_runner.py", "README.md", "build_engine.sh", "manifest.json"]
)
def test_a_changed_or_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "bundle", "jetson").folder / name
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(InputError, match=f"{name}: changed since|{name}: not valid JSON|{name}: not the manifest"):
        read_bundle(tmp_path / "bundle")
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: No such file"):
        read_bundle(tmp_path / "bundle")


def resign(folder: Path, contents: dict[str, Any]) -> None:
    contents["sha256"] = runner.manifest_digest(contents)
    (folder / "manifest.json").write_text(json.dumps(contents))


def test_a_manifest_of_another_shape_is_refused_even_when_its_digest_is_right(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle").folder
    contents = json.loads((folder / "manifest.json").read_text())
    del contents["classifier"]["classes"]
    resign(folder, contents)
    with pytest.raises(InputError, match=r"manifest\.json: classifier.classes"):
        read_bundle(folder)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle").folder
    contents = json.loads((folder / "manifest.json").read_text())
    contents["files"]["../secret"] = "0" * 64
    resign(folder, contents)
    with pytest.raises(InputError, match=r"files\..*secret"):
        read_bundle(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: No such file.*A bundle is a folder"):
        read_bundle(tmp_path)
