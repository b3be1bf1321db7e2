"""Where time goes: layers have the names, MACs and precisions that their author gave them, the slow ones first."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.exporting.cost import graph_cost
from edgekd.profiling import layers
from edgekd.profiling.layers import BETWEEN, engine_layers, onnx_layers, torch_layers, trtexec_layers

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


def convolutions() -> onnx.ModelProto:
    """Two convolutions with ReLUs, which are fused, and a classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="stem/relu"),
        helper.make_node("Conv", ["b", "v"], ["c"], name="body/conv"),
        helper.make_node("Relu", ["c"], ["d"], name="body/relu"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "u"], ["y"], name="classifier/gemm"),
    ]
    weights = {"w": floats(16, 3, 3, 3), "v": floats(32, 16, 1, 1), "u": floats(32, 4)}
    return model_of(nodes, [1, 3, 20, 20], **weights)


def test_fused_operators_have_the_name_and_the_macs_of_their_layer() -> None:
    model = convolutions()
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


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(tmp_path)
    onnx_layers(convolutions().SerializeToString(), {"x": floats(1, 3, 20, 20)}, 2)
    assert [path.name for path in tmp_path.rglob("*")] == ["tmp"]


# PyTorch


class Sleeps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.003)
        return x + 1


class Model(nn.Module):
    """A layer that is used twice, a slow one, containers, and work of its own."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.body = nn.Sequential(nn.Tanh(), nn.Sequential(Sleeps()))
        self.pause = pause

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(self.first(self.first(x)))
        time.sleep(self.pause)
        return hidden * 2


def test_a_slow_module_is_first_and_containers_are_none() -> None:
    found = torch_layers(Model().eval(), torch.zeros(1, 8), runs=5)
    assert found[0].name == "body.1.0"
    assert found[0].operator == "Sleeps"
    assert found[0].ms >= 3
    assert {layer.name for layer in found} == {"first", "body.0", "body.1.0", BETWEEN}
    assert sum(layer.share for layer in found) == pytest.approx(1)


def test_what_a_module_computes_between_its_layers_is_its_own_line() -> None:
    found = torch_layers(Model(pause=0.02).eval(), torch.zeros(1, 8), runs=5)
    assert (found[0].name, found[0].operator) == (BETWEEN, "Model")
    assert found[0].ms >= 20
    assert next(layer for layer in found if layer.name == "body.1.0").ms < 20


def test_macs_outputs_and_precision_of_modules() -> None:
    model = Model().eval()
    found = {layer.name: layer for layer in torch_layers(model, torch.zeros(3, 8), runs=1)}
    assert found["first"].macs == 2 * 3 * 8 * 8  # it is called twice
    assert found["body.0"].macs is None
    assert (found["first"].output_bytes, found["first"].precision) == (3 * 8 * 4, "float32")
    half = {layer.name: layer for layer in torch_layers(nn.Sequential(nn.Tanh()), torch.zeros(8).bfloat16(), runs=1)}
    assert half["0"].precision == "bfloat16"
    assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in model.modules())


def test_attention_whose_parts_are_not_called_as_modules_is_a_layer() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x + 1)[0]

    found = {layer.name: layer for layer in torch_layers(Own().eval(), torch.zeros(1, 5, 8), runs=1)}
    assert found["attention"].macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8


# TensorRT

PROFILE = """[
  { "count" : 812 }
, { "name" : "stem/conv + stem/relu", "timeMs" : 8.12, "averageMs" : 0.01, "medianMs" : 0.0099, "percentage" : 10 }
, { "name" : "body/conv + body/relu", "timeMs" : 64.96, "averageMs" : 0.08, "medianMs" : 0.08, "percentage" : 80 }
, { "name" : "Reformatting CopyNode for Input Tensor 0", "timeMs" : 8.12, "averageMs" : 0.01, "percentage" : 10 }
]
"""
INFO: dict[str, Any] = {
    "Layers": [
        {
            "Name": "stem/conv + stem/relu",
            "LayerType": "CaskConvolution",
            "Outputs": [{"Name": "b", "Dimensions": [1, 16, 20, 20], "Format/Datatype": "Half"}],
        },
        {
            "Name": "body/conv + body/relu",
            "LayerType": "CaskConvolution",
            "Outputs": [
                {
                    "Name": "d",
                    "Dimensions": [1, 32, 20, 20],
                    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
                }
            ],
        },
    ],
    "Bindings": ["x", "y"],
}


def test_trtexecs_profile_is_read_with_what_it_tells_of_the_layers() -> None:
    found = trtexec_layers(PROFILE, json.dumps(INFO), convolutions().SerializeToString())
    assert (found[0].name, found[0].ms, found[0].share) == ("body/conv + body/relu", 0.08, pytest.approx(0.8))
    assert (found[0].operator, found[0].precision, found[0].output_bytes) == ("CaskConvolution", "int8", 32 * 400)
    assert found[0].macs == 32 * 20 * 20 * 16
    stem = next(layer for layer in found if layer.name.startswith("stem"))
    assert (stem.precision, stem.output_bytes) == ("float16", 2 * 16 * 400)


def test_an_engine_that_tells_names_only_is_read_too() -> None:
    found = trtexec_layers(PROFILE, json.dumps({"Layers": ["stem/conv + stem/relu"], "Bindings": []}))
    assert len(found) == 3
    assert {(layer.operator, layer.precision, layer.macs) for layer in found} == {("", None, None)}


@pytest.mark.parametrize("text", ["", "{}[", '["a"]', '[{"averageMs": 1}]', "3"])
def test_what_is_no_profile_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="not the JSON that --exportProfile writes"):
        trtexec_layers(text)


@pytest.fixture
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in on PATH that knows these options only, and writes a profile; returns the log of its arguments."""
    log = tmp_path / "calls"
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    cases = "\n".join(
        [
            f"--loadEngine={tmp_path}/model.engine|--dumpProfile|--separateProfileRun) ;;",
            f"--exportProfile=*) printf '%s' '{PROFILE}' >\"${{argument#*=}}\" ;;",
            f"--exportLayerInfo=*) printf '%s' '{json.dumps(INFO)}' >\"${{argument#*=}}\" ;;",
            '*) echo "[01/01/2026-00:00:00] [E] Unknown option: $argument"; exit 1 ;;',
        ]
    )
    program.write_text(f'#!/bin/sh\necho "$@" >{log}\nfor argument; do case $argument in\n{cases}\nesac; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(layers, "TRTEXEC", tmp_path / "absent" / "trtexec")
    return log


def test_an_engine_is_profiled_by_trtexec(trtexec: Path, tmp_path: Path) -> None:
    found = engine_layers(tmp_path / "model.engine")
    assert [layer.precision for layer in found[:1]] == ["int8"]
    assert trtexec.read_text().split()[1:] == [
        "--exportProfile=profile.json",
        "--exportLayerInfo=layers.json",
        "--dumpProfile",
        "--separateProfileRun",
    ]


def test_trtexecs_own_error_is_passed_on(trtexec: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other\.engine: trtexec cannot run it: Unknown option: --loadEngine"):
        engine_layers(tmp_path / "other.engine")


def test_without_trtexec_the_error_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(layers, "TRTEXEC", tmp_path / "absent" / "trtexec")
    with pytest.raises(InputError, match=r"no trtexec in .*absent or on PATH.*leave --layers out"):
        engine_layers(tmp_path / "model.engine")
