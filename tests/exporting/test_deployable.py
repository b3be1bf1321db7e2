"""What is deployed: the student of a run in each precision, told apart by what it was loaded from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from edgekd.errors import InputError
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.graph import Form, float_onnx, onnx_of
from edgekd.exporting.targets import Precision
from edgekd.models.weights import read_weights, save_weights
from edgekd.runs.run import Run

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported

PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")


def test_a_run_has_a_deployable_in_every_precision(tiny_run: Run) -> None:
    int8, half, whole = (deployable_of(tiny_run, precision) for precision in PRECISIONS)
    assert int8.network is int8.student.network
    assert (half.network, whole.network) == (None, None)
    assert len({int8, half, whole}) == 3
    assert int8.source != half.source == whole.source
    assert {each.clip_samples for each in (int8, half, whole)} == {4_000}


def test_copies_of_a_run_are_the_same_student_and_other_weights_or_settings_another(
    tiny_run: Run, tiny_copy: Run
) -> None:
    assert deployable_of(tiny_copy, "int8") == deployable_of(tiny_run, "int8")
    settings = tiny_copy.folder / "int8" / "quantize.toml"
    settings.write_text(settings.read_text().replace("learning_rate = ", "learning_rate = 1"))
    assert deployable_of(tiny_copy, "int8") != deployable_of(tiny_run, "int8")
    assert deployable_of(tiny_copy, "fp32") == deployable_of(tiny_run, "fp32"), "those settings are of int8"
    weights = read_weights(tiny_copy.weights("student"))
    name = next(name for name in weights if name.endswith("weight"))
    weights[name] = weights[name] + 0.1
    save_weights(tiny_copy.weights("student"), weights)
    assert deployable_of(tiny_copy, "fp32") != deployable_of(tiny_run, "fp32")


def test_another_configuration_is_another_student(tiny_run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('padding = "repeat"', 'padding = "zeros"'))
    assert deployable_of(Run.open(folder), "fp32") != deployable_of(tiny_run, "fp32")


def test_weights_that_are_not_finite_are_refused(tiny_copy: Run) -> None:
    weights = read_weights(tiny_copy.weights("student"))
    name = next(name for name in weights if name.endswith("weight"))
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_weights(tiny_copy.weights("student"), weights)
    with pytest.raises(InputError, match="holds NaN or infinite values"):
        deployable_of(tiny_copy, "fp32")


@pytest.mark.parametrize("place", ["graph", "external"])
def test_a_float_module_computes_what_was_trained_from_sound_or_log_mel(exported: Exported, place: str) -> None:
    student, waveforms, deployable = exported.student, exported.waveforms[:4], exported.deployable("fp32")
    sound = waveforms if place == "graph" else student.front_end(waveforms)
    with torch.no_grad():
        found = deployable.module("tensorrt", place)(sound)
    torch.testing.assert_close(found, deployable.trained("tensorrt")(waveforms), atol=1e-4, rtol=0)


def test_each_precision_and_flavour_is_a_graph_of_its_own(exported: Exported) -> None:
    whole, int8 = exported.deployable("fp32"), exported.deployable("int8")
    assert onnx_of(whole, "tensorrt") is onnx_of(whole, "onnxruntime"), "a float student has no flavour"
    assert onnx_of(whole, "tensorrt") == exported.float32 == float_onnx(exported.student, whole.clip_samples)
    assert onnx_of(int8, "onnxruntime") == exported.int8["onnxruntime"]
    assert onnx_of(int8, "tensorrt", Form(opset=19)) == exported.int8["tensorrt"]
