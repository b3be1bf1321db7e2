"""Graphs that TensorRT builds in the types that they have: each precision is what it says, and agrees with float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from edgekd.errors import GateError
from edgekd.exporting.float_types import check_float_types
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.qdq_checks import check_structure
from edgekd.exporting.targets import Precision, load_target

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported

ORIN = load_target("jetson-agx-orin")  # strongly typed: there are no flags to put a graph's types right


@pytest.fixture(scope="module")
def half(exported: Exported) -> onnx.ModelProto:
    return onnx.load_from_string(onnx_of(exported.deployable("fp16"), "tensorrt", Form.of(ORIN)))


def scores(graph: bytes, exported: Exported) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"waveform": clip[None]})[0] for clip in exported.waveforms.numpy()])


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_what_a_strongly_typed_release_builds_agrees_with_the_float_student(
    exported: Exported, half: onnx.ModelProto, precision: Precision
) -> None:
    deployable = exported.deployable(precision)
    graphs = {"int8": exported.int8["tensorrt"], "fp16": half.SerializeToString(), "fp32": exported.float32}
    graph = graphs[precision]
    check_float_types(graph, precision)
    if precision == "int8":
        assert check_structure(graph, "tensorrt", deployable.float_layers) == 6
    expected = deployable.trained("tensorrt")(exported.waveforms).numpy()
    found = scores(graph, exported)
    assert abs(found - expected).max() < (1e-4 if precision == "fp32" else 0.01)
    assert abs(found - expected).max() <= ORIN.tolerance.probability
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= ORIN.tolerance.agreement


def test_float16_begins_with_one_cast_after_the_front_end_and_is_all_of_the_layers(half: onnx.ModelProto) -> None:
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    layers = [node for node in half.graph.node if node.op_type in ("Conv", "Gemm") and "frontend/" not in node.name]
    assert len(layers) == 6
    assert all(stored[name].data_type == TensorProto.FLOAT16 for node in layers for name in node.input[1:])
    casts = [node.attribute[0].i for node in half.graph.node if node.op_type == "Cast"]
    assert casts[0] == TensorProto.FLOAT16
    assert casts[-1] == TensorProto.FLOAT


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_float16_in_another_precision_is_named(half: onnx.ModelProto, precision: Precision) -> None:
    with pytest.raises(GateError, match=rf"Cast 'network/cast' of an? {precision} graph computes in float16"):
        check_float_types(half, precision)


def test_a_layer_left_in_float32_is_named(half: onnx.ModelProto) -> None:
    copied = onnx.ModelProto.FromString(half.SerializeToString())
    (layer,) = (node for node in copied.graph.node if node.name == "network.expand/conv")
    place = list(copied.graph.node).index(layer)
    for tensor in copied.graph.initializer:
        if tensor.name in layer.input[1:]:
            floats = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(floats, tensor.name))
    node = onnx.helper.make_node
    before = node("Cast", [layer.input[0]], ["network/up"], "network/up", to=TensorProto.FLOAT)
    after = node("Cast", ["network/wide"], [layer.output[0]], "network/down", to=TensorProto.FLOAT16)
    layer.input[0], layer.output[0] = "network/up", "network/wide"
    copied.graph.node.insert(place + 1, after)
    copied.graph.node.insert(place, before)
    onnx.checker.check_model(copied, full_check=True)
    with pytest.raises(GateError, match=r"Conv 'network\.expand/conv' of an fp16 graph computes in float32"):
        check_float_types(copied, "fp16")


def test_a_front_end_in_float16_is_named(half: onnx.ModelProto) -> None:
    copied = onnx.ModelProto.FromString(half.SerializeToString())
    for node in copied.graph.node:
        if node.name == "network/cast":
            node.name = "frontend/cast"
    with pytest.raises(GateError, match=r"Cast 'frontend/cast' of the front end computes in float16"):
        check_float_types(copied, "fp16")


def test_probabilities_in_float16_are_named() -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["waveform"], ["probabilities"], to=TensorProto.FLOAT16)],
        "test",
        [value("waveform", TensorProto.FLOAT, [1, 9])],
        [value("probabilities", TensorProto.FLOAT16, [1, 9])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(GateError, match="Tensor 'probabilities' goes in or out in another type than float32"):
        check_float_types(model, "fp16")
