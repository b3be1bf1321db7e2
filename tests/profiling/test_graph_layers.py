"""Layers of a graph have the names, MACs and precisions that their author gave them, the slow ones first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.exporting.cost import graph_cost
from edgekd.profiling.graph_layers import onnx_layers

LAYERS = ("stem/conv", "body/conv", "classifier/gemm")  # of `convolutions`
RANDOM = np.random.default_rng(0)


def model_of(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int | str], **stored: np.ndarray[Any, Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_fused_operators_have_the_name_and_the_macs_of_their_layer(convolutions: onnx.ModelProto) -> None:
    model = convolutions
    found = {layer.name: layer for layer in onnx_layers(model.SerializeToString(), {"x": floats(1, 3, 20, 20)}, 5)}
    assert found["stem/conv"].macs == 16 * 20 * 20 * 27
    assert found["body/conv"].macs == 32 * 20 * 20 * 16
    assert found["classifier/gemm"].macs == 32 * 4
    assert "stem/relu" not in found
    assert sum(layer.macs or 0 for layer in found.values()) == graph_cost(model).macs
    assert {found[name].precision for name in LAYERS} == {"float32"}
    assert found["stem/conv"].output_bytes == 4 * 16 * 20 * 20
    assert {name for name in found if " after " not in name} == {*LAYERS, "pool", "flat"}


def test_int8_layers_are_told_from_float_ones() -> None:
    rounding = {"s": np.float32(0.05).reshape(()), "z": np.uint8(128).reshape(()), "t": np.int8(0).reshape(())}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="in/quantized"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"], name="in/rounded"),
        helper.make_node("DequantizeLinear", ["w", "s", "t"], ["v"], name="weight"),
        helper.make_node("Conv", ["r", "v"], ["a"], name="layer/conv"),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["p"], name="layer/quantized"),
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["o"], name="layer/rounded"),
        helper.make_node("Exp", ["o"], ["y"], name="after/exp"),
    ]
    weight = RANDOM.integers(-20, 20, (8, 3, 1, 1)).astype(np.int8)
    model = model_of(nodes, ["batch", 3, 9, 9], w=weight, **rounding)
    found = {layer.name: layer for layer in onnx_layers(model.SerializeToString(), {"x": floats(1, 3, 9, 9)}, 5)}
    assert (found["layer/conv"].operator, found["layer/conv"].precision) == ("QLinearConv", "int8")
    assert found["layer/conv"].macs == 8 * 81 * 3
    assert found["after/exp"].precision == "float32"


def test_the_slow_layer_is_first_and_shares_add_up() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="wide"),
        helper.make_node("MatMul", ["a", "v"], ["b"], name="narrow"),
        helper.make_node("Neg", ["b"], ["y"], name="sign"),
    ]
    model = model_of(nodes, ["batch", 1000], w=floats(1000, 2000), v=floats(2000, 2)).SerializeToString()
    found = onnx_layers(model, {"x": floats(1, 1000)}, 20)
    assert [found[0].name, {layer.name for layer in found[1:]}] == ["wide", {"narrow", "sign"}]
    assert [layer.ms for layer in found] == sorted((layer.ms for layer in found), reverse=True)
    assert sum(layer.share for layer in found) == pytest.approx(1)


def test_graphs_from_elsewhere_without_names_and_shapes_are_measured_too() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"], name="same"),
        helper.make_node("Neg", ["b"], ["y"], name="same"),
    ]
    model = model_of(nodes, ["batch", "frames", 8], w=floats(8, 5)).SerializeToString()
    found = {layer.name: layer for layer in onnx_layers(model, {"x": floats(1, 7, 8)}, 3)}
    assert set(found) == {"MatMul_0", "same", "Neg_2"}
    assert found["MatMul_0"].macs is None  # of how many frames, only a run knows


def test_nothing_is_left_behind(convolutions: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    onnx_layers(convolutions.SerializeToString(), {"x": floats(1, 3, 20, 20)}, 2)
    assert [path.name for path in tmp_path.rglob("*")] == ["tmp"]
