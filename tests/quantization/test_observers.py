"""The bounds that observers read from a histogram, against brute force on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from edgekd.quantization.observers import OBSERVERS, MagnitudeObserver, ObserverName


def seen(*batches: Tensor) -> MagnitudeObserver:
    observer = MagnitudeObserver()
    for batch in batches:
        observer(batch)
    return observer


def heavy_tail(values: int = 100_000) -> Tensor:
    torch.manual_seed(0)
    return torch.distributions.StudentT(4.0).sample((values,))


def squared_error(values: Tensor, bound: float) -> float:
    scale = bound / 127
    rounded = torch.clamp(torch.round(values / scale), -127, 127) * scale
    return float((values - rounded).double().square().mean())


def test_percentile_is_the_quantile_of_all_that_was_seen() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(20_000) * scale for scale in (0.1, 1.0, 7.0, 2.0)]
    every = torch.cat(batches).abs()
    observer = seen(*batches)
    for percentile in (90.0, 99.91):
        bound = observer.bound("percentile", percentile)
        assert bound == pytest.approx(torch.quantile(every, percentile / 100).item(), abs=every.max().item() / 1024)
    assert observer.bound("percentile", 100.0) == observer.bound("absmax") == every.max()


@pytest.mark.parametrize("values", [heavy_tail(), torch.randn(50_000), torch.rand(50_000) - 0.5])
def test_no_bound_tried_by_brute_force_rounds_with_less_error_than_mse(values: Tensor) -> None:
    bound = seen(values).bound("mse")
    least = min(squared_error(values, float(tried)) for tried in torch.linspace(0.06, 1, 200) * values.abs().max())
    assert squared_error(values, bound) <= 1.01 * least


def divergence(values: Tensor, bound: float) -> float:
    """From the histogram of the magnitudes, clipped at `bound`, to the same shared out evenly within each level."""
    magnitudes = values.abs().numpy()
    edges = np.linspace(0, magnitudes.max(), 2049)
    edges = edges[: np.searchsorted(edges, bound * (1 + 1e-6), side="right")]
    counts, _ = np.histogram(magnitudes, edges)
    level = np.rint((edges[:-1] + edges[1:]) / 2 / (edges[-1] / 127)).astype(int)
    told = np.zeros(len(counts))
    for number in range(128):
        filled = (level == number) & (counts > 0)
        told[filled] = counts[filled].mean() if filled.any() else 0
    clipped = counts.astype(float)
    clipped[-1] += (magnitudes > edges[-1]).sum()
    return float(stats.entropy(clipped, np.maximum(told, 1e-9 * told.sum())))


@pytest.mark.parametrize("values", [heavy_tail(), torch.randn(50_000)])
def test_no_bound_tried_by_brute_force_tells_more_of_the_distribution_than_entropy(values: Tensor) -> None:
    bound = seen(values).bound("entropy")
    tried = torch.linspace(0.1, 1, 46) * values.abs().max()
    assert divergence(values, bound) <= 1.1 * min(divergence(values, float(other)) for other in tried)


@pytest.mark.parametrize("observer", ["entropy", "mse"])
def test_zeros_of_a_relu_do_not_move_the_bound(observer: ObserverName) -> None:
    positive = heavy_tail().abs()
    with_zeros = torch.cat([positive, torch.zeros(9 * len(positive))])
    assert seen(with_zeros).bound(observer) == seen(positive).bound(observer)
    assert seen(with_zeros).bound("percentile", 99.0) < seen(positive).bound("percentile", 99.0)


@pytest.mark.parametrize("observer", ["entropy", "mse"])
def test_a_rare_peak_does_not_make_the_rest_coarse(observer: ObserverName) -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.rand(500_000), torch.tensor([4.0])])
    assert 0.95 < seen(values).bound(observer) < 1.2


@pytest.mark.parametrize("observer", OBSERVERS)
def test_bounds_hold_at_the_ends(observer: ObserverName) -> None:
    assert seen(torch.zeros(10)).bound(observer, 99.0) == 0
    assert np.isnan(seen(torch.tensor([1.0, float("nan")])).bound(observer, 99.0))
    assert seen(torch.tensor([1.0, float("inf")])).bound(observer, 99.0) == float("inf")
    assert seen(torch.zeros(10), torch.tensor([3.0])).bound(observer, 100.0) == 3  # one value: nothing to weigh


def test_coverage_is_the_share_of_magnitudes_that_a_bound_holds() -> None:
    values = torch.cat([torch.zeros(5_000), torch.linspace(0, 1, 5_001)[1:]])
    observer = seen(values[:3_000], values[3_000:])
    assert observer.coverage(1.0) == 1
    assert observer.coverage(0.5) == pytest.approx(0.75, abs=1e-3)
    assert observer.coverage(observer.bound("percentile", 90.0)) == pytest.approx(0.9, abs=1e-3)


def test_zeros_count_in_the_histogram_before_anything_louder_comes() -> None:
    observer = seen(torch.zeros(7), torch.tensor([0.0, 2.0, -1.0]))
    assert observer.histogram.sum() == 10
    assert observer.zeros == 8
    assert observer.nonzero().sum() == 2
