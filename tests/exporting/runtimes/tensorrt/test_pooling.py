"""Pooling over inputs that are no neighbours is refused before an export is written."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto, helper

from edgekd.errors import GateError
from edgekd.exporting.runtimes.tensorrt.pooling import check_pooling


def pool(operator: str, dilation: int) -> ModelProto:
    node = helper.make_node(
        operator, ["x"], ["y"], name="network.pool/pool", kernel_shape=[2, 2], dilations=[dilation, 1]
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, None]) for name in "xy"]
    values[0].type.tensor_type.shape.dim[3].dim_value = 8
    values[1].type.tensor_type.ClearField("shape")
    graph = helper.make_graph([node], "pool", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_dilated_pooling_is_refused_by_the_name_of_its_node(operator: str) -> None:
    check_pooling(pool(operator, 1))
    with pytest.raises(GateError, match=rf"{operator} 'network.pool/pool' has dilations \(2, 1\)"):
        check_pooling(pool(operator, 2).SerializeToString())


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_nvidias_parser_says_the_same(operator: str) -> None:
    rtx = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgekd[rtx]'"
    )
    logger = rtx.Logger(rtx.Logger.INTERNAL_ERROR)
    builder = rtx.Builder(logger)
    for dilation in (1, 2):
        network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        taken = rtx.OnnxParser(network, logger).parse(pool(operator, dilation).SerializeToString())
        assert bool(taken) == (dilation == 1)
