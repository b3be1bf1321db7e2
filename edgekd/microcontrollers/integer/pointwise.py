"""What a quantised network computes value by value: functions of a map, sums and products of two.

Any function of int8 values is a table of 256 of them, whatever its formula: PyTorch's own function fills it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.sums import no_form
from edgekd.microcontrollers.integer.values import Added, FunctionOf, Multiplied, Sum, Value, function_of
from edgekd.microcontrollers.integer.walk import Walk, name_of
from edgekd.models.blocks import Scaled

FUNCTION_MODULES = (
    *(nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.SELU),
    *(nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softsign, nn.Tanh, Scaled),
)
FUNCTIONS = (
    *("abs", "div", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "neg", "rsub"),
    *("sigmoid", "silu", "softplus", "softsign", "square", "tanh", "truediv"),
)


def function(walk: Walk, node: fx.Node, module: nn.Module | None) -> Value:
    """A function of one map."""
    value = walk.before(node)
    if len(node.all_input_nodes) > 1 or not isinstance(value, Map | FunctionOf):
        raise no_form(f"'{node.name}' is a function of what is not rounded to int8, or of more than one map")
    call = partial(_called, node) if module is None else copy.deepcopy(module).double()
    return _of_values(function_of(value), call, node.name)


def _called(node: fx.Node, values: Tensor) -> Tensor:
    arguments, options = fx.node.map_arg((node.args, node.kwargs), lambda _: values)
    if isinstance(node.target, str):
        found: Tensor = getattr(arguments[0], node.target)(*arguments[1:], **options)
    else:
        assert callable(node.target)
        found = node.target(*arguments, **options)
    return found


@torch.no_grad()
def _of_values(value: FunctionOf, call: Callable[[Tensor], Tensor], name: str) -> FunctionOf:
    values = call(torch.from_numpy(value.values.copy())).numpy()
    if values.shape != value.values.shape or not np.isfinite(values).all():
        raise no_form(f"'{name}' is no function of single values, or has none for some of them")
    return replace(value, values=values)


def relu(walk: Walk, node: fx.Node, module: nn.Module | None) -> Value:
    """Part of the layer before it where there is one; else a function like all others."""
    value = walk.before(node)
    if not isinstance(value, Sum | Added | Multiplied):
        return function(walk, node, module)
    above = 6.0 if isinstance(module, nn.ReLU6) or name_of(node) == "relu6" else value.above
    return replace(value, relu=True, above=above)


def add(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """A sum of two maps, or of a map and a number."""
    if len(node.all_input_nodes) == 1:
        return function(walk, node, None)
    first, second = (walk.values[each] for each in _two(node))
    if not (isinstance(first, Map) and isinstance(second, Map)) or first.shape != second.shape:
        raise no_form(f"'{node.name}' adds something else than two int8 maps of one shape")
    return Added((first, second))


def multiply(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """A product of two maps, of a map and a vector, or of a map and a number."""
    if len(node.all_input_nodes) == 1:
        return function(walk, node, None)
    first, second = (walk.values[each] for each in _two(node))
    if not (isinstance(first, Map | FunctionOf) and isinstance(second, Map | FunctionOf)):
        raise no_form(f"'{node.name}' multiplies what is not rounded to int8")
    terms = [function_of(first), function_of(second)]
    terms.sort(key=lambda term: -term.source.rows * term.source.columns)
    one, other = terms[0].source, terms[1].source
    if one == other:
        return FunctionOf(one, terms[0].values * terms[1].values)
    if other.channels != one.channels or other.shape[:2] not in ((1, 1), one.shape[:2]):
        raise no_form(f"'{node.name}' multiplies maps of shapes {one.shape} and {other.shape}")
    return Multiplied((terms[0], terms[1]))


def _two(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two maps that a function takes, and nothing else."""
    if node.kwargs or tuple(node.args) != tuple(node.all_input_nodes):
        raise no_form(f"'{node.name}' calls {name_of(node)} with more than two maps")
    return node.all_input_nodes[0], node.all_input_nodes[1]
