"""Functions of int8 values as tables, and the softmax in integers, against those in floats."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.microcontrollers.integer.layers import LOGIT_BITS, SHARE, Map
from edgekd.microcontrollers.integer.tables import histogram_table, sigmoid, softmax
from edgekd.models.histogram import HistogramLayer


def test_softmax_is_that_of_floats_to_a_step() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (2000, 10))
    steps = np.rint(logits * (1 << LOGIT_BITS)).astype(np.int64)
    expected = torch.from_numpy(steps / (1 << LOGIT_BITS)).softmax(1).numpy()
    assert np.abs(softmax(steps) / SHARE - expected).max() < 1.01 / SHARE


def test_softmax_of_logits_far_apart_is_one_class() -> None:
    assert softmax(np.array([[-(2**30), 0, 2**30]])).tolist() == [[0, 0, SHARE]]


def test_sigmoid_is_that_of_floats_to_a_step() -> None:
    logits = np.concatenate([np.linspace(-20, 20, 4001), [0.0]])
    steps = np.rint(logits * (1 << LOGIT_BITS)).astype(np.int64)
    expected = torch.from_numpy(steps / (1 << LOGIT_BITS)).sigmoid().numpy()
    assert np.abs(sigmoid(steps) / SHARE - expected).max() < 0.6 / SHARE
    assert sigmoid(np.array([0, -(2**30), 2**30])).tolist() == [SHARE // 2, 0, SHARE]


def test_a_histogram_is_a_table_of_its_256_values() -> None:
    torch.manual_seed(0)
    layer = HistogramLayer(3, bins=5).eval()
    with torch.no_grad():
        layer.mu.add_(0.1 * torch.randn(3, 5))
    for zero_point in (0, -128):
        source = Map("features", 2, 2, 3, 0.013, zero_point)
        table = histogram_table(layer, source)
        for value in (-128, -5, 0, 77, 127):
            entered = torch.full((1, 3, 2, 2), source.scale * (value - zero_point))
            said = layer(entered).reshape(3, 5, 4)[..., 0].detach().numpy()
            assert np.abs(table[:, value + 128] / SHARE - said).max() < 0.51 / SHARE + 1e-6
