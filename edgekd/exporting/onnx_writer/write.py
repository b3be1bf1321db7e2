"""From a deployable module to its graph: the log-mel, the network node by node as `torch.fx` has it, the softmax or
sigmoid, and what tells whether a clip is known."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from edgekd.errors import InputError
from edgekd.exporting.deployable import DeployableModule, Normalise, turned_by_einsum
from edgekd.exporting.onnx_writer.front_end import write_log_mel, write_normalised
from edgekd.exporting.onnx_writer.functions import FUNCTIONS, IN_PLACE, VIEWS, relu
from edgekd.exporting.onnx_writer.known import KNOWN_SCOPE, write_known
from edgekd.exporting.onnx_writer.layers import CONVOLUTIONS, IDLE, MODULES, NORMS, normalised_layer
from edgekd.exporting.onnx_writer.shaping import cast, is_plain, transpose
from edgekd.exporting.onnx_writer.sheet import Shape, Sheet, Unknown, Value
from edgekd.log_mel import ExportLogMel, turned
from edgekd.models.tracing import embedding_of, logits_of, module_of, trace

if TYPE_CHECKING:
    import onnx

FRONT_END_SCOPE, NETWORK = "frontend", "network"


def write(
    module: DeployableModule, shape: Shape, opset: int, names: Sequence[str], batch: str = "batch"
) -> onnx.ModelProto:
    """The graph of `module` in operator set `opset`, 18 or later, for one input of `shape`.

    `names`: of the input and the outputs. A first size of None is any batch, called `batch`. Raises `Unknown` for a
    layer that is in no table, or that is set in a way that its row does not have.
    """
    sheet = Sheet()
    sound = Value(names[0], shape)
    with sheet.within(FRONT_END_SCOPE):
        log_mel = _front_end(sheet, module.frontend, sound)
    with sheet.within(NETWORK):
        needs_embedding = module.known is not None and module.known.gaussians is not None
        entered = cast(sheet, log_mel, _precision(module))
        logits, embedding = _network(sheet, module.network, entered, needs_embedding)
        logits = cast(sheet, logits, torch.float32)
        if module.task.several:
            outputs = [sheet.node("Sigmoid", [logits], logits.shape, output=names[1])]
        else:
            outputs = [sheet.node("Softmax", [logits], logits.shape, output=names[1], axis=1)]
    if module.known is not None:
        with sheet.within(KNOWN_SCOPE):
            embedding = embedding and cast(sheet, embedding, torch.float32)
            outputs.append(write_known(sheet, module.known, logits, outputs[0], embedding, names[2]))
    return sheet.model("edgekd", sound, outputs, opset, batch)


def _precision(module: DeployableModule) -> torch.dtype:
    return torch.float16 if module.half_precision else torch.float32


def _front_end(sheet: Sheet, frontend: nn.Module, sound: Value) -> Value:
    if type(frontend) is Normalise:
        return write_normalised(sheet, sound, frontend.get_buffer("scale"), frontend.get_buffer("shift"))
    turns = {turned: _by_transpose, turned_by_einsum: _by_einsum}
    if type(frontend) is not ExportLogMel or frontend.turn not in turns:
        raise Unknown("another front end")
    return write_log_mel(sheet, frontend, sound, turns[frontend.turn])


def _by_transpose(sheet: Sheet, value: Value) -> Value:
    return transpose(sheet, value, 1, 2)


def _by_einsum(sheet: Sheet, value: Value) -> Value:
    batch, bins, frames = value.shape
    return sheet.node("Einsum", [value], (batch, frames, bins), equation="bft->btf")


def _network(sheet: Sheet, network: nn.Module, log_mel: Value, needs_embedding: bool) -> tuple[Value, Value | None]:
    """The logits, and what they need; the embedding where it is asked for."""
    traced = network
    if not isinstance(traced, fx.GraphModule):
        try:
            traced = trace(type(network).__name__, network)
        except InputError as failure:
            raise Unknown(str(failure)) from None
        _check_traced(network, traced, log_mel)
        _leave_out_idle(traced)
    if not is_plain(network):
        raise Unknown("a network with something hooked into it")
    logits = logits_of(traced.graph)
    needed = _needed(logits)
    if sum(node.op == "placeholder" for node in needed) > 1:
        raise Unknown("a forward with more than one argument")
    values: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        if _changes_its_input(traced, node) and not (node in needed and _is_its_own(traced, node.all_input_nodes[0])):
            raise Unknown("a change in place of a value that others may see")
        if node not in needed:
            continue
        if node.op == "placeholder":
            values[node] = log_mel
        elif node.op == "get_attr":
            values[node] = None  # a tensor of the network's own
        elif not _is_folded(traced, node, needed):
            scope = NETWORK if traced is network else _scope(node)
            with sheet.within(scope):
                values[node] = _written(sheet, traced, node, values)
    found = values[logits]
    if not isinstance(found, Value) or len(found.shape) != 2:
        raise Unknown("logits that are no vector")
    return found, values[embedding_of(traced)] if needs_embedding else None


@torch.no_grad()
def _check_traced(network: nn.Module, traced: fx.GraphModule, log_mel: Value) -> None:
    """Raise `Unknown` where the traced network computes something else: `torch.fx` takes `a -= b` for `a = a - b`,
    which leaves what `a` was called before as it is."""
    shape = [1 if size is None else size for size in log_mel.shape]
    example = torch.linspace(-1, 1, prod(shape), dtype=log_mel.dtype).reshape(shape)
    here, there = (each(example.clone())[0].float() for each in (network, traced))
    if here.shape != there.shape or not torch.allclose(here, there, rtol=1e-3, atol=1e-4):
        raise Unknown("a network that differs when it is traced")


def _leave_out_idle(traced: fx.GraphModule) -> None:
    """Take out of the graph what changes nothing, so that a batch norm behind it meets its layer."""
    for node in list(traced.graph.nodes):
        if _is_idle(traced, node):
            node.replace_all_uses_with(node.all_input_nodes[0])
            traced.graph.erase_node(node)


def _is_idle(traced: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(traced, node)
    if module is not None and type(module) in IDLE:
        return is_plain(module)
    return _is_relu(traced, node) and _is_relu(traced, node.all_input_nodes[0])


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(traced, node)
    if module is not None:
        return type(module) is nn.ReLU and is_plain(module)
    return node.op in ("call_function", "call_method") and FUNCTIONS.get(node.target) is relu


def _needed(node: fx.Node) -> set[fx.Node]:
    needed, waiting = set(), [node]
    while waiting:
        each = waiting.pop()
        if each not in needed:
            needed.add(each)
            waiting.extend(each.all_input_nodes)
    return needed


def _scope(node: fx.Node) -> str:
    """The innermost module whose forward calls a function."""
    stack = list(node.meta.get("nn_module_stack", {}))
    return f"{NETWORK}.{stack[-1]}" if stack and stack[-1] else NETWORK


def _is_folded(traced: fx.GraphModule, node: fx.Node, needed: Collection[fx.Node]) -> bool:
    """Whether `node` is a layer that, of what is `needed`, a batch norm alone takes the output of, and that is written
    with it."""
    layer = module_of(traced, node)
    users = [user for user in node.users if user in needed]
    if type(layer) not in (*CONVOLUTIONS, nn.Linear) or len(users) != 1:
        return False
    norm = module_of(traced, users[0])
    return type(norm) in NORMS and users[0].all_input_nodes == [node]


def _changes_its_input(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether `node` writes what it gives over what it takes, as `nn.ReLU(inplace=True)` does, and `tensor.mul_`."""
    if node.op not in ("call_function", "call_method"):
        return bool(getattr(module_of(traced, node), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    asked = node.kwargs.get("inplace", False) or "out" in node.kwargs
    asked = asked or (node.target is nn.functional.relu and len(node.args) > 1)
    return bool(asked) or node.target in IN_PLACE or name.endswith("_")


def _is_its_own(traced: fx.GraphModule, value: fx.Node) -> bool:
    """Whether `value` is in memory of its own and has one user: what is written over it, nobody else sees."""
    views = type(module_of(traced, value)) in VIEWS or value.target in VIEWS
    return value.op.startswith("call") and not views and len(value.users) == 1


def _written(sheet: Sheet, traced: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Value:
    if node.op == "call_module":
        return _module_written(sheet, traced, node, values)
    rule = FUNCTIONS.get(node.target) if node.op in ("call_function", "call_method") else None
    if rule is None or any(each.op == "get_attr" for each in node.all_input_nodes):
        raise Unknown(str(node.target))
    arguments, options = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        inspect.signature(rule).bind(sheet, *arguments, **options)
    except TypeError as failure:
        raise Unknown(f"{node.target}: {failure}") from None
    return rule(sheet, *arguments, **options)


def _module_written(sheet: Sheet, traced: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Value:
    module, before = module_of(traced, node), node.all_input_nodes[0]
    assert module is not None
    rule = MODULES.get(type(module))
    if rule is None or not is_plain(module) or before.op == "get_attr":
        raise Unknown(type(module).__name__)
    with sheet.within(f"{NETWORK}.{node.target}"):
        if before in values:
            return rule(sheet, module, values[before])
        layer = module_of(traced, before)
        assert layer is not None
        if not is_plain(layer):
            raise Unknown(type(layer).__name__)
        entered = values[before.all_input_nodes[0]]
        return normalised_layer(sheet, layer, module, entered, f"{NETWORK}.{before.target}")
