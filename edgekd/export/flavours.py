"""Is a quantised graph what its runtime needs? The structure of a Q/DQ model, checked against its flavour.

A runtime runs an operator on integers only where it finds it between DequantizeLinear and QuantizeLinear in the form
that it knows; anything else falls back to float32 without a word, slower and with other numbers. So every exported
int8 model passes `check_structure` before it is run:

- each convolution and matrix product with a stored weight takes a rounded activation and an int8 weight with one scale
for
  each output channel (axis 0) and zero point 0;
- its output goes, at most through a ReLU, to a QuantizeLinear; only the logits may stay in float;
- a max-pool on a rounded activation gives one with the same scale;
- types and zero points of activations, and the type of the bias, are the flavour's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.errors import GateError
from edgekd.quantization.fake_quant import FLAVOURS, Flavour, FlavourName

if TYPE_CHECKING:
    import numpy as np
    import onnx

_LAYERS = ("Conv", "Gemm")
_WHAT_TO_DO = "This is a fault of the export, not of the run: please report it with the model."


def check_structure(model_bytes: bytes, flavour: FlavourName) -> int:
    """Raise `GateError` naming the first operator that its runtime could not run on integers.

    Returns the number of convolutions and matrix products that it can.
    """
    import onnx

    graph = _Graph(onnx.load_from_string(model_bytes).graph)
    layers = [node for node in graph.nodes if node.op_type in _LAYERS and graph.is_quantised_layer(node)]
    if not layers:
        raise GateError(f"The model has no int8 layer at all. {_WHAT_TO_DO}")
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_type(graph, node, FLAVOURS[flavour])
        elif node.op_type == "MaxPool":
            _check_pool(graph, node)
    for node in layers:
        _check_layer(graph, node, FLAVOURS[flavour])
    return len(layers)


class _Graph:
    """Who makes a value, who takes it, and what a stored one holds."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.outputs = {output.name for output in graph.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        self._stored = {stored.name: stored for stored in graph.initializer}

    def stored(self, name: str) -> np.ndarray | None:
        """A constant's value, or None for a computed one."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._stored[name]) if name in self._stored else None

    def maker(self, node: onnx.NodeProto, position: int) -> onnx.NodeProto | None:
        return self.makers.get(node.input[position]) if position < len(node.input) else None

    def is_quantised_layer(self, node: onnx.NodeProto) -> bool:
        """Whether its weight is stored as integers. The front end's transforms, which stay in float, are not."""
        weight = self.maker(node, 1)
        return weight is not None and weight.op_type == "DequantizeLinear"

    def takes_integers(self, node: onnx.NodeProto) -> bool:
        maker = self.maker(node, 0)
        return maker is not None and maker.op_type == "DequantizeLinear"


def _check_type(graph: _Graph, node: onnx.NodeProto, flavour: Flavour) -> None:
    scale, zero_point = graph.stored(node.input[1]), graph.stored(node.input[2])
    if scale is None or zero_point is None:
        raise _refusal(node, "has a scale or zero point that is computed, not stored")
    if not (scale > 0).all():
        raise _refusal(node, "has a scale that is not positive")
    if graph.stored(node.input[0]) is not None:
        allowed = [("int8", 0), ("int32", 0)]
    else:
        allowed = [(str(kind.dtype).removeprefix("torch."), kind.zero_point) for kind in (flavour.relu, flavour.signed)]
    if any((zero_point.dtype.name, int(point)) not in allowed for point in zero_point.flatten()):
        found = f"{zero_point.dtype.name} with zero point {zero_point.flatten()[0]}"
        wanted = " or ".join(f"{name} with zero point {point}" for name, point in dict.fromkeys(allowed))
        raise _refusal(node, f"is {found}; flavour '{flavour.name}' takes {wanted}")


def _check_layer(graph: _Graph, node: onnx.NodeProto, flavour: Flavour) -> None:
    if not graph.takes_integers(node):
        raise _refusal(node, "takes an activation that is not rounded")
    weight = graph.maker(node, 1)
    assert weight is not None
    integers, scale = graph.stored(weight.input[0]), graph.stored(weight.input[1])
    if integers is None or scale is None or integers.dtype.name != "int8":
        raise _refusal(node, "has a weight that is not stored as int8")
    axis = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), 1)
    if scale.shape != integers.shape[:1] or axis != 0:
        raise _refusal(node, "has a weight without one scale for each output channel")
    if len(node.input) > 2:
        bias = graph.maker(node, 2)
        stored = graph.stored(node.input[2] if bias is None else bias.input[0])
        if stored is None or stored.dtype.name != flavour.bias:
            raise _refusal(node, f"has a bias that is not stored as {flavour.bias}, as flavour '{flavour.name}' has it")
    takers = graph.takers.get(node.output[0], [])
    if len(takers) == 1 and takers[0].op_type == "Relu":
        takers = graph.takers.get(takers[0].output[0], [])
    is_logits = [taker.op_type for taker in takers] == ["Softmax"] and takers[0].output[0] in graph.outputs
    if not is_logits and [taker.op_type for taker in takers] != ["QuantizeLinear"]:
        raise _refusal(node, "gives an activation that is not rounded, or is used before it is")


def _check_pool(graph: _Graph, node: onnx.NodeProto) -> None:
    if not graph.takes_integers(node):
        return  # a pool of floats stays one
    for taker in graph.takers.get(node.output[0], []):
        before = graph.maker(node, 0)
        assert before is not None
        if taker.op_type == "QuantizeLinear" and list(taker.input[1:]) != list(before.input[1:]):
            raise _refusal(node, "lies between two different scales")


def _refusal(node: onnx.NodeProto, what: str) -> GateError:
    return GateError(f"{node.op_type} '{node.name}' {what}. {_WHAT_TO_DO}")
