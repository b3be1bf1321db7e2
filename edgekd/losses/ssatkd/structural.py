"""Structural texture: what edges a feature map has, at which scales and in which directions.

A Laplacian pyramid (Burt and Adelson, "The Laplacian pyramid as a compact image code", 1983) splits each channel into
bands; eight compass masks (Robinson, "Edge detection by compass gradient masks", 1977) measure each band's edges every
45 degrees. Student and teacher are compared by the cosine of the two textures (Ritu et al., arXiv 2501.01921).

    G0 = F        G(k+1) = half(blur(Gk))        Lk = Gk - blur(double(G(k+1)))
    texture = compass masks * (L1, ..., L(levels-1), G(levels))

Blur (5x5 binomial, reflected border) and resizing (bilinear) are linear and separable, so going down or up one level is
one small matrix on each axis: `down_h @ G @ down_w.T`. Within, the maps of a batch lie side by side, `(H, W, maps)`:
then such a matrix multiplies long rows, not each small map for itself.

The cosine needs no texture, only inner products of two, and in these the masks come down to products along the axes as
well. A slanted mask is `s1.T d + d.T s1` or the difference of the two, an upright one `s2.T d`, a level one `d.T s2`,
with `s1 = [1 1 1]`, `s2 = [1 2 1]` and `d = [1 0 -1] / 8`; so for any two bands X and Y, over half of the ring,

    sum_masks <mask * X, mask * Y> = <X, K Y>        K Y = W_h Y D_w + D_h Y W_w
    W = s2.T s2 + 2 s1.T s1        D = d.T d          summed over the places of a mask along the axis

The gradient of `<X, K Y>` is K Y and K X: the values' own by-products.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from edgekd.errors import unknown_name
from edgekd.losses.ssatkd.banded import Named, along, matrix_of
from edgekd.losses.ssatkd.kernels import in_kernels

Fusion = Literal["all", "max"]

NORM_FLOOR = 1e-4
"""Vectors shorter than this count as no texture: their cosine fades to 0 instead of following rounding noise."""

_BLOCK = 16  # rows of a banded matrix that a CPU multiplies at a time


class StructuralTexture(nn.Module):
    """Oriented edges of the bands of a Laplacian pyramid.

    `features (B, C, H, W)` -> `(B, C * 8 * levels, H' / 2 - 2, W' / 2 - 2)`, where H' and W' are H and W zero-padded at
    the bottom and right to a multiple of `2**levels`. Channels run over levels (finest first), then feature channels,
    then the eight directions; coarser levels are zero-padded to the size of the finest. With `fusion="max"` only the
    strongest direction is kept: `(B, C * levels, ...)`.

    A map with fewer than 3 rows or columns at the coarsest level has no place for a 3x3 mask there, so H' and W' are at
    least `3 * 2**levels`; this concerns teachers whose tap is `(B, C, frames, 1)`.

    Half precision is raised to float32, inside autocast too: differences of nearly equal numbers are what is measured.
    """

    masks: Tensor

    def __init__(self, levels: int = 3, fusion: Fusion = "all") -> None:
        super().__init__()
        if fusion not in ("all", "max"):
            raise unknown_name("structural fusion", fusion, ("all", "max"))
        self.levels = levels
        self.fusion = fusion
        self.register_buffer("masks", _compass_masks()[:4, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        levels = self.responses(features)
        if self.fusion == "all":
            half_rings = [response.unflatten(1, (-1, 4)) for response in levels]  # (B, C, 4, h, w)
            levels = [torch.cat((half_ring, -half_ring), dim=2).flatten(1, 2) for half_ring in half_rings]
        height, width = levels[0].shape[-2:]
        return torch.cat([F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in levels], dim=1)

    def responses(self, features: Tensor) -> list[Tensor]:
        """The texture without its redundancy: one map a level, at the level's own size.

        Opposite masks are each other's negative, so `fusion="all"` gives the first four directions, `(B, 4 * C, h, w)`,
        and `fusion="max"` the largest absolute response of these, `(B, C, h, w)`.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = full_precision(features)
            masks = self.masks.to(features.dtype).repeat(features.shape[1], 1, 1, 1)
            responses = [F.conv2d(band, masks, groups=band.shape[1]) for band in laplacian_bands(features, self.levels)]
        if self.fusion == "max":
            return [response.unflatten(1, (-1, 4)).abs().amax(dim=2) for response in responses]
        return responses

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """`structural_loss` of the textures of two maps `(B, C, H, W)`, for a fraction of the time and memory."""
        if self.fusion == "max":
            s, t = self.responses(student), self.responses(teacher)
            return _cosine_distance(_dot(s, s), _dot(t, t), _dot(s, t))
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = full_precision(student), full_precision(teacher)
            products_of = _products_in_kernels if in_kernels(student) else _Products.apply
            products = products_of(student, teacher, self.levels)
            return _cosine_distance(*products)


