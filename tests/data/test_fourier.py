from __future__ import annotations

import pytest

from edgekd.data.fourier import fast_length


@pytest.mark.parametrize("samples", [1, 2, 7, 1000, 12_345, 256_000, 1_280_001])
def test_fast_lengths_are_the_smallest_even_ones_that_scipy_calls_fast(samples: int) -> None:
    fft = pytest.importorskip("scipy.fft")
    half = -(-samples // 2)
    assert fast_length(samples) == 2 * fft.next_fast_len(half, real=True)
