"""What all layers of a report have in common."""

from __future__ import annotations

import onnx

from edgekd.exporting.cost import graph_cost
from edgekd.profiling.layers import LayerTime, macs_of, slowest_first, with_own_names


def test_the_slowest_is_first_and_shares_add_up() -> None:
    found = slowest_first({"a": LayerTime("Conv", 1.0, macs=5), "b": LayerTime("Relu", 3.0)})
    assert [(layer.name, layer.ms, layer.share, layer.macs) for layer in found] == [
        ("b", 3.0, 0.75, None),
        ("a", 1.0, 0.25, 5),
    ]
    assert slowest_first({}) == ()
    assert slowest_first({"idle": LayerTime("Identity")})[0].share == 0


def test_nodes_keep_the_names_they_have_and_get_those_they_lack(convolutions: onnx.ModelProto) -> None:
    named = onnx.ModelProto()
    named.CopyFrom(convolutions)
    named.graph.node[1].name = ""
    named.graph.node[3].name = named.graph.node[0].name
    names = [node.name for node in with_own_names(named).graph.node]
    assert names == ["stem/conv", "Relu_1", "body/conv", "Relu_3", "pool", "flat", "classifier/gemm"]


def test_macs_are_told_by_node_or_not_at_all(convolutions: onnx.ModelProto) -> None:
    found = macs_of(convolutions)
    assert set(found) == {"stem/conv", "body/conv", "classifier/gemm"}
    assert sum(found.values()) == graph_cost(convolutions).macs
    unknown = onnx.ModelProto()
    unknown.CopyFrom(convolutions)
    unknown.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert macs_of(unknown) == {}