def structural_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """`mean_b(1 - cos(S_b, T_b))` of two textures `(B, ...)` of the same shape: a scalar in [0, 2].

    A texture shorter than `NORM_FLOOR` (a silent or constant map) has cosine 0 with everything and a finite gradient.
    """
    s, t = [student], [teacher]
    return _cosine_distance(_dot(s, s), _dot(t, t), _dot(s, t))


def laplacian_bands(features: Tensor, levels: int) -> list[Tensor]:
    """L1 .. L(levels-1) and G(levels) of `features (B, C, H, W)`; band k is `(B, C, H' / 2**k, W' / 2**k)`."""
    if in_kernels(features):
        return _bands_in_kernels(features, levels)
    return [_apart(band, features.shape) for band in _bands(_side_by_side(features), levels)]


def _side_by_side(features: Tensor) -> Tensor:
    """Maps `(B, C, H, W)` as `(H, W, B * C)`."""
    return features.permute(2, 3, 0, 1).flatten(2)


def _apart(maps: Tensor, shape: torch.Size) -> Tensor:
    """What `_side_by_side` made of maps of the batch and channels in `shape`, as `(B, C, H, W)`."""
    return maps.unflatten(2, shape[:2]).permute(2, 3, 0, 1)


def _bands(maps: Tensor, levels: int) -> list[Tensor]:
    """`laplacian_bands` of maps that lie side by side."""
    height, width = _axes(maps.shape[:2], levels, maps)
    coarse = _along(height.down[0], width.down[0], maps)
    bands = []
    for k in range(1, levels):
        fine, coarse = coarse, _along(height.down[k], width.down[k], coarse)
        bands.append(fine - _along(height.up[k], width.up[k], coarse))
    return [*bands, coarse]


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 raised to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _Products(torch.autograd.Function):
    """`<S, S>`, `<T, T>` and `<S, T>`, `(B,)` each, of the textures of two maps `(B, C, H, W)` over `levels`."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.shape, ctx.levels = student.shape, levels
        s, t = (_bands(_side_by_side(maps), levels) for maps in (student, teacher))
        axes = _axes(student.shape[2:], levels, student)
        edges_s, edges_t = ([_edges(*axes, k, band) for k, band in enumerate(bands, 1)] for bands in (s, t))
        ctx.save_for_backward(*edges_s, *edges_t)
        pairs = ((s, edges_s), (t, edges_t), (s, edges_t))
        of_s, of_t, of_both = (_dot_side_by_side(*pair, len(student)) for pair in pairs)
        return of_s, of_t, of_both

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_s: Tensor, of_t: Tensor, of_both: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        edges_s, edges_t = ctx.saved_tensors[: ctx.levels], ctx.saved_tensors[ctx.levels :]
        batch, channels = ctx.shape[:2]
        both = of_both.repeat_interleave(channels, output_size=batch * channels)
        gradients: list[Tensor | None] = [None, None]
        for place, (own, mine, other) in enumerate(((of_s, edges_s, edges_t), (of_t, edges_t, edges_s))):
            if ctx.needs_input_grad[place]:
                twice = (2 * own).repeat_interleave(channels, output_size=batch * channels)
                bands = [torch.addcmul(both * o, twice, m) for m, o in zip(mine, other, strict=True)]
                found = _apart(_bands_gradient(bands, ctx.shape[2:]), ctx.shape)
                gradients[place] = found.contiguous(memory_format=torch.channels_last)  # as networks have theirs
        return gradients[0], gradients[1], None


def _products_in_kernels(student: Tensor, teacher: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `_Products` computes, in kernels, for a compiler to put what lies between them together.

    K of the bands is a constant here: what a band is multiplied by so that the gradients are those of `_Products`.
    """
    height, width = (_named(side, levels) for side in student.shape[2:])

    def edges(k: int, band: Tensor) -> Tensor:
        return along(height.sum[k], width.difference[k], band) + along(height.difference[k], width.sum[k], band)

    s, t = laplacian_bands(student, levels), laplacian_bands(teacher, levels)
    edges_s, edges_t = ([edges(k, band.detach()) for k, band in enumerate(bands, 1)] for bands in (s, t))
    of_s = _dot([2 * band - band.detach() for band in s], edges_s)
    of_t = _dot([2 * band - band.detach() for band in t], edges_t)
    through_t = _dot([band - band.detach() for band in t], edges_s)  # zero
    return of_s, of_t, _dot(s, edges_t) + through_t


def _bands_in_kernels(maps: Tensor, levels: int) -> list[Tensor]:
    """`laplacian_bands`, in kernels."""
    height, width = (_named(side, levels) for side in maps.shape[2:])
    coarse, bands = along(height.down[0], width.down[0], maps), []
    for k in range(1, levels):
        fine, coarse = coarse, along(height.down[k], width.down[k], coarse)
        bands.append(fine - along(height.up[k], width.up[k], coarse))
    return [*bands, coarse]


def _dot_side_by_side(a: list[Tensor], b: list[Tensor], batch: int) -> Tensor:
    """`_dot` of maps that lie side by side, those of a `batch`."""
    maps = torch.stack([(x * y).flatten(0, 1).sum(0) for x, y in zip(a, b, strict=True)]).sum(0)
    return maps.unflatten(0, (batch, -1)).sum(1)


