"""What a target's runtime reads: refusals in one line, and older operator sets that compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgekd.errors import GateError
from edgekd.exporting.operators import check_operators, check_opset, lowered
from edgekd.exporting.targets import list_targets, load_target
from edgekd.exporting.verify import session

if TYPE_CHECKING:
    from tests.export.conftest import Exported

node = onnx.helper.make_node


def model_of(nodes: Sequence[onnx.NodeProto], opset: int = 18, **initialisers: list[int]) -> onnx.ModelProto:
    tensor = onnx.helper.make_tensor_value_info
    constants = [onnx.numpy_helper.from_array(np.array(values), name) for name, values in initialisers.items()]
    graph = onnx.helper.make_graph(
        list(nodes),
        "test",
        [tensor("x", onnx.TensorProto.FLOAT, [2, 3, 4])],
        [tensor("y", onnx.TensorProto.FLOAT, [2, 3, 4])],
        constants,
    )
    domains = {entry.domain for entry in nodes} | {""}
    opsets = [onnx.helper.make_opsetid(domain, opset if domain == "" else 1) for domain in sorted(domains)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_the_operators_of_our_graphs_are_allowed_everywhere(exported: Exported) -> None:
    for target in list_targets():
        check_operators(exported.float32, target)
        for model in exported.int8.values():
            check_operators(model, target)


@pytest.mark.parametrize("target", ["jetson", "jetson-xavier-nx", "jetson-nano"])
def test_an_operator_that_the_runtime_lacks_is_named_with_its_node_and_the_target(target: str) -> None:
    model = model_of([node("Neg", ["x"], ["h"]), node("Det", ["h"], ["y"], name="network.own/det")])
    with pytest.raises(GateError, match=rf"Operator Det \(node 'network.own/det'\).*'{load_target(target).name}'"):
        check_operators(model, load_target(target))


def test_the_same_operator_is_allowed_where_the_runtime_has_it() -> None:
    model = model_of([node("LayerNormalization", ["x", "s"], ["y"], name="norm")], s=[1])
    check_operators(model.SerializeToString(), load_target("jetson"))
    with pytest.raises(GateError, match=r"LayerNormalization .* for TensorRT 8.5"):
        check_operators(model, load_target("jetson-xavier-nx"))


def test_a_target_that_names_no_operators_allows_any() -> None:
    model = model_of([node("Det", ["x"], ["y"])])
    check_operators(model, load_target("cpu").model_copy(update={"operators": ()}))


def test_an_operator_of_a_foreign_domain_is_refused_by_both_checks() -> None:
    model = model_of([node("FusedConv", ["x"], ["y"], domain="com.microsoft", name="own")])
    with pytest.raises(GateError, match=r"Operator com.microsoft.FusedConv \(node 'own'\)"):
        check_operators(model, load_target("cpu"))
    with pytest.raises(GateError, match=r"operators of 'com.microsoft'"):
        check_opset(model, load_target("cpu"))


def test_a_graph_newer_than_the_target_reads_is_refused(exported: Exported) -> None:
    check_opset(exported.float32, load_target("jetson"))
    with pytest.raises(GateError, match=r"opset 20; target 'jetson-xavier-nx' reads up to 17"):
        check_opset(exported.float32, load_target("jetson-xavier-nx"))


@pytest.mark.parametrize("opset", [19, 18, 17, 13])
@pytest.mark.parametrize("form", ["float32", "tensorrt", "onnxruntime"])
def test_a_lowered_graph_says_what_it_said(exported: Exported, form: str, opset: int) -> None:
    whole = exported.float32 if form == "float32" else exported.int8[form]  # type: ignore[index]
    model = onnx.load_from_string(whole)
    older = lowered(model, opset)
    assert older.opset_import[0].version == min(opset, model.opset_import[0].version)
    assert [entry.name for entry in older.graph.node] == [entry.name for entry in model.graph.node]
    runtimes = (session(whole), session(older.SerializeToString()))
    name = model.graph.input[0].name
    before, after = (runtime.run(None, {name: exported.waveforms[:4].numpy()})[0] for runtime in runtimes)
    np.testing.assert_array_equal(before, after)


def test_below_opset_18_axes_are_attributes_which_older_parsers_read(exported: Exported) -> None:
    older = lowered(onnx.load_from_string(exported.float32), 17)
    means = [entry for entry in older.graph.node if entry.op_type == "ReduceMean"]
    assert means
    for mean in means:
        assert len(mean.input) == 1
        assert "axes" in {attribute.name for attribute in mean.attribute}
    assert older.ir_version < onnx.load_from_string(exported.float32).ir_version


def test_a_graph_that_is_old_enough_is_left_as_it_is() -> None:
    model = model_of([node("Neg", ["x"], ["y"])], opset=13)
    assert lowered(model, 17) is model


def test_what_an_older_set_cannot_say_is_refused() -> None:
    with pytest.raises(GateError, match=r"cannot be written in opset 17.*GroupNormalization"):
        lowered(model_of([node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=1)], s=[1], b=[1]), 17)
    computed = [node("Shape", ["x"], ["axes"]), node("ReduceMean", ["x", "axes"], ["y"], name="mean")]
    with pytest.raises(GateError, match=r"ReduceMean 'mean' computes its axes"):
        lowered(model_of(computed), 17)
    empty = [node("Reshape", ["x", "to"], ["y"], allowzero=1, name="reshape")]
    with pytest.raises(GateError, match=r"Reshape 'reshape' may make an empty tensor"):
        lowered(model_of(empty, to=[0, 0, 24]), 13)
