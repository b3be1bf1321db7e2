"""Costs of graphs against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.exporting.cost import activation_bytes, graph_cost, graph_traffic, split_at_log_mel

node = onnx.helper.make_node


def model_of(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    outputs: Sequence[int | str],
    **initialisers: np.ndarray[Any, Any],
) -> onnx.ModelProto:
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        list(nodes),
        "test",
        [tensor("x", onnx.TensorProto.FLOAT, shape)],
        [tensor("y", onnx.TensorProto.FLOAT, outputs)],
        [onnx.numpy_helper.from_array(array, name) for name, array in initialisers.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_a_grouped_strided_convolution_counts_its_own_channels_only() -> None:
    convolution = node("Conv", ["x", "w", "b"], ["y"], group=4, strides=[2, 2], pads=[1, 1, 1, 1])
    weight, bias = np.zeros((12, 2, 3, 3), np.float32), np.zeros(12, np.float32)
    cost = graph_cost(model_of([convolution], ["batch", 8, 10, 10], ["batch", 12, 5, 5], w=weight, b=bias))
    assert cost.macs == (12 * 5 * 5) * (2 * 3 * 3)
    assert cost.parameters == 12 * 2 * 9 + 12
    assert cost.parameter_bytes == 4 * cost.parameters


def test_matrix_products_count_their_inner_dimension() -> None:
    nodes = [
        node("MatMul", ["x", "a"], ["h"]),  # (1, 6, 5) x (5, 7)
        node("Flatten", ["h"], ["f"]),
        node("Gemm", ["f", "b"], ["y"], transB=1),  # (1, 42) x (3, 42)^T
    ]
    weights = {"a": np.zeros((5, 7), np.float32), "b": np.zeros((3, 42), np.float32)}
    assert graph_cost(model_of(nodes, ["batch", 6, 5], ["batch", 3], **weights)).macs == 6 * 5 * 7 + 42 * 3


def test_int8_weights_count_like_float_ones_and_store_a_quarter() -> None:
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0),
        node("Conv", ["x", "v"], ["y"]),
    ]
    weight = {"w": np.zeros((4, 3, 1, 1), np.int8), "s": np.ones(4, np.float32), "z": np.zeros(4, np.int8)}
    cost = graph_cost(model_of(nodes, [1, 3, 5, 5], [1, 4, 5, 5], **weight))
    assert (cost.macs, cost.parameters, cost.parameter_bytes) == (4 * 25 * 3, 12, 12)


def test_a_shape_that_does_not_follow_from_the_input_is_said_not_guessed() -> None:
    product = node("MatMul", ["x", "a"], ["y"], name="product")
    with pytest.raises(ValueError, match="'product'"):
        graph_cost(model_of([product], ["batch", "frames", 5], ["batch", "frames", 7], a=np.zeros((5, 7), np.float32)))


def test_a_graph_without_a_log_mel_is_not_split() -> None:
    negative = node("Neg", ["x"], ["y"])
    assert split_at_log_mel(model_of([negative], ["batch", 4], ["batch", 4])) is None


def test_a_value_is_held_until_its_last_use_and_no_longer() -> None:
    nodes = [
        node("MatMul", ["x", "wide"], ["a"]),  # 100 floats, beside the 10 of x
        node("MatMul", ["a", "narrow"], ["b"]),  # 10 more; x is still needed
        node("Add", ["b", "x"], ["y"]),  # 10 + 10 + 10
    ]
    weights = {"wide": np.zeros((10, 100), np.float32), "narrow": np.zeros((100, 10), np.float32)}
    assert activation_bytes(model_of(nodes, ["batch", 10], ["batch", 10], **weights)) == 4 * (100 + 10 + 10)


def test_reshapes_and_the_relu_after_a_layer_take_no_memory() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Reshape", ["b", "to"], ["y"]),
    ]
    weights = {"w": np.zeros((10, 30), np.float32), "to": np.array([1, 3, 10], np.int64)}
    assert activation_bytes(model_of(nodes, ["batch", 10], ["batch", 3, 10], **weights)) == 4 * (10 + 30)


def rounded(name: str, source: str) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear: `source` -> `name`."""
    return [
        node("QuantizeLinear", [source, "s", "z"], [f"{name}_int8"]),
        node("DequantizeLinear", [f"{name}_int8", "s", "z"], [name]),
    ]


SCALE = {"s": np.float32(1).reshape(()), "z": np.int8(0).reshape(())}


def test_between_rounding_and_rounding_a_value_takes_a_byte() -> None:
    nodes = [
        *rounded("a", "x"),  # 10 floats become 10 bytes
        node("MatMul", ["a", "w"], ["b"]),
        node("Relu", ["b"], ["c"]),
        *rounded("d", "c"),  # the layer writes 200 bytes, never 200 floats
        node("MatMul", ["d", "v"], ["e"]),
        *rounded("y", "e"),
    ]
    weights = {"w": np.zeros((10, 200), np.float32), "v": np.zeros((200, 5), np.float32), **SCALE}
    assert activation_bytes(model_of(nodes, ["batch", 10], ["batch", 5], **weights)) == 10 + 200


def test_a_float_value_that_is_used_as_such_too_is_held_as_float() -> None:
    nodes = [
        *rounded("a", "x"),
        node("MatMul", ["a", "w"], ["b"]),
        *rounded("c", "b"),
        node("Add", ["b", "c"], ["y"]),  # b in float, and its rounded copy, and the sum
    ]
    weights = {"w": np.zeros((10, 100), np.float32), **SCALE}
    assert activation_bytes(model_of(nodes, ["batch", 10], ["batch", 100], **weights)) == 400 + 100 + 400


def test_a_shape_without_a_number_has_no_activation_bytes() -> None:
    nodes = [node("Neg", ["x"], ["h"]), node("ReduceSum", ["h"], ["y"])]
    with pytest.raises(ValueError, match="does not follow"):
        activation_bytes(model_of(nodes, ["batch", "frames"], ["batch", 1]))


def test_traffic_is_what_each_operator_reads_and_writes_and_views_are_free() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),  # 10 and 300 in, 30 out
        node("Relu", ["a"], ["b"]),  # done by the product
        node("Mul", ["b", "b"], ["c"]),  # 30 in, once, 30 out
        node("Reshape", ["c", "to"], ["y"]),
    ]
    weights = {"w": np.zeros((10, 30), np.float32), "to": np.array([1, 3, 10], np.int64)}
    model = model_of(nodes, ["batch", 10], ["batch", 3, 10], **weights)
    assert graph_traffic(model) == 4 * (10 + 300 + 30 + 30 + 30)


def test_between_rounding_and_rounding_only_integers_are_moved() -> None:
    nodes = [
        *rounded("a", "x"),  # 10 floats in, 10 bytes out, and a scale and a zero point
        node("DequantizeLinear", ["stored", "s", "z"], ["w"]),  # a weight, read as the 2000 bytes it is stored as
        node("MatMul", ["a", "w"], ["b"]),  # 10 bytes in, 200 bytes out
        node("Relu", ["b"], ["c"]),
        *rounded("y", "c"),
    ]
    model = model_of(nodes, ["batch", 10], ["batch", 200], stored=np.zeros((10, 200), np.int8), **SCALE)
    assert graph_traffic(model) == (4 * 10 + 4 + 1 + 10) + (10 + 2000 + 200)
