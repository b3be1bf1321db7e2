"""From a trained float network to one that rounds as its int8 deployment will.

1. Trace the network with `torch.fx`; the histogram layer stays whole, since it stays in float.
2. Fold each batch norm into the convolution or linear layer before it (Jacob et al. 2018, arXiv 1712.05877, 3.2):
   `w' = w * gamma / sqrt(var + eps)`, `b' = (b - mean) * gamma / sqrt(var + eps) + beta`.
3. Round the weight of each layer, and its input and output. The output is rounded after the ReLU where one follows,
   which lets a runtime fuse the two. Both inputs and the output of an addition between rounded tensors are rounded, for
   a residual path in float would force everything round it back to float.

Values that only move (pooling by maximum, flattening, ...) keep the quantiser of the value that they come from, and are
rounded with it again: numerically nothing happens, and in the exported graph the operator lies between a
DequantizeLinear and a QuantizeLinear of one scale, so it can work on integers. The logits are not rounded: what follows
them is float.

Layers named in `keep_float` stay in float: their weight is not rounded, nor is an activation that no int8 layer reads
or gives. What an int8 layer gives is rounded whoever reads it, for a runtime can only then compute it in integers.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.exact_float32 import exact_float32
from edgekd.models.histogram import HistogramLayer
from edgekd.models.tracing import LAYERS, check_layers, logits_of, module_of, trace
from edgekd.quantization.fake_quant import ActivationFakeQuant, QuantizedLayer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_FOLD_TOLERANCE = 1e-3  # of the outputs' largest magnitude: float32 rounding in a deep network stays well below

# How the graph is read. Each tuple lists modules, functions and names of tensor methods alike.
_RELUS = (nn.ReLU, nn.ReLU6, torch.relu, nn.functional.relu, nn.functional.relu6, "relu")
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.functional.max_pool1d, nn.functional.max_pool2d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_RESHAPES = (
    *(nn.Flatten, nn.Unflatten, torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.transpose),
    *(torch.permute, "flatten", "reshape", "view", "squeeze", "unsqueeze", "transpose", "permute", "contiguous"),
)
_NON_NEGATIVE = (*_RELUS, nn.Sigmoid, nn.Softmax, nn.Hardsigmoid, HistogramLayer, torch.sigmoid, torch.softmax)
_KEEP_SIGN = (*_MAX_POOLS, *_DROPOUTS, *_RESHAPES, nn.AvgPool2d, nn.AdaptiveAvgPool2d, torch.mean, torch.cat, "mean")


class QuantizedNetwork(fx.GraphModule):
    """A traced network with `ActivationFakeQuant` and `QuantizedLayer` modules; called like the network it came from.

    Its state dict holds the folded weights and all scales, so `prepare(network, log_mel, keep_float)` of an untrained
    network of the same architecture, then `load_state_dict`, rebuilds it.
    """

    def layers(self) -> list[tuple[QuantizedLayer, ActivationFakeQuant]]:
        """Each layer with the quantiser of its input, in the order of execution."""
        found = []
        for node in self.graph.nodes:
            module = module_of(self, node)
            if isinstance(module, QuantizedLayer):
                _, input_scale = node.all_input_nodes
                quantiser = self.get_submodule(str(input_scale.target).removesuffix(".scale"))
                assert isinstance(quantiser, ActivationFakeQuant)
                found.append((module, quantiser))
        return found

    def layer_names(self) -> list[str]:
        """The int8 layers by their names in the network this one came from, in the order of execution."""
        return [str(node.target) for node in self.graph.nodes if isinstance(module_of(self, node), QuantizedLayer)]

    def float_layers(self) -> list[str]:
        """The convolutions and linear layers that were kept in float, named and ordered likewise."""
        return [str(node.target) for node in self.graph.nodes if isinstance(module_of(self, node), LAYERS)]

    def quantisers(self) -> dict[str, ActivationFakeQuant]:
        """The activation quantisers by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, ActivationFakeQuant)}


@exact_float32()
@torch.no_grad()
def prepare(network: nn.Module, log_mel: Tensor, keep_float: Collection[str] = ()) -> QuantizedNetwork:
    """A quantised copy of `network`, in evaluation mode, its scales still to be calibrated; `network` is left as it is.

    `log_mel (B, 1, T, F)`: any example input, with which the traced and folded network is compared with the original.
    `keep_float`: layers that stay in float, by their names in `network`, such as `stem.0`.
    Raises `UsageError` for a name in `keep_float` that is no layer's, or where it leaves nothing to quantise, and
    `InputError` for weights that are not finite, a network that cannot be traced or has layers that int8 cannot do (see
    `models.tracing`), and one that differs when it was traced, as where its Python code branches on its mode.
    """
    check_finite(network)
    original = copy.deepcopy(network).eval()
    expected = original(log_mel)
    subject = type(network).__name__
    float_network = trace(subject, original)
    check_layers(subject, float_network)
    _fold_batch_norms(float_network)
    for name, before, after in zip(("logits", "tap"), expected[:2], float_network(log_mel)[:2], strict=True):
        difference, size = (before - after).abs().max().item(), before.abs().max().item()
        if not difference <= _FOLD_TOLERANCE * max(size, 1.0):
            raise InputError(
                f"{subject} cannot be made int8: traced, it differs by {difference:.2g} in its {name}. "
                "Its forward must not depend on the data or the mode: change it, or stay in float (--no-quantize)."
            )
    _check_names(float_network, keep_float)
    _insert_quantisers(float_network, keep_float)
    # Only what the graph still uses is taken along: folded batch norms stay behind.
    rounded = QuantizedNetwork(float_network, float_network.graph, class_name="QuantizedNetwork")
    return rounded.to(log_mel.device).eval()


