"""The two products of a narrow convolution as Triton kernels; see `narrow_convolutions`, whose words these are.

Imported where it runs alone, as it imports Triton.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Launch(NamedTuple):
    """How a kernel is cut up: places a tile, shifts at a time, warps, stages of the pipeline."""

    tile: int
    at_once: int
    warps: int
    stages: int


PRODUCTS = Launch(tile=128, at_once=1, warps=4, stages=3)
OUTER = Launch(tile=128, at_once=4, warps=4, stages=3)
PROGRAMS = 176  # parts of the sum over places, each of all shifts


@triton.jit
def _products(
    values, weights, bias, out, places, width,
    SHIFTS: tl.constexpr, SIDE: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """`out[m] = bias + sum_s values[m + shift(s)] @ weights[s]`."""
    m = tl.program_id(0) * TILE + tl.arange(0, TILE)
    lane = tl.arange(0, LANES)
    column = tl.arange(0, AT_ONCE * LANES)
    total = tl.zeros((TILE, LANES), tl.float32) + tl.load(bias + lane).to(tl.float32)[None, :]
    for first in range(0, SHIFTS, AT_ONCE):
        if AT_ONCE == 1:
            at = m + (first // SIDE * width + first % SIDE)
            tile = tl.load(values + at[:, None] * LANES + lane[None, :], mask=(at < places)[:, None], other=0.0)
        else:
            shift = tl.minimum(first + column // LANES, SHIFTS - 1)  # of those past the last, the weights are 0
            at = m[:, None] + (shift // SIDE * width + shift % SIDE)[None, :]
            tile = tl.load(values + at * LANES + (column % LANES)[None, :], mask=at < places, other=0.0)
        of_shifts = tl.load(weights + (first * LANES + column)[:, None] * LANES + lane[None, :])
        total = tl.dot(tile, of_shifts, total, input_precision="ieee")
    tl.store(out + m[:, None] * LANES + lane[None, :], total.to(out.dtype.element_ty), mask=(m < places)[:, None])


@triton.jit
def _outer(
    values, gradient, out, places, width, ahead,
    SHIFTS: tl.constexpr, SIDE: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr, AT_ONCE: tl.constexpr,
    TILES: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """`out[part, s] = sum_m values[m + shift(s)]^T gradient[m + ahead]` over the places m of each part."""
    part, group = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, LANES)
    column = tl.arange(0, AT_ONCE * LANES)
    shift = tl.minimum(group * AT_ONCE + column // LANES, SHIFTS - 1)
    ahead_of = shift // SIDE * width + shift % SIDE
    total = tl.zeros((AT_ONCE * LANES, LANES), tl.float32)
    for number in range(TILES):
        m = (part * TILES + number) * TILE + tl.arange(0, TILE)
        inside = (m < places)[:, None]
        tile = tl.load(
            values + (m[:, None] + ahead_of[None, :]) * LANES + (column % LANES)[None, :], mask=inside, other=0.0
        )
        of_place = tl.load(gradient + (m + ahead)[:, None] * LANES + lane[None, :], mask=inside, other=0.0)
        total = tl.dot(tl.trans(tile), of_place, total, input_precision="ieee")
    row = (part * GROUPS + group) * AT_ONCE * LANES + column
    tl.store(out + row[:, None] * LANES + lane[None, :], total)


def products(values: Tensor, weights: Tensor, bias: Tensor, side: int, launch: Launch = PRODUCTS) -> Tensor:
    """See `narrow_convolutions.shifted_products`."""
    lanes, shifts = values.shape[3], weights.shape[0]
    places = values.numel() // lanes
    whole = -(-shifts // launch.at_once) * launch.at_once
    if whole > shifts:
        weights = torch.cat((weights, weights.new_zeros(whole - shifts, lanes, lanes)))
    out = torch.empty_like(values)
    _products[(triton.cdiv(places, launch.tile),)](
        values, weights, bias, out, places, values.shape[2], shifts, side, lanes, launch.tile, launch.at_once,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
    return out


def outer(
    values: Tensor, gradient: Tensor, height: int, side: int, launch: Launch = OUTER, programs: int = PROGRAMS
) -> Tensor:
    """See `narrow_convolutions.shifted_outer`."""
    lanes, width, shifts = values.shape[3], values.shape[2], height * side
    furthest = (height - 1) * width + side - 1
    places = values.numel() // lanes - furthest
    groups, parts = triton.cdiv(shifts, launch.at_once), min(programs, triton.cdiv(places, launch.tile))
    tiles = triton.cdiv(triton.cdiv(places, launch.tile), parts)
    out = values.new_empty(parts, groups * launch.at_once, lanes, lanes, dtype=torch.float32)
    _outer[(parts, groups)](
        values, gradient, out, places, width, furthest // 2, shifts, side, lanes, launch.tile, launch.at_once, tiles,
        groups, num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
    return out.sum(0)[:shifts]
