"""What an inspector tells of layers, in the forms that TensorRT's releases have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgekd.device.runner.engine_layers import layer_types

NAMES = ("stem.0/conv", "stem.0/conv_2", "classifier/gemm")
UNTYPED = '{"Layers": [{"Name": "stem.0/conv", "Inputs": [{"Name": "x"}]}]}'


def information(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["waveform"]})


def layer(name: str, told: dict[str, str], kind: str = "CaskConvolution", metadata: str = "") -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": [{"Name": "x", **told}], "Metadata": metadata}


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"Format/Datatype": "Int8"}, "int8"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "int8"),
        ({"Datatype": "Int8", "Format": "Row major linear"}, "int8"),
        ({"Format/Datatype": "Row major linear FP32"}, "float"),
        ({"Datatype": "Half"}, "float"),
    ],
)
def test_the_type_is_that_of_what_a_layer_reads(told: dict[str, str], kind: str) -> None:
    assert layer_types(information(layer("stem.0/conv", told)), NAMES) == {"stem.0/conv": kind}


def test_a_layer_is_known_by_its_own_name_whatever_is_joined_or_appended_to_it() -> None:
    joined = layer("stem.0.weight + stem.0/conv + stem.2/relu", {"Datatype": "Int8"})
    appended = layer("stem.0/conv_2_U104_myl0_11", {"Datatype": "Float"})
    assert layer_types(information(joined, appended), NAMES) == {"stem.0/conv": "int8", "stem.0/conv_2": "float"}


def test_a_layer_without_such_a_name_is_known_by_the_nodes_it_lists_where_it_multiplies() -> None:
    nodes = "[ONNX Layer: classifier/gemm][ONNX Layer: concat_rounded]"
    scales = layer("__myl_MulAdd_myl0_3", {"Datatype": "Float"}, "kgen", nodes)
    product = layer("fused_7", {"Datatype": "Int8"}, "gemm", nodes)
    assert layer_types(information(scales, product), NAMES) == {"classifier/gemm": "int8"}
    assert layer_types(information(scales), NAMES) == {}, "its scales are floats, and tell nothing"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"Layers": ["a", 3]}', '{"Layers": [{"Name": "stem.0/conv"}]}', '{"Layers": 3}', UNTYPED]
)
def test_what_tells_nothing_is_no_float_layer(text: str) -> None:
    assert layer_types(text, NAMES) == {}