def check_finite(student: nn.Module) -> None:
    """Raise `InputError` for the first weight in a student, or its network, that is NaN or infinite."""
    for name, tensor in student.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"The student's '{name.removeprefix('network.')}' holds NaN or infinite values: its training went "
                "wrong. Train it again, at a lower --learning-rate."
            )


def _check_names(root: fx.GraphModule, keep_float: Collection[str]) -> None:
    layers = [str(node.target) for node in root.graph.nodes if isinstance(module_of(root, node), LAYERS)]
    for name in keep_float:
        if name not in layers:
            raise unknown_name("layer", name, layers)
    if set(layers) == set(keep_float):
        raise UsageError("Every layer is to be kept in float, which leaves none to quantise. Keep fewer.")


def _fold_batch_norms(root: fx.GraphModule) -> None:
    for node in list(root.graph.nodes):
        norm = module_of(root, node)
        if not isinstance(norm, _NORMS):
            continue
        before = node.all_input_nodes[0]
        layer = module_of(root, before)
        if not isinstance(layer, LAYERS) or len(before.users) > 1:
            continue  # an averaged branch, say, is normalised in float
        fused = fuse_linear_bn_eval(layer, norm) if isinstance(layer, nn.Linear) else fuse_conv_bn_eval(layer, norm)
        root.set_submodule(str(before.target), fused, strict=True)
        node.replace_all_uses_with(before)
        root.graph.erase_node(node)
    root.recompile()


def _insert_quantisers(root: fx.GraphModule, keep_float: Collection[str]) -> None:
    graph = root.graph
    rounded = _values_to_round(root, keep_float)
    names = {}
    for source in dict.fromkeys(rounded.values()):
        names[source] = f"{source.name}_quant"
        root.add_submodule(names[source], ActivationFakeQuant(_is_non_negative(root, source)))
    for value, source in rounded.items():
        users = list(value.users)
        options: dict[str, fx.node.Argument] = {} if value is source else {"observe": False}
        with graph.inserting_after(value):
            quantised = graph.call_module(names[source], (value,), options)
        for user in users:
            user.replace_input_with(value, quantised)
    for node in list(graph.nodes):
        layer = module_of(root, node)
        if isinstance(layer, LAYERS) and node.target not in keep_float:
            with graph.inserting_before(node):
                scale = graph.get_attr(f"{_input_quantiser(root, node)}.scale")
            node.args, node.kwargs = (node.all_input_nodes[0], scale), {}
            root.set_submodule(str(node.target), QuantizedLayer(layer))
    root.recompile()


def _values_to_round(root: fx.GraphModule, keep_float: Collection[str]) -> dict[fx.Node, fx.Node]:
    """Value -> the value whose quantiser rounds it, itself or one it was moved from; in graph order."""
    nodes = list(root.graph.nodes)
    logits = _source(root, logits_of(root.graph))
    chosen: set[fx.Node] = set()

    def choose(value: fx.Node) -> None:
        """Round `value`, and every value between it and where it comes from."""
        while True:
            if not _is(root, value, _DROPOUTS):  # in training its output is a multiple of rounded values
                chosen.add(value)
            if not _only_moves(root, value):
                return
            value = value.all_input_nodes[0]

    for node in nodes:
        if isinstance(module_of(root, node), LAYERS) and node.target not in keep_float:
            choose(node.all_input_nodes[0])
            if node is not logits:
                choose(_after_relu(root, node))
    for node in nodes:
        if _is(root, node, _ADDITIONS) and any(_source(root, term) in chosen for term in node.all_input_nodes):
            for term in node.all_input_nodes:
                choose(term)
            if node is not logits:
                choose(_after_relu(root, node))
    return {node: _source(root, node) for node in nodes if node in chosen}


def _input_quantiser(root: fx.GraphModule, layer: fx.Node) -> str:
    node = layer.all_input_nodes[0]
    while not isinstance(module_of(root, node), ActivationFakeQuant):
        node = node.all_input_nodes[0]  # a dropout, or another module that only moves values
    return str(node.target)


def _source(root: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value that `value` was moved from: itself, unless it is a max-pool, a reshape or a dropout."""
    while _only_moves(root, value):
        value = value.all_input_nodes[0]
    return value


def _after_relu(root: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The ReLU that is the only user of `node`, or `node`."""
    users = list(node.users)
    return users[0] if len(users) == 1 and _is(root, users[0], _RELUS) else node


def _is_non_negative(root: fx.GraphModule, value: fx.Node) -> bool:
    if _is(root, value, _NON_NEGATIVE):
        return True
    return _is(root, value, _KEEP_SIGN) and all(_is_non_negative(root, term) for term in value.all_input_nodes)


def _only_moves(root: fx.GraphModule, node: fx.Node) -> bool:
    return _is(root, node, (*_MAX_POOLS, *_RESHAPES, *_DROPOUTS))


def _is(root: fx.GraphModule, node: fx.Node, kinds: tuple[object, ...]) -> bool:
    if node.op == "call_module":
        return type(module_of(root, node)) in kinds
    return node.op in ("call_function", "call_method") and node.target in kinds
