"""Whether kernels that Triton makes compute on this GPU, and what PyTorch does: found out before they are used."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import SubprocessError

import torch
from torch import Tensor


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


def check_alike(what: str, found: Tensor, expected: Tensor, most: float) -> None:
    """Raise `RuntimeError` where `found` differs from `expected` by more than `most` of its largest value."""
    difference = (found.cpu().float() - expected.float()).abs().max().item() / expected.abs().max().item()
    if not difference <= most:
        raise RuntimeError(f"{what} differs from PyTorch's by {difference:.2g} of the largest value")
