"""What training scripts put around weights, taken off again.

    {"state_dict": {...}, "epoch": 7}         a wrapper is opened, however deep; other entries are left
    {"ema": {...}, "model": {...}}            averaged weights come first: they are what such a script validates with
    module.conv.weight                        a prefix that all tensors share (DataParallel, Lightning, AveragedModel)
    _orig_mod.conv.weight                     and what `torch.compile` puts into names, wherever it stands

A prefix may also belong: only the module that the weights are for can tell, so `fitted` is given its names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

State = dict[str, Tensor]

AVERAGED = ("model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "ema_model_state_dict", "params_ema", "ema")
TRAINED = (
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "params", "weights"),
    *("generator", "checkpoint"),
)
_DEEPEST = 6  # wrappers in each other
_COMPILED = "_orig_mod."  # what `torch.compile` calls the module that it wraps
_COUNT = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside `module.`


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of a checkpoint, the entries they were found under, outermost first, and averaged or trained weights
    beside them that were left. `several`: entries between which nothing chooses; then there are no tensors."""

    state: State
    taken: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    several: tuple[str, ...] = ()


def unwrapped(content: object) -> Unwrapped:
    """The named tensors in what `torch.load` returned; no tensors where there are none by name."""
    taken: list[str] = []
    left: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        inside = [str(name) for name, entry in content.items() if isinstance(name, str) and _holds_tensors(entry)]
        known = [name for name in (*AVERAGED, *TRAINED) if name in inside]
        own = {name: _dense(value) for name, value in content.items() if isinstance(name, str) and _has_numbers(value)}
        if not known and (not inside or any("." in name for name in own)):
            return Unwrapped(_without_compiled(own), tuple(taken), tuple(left))
        if not known and len(inside) > 1:
            return Unwrapped({}, tuple(taken), tuple(left), tuple(inside))
        chosen = (known or inside)[0]
        taken.append(chosen)
        left += [name for name in known if name != chosen]
        content = content[chosen]
    return Unwrapped({}, tuple(taken), tuple(left))


def fitted(state: Mapping[str, Tensor], wanted: Collection[str]) -> State:
    """`state` without a prefix that all its names share, as far as more of them are then among the names `wanted`."""
    best = current = dict(state)
    agree = len(best.keys() & set(wanted))
    while (shorter := _without_shared_prefix(current)) is not None:
        current = shorter
        found = len(current.keys() & set(wanted))
        if found > agree:
            best, agree = current, found
    return best


def _without_shared_prefix(state: State) -> State | None:
    """Without the first part of each dotted name, where it is the same; None where it is not."""
    counted = {name: tensor for name, tensor in state.items() if name != _COUNT}
    firsts = {name.partition(".")[0] for name in counted}
    if len(firsts) != 1 or not all("." in name for name in counted):
        return None
    return {name.partition(".")[2]: tensor for name, tensor in counted.items()}


def _without_compiled(state: State) -> State:
    return {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}


def _holds_tensors(entry: object, deepest: int = _DEEPEST) -> bool:
    """Whether tensors lie in it by name, a few levels deep: those of an optimiser are numbered."""
    if not isinstance(entry, Mapping) or not deepest:
        return False
    named = [each for name, each in entry.items() if isinstance(name, str)]
    return any(_has_numbers(each) for each in named) or any(_holds_tensors(each, deepest - 1) for each in named)


def _has_numbers(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and not value.is_meta


def _dense(value: Tensor) -> Tensor:
    if value.is_quantized:
        return value.dequantize()
    return value.to_dense() if value.layout != torch.strided else value
