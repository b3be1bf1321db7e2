"""Optimal transport against POT's exact linear programme, and what a compiler makes of it."""

from __future__ import annotations

import numpy as np
import ot  # type: ignore[import-untyped]
import pytest
import torch
from torch import Tensor

from edgekd.losses.ssatkd import transport
from edgekd.losses.ssatkd.transport import transport_cost


def random_masses(batch: int, bins: int, concentration: float, rng: np.random.Generator) -> Tensor:
    """`(batch, bins)`, each summing to 1."""
    return torch.tensor(rng.dirichlet(np.full(bins, concentration), batch))


def grid_cost(size: int) -> Tensor:
    """The distances `(N, N)` of the points of a square grid of `size` by `size`."""
    axis = torch.linspace(0, 1, size, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    return torch.cdist(points, points)


def test_it_stays_accurate_on_vanishing_masses() -> None:
    rng = np.random.default_rng(9)  # among these, one pair on which over-relaxation oscillates without a floor
    a, b, cost = random_masses(800, 16, 0.003, rng), random_masses(800, 16, 0.003, rng), grid_cost(4)
    distance = transport_cost(a, b, cost.expand(800, 16, 16))
    exact = [ot.emd2(p / p.sum(), q / q.sum(), cost.numpy()) for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    assert np.abs(distance.numpy() - exact).max() < 0.005


@pytest.mark.parametrize(("bins", "others"), [(5, 9), (12, 3)])
def test_distributions_on_different_numbers_of_bins(bins: int, others: int) -> None:
    rng = np.random.default_rng(4)
    a, b = random_masses(20, bins, 1.0, rng), random_masses(20, others, 1.0, rng)
    cost = torch.tensor(rng.random((20, bins, others)))
    exact = [ot.emd2(p, q, c) for p, q, c in zip(a.numpy(), b.numpy(), cost.numpy(), strict=True)]
    torch.testing.assert_close(
        transport_cost(a, b, cost), torch.tensor(exact, dtype=torch.float64), rtol=0.02, atol=1e-3
    )


def test_masses_of_any_size_and_costs_of_any_scale_give_finite_potentials() -> None:
    generator = torch.Generator().manual_seed(0)
    a = (30 * torch.randn(64, 16, generator=generator)).softmax(1)  # many bins vanish
    b = (30 * torch.randn(64, 16, generator=generator)).softmax(1)
    cost = torch.rand(64, 16, 16, generator=generator)
    plain = transport_cost(a, b, cost)
    assert torch.isfinite(plain).all()
    for scale in (1e-5, 1e6):
        torch.testing.assert_close(transport_cost(a, b, scale * cost) / scale, plain, rtol=1e-4, atol=1e-6)


def test_a_compiler_takes_the_iterations_whole_and_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STEPS_FALLING", 4)  # all of them take a minute to compile
    monkeypatch.setattr(transport, "STEPS_HELD", 1)
    rng = np.random.default_rng(7)
    a, b = random_masses(8, 16, 1.0, rng), random_masses(8, 16, 1.0, rng)
    given = (a, b, torch.rand(8, 16, 16, dtype=torch.float64))
    for compiled, ours in zip(
        torch.compile(transport.solve, fullgraph=True)(*given), transport.solve(*given), strict=True
    ):
        torch.testing.assert_close(compiled, ours)
