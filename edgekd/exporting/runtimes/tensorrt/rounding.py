"""What TensorRT would round otherwise than the graph says: to uint8, which its parser takes for int8.

    QuantizeLinear with a uint8 zero point 0     taken with a warning
    QuantizeLinear without a zero point          taken without one; the standard says uint8

An activation from 0 to 255 steps is then clipped at 127, half its range, and no error says so. Any other zero point the
parser refuses itself. Seen in TensorRT for RTX 1.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

PROVIDERS = ("TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
"""Through which ONNX Runtime hands a graph to TensorRT."""


def clipped_rounding(model: onnx.ModelProto) -> str | None:
    """Why TensorRT must not have `model`, naming the first tensor that it would clip; None where it rounds as told."""
    from onnx import TensorProto

    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {
        node.output[0]: attribute.t.data_type
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        told = next((attribute.i for attribute in node.attribute if attribute.name == "output_dtype"), 0)
        point = node.input[2] if len(node.input) > 2 else ""
        kind = types.get(point, TensorProto.UNDEFINED) if point else told or TensorProto.UINT8
        if kind == TensorProto.UINT8:
            return (
                f"tensor '{node.input[0]}' is rounded to uint8 (QuantizeLinear '{node.name or node.output[0]}'), which"
                " TensorRT takes for int8 and clips at half its range"
            )
    return None
