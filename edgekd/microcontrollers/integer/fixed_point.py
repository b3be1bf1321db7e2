"""Sums of products brought to another scale, in integers: the one rounding that every core does alike.

The factors of a layer are `mantissa * 2^-(32 + exponent)`, an int32 mantissa for each channel and one exponent for all.
A sum times its factor is the upper word of a product of 64 bits, shifted and rounded:

    high = floor(sum * mantissa / 2^32),    out = floor((high + 2^(exponent - 1)) / 2^exponent),    exponent >= 1,

which is the exact product rounded once, to the nearest integer and halves upwards, for what the first floor leaves out
cannot reach a half. The upper word is one instruction on an Arm core with DSP (SMMUL) and one for four sums with Helium
(VMULH). Where a factor is a quarter or more the exponent is below 1; then sums are shifted to the left first, by
`1 - exponent`, and the exponent counts as 1.

The largest mantissa has 31 bits. That those of small factors have fewer costs nothing: what is lost of a mantissa is
less than a quarter of a step of the result, times 2^-exponent, even where a sum is as large as 32 bits hold. So
convolutions have exponents up to 1 only: then the shift to the right is always one place, which an Arm core with DSP
does as it saturates (SSAT), and Helium as it takes the upper word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]
LARGEST_EXPONENT = 20  # with a zero point shifted by so much all stays within 32 bits
CONVOLUTION_EXPONENT = 1  # the largest of a convolution
_MANTISSA_BITS = 31


@dataclass(frozen=True)
class Factors:
    """One factor for each channel: `mantissa` int32 `(C,)`, and their `exponent`."""

    mantissa: NDArray[np.int32]
    exponent: int

    @property
    def left(self) -> int:
        """By how much sums are shifted to the left before the product."""
        return max(1 - self.exponent, 0)

    @property
    def right(self) -> int:
        """By how much the upper word is shifted to the right, 1 or more."""
        return max(self.exponent, 1)

    def real(self) -> NDArray[np.float64]:
        """The factors as numbers, `(C,)`."""
        return np.ldexp(self.mantissa.astype(np.float64), -32 - self.exponent)


def factors(real: ArrayLike, largest_exponent: int = LARGEST_EXPONENT) -> Factors:
    """The nearest factors to `real (C,)`, of any sign, whose exponent is not larger."""
    wanted = np.atleast_1d(np.asarray(real, np.float64))
    _, power = np.frexp(np.abs(wanted).max())  # the largest is a fraction of 0.5 to 1, times 2^power
    exponent = int(np.clip(_MANTISSA_BITS - 32 - power, -_MANTISSA_BITS, largest_exponent))
    mantissa = np.rint(np.ldexp(wanted, 32 + exponent))
    if np.abs(mantissa).max() >= 2.0**_MANTISSA_BITS:  # a fraction that was rounded up to 1
        exponent -= 1
        mantissa = np.rint(np.ldexp(wanted, 32 + exponent))
    return Factors(mantissa.astype(np.int32), exponent)


def scaled(sums: Integers, by: Factors) -> Integers:
    """`sums (..., C)` times `by`, rounded: the arithmetic of the module's text."""
    high = ((sums << by.left) * by.mantissa.astype(np.int64)) >> 32
    return (high + (1 << (by.right - 1))) >> by.right


def fits(largest: ArrayLike, by: Factors) -> bool:
    """Whether sums of magnitudes up to `largest (C,)` stay within 32 bits on the way through `scaled`."""
    return bool(np.all(np.asarray(largest, np.float64) * 2.0**by.left < 2.0**31 - 1))
