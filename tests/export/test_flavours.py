"""The structural gate: good models pass, each way of being wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.errors import GateError
from edgekd.export.flavours import check_structure
from edgekd.quantization.fake_quant import FLAVOURS, FlavourName

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
