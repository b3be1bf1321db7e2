"""A walk over a quantised network's graph, node by node as `torch.fx` has it.

What only moves values, or comes after training to nothing, leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import fx, nn

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.layers import IntegerNetwork, Layer, Map
from edgekd.microcontrollers.integer.sums import (
    addition,
    classifier,
    convolution,
    lookup,
    no_form,
    product,
    summary,
)
from edgekd.microcontrollers.integer.values import (
    Added,
    Entry,
    FunctionOf,
    Joined,
    Multiplied,
    Statistic,
    Sum,
    Value,
)
from edgekd.models.tracing import logits_of, module_of
from edgekd.quantization.fake_quant import FLAVOURS, ActivationFakeQuant, QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork

FLAVOUR = FLAVOURS["onnxruntime"]
"""The flavour whose values these are: a map's lie 128 below that flavour's uint8."""

_UNSIGNED_ZERO = 128  # of that uint8
Rule = Callable[["Walk", fx.Node, Any], Value]  # the module that a node calls, None where it calls a function


class Walk:
    """What the nodes of a graph give, and the layers that they come to."""

    def __init__(
        self, network: QuantizedNetwork, entry: Entry, modules: Mapping[type, Rule], functions: Mapping[str, Rule]
    ) -> None:
        """`modules` and `functions`: what is made of which."""
        self.network, self.entry = network, entry
        self.modules, self.functions = {**modules, ActivationFakeQuant: _rounded}, functions
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, Value] = {}

    def done(self, several: bool) -> IntegerNetwork:
        logits = logits_of(self.network.graph)
        needed = _needed(logits)
        entry: Map | None = None
        for node in self.network.graph.nodes:
            if node not in needed or node is logits:
                continue
            value = self.values[node] = self._value(node)
            if isinstance(value, Map) and entry is None:
                entry = value  # the first that is rounded is what enters
        last = module_of(self.network, logits)
        if not (isinstance(last, QuantizedLayer) and isinstance(last.layer, nn.Linear)):
            raise no_form("its logits are not what a linear layer makes")
        source = self.map_before(logits)
        if source.rows * source.columns > 1 or entry is None:
            raise no_form("its linear layer takes a map, where it can take a vector")
        return IntegerNetwork(entry, tuple(self.layers), classifier(last, source, several))

    def before(self, node: fx.Node) -> Value:
        """What enters `node` first."""
        return self.values[node.all_input_nodes[0]]

    def map_before(self, node: fx.Node) -> Map:
        """The same, which has to be a map."""
        value = self.before(node)
        if not isinstance(value, Map):
            raise no_form(f"'{node.all_input_nodes[0].name}' is not rounded to int8 before '{node.name}' uses it")
        return value

    def add(self, layer: Layer) -> Map:
        """One more layer; returns its target."""
        self.layers.append(layer)
        return layer.target

    def _value(self, node: fx.Node) -> Value:
        if node.op == "placeholder":
            return self.entry
        if node.op == "get_attr":
            return None  # a scale, which its quantiser has too
        if node.op == "call_module":
            module = module_of(self.network, node)
            rule = self.modules.get(type(module))
            if rule is None:
                raise no_form(f"'{node.target}' is a {type(module).__name__}")
            return rule(self, node, module)
        rule = self.functions.get(name_of(node))
        if rule is None:
            raise no_form(f"'{node.name}' calls {name_of(node)}")
        return rule(self, node, None)


def name_of(node: fx.Node) -> str:
    """The name of the function or method that `node` calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def argument(node: fx.Node, place: int, name: str, otherwise: Any = None) -> Any:
    """An argument of a call, by place or name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, otherwise)


def rounded_to(walk: Walk, value: Value, name: str, scale: float, zero_point: int) -> Map | None:
    """`value` rounded to a new map; None where nothing can round it."""

    def target(rows: int, columns: int, channels: int) -> Map:
        return Map(name, rows, columns, channels, scale, zero_point)

    if isinstance(value, Entry):
        return target(value.rows, value.columns, 1)
    if isinstance(value, Sum):
        return walk.add(convolution(value, target(*value.shape)))
    if isinstance(value, Added):
        return walk.add(addition(value, target(*value.terms[0].shape)))
    if isinstance(value, Multiplied):
        return walk.add(product(value, target(*value.terms[0].source.shape)))
    if isinstance(value, Statistic | FunctionOf):
        value = Joined((value,))
    return _joined(walk, value, target) if isinstance(value, Joined) else None


def _joined(walk: Walk, value: Joined, target_of: Callable[[int, int, int], Map]) -> Map:
    outputs = [part.outputs if isinstance(part, Statistic) else part.source.channels for part in value.parts]
    first = value.parts[0]
    target = target_of(*((1, 1) if isinstance(first, Statistic) else first.source.shape[:2]), sum(outputs))
    for part, start in zip(value.parts, np.cumsum([0, *outputs[:-1]]).tolist(), strict=True):
        walk.add(summary(part, target, start) if isinstance(part, Statistic) else lookup(part, target, start))
    return target


def _rounded(walk: Walk, node: fx.Node, quantiser: nn.Module | None) -> Map:
    assert isinstance(quantiser, ActivationFakeQuant)
    value = walk.before(node)
    if isinstance(value, Map):  # it was moved, and is rounded already
        return value
    scale = quantiser.scale.item()
    if not np.isfinite(scale):
        raise GateError(f"'{node.target}' has no scale: the int8 student was not calibrated. Run edgekd quantize.")
    zero_point = FLAVOUR.activation(quantiser.non_negative).zero_point - _UNSIGNED_ZERO
    found = rounded_to(walk, value, str(node.target), scale, zero_point)
    if found is None:
        raise no_form(f"'{node.all_input_nodes[0].name}' cannot be rounded to int8")
    return found


def _needed(node: fx.Node) -> set[fx.Node]:
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found
