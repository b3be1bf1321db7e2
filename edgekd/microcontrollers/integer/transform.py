"""How a transform of complex numbers is taken apart: stages of small radices, and the order in which numbers enter.

With radices `r_1 ... r_s`, executed in that order, the n-th number enters at the place that reads its digits
backwards: `n mod r_s` is the block of the last stage, and so on inside the block. Stage i, which makes blocks of
`L r_i` numbers of those of `L`, has the twiddle factors `exp(-2 pi i q j / (L r_i))`, for j below L and q from 1 to
`r_i - 1`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import GateError

LARGEST_RADIX = 16


def radices_of(points: int) -> list[int]:
    """The stages of a transform, those of radix 4 first. Raises `GateError` for a prime factor above 16."""
    rest, radices = points, []
    for radix in (4, 2, 3, 5, 7, 11, 13):
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
    if rest > 1:
        raise GateError(
            f"A transform of {2 * points} samples has no form in C: {rest} is a factor of its half, {LARGEST_RADIX} at "
            "most. Distil at another --sample-rate, or with another frontend.n_fft."
        )
    return radices


def order_of(radices: list[int]) -> NDArray[np.uint16]:
    """`(M,)`: the place at which each number enters."""
    place, rest, block = np.zeros(math.prod(radices), np.int64), np.arange(math.prod(radices)), math.prod(radices)
    for radix in reversed(radices):
        block //= radix
        place += rest % radix * block
        rest //= radix
    return place.astype(np.uint16)
