"""`transport`'s iterations as one Triton kernel: all steps of one clip in one program, which keeps the plan at hand.

Imported where it runs alone, as it imports Triton.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _iterate(
    a, b, cost, schedule, f_out, g_out, plan_out, n, m, steps: tl.constexpr,
    floor: tl.constexpr, least_scale: tl.constexpr, N: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """One clip. `schedule (steps + 1, 2)` float64: epsilon and relaxation of each step, then of the last half step."""
    clip = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, N), tl.arange(0, M)
    is_row, is_column = i < n, j < m
    is_bin = is_row[:, None] & is_column[None, :]
    at = clip * n * m + i[:, None] * m + j[None, :]
    mass_a = tl.where(is_row, tl.maximum(tl.load(a + clip * n + i, mask=is_row, other=0.0), floor), 0.0).to(tl.float64)
    mass_b = tl.load(b + clip * m + j, mask=is_column, other=0.0)
    mass_b = tl.where(is_column, tl.maximum(mass_b, floor), 0.0).to(tl.float64)
    ground = tl.load(cost + at, mask=is_bin, other=0.0)
    scale = tl.maximum(tl.max(tl.max(ground, 1), 0), least_scale).to(tl.float64)
    ground = ground.to(tl.float64) / scale
    f, g = tl.zeros((N,), tl.float64), tl.zeros((M,), tl.float64)
    for step in range(steps):
        epsilon, relaxation = tl.load(schedule + 2 * step), tl.load(schedule + 2 * step + 1)
        k = tl.where(is_bin, tl.exp((f[:, None] + g[None, :] - ground) / epsilon), 0.0)
        rows = tl.log(tl.where(is_row, tl.sum(k * mass_b[None, :], 1), 1.0))
        f -= relaxation * epsilon * rows
        k *= (mass_a * tl.exp(-relaxation * rows))[:, None]
        columns = tl.log(tl.where(is_column, tl.sum(k, 0), 1.0))
        g -= relaxation * epsilon * columns
    epsilon = tl.load(schedule + 2 * steps)
    k = tl.where(is_bin, tl.exp((f[:, None] + g[None, :] - ground) / epsilon), 0.0)
    rows = tl.where(is_row, tl.sum(k * mass_b[None, :], 1), 1.0)
    f -= epsilon * tl.log(rows)
    plan = k * (mass_a / rows)[:, None] * mass_b[None, :]
    tl.store(plan_out + at, plan.to(plan_out.dtype.element_ty), mask=is_bin)
    tl.store(f_out + clip * n + i, (f * scale).to(f_out.dtype.element_ty), mask=is_row)
    tl.store(g_out + clip * m + j, (g * scale).to(g_out.dtype.element_ty), mask=is_column)


def solve(a: Tensor, b: Tensor, cost: Tensor, schedule: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """`transport.solve`, for contiguous `a (B, N)`, `b (B, M)` and `cost (B, N, M)` of one type."""
    clips, n, m = cost.shape
    f, g, plan = torch.empty_like(a), torch.empty_like(b), torch.empty_like(cost)
    sizes = (triton.next_power_of_2(n), triton.next_power_of_2(m))
    warps = min(8, max(1, sizes[0] * sizes[1] // 256))
    least = torch.finfo(cost.dtype).eps
    _iterate[(clips,)](
        a, b, cost, schedule, f, g, plan, n, m, len(schedule) - 1, floor, least, *sizes, num_warps=warps
    )  # fmt: skip
    return f, g, plan
