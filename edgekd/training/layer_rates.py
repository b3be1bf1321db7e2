"""Learning rates for fine-tuning a pre-trained network: the nearer a layer is to the input, the lower.

Howard & Ruder, *Universal Language Model Fine-tuning for Text Classification*, ACL 2018, arXiv 1801.06146, section 3.2:
early layers hold what is general and should change least. The order of layers is that in which they compute, seen by
running the network once, so it needs no list for each architecture. The layers are dealt into `GROUPS` groups of equal
size; from the last to the first group the rate falls geometrically, to `decay` times that of the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

GROUPS = 8


def layer_order(network: nn.Module, waveform: Tensor) -> dict[nn.Parameter, int]:
    """The place of each parameter: the number of layers that began to compute before its own, on `waveform (1, S)`.

    A layer whose weights another one computes with (a projection inside an attention) has the place of the one around
    it. Leaves `network` in the mode it was in.
    """
    places: dict[str, int] = {}
    names = {module: name for name, module in network.named_modules()}

    def note(module: nn.Module, _: Any) -> None:
        places.setdefault(names[module], len(places))

    handles = [module.register_forward_pre_hook(note) for module in names]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(waveform)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    order = {}
    for name, parameter in network.named_parameters():
        owner = name.rpartition(".")[0]
        while owner and owner not in places:
            owner = owner.rpartition(".")[0]
        order[parameter] = places.get(owner, 0)
    return order


def parameter_groups(
    network: nn.Module, head: nn.Module | None, waveform: Tensor, head_rate: float, rate: float, decay: float
) -> list[dict[str, Any]]:
    """Optimiser groups: the head's at `head_rate`, then the layers' from `rate` at the top to `decay * rate` below."""
    order = layer_order(network, waveform)
    groups: list[dict[str, Any]] = []
    if head is not None:
        of_head = set(head.parameters())
        groups.append({"params": list(head.parameters()), "lr": head_rate})
        order = {parameter: place for parameter, place in order.items() if parameter not in of_head}
    layers = sorted(set(order.values()))
    group_of = {layer: number * GROUPS // len(layers) for number, layer in enumerate(layers)}
    for group in reversed(range(GROUPS)):
        parameters = [parameter for parameter, layer in order.items() if group_of[layer] == group]
        if parameters:
            groups.append({"params": parameters, "lr": rate * decay ** (1 - group / (GROUPS - 1))})
    return groups
