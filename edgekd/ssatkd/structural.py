"""Structural texture: what edges a feature map has, at which scales and in which directions.

A Laplacian pyramid (Burt and Adelson, "The Laplacian pyramid as a compact image code", 1983) splits each channel into
bands; eight compass masks (Robinson, "Edge detection by compass gradient masks", 1977) measure each band's edges every
45 degrees. Student and teacher are compared by the cosine of the two textures (Ritu et al., arXiv 2501.01921).

    G0 = F        G(k+1) = half(blur(Gk))        Lk = Gk - blur(double(G(k+1)))
    texture = compass masks * (L1, ..., L(levels-1), G(levels))

Blur (5x5 binomial, reflected border) and resizing (bilinear) are linear and separable, so going down or up one level is
one small matrix on each axis: `down_h @ G @ down_w.T`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import unknown_name

Fusion = Literal["all", "max"]

NORM_FLOOR = 1e-4
"""Vectors shorter than this count as no texture: their cosine fades to 0 instead of following rounding noise."""


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
        and `fusion="max"` the largest absolute response of these, `(B, C, h, w)`. The cosine of two textures is that of
        their responses, for a fifth of the memory: see `cosine_distance`.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = full_precision(features)
            masks = self.masks.to(features.dtype).repeat(features.shape[1], 1, 1, 1)
            responses = [F.conv2d(band, masks, groups=band.shape[1]) for band in laplacian_bands(features, self.levels)]
        if self.fusion == "max":
            return [response.unflatten(1, (-1, 4)).abs().amax(dim=2) for response in responses]
        return responses


def structural_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """`mean_b(1 - cos(S_b, T_b))` of two textures `(B, ...)` of the same shape: a scalar in [0, 2]."""
    return cosine_distance([student], [teacher])


def cosine_distance(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """`mean_b(1 - cos(S_b, T_b))`, where S_b is everything that the tensors `(B, ...)` of a list hold for sample b.

    A texture shorter than `NORM_FLOOR` (a silent or constant map) has cosine 0 with everything and a finite gradient.
    """
    norm = _dot(student, student).clamp_min(NORM_FLOOR**2) * _dot(teacher, teacher).clamp_min(NORM_FLOOR**2)
    return (1 - _dot(student, teacher) / norm.sqrt()).mean()


def laplacian_bands(features: Tensor, levels: int) -> list[Tensor]:
    """L1 .. L(levels-1) and G(levels) of `features (B, C, H, W)`; band k is `(B, C, H' / 2**k, W' / 2**k)`."""
    height, width = (_axis_matrices(size, levels, features.dtype, features.device) for size in features.shape[-2:])
    gaussian = [features]
    # The short axis first: it halves the work of the long one.
    for down_h, down_w in zip(height.down, width.down, strict=True):
        gaussian.append(down_h @ (gaussian[-1] @ down_w.mT))
    bands = [
        fine - up_h @ (coarse @ up_w.mT)
        for fine, coarse, up_h, up_w in zip(gaussian[1:-1], gaussian[2:], height.up, width.up, strict=True)
    ]
    return [*bands, gaussian[-1]]


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 raised to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class _AxisMatrices(NamedTuple):
    """Along one axis: `down[k] @ Gk = G(k+1)` for k = 0 .. levels-1, `up[k-1] @ G(k+1)` for k = 1 .. levels-1."""

    down: list[Tensor]
    up: list[Tensor]


@lru_cache(maxsize=64)
def _axis_matrices(size: int, levels: int, dtype: torch.dtype, device: torch.device) -> _AxisMatrices:
    step = 2**levels
    padded = max(-(-size // step), 3) * step
    # Cached matrices must serve training even if an evaluation in inference mode is the first to ask for them.
    with torch.inference_mode(False), torch.no_grad():
        down, up = [], []
        for k in range(levels):
            fine = torch.eye(padded >> k, dtype=torch.float64)
            coarse = torch.eye(padded >> (k + 1), dtype=torch.float64)
            # Rows of an identity are the unit vectors; their images are the columns of the matrix.
            down.append(_resize(_blur(fine), 0.5).mT)
            up.append(_blur(_resize(coarse, 2.0)).mT)
        down[0] = down[0][:, :size]  # the columns left out meet the zero padding
        return _AxisMatrices(
            down=[matrix.to(device, dtype).contiguous() for matrix in down],
            up=[matrix.to(device, dtype).contiguous() for matrix in up[1:]],
        )


def _blur(rows: Tensor) -> Tensor:
    kernel = rows.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return F.conv1d(F.pad(rows[:, None], (2, 2), mode="reflect"), kernel[None, None])[:, 0]


def _resize(rows: Tensor, factor: float) -> Tensor:
    return F.interpolate(rows[:, None], scale_factor=factor, mode="linear", align_corners=False)[:, 0]


def _compass_masks() -> Tensor:
    """The eight masks `(8, 3, 3)`: `[[1, 2, 1], [0, 0, 0], [-1, -2, -1]] / 8` turned by 0, 45, .. 315 degrees."""
    ring = torch.tensor([1.0, 2.0, 1.0, 0.0, -1.0, -2.0, -1.0, 0.0]) / 8  # clockwise from the top left
    rows, columns = torch.tensor([0, 0, 0, 1, 2, 2, 2, 1]), torch.tensor([0, 1, 2, 2, 2, 1, 0, 0])
    masks = torch.zeros(8, 3, 3)
    for n in range(8):
        masks[n, rows, columns] = ring.roll(-n)
    return masks


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Inner product `(B,)` over everything but the batch, of all tensors of the lists together."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)
