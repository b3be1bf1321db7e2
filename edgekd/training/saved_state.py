"""`last.pt`: the state that an interrupted stage is resumed from, read back with its shapes checked.

What a file holds is compared with what the stage would write now: the same entries, of the same types, and tensors of
the same shapes. PyTorch's own checks leave out the optimiser's moments and the settings of groups and schedule, whose
mistakes would show in the midst of an epoch.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import InputError, shown
from edgekd.models.weights import TORCH_DAMAGE
from edgekd.training.averaging import AveragedWeights

LONGEST = 10**9  # epochs, and parts of a batch


def read_state(path: Path) -> dict[str, Any]:
    """The state in a `last.pt`, on the CPU; no code in it is run. Raises `InputError` for another file."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError):
        raise not_resumable(path, "it is damaged") from None
    except (*TORCH_DAMAGE, OSError) as failure:
        raise not_resumable(path, str(failure).partition("\n")[0] or "it is damaged") from None
    if not isinstance(saved, dict):
        raise not_resumable(path, f"it holds {_kind(saved)}")
    mistake = _mistake_in_progress(saved)
    if mistake is not None:
        raise not_resumable(path, mistake)
    return saved


def load_part(module: nn.Module, saved: Mapping[str, Any], name: str, path: Path) -> None:
    """Put the entry `name` of a state that was `saved` in `path`, a `state_dict`, into `module`. Raises `InputError`
    where it is not one of the same tensors."""
    given: Any = saved.get(name)
    mistake = _difference(given, module.state_dict(), name)
    if mistake is not None:
        raise not_resumable(path, mistake)
    try:
        module.load_state_dict(given)
    except RuntimeError as failure:
        raise not_resumable(path, str(failure).partition("\n")[0]) from None


def load_average(average: AveragedWeights, saved: Mapping[str, Any], path: Path) -> None:
    """Put the entry `averaged` of a state into `average`. Raises `InputError` where it is of another model."""
    given: Any = saved.get("averaged")
    mistake = _difference(given, average.state_dict(), "averaged")
    if mistake is not None:
        raise not_resumable(path, mistake)
    average.load_state_dict(given)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], path: Path) -> None:
    """Put the entry `optimizer` of a state into it. Raises `InputError` where it is not of these parameters."""
    given, own = saved.get("optimizer"), optimizer.state_dict()
    if not isinstance(given, dict) or not isinstance(given.get("state"), dict):
        raise not_resumable(path, f"optimizer is {_kind(given)}")
    mistake = _mistake_in_settings(given.get("param_groups"), own["param_groups"], "optimizer.param_groups")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for number, moments in given["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(moments, dict):
            mistake = mistake or f"optimizer.state.{number} is of no parameter"
            continue
        for name, value in moments.items():  # the count of steps, or as large as the parameter
            sizes = (torch.Size([]), parameters[number].shape)
            if not isinstance(value, Tensor) or value.is_meta or value.shape not in sizes:
                mistake = mistake or f"optimizer.state.{number}.{name} is {_kind(value)}"
    if mistake is not None:
        raise not_resumable(path, mistake)
    try:
        optimizer.load_state_dict(given)
    except (ValueError, KeyError) as failure:
        raise not_resumable(path, str(failure)) from None


def load_schedule(schedule: torch.optim.lr_scheduler.LRScheduler, saved: Mapping[str, Any], path: Path) -> None:
    """Put the entry `scheduler` of a state into `schedule`. Raises `InputError` where it is not one of the same."""
    given: Any = saved.get("scheduler")
    mistake = _mistake_in_settings(given, schedule.state_dict(), "scheduler")
    if mistake is None and isinstance(given, dict) and not given.get("last_epoch", -1) >= 0:
        mistake = "scheduler.last_epoch is missing, or below 0"
    if mistake is not None:
        raise not_resumable(path, mistake)
    schedule.load_state_dict(given)


def not_resumable(path: Path, reason: str) -> InputError:
    """The error for a state that cannot be used."""
    return InputError(
        f"{path}: cannot be resumed from ({reason}). Delete {path.name} to repeat this stage from its start."
    )


def _mistake_in_progress(saved: Mapping[str, Any]) -> str | None:
    """What is wrong with the entries that say how far the stage was."""
    for name, least in (("epoch", 0), ("best_epoch", 0), ("parts", 1)):
        value = saved.get(name, 1 if name == "parts" else None)  # files of before have no parts
        if type(value) is not int or not least <= value <= LONGEST:
            return f"{name} is {shown(value)}"
    score = saved.get("best_score")
    if not isinstance(score, list | tuple) or len(score) != 2 or not all(_is_number(value) for value in score):
        return f"best_score is {shown(score)}"
    return None


def _difference(given: Any, own: Any, name: str) -> str | None:
    """What `given` has that is not like what `own` has; None where they have the same tensors, of the same shapes."""
    if isinstance(own, Mapping):
        if not isinstance(given, Mapping):
            return f"{name} is {_kind(given)}"
        other = [*(key for key in own if key not in given), *(key for key in given if key not in own)]
        if other:
            return f"{name}.{other[0]} is {'missing' if other[0] in own else 'not of this model'}"
        return next(filter(None, (_difference(given[key], own[key], f"{name}.{key}") for key in own)), None)
    if isinstance(own, Tensor):
        fits = isinstance(given, Tensor) and given.shape == own.shape and given.layout == own.layout
        return None if fits and not given.is_meta else f"{name} is {_kind(given)}, not {_kind(own)}"
    return None if type(given) is type(own) else f"{name} is {_kind(given)}"


def _mistake_in_settings(given: Any, own: Any, name: str) -> str | None:
    """What of the settings of an optimiser or a schedule is not of the type that it has in `own`.

    What only one of them has is passed over: other versions of PyTorch have other settings.
    """
    if isinstance(own, Mapping):
        if not isinstance(given, Mapping):
            return f"{name} is {_kind(given)}"
        both = [key for key in own if key in given]
        mistakes = (_mistake_in_settings(given[key], own[key], f"{name}.{key}") for key in both)
        return next(filter(None, mistakes), None)
    if isinstance(own, list | tuple) and isinstance(given, list | tuple) and len(given) == len(own):
        mistakes = (_mistake_in_settings(*pair, f"{name}.{i}") for i, pair in enumerate(zip(given, own, strict=True)))
        return next(filter(None, mistakes), None)
    if (own is None or isinstance(own, bool)) and (given is None or isinstance(given, bool)):
        return None
    if _is_number(own) and _is_number(given) and 0 <= given < math.inf and (given or not name.endswith("total_iters")):
        return None
    return f"{name} is {_kind(given)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _kind(value: Any) -> str:
    """What something is, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return shown(value) if value is None or isinstance(value, int | float | str) else f"a {type(value).__name__}"
