"""Matrices that are zero but for a band, which maps are multiplied by along their height and width: blurs, resizings.

By name they are what `along` multiplies by in a kernel, which sums the few neighbours that each value is made of.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from edgekd.losses.ssatkd.kernels import uses_kernels

Name = Literal["resize", "down", "up", "sum", "difference"]


class Named(NamedTuple):
    """The matrix of that name and those numbers (see `matrix_of`), or turned, for `along`'s kernel."""

    name: Name
    numbers: tuple[int, ...]
    turned: bool = False

    @property
    def adjoint(self) -> Named:
        return self._replace(turned=not self.turned)


def along(height: Named, width: Named, maps: Tensor) -> Tensor:
    """`height @ map @ width.T` of each of `maps (B, C, H, W)`."""
    how = (height.name, [*height.numbers], width.name, [*width.numbers], [height.turned, width.turned])
    if maps.shape[1] > 1 and maps.stride(1) == 1:  # channels-last
        return product(maps.permute(0, 2, 3, 1), *how, torch.float32).permute(0, 3, 1, 2)
    return product(maps.flatten(0, 1)[..., None], *how, torch.float32)[..., 0].unflatten(0, maps.shape[:2])


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps `(B, C, H, W)` at another size, bilinear, as `F.interpolate` without aligned corners has it; half precision
    raised to float32."""
    if not uses_kernels(maps.device) or maps.dtype == torch.float64:
        maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
        return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    return along(Named("resize", (maps.shape[2], height)), Named("resize", (maps.shape[3], width)), maps)


@torch.library.custom_op("edgekd::banded_product", mutates_args=())
def product(
    maps: Tensor,
    height: str,
    of_height: list[int],
    width: str,
    of_width: list[int],
    turned: list[bool],
    dtype: torch.dtype,
) -> Tensor:
    """`along`, of two matrices by name, for maps `(N, H, W, C)` of half or single precision, as `dtype`."""
    from edgekd.losses.ssatkd import banded_kernel

    lines = band_of(height, tuple(of_height), turned[0], maps.device)
    places = band_of(width, tuple(of_width), turned[1], maps.device)
    return banded_kernel.product(maps.contiguous(), lines, places, dtype)


@product.register_fake
def _(
    maps: Tensor,
    height: str,
    of_height: list[int],
    width: str,
    of_width: list[int],
    turned: list[bool],
    dtype: torch.dtype,
) -> Tensor:
    rows = []
    for name, numbers, turn in zip((height, width), (of_height, of_width), turned, strict=True):
        rows.append(_shape_of(name, *numbers)[turn])
        # What a compiler only traces now may run as a CUDA graph, which has no room for what is to outlast it.
        with _disable_current_modes():
            band_of(name, tuple(numbers), turn, maps.device)
    return maps.new_empty((maps.shape[0], *rows, maps.shape[3]), dtype=dtype)


def _kept(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.matrices, ctx.dtype = inputs[1:6], inputs[0].dtype


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    *matrices, turned = ctx.matrices
    found = product(gradient, *matrices, [not each for each in turned], ctx.dtype)
    return found, None, None, None, None, None, None


product.register_autograd(_gradient, setup_context=_kept)


class Band(NamedTuple):
    """Of each row of a matrix the first column that is not zero, `first (rows,)` int32, and from there on what stands
    in the band, `shares (width, rows)`."""

    first: Tensor
    shares: Tensor


@cache
def band_of(name: str, numbers: tuple[int, ...], turned: bool, device: torch.device) -> Band:
    """That of a matrix by name."""
    with torch.inference_mode(False), torch.no_grad():
        matrix = matrix_of(name, *numbers)
        if turned:
            matrix = matrix.mT
        there, size = matrix != 0, matrix.shape[1]
        first, last = there.int().argmax(1), size - 1 - there.flip(1).int().argmax(1)
        width = int((last - first)[there.any(1)].amax()) + 1  # rows of zeros have no band
        first = first.clamp_max(size - width)
        shares = matrix.gather(1, first[:, None] + torch.arange(width))
        return Band(first.int().to(device), shares.mT.float().contiguous().to(device))


def _shape_of(name: str, *numbers: int) -> tuple[int, int]:
    """Rows and columns of a matrix by name."""
    if name == "resize":
        return numbers[1], numbers[0]
    size, levels, k = numbers
    padded = _padded(size, levels)
    if name == "down":
        return padded >> (k + 1), padded >> k if k else size
    return padded >> k, padded >> (k + 1) if name == "up" else padded >> k


def _padded(size: int, levels: int) -> int:
    step = 2**levels
    return max(-(-size // step), 3) * step


def matrix_of(name: str, *numbers: int) -> Tensor:
    """A matrix float64, to multiply maps of `size` rows or columns.

    - `"resize", size, to`: bilinear, as `F.interpolate` without aligned corners.
    - Those of a pyramid, `name, size, levels, k`: `down` makes G(k+1) of G(k), `up` doubles and blurs G(k+1) for G(k),
      `sum` and `difference` are W and D at the size of G(k); see `structural`.
    """
    if name == "resize":
        size, to = numbers
        rows = torch.eye(size, dtype=torch.float64)[:, None]
        return F.interpolate(rows, size=to, mode="linear", align_corners=False)[:, 0].mT
    size, levels, k = numbers
    padded = _padded(size, levels)
    # Rows of an identity are the unit vectors; their images are the columns of the matrix.
    fine = torch.eye(padded >> k, dtype=torch.float64)
    if name == "down":
        down = _scaled(_blurred(fine), 0.5).mT
        return down if k > 0 else down[:, :size]  # what is left out meets the zero padding
    if name == "up":
        return _blurred(_scaled(torch.eye(padded >> (k + 1), dtype=torch.float64), 2.0)).mT
    before, here, after = fine[:-2], fine[1:-1], fine[2:]  # a row each place of a mask
    d, s1 = (before - after) / 8, before + here + after
    s2 = s1 + here
    return d.mT @ d if name == "difference" else s2.mT @ s2 + 2 * s1.mT @ s1


def _blurred(rows: Tensor) -> Tensor:
    kernel = rows.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return F.conv1d(F.pad(rows[:, None], (2, 2), mode="reflect"), kernel[None, None])[:, 0]


def _scaled(rows: Tensor, factor: float) -> Tensor:
    return F.interpolate(rows[:, None], scale_factor=factor, mode="linear", align_corners=False)[:, 0]
