"""Pooling that TensorRT does not have, over inputs that are no neighbours: its parser refuses dilations but 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.errors import GateError

if TYPE_CHECKING:
    import onnx

_POOLS = ("AveragePool", "LpPool", "MaxPool")


def check_pooling(model: onnx.ModelProto | bytes) -> None:
    """Raise `GateError` naming the first pooling of `model` that is dilated."""
    import onnx

    graph = (onnx.load_model_from_string(model) if isinstance(model, bytes) else model).graph
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type in _POOLS and attribute.name == "dilations" and any(step != 1 for step in attribute.ints):
                raise GateError(
                    f"{node.op_type} '{node.name}' has dilations {tuple(attribute.ints)}, and TensorRT pools neighbours"
                    " only. Build the student with a pooling of dilation 1."
                )
