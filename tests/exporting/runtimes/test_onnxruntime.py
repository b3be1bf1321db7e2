"""ONNX Runtime as a runtime: one graph in the first precision, held to what it makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import numpy_helper

from edgekd.errors import GateError
from edgekd.exporting.deployable import Deployable
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.targets import load_target
from edgekd.exporting.verify import reference
from edgekd.progress import silent

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported

RUNTIME = OnnxRuntime()


@pytest.fixture
def int8(exported: Exported) -> Deployable:
    return exported.deployable("int8")


def test_a_bundle_holds_the_first_precision_alone() -> None:
    target = load_target("cpu")
    assert RUNTIME.models(target) == {"int8": "model.onnx"}
    assert RUNTIME.models(target.adapted(precision="fp32")) == {"fp32": "model.onnx"}
    assert RUNTIME.describe(target) == "onnxruntime"
    assert RUNTIME.engine_builder() is None


def test_what_it_emits_passes_its_own_checks(exported: Exported, int8: Deployable) -> None:
    target = load_target("cpu")
    files = RUNTIME.emit({"int8": int8}, target, silent)
    assert files == {"model.onnx": onnx_of(int8, "onnxruntime", Form.of(target))}
    assert len(files["model.onnx"]) < len(exported.int8["onnxruntime"]), "weights of the log-mel are stored"
    floats = RUNTIME.check(files, {"int8": int8}, target)
    assert "Log" in floats.frontend
    assert RUNTIME.figures(files, target).model_bytes == len(files["model.onnx"])
    checker = RUNTIME.classifier(files, int8, target)
    assert checker.by.startswith("onnxruntime 1.")
    trained = int8.trained(RUNTIME.flavour)
    difference = (checker.classify(exported.waveforms) - trained(exported.waveforms)).abs().max()
    assert difference < 0.02
    (check,) = RUNTIME.checks(files, int8, trained, exported.waveforms, target, silent)
    assert check.by.startswith("onnx.reference ")
    assert check.figures is not None
    assert check.figures["clips"] == 4


def test_a_convolution_that_it_would_run_in_float_is_refused(exported: Exported, int8: Deployable) -> None:
    """A ReLU is absorbed where the zero point is the lowest of its type: moved, the graph still means something."""
    model = onnx.load_from_string(exported.int8["onnxruntime"])
    points = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.UINT8]
    zeros = [tensor for tensor in points if not numpy_helper.to_array(tensor).any()]
    for tensor in zeros:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 128, tensor.name))
    with pytest.raises(GateError, match=r"ONNX Runtime .* would run \d+ convolutions in float32"):
        RUNTIME.check({"model.onnx": model.SerializeToString()}, {"int8": int8}, load_target("cpu"))


def test_a_graph_that_says_something_else_is_refused_by_the_reference(exported: Exported, int8: Deployable) -> None:
    files, target = {"model.onnx": exported.float32}, load_target("cpu")
    other = reference(exported.student)
    with pytest.raises(GateError, match=r"onnx.reference .* gets other probabilities"):
        list(RUNTIME.checks(files, int8, lambda clips: other(clips).flip(1), exported.waveforms, target, silent))
