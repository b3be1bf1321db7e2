"""A network as a graph of calls (`torch.fx`): what quantisation rewrites, and what ships.

Networks of the user's own come through here too. A graph is one way through a network, so its `forward` must not branch
on its data, their shape or the mode. The histogram layer stays whole, for it computes with its shapes.

int8 asks for more (`check_layers`): a convolution or linear layer is a module and called once, since its weight has the
scales of one input; and there is one at least.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from edgekd.errors import InputError
from edgekd.models.blocks import FirstConv2d, SameConv2d, Scaled
from edgekd.models.factories import UserCode
from edgekd.models.histogram import HistogramLayer

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_FUNCTIONS = {
    nn.functional.conv1d: "nn.Conv1d",
    nn.functional.conv2d: "nn.Conv2d",
    nn.functional.linear: "nn.Linear",
}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, HistogramLayer | FirstConv2d | SameConv2d | Scaled) or super().is_leaf_module(
            m, module_qualified_name
        )


def trace(subject: str, network: nn.Module) -> fx.GraphModule:
    """`network` as a graph whose modules are its own. `subject`: what it is called in messages.

    Raises `InputError` where it is none, or its forward does not end in a pair.
    """
    advice = ". It ships as one graph: it must not branch on its data, their shape or the mode."
    with UserCode(f"{subject}: tracing its forward", advice):
        traced = fx.GraphModule(network, _Tracer().trace(network))
    outputs = traced.graph.output_node().args[0]
    if isinstance(outputs, fx.Node) and not (isinstance(outputs.target, type) and issubclass(outputs.target, tuple)):
        raise InputError(f"{subject}: its forward must make the pair of logits and tap itself.")
    return traced


def check_layers(subject: str, traced: fx.GraphModule) -> None:
    """Raises `InputError` where int8 cannot be made of a traced network."""
    refusal, advice = f"{subject} cannot be made int8", "Change it, or stay in float (--no-quantize)."
    calls = Counter(str(node.target) for node in traced.graph.nodes if isinstance(module_of(traced, node), LAYERS))
    for node in traced.graph.nodes:
        if node.op == "call_function" and node.target in _FUNCTIONS:
            raise InputError(
                f"{refusal}: it calls {node.target.__name__} itself, whose weight cannot be rounded: make it a "
                f"{_FUNCTIONS[node.target]}. {advice}"
            )
    for name, count in calls.items():
        if count > 1:
            raise InputError(f"{refusal}: its layer '{name}' is called {count} times, and may be once. {advice}")
    if not calls:
        raise InputError(f"{refusal}: it has no convolution or linear layer. {advice}")


@dataclass(frozen=True)
class EmbeddingLayer:
    """Where a network's embedding `(B, size)` is found: it enters the layer called `name`, its classifier or the
    dropout before that."""

    name: str
    size: int


def embedding_layer(network: nn.Module) -> EmbeddingLayer | None:
    """Where the embedding of `network` is, whose logits are what one linear layer makes of it; None where they are not,
    or the network is no graph."""
    try:
        traced = trace(type(network).__name__, network)
    except InputError:
        return None
    calls = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    node = logits_of(traced.graph)
    classifier = module_of(traced, node)
    if not isinstance(classifier, nn.Linear) or calls[str(node.target)] > 1:
        return None
    while calls[str(node.all_input_nodes[0].target)] == 1 and _is_dropout(traced, node.all_input_nodes[0]):
        node = node.all_input_nodes[0]
    return EmbeddingLayer(str(node.target), classifier.in_features)


def embedding_of(traced: fx.GraphModule) -> fx.Node:
    """What enters the classifier of a network that has an embedding, before dropout; in one that was made int8 it is
    rounded."""
    before: fx.Node = logits_of(traced.graph).all_input_nodes[0]
    while _is_dropout(traced, before):
        before = before.all_input_nodes[0]
    return before


def _is_dropout(traced: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(module_of(traced, node), nn.Dropout | nn.Identity)


def classifier_of(network: nn.Module) -> str | None:
    """The name of the linear layer that makes the logits of `network`; None where none does, or it is no graph."""
    if embedding_layer(network) is None:
        return None
    return str(logits_of(trace(type(network).__name__, network).graph).target)


def logits_of(graph: fx.Graph) -> fx.Node:
    """The first of the graph's outputs, which are a tuple or list, or a call that makes a named tuple of them."""
    outputs: Any = graph.output_node().args[0]
    logits = outputs.args[0] if isinstance(outputs, fx.Node) else outputs[0]
    assert isinstance(logits, fx.Node)
    return logits


def module_of(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that `node` calls, or None if it calls none."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None
