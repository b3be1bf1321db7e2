"""The DFT in three factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.dft_factors import Factors, cosines, factors_of

# DFT, hop, window, the highest bin that is needed -> N1, A, B
CASES = [
    pytest.param((1024, 320, 1024, 448), (16, 8, 8), id="32-kHz"),
    pytest.param((512, 160, 512, 256), (16, 8, 4), id="16-kHz"),
    pytest.param((1408, 448, 1408, 449), (22, 8, 8), id="44-kHz"),
    pytest.param((512, 160, 400, 240), (16, 8, 4), id="yamnets"),
    pytest.param((512, 147, 400, 240), (512, 1, 1), id="coprime"),
    pytest.param((1022, 511, 1022, 300), (14, 73, 1), id="a-prime-factor"),
    pytest.param((64, 16, 64, 5), (16, 2, 2), id="few-bins"),
]


def spectrum(factors: Factors, frame: torch.Tensor) -> np.ndarray:
    """`|X|^2` of the rows, from the steps alone, in float64."""
    sample = factors.sample
    inside = sample < len(frame)
    taken = torch.where(inside, frame[sample.clamp(max=len(frame) - 1)], 0.0)  # (A B, channels, hops)
    first = (cosines(factors.first_steps, factors.circle) * taken[:, None, None]).sum(dim=(3, 4))  # (A B, re|im, c)
    first = first.reshape(factors.inner, 2 * factors.middle, factors.classes)
    second = cosines(factors.second_steps, factors.circle) @ first
    third = cosines(factors.third_steps, factors.circle) @ second.reshape(2 * factors.inner, -1)
    return third.reshape(2, -1).square().sum(dim=0).numpy()


@pytest.mark.parametrize(("case", "split"), CASES)
def test_every_needed_bin_is_in_its_row(case: tuple[int, int, int, int], split: tuple[int, int, int]) -> None:
    n_fft, hop, window, highest = case
    heard = torch.arange(n_fft // 2 + 1) <= highest
    factors = factors_of(n_fft, hop, window, heard)
    assert factors.outer == split[0]
    assert sorted((factors.middle, factors.inner)) == sorted(split[1:])
    frame = torch.randn(window, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.abs(np.fft.rfft(frame.numpy(), n_fft))[: highest + 1] ** 2
    found = spectrum(factors, frame)[factors.row[: highest + 1].numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.max())


def test_bins_that_are_not_needed_are_left_out() -> None:
    half = factors_of(1024, 320, 1024, torch.arange(513) < 448)
    assert half.bins * half.middle == 56  # of 64
    assert factors_of(1024, 320, 1024, torch.arange(513) <= 512).bins == 8


def test_each_sample_of_a_frame_has_one_weight() -> None:
    for case in CASES:
        n_fft, hop, window, _ = case.values[0]
        samples = factors_of(n_fft, hop, window, torch.ones(n_fft // 2 + 1, dtype=torch.bool)).sample.flatten()
        assert set(range(window)) <= set(samples.tolist()), "a sample of the window is left out"
        assert len(samples.unique()) == len(samples)
