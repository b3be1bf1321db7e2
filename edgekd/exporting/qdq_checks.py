"""Is a quantised graph what its runtime needs? The structure of a Q/DQ model, checked against its flavour.

A runtime runs an operator on integers only where it finds it between DequantizeLinear and QuantizeLinear in the form
that it knows; anything else falls back to float32 without a word, slower and with other numbers. So every exported
int8 model passes `check_structure` before it is run:

- each convolution and matrix product after the front end, but for the layers that quantisation was told to leave, takes
  a rounded activation and an int8 weight with one scale for each output channel (axis 0) and zero point 0;
- its output goes, at most through a ReLU, to a QuantizeLinear; only the logits may stay in float, for the softmax and
  for what tells whether a clip is known;
- a max-pool on a rounded activation gives one with the same scale;
- types and zero points of activations, and the type of the bias, are the flavour's.

`check_optimised` asks ONNX Runtime itself what it made of such a graph, and `float_operators` lists what no runtime can
run on integers.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import GateError
from edgekd.exporting.graph import FRONT_END, KNOWN
from edgekd.exporting.manifest import FloatOperators
from edgekd.exporting.verify import session_options
from edgekd.quantization.fake_quant import FLAVOURS, Flavour, FlavourName

if TYPE_CHECKING:
    import numpy as np
    import onnx

_LAYERS = ("Conv", "Gemm")
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
# Operators with an integer form, or that only move values, where they lie between rounded ones.
_ON_INTEGERS = (
    *("Add", "Relu", "MaxPool", "Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split"),
    *("Gather", "Pad", "Identity"),
)
_WHAT_TO_DO = "This is a fault of the export, not of the run: please report it with the model."


def check_structure(model_bytes: bytes, flavour: FlavourName, float_layers: Collection[str] = ()) -> int:
    """Raise `GateError` naming the first operator that its runtime could not run on integers.

    `float_layers`: modules of the network that quantisation left in float on purpose. Returns the number of
    convolutions and matrix products that run on integers.
    """
    import onnx

    graph = _Graph(onnx.load_from_string(model_bytes).graph)
    left = tuple(f"network.{name}/" for name in float_layers)
    layers = [
        node
        for node in graph.nodes
        if graph.is_quantised_layer(node)
        or (node.op_type in _LAYERS and graph.has_stored_weight(node) and not node.name.startswith((FRONT_END, *left)))
    ]
    if not any(graph.is_quantised_layer(node) for node in layers):
        raise GateError(f"The model has no int8 layer at all. {_WHAT_TO_DO}")
    for node in graph.nodes:
        if node.op_type in _ROUNDING:
            _check_type(graph, node, FLAVOURS[flavour])
        elif node.op_type == "MaxPool":
            _check_pool(graph, node)
    for node in layers:
        _check_layer(graph, node, FLAVOURS[flavour])
    return len(layers)


def check_optimised(model_bytes: bytes) -> Counter[str]:
    """Raise `GateError` where ONNX Runtime runs another number of convolutions in float than `model_bytes` has.

    More would be slow, and fewer means that it has rounded one that was to stay in float. Returns the operators of its
    optimised graph. Meaningful for flavour "onnxruntime" only: the other's convolutions it runs in float.
    """
    import onnx
    import onnxruntime

    graph = _Graph(onnx.load_from_string(model_bytes).graph)
    meant = [node.name for node in graph.nodes if node.op_type == "Conv" and not graph.is_quantised_layer(node)]
    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    found = [node.name for node in nodes if node.op_type in ("Conv", "FusedConv")]
    if len(found) != len(meant):
        raise GateError(
            f"ONNX Runtime {onnxruntime.__version__} would run {len(found)} convolutions in float32"
            f" ({', '.join(found) or 'none'}), not {len(meant)} ({', '.join(meant) or 'none'}). {_WHAT_TO_DO}"
        )
    return Counter(node.op_type for node in nodes)


def float_operators(model_bytes: bytes) -> FloatOperators:
    """The operators of a graph that take or give floats: all but layers on int8 and what lies between rounded values.

    Those that depend on constants alone are none: a runtime is done with them before it runs. A float graph has nothing
    but such operators; then every node after the front end is named.
    """
    import onnx

    graph = _Graph(onnx.load_from_string(model_bytes).graph)
    running = [node for node in graph.nodes if node.op_type not in _ROUNDING and node.output[0] not in graph.constants]
    floats = [node for node in running if not graph.runs_on_integers(node)]
    frontend = Counter(node.op_type for node in floats if node.name.startswith(FRONT_END))
    network = tuple(node.name for node in floats if not node.name.startswith(FRONT_END))
    integers = tuple(int8_layers(model_bytes))
    return FloatOperators(frontend=dict(sorted(frontend.items())), network=network, on_integers=integers)


def int8_layers(model_bytes: bytes) -> list[str]:
    """Names of the convolutions and matrix products whose weights are stored as integers."""
    import onnx

    graph = _Graph(onnx.load_from_string(model_bytes).graph)
    return [node.name for node in graph.nodes if graph.is_quantised_layer(node)]


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
        self.constants = set(self._stored)
        for node in graph.node:
            if node.input and all(name in self.constants for name in node.input if name):
                self.constants.update(node.output)

    def stored(self, name: str) -> np.ndarray | None:
        """A constant's value, or None for a computed one."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._stored[name]) if name in self._stored else None

    def maker(self, node: onnx.NodeProto, position: int) -> onnx.NodeProto | None:
        return self.makers.get(node.input[position]) if position < len(node.input) else None

    def takers_past_relu(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Who takes what `node` makes, or, where a ReLU alone does, who takes that."""
        takers = self.takers.get(node.output[0], [])
        if len(takers) == 1 and takers[0].op_type == "Relu":
            return self.takers.get(takers[0].output[0], [])
        return takers

    def has_stored_weight(self, node: onnx.NodeProto) -> bool:
        """Whether its second input is a constant, of integers or floats, and not another activation."""
        return node.input[1] in self._stored or self.is_quantised_layer(node)

    def is_quantised_layer(self, node: onnx.NodeProto) -> bool:
        """Whether its weight is stored as integers."""
        if node.op_type not in (*_LAYERS, "MatMul"):
            return False
        weight = self.maker(node, 1)
        return weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in self._stored

    def runs_on_integers(self, node: onnx.NodeProto) -> bool:
        """Whether `node` is an int8 layer, its ReLU, or an operator whose activations are all rounded."""
        if node.op_type == "Relu":
            before = self.maker(node, 0)
            return before is not None and self.runs_on_integers(before)
        if self.is_quantised_layer(node):
            return self.takes_integers(node)
        taken = [self.makers.get(name) for name in node.input if name and name not in self._stored]
        takers = self.takers_past_relu(node)
        return (
            node.op_type in _ON_INTEGERS
            and all(maker is not None and maker.op_type == "DequantizeLinear" for maker in taken)
            and bool(takers)
            and all(taker.op_type == "QuantizeLinear" for taker in takers)
        )

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
    takers = graph.takers_past_relu(node)
    takers = [taker for taker in takers if not taker.name.startswith(KNOWN)]
    last = [taker.op_type for taker in takers]
    is_logits = last in (["Softmax"], ["Sigmoid"]) and takers[0].output[0] in graph.outputs
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
