"""Whether the texture terms compute in kernels of their own: on a GPU, where Triton can make them.

Without, each is some hundreds of small operations, which a GPU takes longer to start than to do. Nothing changes but
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import SubprocessError

import torch
import torch.nn.functional as F
from torch import Tensor

_on: set[str] = set()  # types of devices


def in_kernels(values: Tensor) -> bool:
    """Whether what is made of `values` is computed in kernels."""
    return values.device.type in _on and values.dtype == torch.float32


def uses_kernels(device: torch.device) -> bool:
    """Whether what lies on `device` is computed in kernels."""
    return device.type in _on


def use_kernels(device: torch.device) -> str:
    """From now on have kernels compute on a CUDA `device`; why they cannot, or that they compute something else than
    PyTorch does, and then they do not. Empty where they can, and on a CPU, where there are none."""
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


def use_no_kernels() -> None:
    """From now on have PyTorch's operators compute everywhere."""
    _on.clear()


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within it nothing is computed in kernels."""
    kept = set(_on)
    use_no_kernels()
    try:
        yield
    finally:
        _on.update(kept)


def _try(device: torch.device) -> None:
    """Compute something in each kernel, and in PyTorch on the CPU; raises where that fails, or they differ."""
    from edgekd.losses.ssatkd.banded import product
    from edgekd.losses.ssatkd.transport import solve, transport_plan

    drawn = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 5, 25, 18, generator=drawn)
    rows = maps.to(device).permute(0, 2, 3, 1)
    found = product(rows, "resize", [25, 12], "resize", [18, 9], [False, False], torch.float32)
    resized = F.interpolate(maps, size=(12, 9), mode="bilinear", align_corners=False)
    check_alike("resizing", found.permute(0, 3, 1, 2), resized, 1e-5)
    a, b = torch.rand(2, 2, 16, generator=drawn).softmax(2)
    cost = torch.rand(2, 16, 16, generator=drawn)
    plans = zip(transport_plan(*(each.to(device) for each in (a, b, cost))), solve(a, b, cost), strict=True)
    for found, expected in plans:
        check_alike("transport", found, expected, 1e-5)


def check_alike(what: str, found: Tensor, expected: Tensor, most: float) -> None:
    """Raise `RuntimeError` where `found` differs from `expected` by more than `most` of its largest value."""
    difference = (found.cpu().float() - expected.float()).abs().max().item() / expected.abs().max().item()
    if not difference <= most:
        raise RuntimeError(f"{what} differs from PyTorch's by {difference:.2g} of the largest value")
