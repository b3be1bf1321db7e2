"""`banded.product` as a Triton kernel: maps multiplied by a banded matrix along each axis, at one go.

Imported where it runs alone, as it imports Triton.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgekd.losses.ssatkd.banded import Band

_TILE = 256


@triton.jit
def _product(
    maps, out, first_line, of_lines, first_place, of_places, lines, row, out_lines, out_row, lanes,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Some places of one map."""
    plane = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < out_lines * out_row * lanes
    i, j, lane = at // lanes // out_row, at // lanes % out_row, at % lanes
    line = tl.load(first_line + i, mask=inside, other=0)
    place = tl.load(first_place + j, mask=inside, other=0)
    start = maps + plane * lines * row * lanes + (line * row + place) * lanes + lane
    total = tl.zeros((TILE,), tl.float32)
    for p in tl.static_range(DOWN):
        across = tl.zeros((TILE,), tl.float32)
        for q in tl.static_range(ACROSS):
            share = tl.load(of_places + q * out_row + j, mask=inside, other=0.0)
            across += share * tl.load(start + (p * row + q) * lanes, mask=inside, other=0.0).to(tl.float32)
        total += across * tl.load(of_lines + p * out_lines + i, mask=inside, other=0.0)
    tl.store(out + plane * out_lines * out_row * lanes + at, total.to(out.dtype.element_ty), mask=inside)


def product(maps: Tensor, height: Band, width: Band, dtype: torch.dtype) -> Tensor:
    """`maps (N, H, W, C)`, contiguous, multiplied by the matrices of these bands."""
    lines, row, lanes = maps.shape[1:]
    (down, out_lines), (across, out_row) = height.shares.shape, width.shares.shape
    out = maps.new_empty((maps.shape[0], out_lines, out_row, lanes), dtype=dtype)
    grid = (maps.shape[0], triton.cdiv(out_lines * out_row * lanes, _TILE))
    _product[grid](
        maps, out, height.first, height.shares, width.first, width.shares, lines, row, out_lines, out_row, lanes,
        down, across, _TILE,
    )  # fmt: skip
    return out
