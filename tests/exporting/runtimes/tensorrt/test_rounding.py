"""Rounding that TensorRT's parser takes for another: found by the name of the tensor, before the parser sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.exporting.runtimes.tensorrt.engine import Refused, parsed_network
from edgekd.exporting.runtimes.tensorrt.rounding import clipped_rounding

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported


def rounding(point: np.generic | None, *, as_node: bool = False, **attributes: int) -> onnx.ModelProto:
    """`x` rounded, in steps of 0.1 about `point`, None for a graph that does not name one."""
    stored = [numpy_helper.from_array(np.array(0.1, np.float32), "step")]
    points = [] if point is None else ["point"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", *points], ["q"], name="round", **attributes),
        helper.make_node("DequantizeLinear", ["q", "step", *points], ["y"]),
    ]
    if point is not None:
        tensor = numpy_helper.from_array(np.array(point), "point")
        if as_node:
            nodes.insert(0, helper.make_node("Constant", [], ["point"], value=tensor))
        else:
            stored.append(tensor)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    return helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], stored),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )


@pytest.mark.parametrize(
    "model",
    [
        rounding(np.uint8(0)),
        rounding(np.uint8(0), as_node=True),
        rounding(None),  # uint8 by the standard
        rounding(None, output_dtype=TensorProto.UINT8),
    ],
)
def test_rounding_to_uint8_is_named_by_its_tensor(model: onnx.ModelProto) -> None:
    assert "tensor 'x' is rounded to uint8 (QuantizeLinear 'round')" in (clipped_rounding(model) or "")
    with pytest.raises(Refused, match="tensor 'x' is rounded to uint8"):
        parsed_network(None, (11,), model.SerializeToString())  # TensorRT itself is not asked


@pytest.mark.parametrize("model", [rounding(np.int8(0)), rounding(None, output_dtype=TensorProto.INT8)])
def test_rounding_to_int8_is_as_told(model: onnx.ModelProto) -> None:
    assert clipped_rounding(model) is None


def test_of_our_flavours_one_would_be_clipped(exported: Exported) -> None:
    found = {name: clipped_rounding(onnx.load_from_string(model)) for name, model in exported.int8.items()}
    assert found["tensorrt"] is None
    assert "is rounded to uint8" in (found["onnxruntime"] or "")
    assert clipped_rounding(onnx.load_from_string(exported.float32)) is None


def test_nvidias_parser_takes_what_it_would_clip() -> None:
    """What this guards against: should it ever be refused there, this module can go."""
    rtx = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgekd[rtx]'"
    )
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    for model in (rounding(np.uint8(0)), rounding(None)):
        network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        assert rtx.OnnxParser(network, logger).parse(model.SerializeToString())
        kinds = [network.get_layer(place).get_output(0).dtype for place in range(network.num_layers)]
        assert rtx.DataType.INT8 in kinds and rtx.DataType.UINT8 not in kinds