def _bands_gradient(bands: list[Tensor], size: torch.Size) -> Tensor:
    """The gradient of what `_bands` was given, maps of `size`, for one of each of its bands."""
    levels = len(bands)
    height, width = _axes(size, levels, bands[0])
    coarse = bands[-1]
    for k in range(levels - 1, 0, -1):
        fine = bands[k - 1]
        coarse = coarse - _along(height.up[k].adjoint, width.up[k].adjoint, fine)
        coarse = fine + _along(height.down[k].adjoint, width.down[k].adjoint, coarse)
    return _along(height.down[0].adjoint, width.down[0].adjoint, coarse)


class _Banded:
    """A matrix that is zero but for a band, to multiply maps `(H, W, maps)` along an axis."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.blocks: list[tuple[Tensor, int]] = []  # some rows of it less the zeros around, and the first column
        for rows in matrix.split(_BLOCK if matrix.device.type == "cpu" else len(matrix)):
            columns = rows.any(0).nonzero().flatten().tolist() or [0]
            self.blocks.append((rows[:, columns[0] : columns[-1] + 1].contiguous(), columns[0]))

    @cached_property
    def adjoint(self) -> _Banded:
        return _Banded(self.matrix.mT.contiguous())

    def down_columns(self, maps: Tensor) -> Tensor:
        """Along H."""
        rows = maps.flatten(1)
        parts = [block @ rows.narrow(0, first, block.shape[1]) for block, first in self.blocks]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unflatten(1, maps.shape[1:])

    def along_rows(self, maps: Tensor) -> Tensor:
        """Along W."""
        return self.matrix @ maps


def _along(height: _Banded, width: _Banded, maps: Tensor) -> Tensor:
    """`height @ map @ width.T` of each; what makes them smaller first, as it leaves less to do."""
    if len(width.matrix) <= maps.shape[1]:
        return height.down_columns(width.along_rows(maps))
    return width.along_rows(height.down_columns(maps))


def _edges(height: _Axis, width: _Axis, k: int, band: Tensor) -> Tensor:
    """K times band number `k`."""
    across = height.sum[k].down_columns(width.difference[k].along_rows(band))
    return across + height.difference[k].down_columns(width.sum[k].along_rows(band))


class _Axis(NamedTuple):
    """The matrices along one axis, by the number k of a level; see `banded.matrix_of`."""

    down: Mapping[int, Any]
    up: Mapping[int, Any]
    sum: Mapping[int, Any]
    difference: Mapping[int, Any]


def _axes(size: torch.Size, levels: int, like: Tensor) -> tuple[_Axis, _Axis]:
    """Those of H and W of maps of this `size`."""
    height, width = (_axis(side, levels, like.dtype, like.device) for side in size)
    return height, width


def _named(size: int, levels: int) -> _Axis:
    """Those of an axis of this size, by name."""
    return _Axis(
        {k: Named("down", (size, levels, k)) for k in range(levels)},
        {k: Named("up", (size, levels, k)) for k in range(1, levels)},
        {k: Named("sum", (size, levels, k)) for k in range(1, levels + 1)},
        {k: Named("difference", (size, levels, k)) for k in range(1, levels + 1)},
    )


@lru_cache(maxsize=64)
def _axis(size: int, levels: int, dtype: torch.dtype, device: torch.device) -> _Axis:
    def banded(matrices: Mapping[int, Named]) -> dict[int, _Banded]:
        found = {k: matrix_of(each.name, *each.numbers) for k, each in matrices.items()}
        return {k: _Banded(matrix.to(device, dtype).contiguous()) for k, matrix in found.items()}

    # Cached matrices must serve training even if an evaluation in inference mode is the first to ask for them.
    with torch.inference_mode(False), torch.no_grad():
        return _Axis(*map(banded, _named(size, levels)))


def _compass_masks() -> Tensor:
    """The eight masks `(8, 3, 3)`: `[[1, 2, 1], [0, 0, 0], [-1, -2, -1]] / 8` turned by 0, 45, .. 315 degrees."""
    ring = torch.tensor([1.0, 2.0, 1.0, 0.0, -1.0, -2.0, -1.0, 0.0]) / 8  # clockwise from the top left
    rows, columns = torch.tensor([0, 0, 0, 1, 2, 2, 2, 1]), torch.tensor([0, 1, 2, 2, 2, 1, 0, 0])
    masks = torch.zeros(8, 3, 3)
    for n in range(8):
        masks[n, rows, columns] = ring.roll(-n)
    return masks


def _cosine_distance(of_student: Tensor, of_teacher: Tensor, of_both: Tensor) -> Tensor:
    """`mean_b(1 - cos)` from the inner products `(B,)` of two vectors with themselves and with each other."""
    norm = of_student.clamp_min(NORM_FLOOR**2) * of_teacher.clamp_min(NORM_FLOOR**2)
    return (1 - of_both / norm.sqrt()).mean()


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Inner product `(B,)` over everything but the batch, of all tensors of the lists together."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)
