"""A student of the user's own: `--student package.module:factory`.

    def factory(num_classes: int) -> torch.nn.Module
    def factory(num_classes: int, width: float) -> torch.nn.Module

The module it returns takes normalised log-mels `(B, 1, T, F)` and returns a pair, `(logits (B, K), tap (B, C, T',
F'))`: a tuple, a named tuple or a `StudentOutput`. The tap is an early feature map, C channels over time and frequency.
A factory with a second argument that is called `width`, or that it cannot do without, gets the run's `width`; the
others have one size.

The factory's module is imported from the installed packages or from the run's `student_folder` (see `factories`). The
network must be a graph, since it ships as one, and int8 asks for more: see `tracing`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.errors import UsageError
from edgekd.models.factories import find_factory, make, try_on
from edgekd.models.tracing import trace

ARGUMENTS = "(num_classes) or (num_classes, width)"


def check_own(name: str, width: float, folder: Path | None = None) -> None:
    """Raises as `find_factory` does, and `UsageError` for a width of a student that has one size."""
    _factory(name, width, folder)


def build_own(
    name: str, num_classes: int, width: float, shape: tuple[int, int], folder: Path | None = None
) -> tuple[nn.Module, int]:
    """The network that the factory `name` makes, tried on two log-mels of noise of `shape (T, F)`, and the channels of
    its tap.

    Raises `UsageError` for a name that leads nowhere or a width of a student that has one size, and `InputError` for a
    factory or a module that fails, returns something else than logits `(B, num_classes)` and a finite tap, or is no
    graph.
    """
    subject = f"Student '{name}'"
    factory = _factory(name, width, folder)
    arguments = (num_classes, width) if _takes_width(factory) else (num_classes,)
    network = make(subject, name, factory, *arguments)
    log_mels = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    tap = try_on(subject, network, log_mels, "log-mels", num_classes)
    trace(subject, network)
    return network, tap.shape[1]


def _factory(name: str, width: float, folder: Path | None) -> Callable[..., Any]:
    factory = find_factory(f"Student '{name}'", name, folder, ARGUMENTS)
    if width != 1 and not _takes_width(factory):
        raise UsageError(
            f"Student '{name}' has one size: leave --width out, or have its factory take (num_classes, width)."
        )
    return factory


def _takes_width(factory: Callable[..., Any]) -> bool:
    try:
        parameters = signature(factory).parameters.values()
    except (TypeError, ValueError):  # it is not written in Python
        return False
    places = [each for each in parameters if each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 and (places[1].name == "width" or places[1].default is Parameter.empty)
