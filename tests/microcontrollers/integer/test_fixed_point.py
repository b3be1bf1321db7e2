"""Sums brought to another scale: the exact product, rounded once."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from edgekd.microcontrollers.integer.fixed_point import (
    CONVOLUTION_EXPONENT,
    LARGEST_EXPONENT,
    Factors,
    factors,
    fits,
    scaled,
)


@pytest.mark.parametrize("largest", [2.0, 0.3, 0.01, 1e-4])
def test_a_sum_is_rounded_once_and_halves_upwards(largest: float) -> None:
    random = np.random.default_rng(0)
    by = factors(largest * random.uniform(-1, 1, 200))
    sums = (random.uniform(-1, 1, (50, 200)) * (2.0**31 / 2**by.left - 1)).astype(np.int64)
    found = scaled(sums, by)
    for row, column in zip(*np.unravel_index(random.integers(0, sums.size, 1000), sums.shape), strict=True):
        exact = Fraction(int(by.mantissa[column])) / Fraction(2) ** (32 + by.exponent)
        assert found[row, column] == floor(int(sums[row, column]) * exact + Fraction(1, 2))


def test_a_half_is_rounded_upwards() -> None:
    assert scaled(np.array([[-3], [-1], [1], [3]]), factors(0.5)).ravel().tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize("real", [1.0, 0.5, 0.25, 0.75, 2**-10, 1 - 2**-40, 3e-6, -0.1, 100.0])
def test_the_largest_factor_is_good_to_31_bits(real: float) -> None:
    by = factors([real, real / 1000])
    assert by.real()[0] == pytest.approx(real, rel=2**-31)
    assert 2**30 <= abs(int(by.mantissa[0])) < 2**31


def test_what_is_lost_of_a_small_factor_is_far_below_a_step() -> None:
    by = factors([0.01, 1e-9])
    lost = abs(by.real()[1] - 1e-9) * 2.0**31  # of the largest sum
    assert lost < 0.25 * 2.0**-by.exponent


@pytest.mark.parametrize("real", [0.24, 0.01, 2**-9, 1e-4])
def test_with_the_exponent_of_a_convolution_little_is_lost_of_the_largest_sum(real: float) -> None:
    by = factors(real, CONVOLUTION_EXPONENT)
    assert (by.exponent, by.left, by.right) == (1, 0, 1)
    assert abs(by.real()[0] - real) * 2.0**31 <= 0.125  # of a step
    assert factors(100.0, CONVOLUTION_EXPONENT).exponent < 0


@pytest.mark.parametrize("real", [0.0, 1e-30])
def test_a_factor_of_nearly_nothing_makes_every_sum_0(real: float) -> None:
    by = factors(real)
    assert by.exponent <= LARGEST_EXPONENT
    assert not scaled(np.array([[2**31 - 1], [-(2**31) + 1]]), by).any()


def test_sums_that_are_shifted_out_of_32_bits_are_found() -> None:
    by = Factors(np.array([2**30], np.int32), -3)  # 4 places to the left
    assert fits(2.0**27 - 1, by)
    assert not fits(2.0**27, by)
