"""In which floating-point types a graph computes, checked against the precision that it is to have.

TensorRT 10 and later take the types in a graph as binding: a layer that was left in float32 by mistake is slow and says
nothing, a log-mel in float16 is wrong. So

- *fp16*: every layer after the front end takes and gives float16, and the front end float32, as does what tells whether
  a clip is known;
- *fp32*, and what *int8* leaves in float: float32, and no float16 anywhere;
- sound comes in and probabilities go out as float32.

A sum or a softmax of an fp16 graph may be in float32, between Casts: only layers are asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.errors import GateError
from edgekd.exporting.graph import FRONT_END, KNOWN

if TYPE_CHECKING:
    import onnx

    from edgekd.exporting.targets import Precision

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "GRU", "LSTM", "RNN")
_WHAT_TO_DO = "This is a fault of the export, not of the run: please report it with the model."


def check_float_types(model: onnx.ModelProto | bytes, precision: Precision) -> None:
    """Raise `GateError` naming the first node or tensor of `model` in another type than `precision` means."""
    import onnx
    from onnx import TensorProto

    known = onnx.load_from_string(model) if isinstance(model, bytes) else model
    graph = onnx.shape_inference.infer_shapes(known).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)
    }
    for value in (*graph.input, *graph.output):
        if types[value.name] != TensorProto.FLOAT:
            raise GateError(f"Tensor '{value.name}' goes in or out in another type than float32. {_WHAT_TO_DO}")
    for node in graph.node:
        inside = not node.name.startswith(FRONT_END)
        touched = {types.get(name) for name in (*node.input, *node.output)}
        if (
            precision == "fp16"
            and inside
            and not node.name.startswith(KNOWN)
            and node.op_type in _LAYERS
            and TensorProto.FLOAT in touched
        ):
            raise GateError(f"{node.op_type} '{node.name}' of an fp16 graph computes in float32. {_WHAT_TO_DO}")
        if TensorProto.FLOAT16 in touched and not (precision == "fp16" and inside):
            what = (
                "the front end" if precision == "fp16" else f"{'an' if precision == 'int8' else 'a'} {precision} graph"
            )
            raise GateError(f"{node.op_type} '{node.name}' of {what} computes in float16. {_WHAT_TO_DO}")
