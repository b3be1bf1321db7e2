"""Whether the texture terms compute in kernels of their own: on a GPU, where Triton can make them.

Without, each is some hundreds of small operations, which a GPU takes longer to start than to do. Nothing changes but
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import SubprocessError

import torch
from torch import Tensor

_on: set[str] = set()  # types of devices


def in_kernels(values: Tensor) -> bool:
    """Whether what is made of `values` is computed in kernels."""
    return values.device.type in _on and values.dtype == torch.float32


def uses_kernels(device: torch.device) -> bool:
    """Whether what lies on `device` is computed in kernels."""
    return device.type in _on


def use_kernels(device: torch.device) -> str:
    """From now on have kernels compute on a CUDA `device`; why they cannot, and then they do not. Empty where they can,
    and on a CPU, where there are none."""
    if device.type != "cuda" or device.type in _on:
        return ""
    why = why_not(_try, device)
    if not why:
        _on.add(device.type)
    return why


def why_not(attempt: Callable[[torch.device], None], device: torch.device) -> str:
    """Why `attempt(device)`, which computes in Triton's kernels, fails, in a line; empty where it does not."""
    try:
        attempt(device)
    except _failures() as failure:
        return f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
    return ""


def _failures() -> tuple[type[Exception], ...]:
    """What Triton raises where it has no compiler, the compiler fails, or the GPU is not up to what it made."""
    found = (AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
    try:
        from triton.errors import TritonError
    except ImportError:
        return (*found, SubprocessError)
    return (*found, SubprocessError, TritonError)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within it nothing is computed in kernels."""
    kept = set(_on)
    _on.clear()
    try:
        yield
    finally:
        _on.update(kept)


def _try(device: torch.device) -> None:
    """Compute something in each kernel; raises where that fails."""
    from edgekd.losses.ssatkd.banded import product
    from edgekd.losses.ssatkd.transport import transport_plan

    ones = torch.ones(1, 4, 4, 1, device=device)
    product(ones, "resize", [4, 3], "resize", [4, 3], [False, False], torch.float32)
    shares = torch.full((1, 2), 0.5, device=device)
    transport_plan(shares, shares, torch.ones(1, 2, 2, device=device))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
