"""The adapter of taps against the layers that it is made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.losses.adapter import Adapter


def plainly(adapter: Adapter, maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(adapter(maps), size=size, mode="bilinear")


@pytest.mark.parametrize("size", [(25, 7), (50, 13), (30, 13)])
def test_clip_by_clip_is_the_layers_of_the_whole_batch_with_their_gradient(size: tuple[int, int]) -> None:
    adapter = Adapter(6, 4).double()
    maps = torch.randn(3, 6, 50, 13, dtype=torch.float64)
    wanted = torch.randn(3, 4, *size, dtype=torch.float64)
    found, expected = adapter.resized(maps, size), plainly(adapter, maps, size)
    torch.testing.assert_close(found, expected)
    parameters = list(adapter.parameters())
    gradients = (torch.autograd.grad(values, parameters, wanted) for values in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def test_maps_stored_in_half_precision_are_raised_first() -> None:
    adapter, maps = Adapter(6, 4), torch.randn(3, 6, 20, 8).half()
    found = adapter.resized(maps, (10, 4))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plainly(adapter, maps.float(), (10, 4)))


def test_a_map_that_learns_gets_its_gradient() -> None:
    adapter = Adapter(6, 4)
    maps = torch.randn(3, 6, 20, 8, requires_grad=True)
    wanted = torch.randn(3, 4, 10, 4)
    (ours,) = torch.autograd.grad(adapter.resized(maps, (10, 4)), maps, wanted)
    (theirs,) = torch.autograd.grad(plainly(adapter, maps, (10, 4)), maps, wanted)
    torch.testing.assert_close(ours, theirs)
