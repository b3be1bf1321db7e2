"""Whether the texture terms compute in kernels of their own: on a GPU, where Triton can make them.

Without, each is some hundreds of small operations, which a GPU takes longer to start than to do. Nothing changes but
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from edgekd.losses.kernel_trial import check_alike, why_not

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
    """Compute the texture terms and their gradients in kernels, and by PyTorch's operators on the CPU; raises where the
    former fails, or they differ."""
    expected = _of_textures(torch.device("cpu"))
    _on.add(device.type)
    try:
        found = _of_textures(device)
    finally:
        _on.discard(device.type)
    for what, values in expected.items():
        check_alike(what, found[what], values, 1e-4)


def _of_textures(device: torch.device) -> dict[str, Tensor]:
    """What each kernel has a part in, of numbers that are always the same."""
    from edgekd.losses.ssatkd.banded import resized
    from edgekd.losses.ssatkd.structural import StructuralTexture
    from edgekd.losses.ssatkd.transport import transport_cost

    drawn = torch.Generator().manual_seed(0)

    def uniform(*sizes: int) -> Tensor:
        return torch.rand(*sizes, generator=drawn).to(device)

    student, teacher = uniform(2, 3, 25, 18).requires_grad_(), uniform(2, 3, 12, 9)
    structure = StructuralTexture(2).distance(resized(student, *teacher.shape[2:]), teacher).sum()
    shares, others, costs = uniform(2, 16).softmax(1).requires_grad_(), uniform(2, 16).softmax(1), uniform(2, 16, 16)
    moved = transport_cost(shares, others, costs)
    return {
        "structure": structure.detach(),
        "structure's gradient": torch.autograd.grad(structure, student)[0],
        "transport": moved.detach(),
        "transport's gradient": torch.autograd.grad(moved.sum(), shares)[0],
    }
