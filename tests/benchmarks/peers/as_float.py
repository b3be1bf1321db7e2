"""An int8 student's network as a float one, for tools that quantise by themselves, and the scales they are to take."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from edgekd.quantization.fake_quant import ActivationFakeQuant, QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork


@torch.no_grad()
def as_float(network: QuantizedNetwork) -> tuple[fx.GraphModule, dict[str, Any]]:
    """A copy that gives logits, each weight the number that its int8 stands for, and nothing rounded in between.

    And by the name of a layer the scales of its weights `(C_out,)`, by the name of the module before it, points as
    underscores, the scale and zero point that an activation has in 8 bits.
    """
    made, scales = copy.deepcopy(network).eval(), {}
    for node in list(made.graph.nodes):
        module = made.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, ActivationFakeQuant):
            scales[str(node.args[0])] = [module.scale.item(), -128 if module.non_negative else 0]
            node.replace_all_uses_with(node.args[0])
            made.graph.erase_node(node)
        elif isinstance(module, QuantizedLayer):
            node.args = (node.args[0],)
            scale = module.weight_quant.scale
            scales[str(node.target)] = scale.tolist()
            weight = module.integer_weight() * scale.view(-1, *[1] * (module.layer.weight.dim() - 1))
            module.layer.weight.copy_(weight)
            _replace(made, str(node.target), module.layer)
        elif node.op == "output":
            node.args = (node.args[0].args[0],)
    for node in reversed(list(made.graph.nodes)):
        if node.op in ("get_attr", "call_function") and not node.users:
            made.graph.erase_node(node)
    made.delete_all_unused_submodules()
    made.recompile()
    return made, scales


def _replace(within: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(within.get_submodule(parent), leaf, module)
