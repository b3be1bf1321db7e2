"""The structural gate: good models pass, each way of being wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekd.config import FrontendConfig
from edgekd.errors import GateError
from edgekd.exporting.graph import quantized_onnx
from edgekd.exporting.qdq_checks import check_optimised, check_structure, float_operators
from edgekd.models.build import build_student
from edgekd.models.students.table import STUDENTS
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import FLAVOURS, FlavourName
from edgekd.quantization.prepare import prepare

if TYPE_CHECKING:
    from conftest import Exported


def changed(model_bytes: bytes, change: Callable[[onnx.GraphProto], None]) -> bytes:
    model = onnx.load_from_string(model_bytes)
    change(model.graph)
    return model.SerializeToString()


def replace(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    (stored,) = (tensor for tensor in graph.initializer if tensor.name == name)
    stored.CopyFrom(numpy_helper.from_array(value, name))


def bypass(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Take `node` out: what took its output takes its input."""
    for taker in graph.node:
        for place, name in enumerate(taker.input):
            if name == node.output[0]:
                taker.input[place] = node.input[0]
    graph.node.remove(node)


def first(graph: onnx.GraphProto, op_type: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.op_type == op_type)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_exported_model_passes_with_all_its_layers(exported: Exported, flavour: FlavourName) -> None:
    assert check_structure(exported.int8[flavour], flavour) == 6


def test_a_model_of_the_other_flavour_is_refused(exported: Exported) -> None:
    with pytest.raises(GateError, match="takes int8 with zero point 0"):
        check_structure(exported.int8["onnxruntime"], "tensorrt")
    with pytest.raises(GateError, match="takes uint8 with zero point 0 or uint8 with zero point 128"):
        check_structure(exported.int8["tensorrt"], "onnxruntime")


def test_a_float_model_is_refused(exported: Exported) -> None:
    with pytest.raises(GateError, match="no int8 layer"):
        check_structure(exported.float32, "tensorrt")


def test_an_output_that_is_not_rounded_is_refused(exported: Exported) -> None:
    def unround(graph: onnx.GraphProto) -> None:
        quantize = [node for node in graph.node if node.op_type == "QuantizeLinear"][1]
        dequantize = next(node for node in graph.node if quantize.output[0] in node.input)
        bypass(graph, dequantize)
        bypass(graph, quantize)

    with pytest.raises(GateError, match=r"Conv '.*' gives an activation that is not rounded"):
        check_structure(changed(exported.int8["tensorrt"], unround), "tensorrt")


def test_an_input_that_is_not_rounded_is_refused(exported: Exported) -> None:
    def unround(graph: onnx.GraphProto) -> None:
        quantize = first(graph, "QuantizeLinear")
        bypass(graph, next(node for node in graph.node if quantize.output[0] in node.input))
        bypass(graph, quantize)

    with pytest.raises(GateError, match=r"Conv '.*' takes an activation that is not rounded"):
        check_structure(changed(exported.int8["tensorrt"], unround), "tensorrt")


def test_a_scale_for_the_whole_weight_is_refused(exported: Exported) -> None:
    def flatten(graph: onnx.GraphProto) -> None:
        replace(graph, "network.pointwise.weight.scale", np.float32(0.1))

    with pytest.raises(GateError, match="without one scale for each output channel"):
        check_structure(changed(exported.int8["tensorrt"], flatten), "tensorrt")


def test_a_scale_of_zero_is_refused(exported: Exported) -> None:
    def zero(graph: onnx.GraphProto) -> None:
        replace(graph, first(graph, "QuantizeLinear").input[1], np.float32(0))

    with pytest.raises(GateError, match="a scale that is not positive"):
        check_structure(changed(exported.int8["tensorrt"], zero), "tensorrt")


def test_a_float_weight_is_no_int8_layer(exported: Exported) -> None:
    def floats(graph: onnx.GraphProto) -> None:
        name = "network.pointwise.weight.integers"
        (stored,) = (tensor for tensor in graph.initializer if tensor.name == name)
        replace(graph, name, numpy_helper.to_array(stored).astype(np.float32))

    with pytest.raises(GateError, match="not stored as int8"):
        check_structure(changed(exported.int8["tensorrt"], floats), "tensorrt")


def test_a_max_pool_between_two_scales_is_refused(exported: Exported) -> None:
    def part(graph: onnx.GraphProto) -> None:
        pool = first(graph, "MaxPool")
        after = next(node for node in graph.node if pool.output[0] in node.input)
        after.input[1] = first(graph, "QuantizeLinear").input[1]

    with pytest.raises(GateError, match="lies between two different scales"):
        check_structure(changed(exported.int8["tensorrt"], part), "tensorrt")


def test_onnxruntime_itself_is_asked_what_it_made_of_the_graph(exported: Exported) -> None:
    found = check_optimised(exported.int8["onnxruntime"])
    assert (found["QLinearConv"], found["QGemm"]) == (5, 1)
    with pytest.raises(GateError, match=r"would run \d convolutions in float32 .*, not 1 \(frontend/conv\)"):
        check_optimised(exported.int8["tensorrt"])  # int8 after a ReLU, which onnxruntime cannot absorb


def test_a_layer_left_in_float_on_purpose_is_no_fault(exported: Exported) -> None:
    log_mel = exported.student.log_mel(exported.waveforms[:2]).detach()
    network = prepare(exported.student.network, log_mel, ("pointwise", "classifier"))
    calibrate(network, [exported.student.log_mel(exported.waveforms).detach()], CalibrationRecipe())
    assert network.float_layers() == ["pointwise", "classifier"]
    model = quantized_onnx(exported.student, network, exported.waveforms.shape[1], "onnxruntime")
    assert check_structure(model, "onnxruntime", network.float_layers()) == 4
    # ONNX Runtime does not quantise it behind our back, which it does to what lies openly between rounded values.
    assert check_optimised(model)["QLinearConv"] == 4
    with pytest.raises(GateError, match=r"Conv 'network\.pointwise/conv' takes an activation that is not rounded"):
        check_structure(model, "onnxruntime")
    assert {"network.pointwise/conv", "network.classifier/gemm"} <= set(float_operators(model).network)


def test_what_stays_in_float_is_listed(exported: Exported) -> None:
    floats = float_operators(exported.int8["onnxruntime"])
    assert {"Conv", "MatMul", "Log"} <= set(floats.frontend)
    assert {name for name in floats.network if not name.startswith("network.histogram/")} == {
        "network/sigmoid",
        "network/reducemean",
        "network.norm/batchnormalization",
        "network/concat",
        "probabilities",
    }
    whole = float_operators(exported.float32)
    assert "network.stem.1/conv" in whole.network  # the exporter names a folded convolution after its batch norm


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_student_of_the_house_runs_on_integers(name: str, flavour: FlavourName) -> None:
    torch.manual_seed(0)
    frontend = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
    student = build_student(name, 4, 4_000, frontend).eval()
    log_mel = student.log_mel(0.1 * torch.randn(4, 4_000)).detach()
    network = prepare(student.network, log_mel)
    calibrate(network, [log_mel], CalibrationRecipe())
    model = quantized_onnx(student, network, 4_000, flavour)
    layers = check_structure(model, flavour)
    assert layers == len(network.layers())
    if flavour == "onnxruntime":
        optimised = check_optimised(model)
        assert optimised["QLinearConv"] + optimised["QGemm"] == layers
