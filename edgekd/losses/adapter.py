"""The adapter between two taps: a 1x1 convolution and a ReLU to the other's channels, then the other's size.

A teacher's tap is large, and on a CPU what is made of a whole batch of them fits no cache: it is written to memory and
read again in every layer, forwards and backwards. There maps that do not learn are adapted a clip at a time, raised
from float16 on the way, as one matrix product each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekd.losses.ssatkd.banded import resized
from edgekd.losses.ssatkd.structural import full_precision


class Adapter(nn.Sequential):
    """Maps `(B, inputs, H, W)` -> `(B, outputs, H, W)`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel_size=1), nn.ReLU())

    def resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """What becomes of `maps (B, inputs, H, W)` at another `size`, float32."""
        if maps.device.type != "cpu" or maps.requires_grad or not maps.is_contiguous():
            return resize(full_precision(self(full_precision(maps))), size)
        weight, bias = self[0].parameters()
        found: Tensor = _ClipByClip.apply(maps, weight.flatten(1), bias, size)
        return found


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps `(B, C, H, W)` at another `size`, bilinear."""
    if maps.shape[2:] == size:
        return maps
    return resized(maps, *size)


class _ClipByClip(torch.autograd.Function):
    """`relu(weight @ maps + bias)`, resized, of `maps (B, C, H, W)`, `weight (O, C)`, `bias (O,)`: `(B, O, *size)`,
    channels-last. The maps get no gradient."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
        shape = (len(weight), *maps.shape[2:])
        found = torch.empty(
            (len(maps), len(weight), *size),
            dtype=weight.dtype,
            device=weight.device,
            memory_format=torch.channels_last,
        )
        adapted = []
        for clip, into in zip(maps, found, strict=True):
            places = torch.addmm(bias, _places(clip, weight), weight.mT).relu_()  # (H * W, O)
            into.copy_(resize(_map(places, shape), size)[0])
            adapted.append(places)
        ctx.save_for_backward(maps, weight, *adapted)
        ctx.shape, ctx.size = shape, size
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        maps, weight, *adapted = ctx.saved_tensors
        of_weight, of_bias = torch.zeros_like(weight), weight.new_zeros(len(weight))
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        for clip, places, wanted in zip(maps, adapted, gradient.split(1), strict=True):
            if wanted.shape[1:] == ctx.shape:
                given = wanted
            else:
                given = torch.ops.aten.upsample_bilinear2d_backward(wanted, ctx.size, (1, *ctx.shape), False)
            before = torch.ops.aten.threshold_backward(given[0].flatten(1).mT, places, 0)  # the ReLU
            of_weight.addmm_(before.mT, _places(clip, weight))
            of_bias += before.sum(0)
        return None, of_weight, of_bias, None


def _places(clip: Tensor, like: Tensor) -> Tensor:
    """A map `(C, H, W)` as `(H * W, C)`, in the type of `like`."""
    return clip.flatten(1).to(like.dtype).mT


def _map(places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Places `(H * W, C)` as a map `(1, *shape)`, channels-last."""
    return places.mT.unflatten(1, shape[1:])[None]
