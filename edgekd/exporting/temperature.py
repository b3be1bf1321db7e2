"""A temperature folded into a student: its logits are divided by it where they arise, which costs nothing.

The layer that makes the logits has its weights and bias divided, in int8 its scales: the stored integers stay, and so
does what the device computes with them, but for the last factor. Where no one layer makes the logits, a multiplication
follows them.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn

from edgekd.models.blocks import Scaled
from edgekd.models.students.student import Student
from edgekd.models.tracing import LAYERS, logits_of, module_of, trace
from edgekd.quantization.fake_quant import QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork

_MOVES = (nn.Flatten, nn.Dropout, nn.Identity)  # between the layer and the logits these change no number
_FLATTEN = (torch.flatten, "flatten")


class ScaledNetwork(nn.Module):
    """A float network whose logits are scaled after it; the tap is left."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.scaled = network, Scaled(factor)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        logits, tap = self.network(log_mel)[:2]
        return self.scaled(logits), tap


def with_temperature(student: Student, temperature: float) -> Student:
    """A copy of `student`, float or int8, whose logits are divided by `temperature`; itself where that is 1."""
    if temperature == 1:
        return student
    cooled = copy.deepcopy(student)
    network = cooled.network
    traced = network if isinstance(network, fx.GraphModule) else trace(student.name, network)
    name = _logits_layer(traced)
    if name is not None:
        _divide(network.get_submodule(name), temperature)
    elif isinstance(network, QuantizedNetwork):
        _multiply(network, 1 / temperature)
    else:
        cooled.network = ScaledNetwork(network, 1 / temperature)
    return cooled.eval()


def _logits_layer(traced: fx.GraphModule) -> str | None:
    """The layer that makes the logits, and nothing else; None where none does."""
    calls = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    node = logits_of(traced.graph)
    while len(node.users) == 1 and (
        type(module_of(traced, node)) in _MOVES or node.target in (torch.flatten, "flatten")
    ):
        node = node.all_input_nodes[0]
    made_by = module_of(traced, node)
    once = calls[str(node.target)] == 1 and len(node.users) == 1
    return str(node.target) if once and isinstance(made_by, (*LAYERS, QuantizedLayer)) else None


@torch.no_grad()
def _divide(module: nn.Module, temperature: float) -> None:
    """Divide what a layer gives, by its parameters; an int8 layer keeps its integers."""
    layer = module.layer if isinstance(module, QuantizedLayer) else module
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)
    if isinstance(module, QuantizedLayer):
        module.weight_quant.scale /= temperature
    for parameter in layer.parameters():
        parameter.div_(temperature)


def _multiply(network: QuantizedNetwork, factor: float) -> None:
    """Have a factor follow the logits of a quantised network, in float."""
    logits = logits_of(network.graph)
    users = list(logits.users)
    network.add_submodule("temperature", Scaled(factor))
    with network.graph.inserting_after(logits):
        scaled = network.graph.call_module("temperature", (logits,))
    for user in users:
        user.replace_input_with(logits, scaled)
    network.recompile()
