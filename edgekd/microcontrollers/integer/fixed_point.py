"""Sums of products brought to another scale, in integers: the one rounding that every core does alike.

A factor is `mantissa * 2^-(32 + exponent)`, mantissa an int32 of 31 bits. A sum times it is the upper word of a product
of 64 bits, shifted and rounded:

    high = floor(sum * mantissa / 2^32),    out = floor((high + 2^(exponent - 1)) / 2^exponent),    exponent >= 1,

which is the exact product rounded once, to the nearest integer and halves upwards, for what the first floor leaves out
cannot reach a half. The upper word is one instruction on an Arm core with DSP (SMMUL) and one for four sums with Helium
(VMULH, then VRSHL). A factor of a quarter and more has an exponent below 1; then the sum is shifted to the left first,
by `1 - exponent`, and the exponent counts as 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
LARGEST_EXPONENT = 31  # beyond, every sum is rounded to 0
_MANTISSA_BITS = 31


@dataclass(frozen=True)
class Factors:
    """One factor for each channel: `mantissa` int32 and `exponent` int8, `(C,)`."""

    mantissa: NDArray[np.int32]
    exponent: NDArray[np.int8]

    @property
    def left(self) -> Integers:
        """By how much sums are shifted to the left before the product, `(C,)`."""
        return np.maximum(1 - self.exponent.astype(np.int64), 0)

    @property
    def right(self) -> Integers:
        """By how much the upper word is shifted to the right, `(C,)`, 1 or more."""
        return np.maximum(self.exponent.astype(np.int64), 1)

    def real(self) -> NDArray[np.float64]:
        """The factors as numbers, `(C,)`."""
        return np.ldexp(self.mantissa.astype(np.float64), -32 - self.exponent.astype(np.int64))


def factors(real: ArrayLike) -> Factors:
    """The nearest factors to `real (C,)`, of any sign; good to 2^-31 of each unless it is below 2^-34."""
    wanted = np.atleast_1d(np.asarray(real, np.float64))
    _, power = np.frexp(wanted)  # wanted = fraction * 2^power, a fraction of 0.5 to 1
    exponent = np.minimum(np.where(wanted == 0, 1, _MANTISSA_BITS - 32 - power), LARGEST_EXPONENT)
    mantissa = np.rint(np.ldexp(wanted, 32 + exponent))
    over = np.abs(mantissa) >= 2.0**_MANTISSA_BITS  # a fraction that was rounded up to 1
    mantissa, exponent = np.where(over, mantissa / 2, mantissa), np.where(over, exponent - 1, exponent)
    return Factors(mantissa.astype(np.int32), exponent.astype(np.int8))


def scaled(sums: Integers, by: Factors) -> Integers:
    """`sums (..., C)` times `by`, rounded: the arithmetic of the module's text."""
    high = ((sums << by.left) * by.mantissa.astype(np.int64)) >> 32
    return (high + (1 << (by.right - 1))) >> by.right


def fits(largest: ArrayLike, by: Factors) -> bool:
    """Whether sums of magnitudes up to `largest (C,)` stay within 32 bits on the way through `scaled`."""
    return bool(np.all(np.asarray(largest, np.float64) * np.exp2(by.left) < 2.0**31 - 1))
