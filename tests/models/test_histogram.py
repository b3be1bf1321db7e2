from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from edgekd.models.histogram import GRID, HistogramLayer


def layer_of(channels: int, bins: int) -> HistogramLayer:
    layer = HistogramLayer(channels, bins)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        layer.mu.copy_(torch.randn(channels, bins, generator=generator))
        layer.gamma.copy_(torch.rand(channels, bins, generator=generator) * 2)
    return layer


@torch.no_grad()
def plain_loop(layer: HistogramLayer, features: Tensor) -> Tensor:
    """The definition, one number at a time: the responses `(B, C, K, H, W)` before pooling."""
    batch, channels, height, width = features.shape
    responses = torch.zeros(batch, channels, layer.bins, height, width, dtype=torch.float64)
    for b in range(batch):
        for c in range(channels):
            for h in range(height):
                for w in range(width):
                    x = float(features[b, c, h, w])
                    raw = [
                        math.exp(-((float(layer.gamma[c, k]) * (x - float(layer.mu[c, k]))) ** 2))
                        for k in range(layer.bins)
                    ]
                    for k in range(layer.bins):
                        responses[b, c, k, h, w] = raw[k] / (sum(raw) + 1e-5)
    return responses


@pytest.mark.parametrize("size", [(4, 6), (5, 4), (3, 7), (2, 2), (1, 1)])
def test_histograms_are_those_of_a_plain_loop_pooled_by_torch(size: tuple[int, int]) -> None:
    layer = layer_of(channels=2, bins=3)
    features = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    expected = adaptive_avg_pool2d(plain_loop(layer, features).flatten(1, 2), GRID).flatten(1)
    torch.testing.assert_close(layer(features).double(), expected, rtol=1e-5, atol=1e-6)


def test_size_is_channels_times_bins_times_cells() -> None:
    layer = HistogramLayer(4)
    assert layer.output_size == 4 * 16 * 4 == 256
    assert layer(torch.randn(3, 4, 10, 6)).shape == (3, 256)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 2 * 4 * 16


def test_a_channel_s_histogram_sums_to_one_within_the_range_of_its_bins() -> None:
    layer = HistogramLayer(3, bins=8)
    features = torch.rand(2, 3, 6, 6) * 2 - 1
    sums = layer(features).view(2, 3, 8, -1).sum(2)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-4)


def test_centres_and_widths_are_learned() -> None:
    layer = HistogramLayer(2, bins=4)
    layer(torch.randn(2, 2, 4, 4)).square().sum().backward()
    for parameter in (layer.mu, layer.gamma):
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


def test_a_value_far_from_every_bin_gives_no_nan() -> None:
    layer = HistogramLayer(1)
    features = torch.full((1, 1, 4, 4), 1e4, requires_grad=True)
    histogram = layer(features)
    histogram.sum().backward()
    assert torch.equal(histogram, torch.zeros_like(histogram))
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_what_learns_on_a_cpu_has_the_numbers_and_the_gradient_of_what_does_not() -> None:
    layer = layer_of(channels=2, bins=5).double()
    features = torch.randn(3, 2, 9, 4, dtype=torch.float64, requires_grad=True)
    learned = {"x": features, **dict(layer.named_parameters())}
    found = layer.train()(features)
    expected = layer.eval()(features)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    wanted = torch.randn_like(found)
    gradients = [torch.autograd.grad(values, list(learned.values()), wanted) for values in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)
