"""The log-mel in integers in numpy: many frames at once. The C has to give the same, bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.microcontrollers.integer.layers import HIGHEST, LOWEST
from edgekd.microcontrollers.integer.log_mel import (
    LEVEL_BITS,
    LOG_PARTS,
    ROOT_PARTS,
    TURN_BITS,
    FixedLogMel,
    MagnitudeFilters,
    PowerFilters,
)

_Integers = NDArray[np.int64]
_HALF = 1 << (TURN_BITS - 1)


def rows(front_end: FixedLogMel, frames: NDArray[np.int16]) -> _Integers:
    """Frames `(B, window)` -> rows `(B, F)` in 2^-fraction_bits of the network's steps."""
    found = levels(front_end, frames).reshape(len(frames), -1)
    steps = front_end.mels // front_end.bins_per_step
    sums = found[:, : steps * front_end.bins_per_step].reshape(len(frames), steps, -1).sum(axis=2)
    return _share(sums, front_end.factor) + front_end.offset


def inputs(front_end: FixedLogMel, sums: _Integers) -> NDArray[np.int8]:
    """Sums of the rows `(..., F)` of a step -> the values that enter the network."""
    steps = (sums + (1 << (front_end.fraction_bits - 1))) >> front_end.fraction_bits
    return np.clip(steps, LOWEST, HIGHEST).astype(np.int8)


def logarithms(front_end: FixedLogMel, frames: NDArray[np.int16]) -> NDArray[np.float64]:
    """Frames `(B, window)` -> what the filters hear `(B, mels)`, in dB or natural logarithms."""
    return front_end.unit * (levels(front_end, frames) / (1 << LEVEL_BITS) + front_end.origin)


def levels(front_end: FixedLogMel, frames: NDArray[np.int16]) -> _Integers:
    """Frames `(B, window)` -> binary logarithms `(B, mels)` in 2^-16."""
    z, exponent = _loaded(front_end, frames)
    powers = _powers(front_end, _transform(front_end, z))
    if isinstance(front_end.filters, PowerFilters):
        return _of_powers(front_end, front_end.filters, powers, exponent)
    return _of_magnitudes(front_end, front_end.filters, powers, exponent)


def _loaded(front_end: FixedLogMel, frames: NDArray[np.int16]) -> tuple[_Integers, _Integers]:
    """Complex numbers `(B, M, 2)` in the order of the stages, and the power of two `(B,)` that they were divided by."""
    values = frames.astype(np.int64) * front_end.window
    exponent = _length_of(np.bitwise_or.reduce(values ^ (values >> 63), axis=1)) - front_end.bits
    right, left = np.maximum(exponent, 0)[:, None], np.maximum(-exponent, 0)[:, None]
    values = ((values + ((1 << right) >> 1)) >> right) << left
    whole = np.zeros((len(frames), front_end.points, 2), np.int64)
    whole.reshape(len(frames), -1)[:, : values.shape[1]] = values
    z = np.empty_like(whole)
    z[:, front_end.order] = whole
    return z, exponent


def _transform(front_end: FixedLogMel, z: _Integers) -> _Integers:
    batch, length = len(z), 1
    for radix, twiddles, roots in zip(front_end.radices, front_end.twiddles, front_end.roots, strict=True):
        blocks = z.reshape(batch, -1, radix, length, 2).copy()
        if length > 1:
            blocks[:, :, 1:, 1:] = _turned(blocks[:, :, 1:, 1:], twiddles)
        terms = [blocks[:, :, q] for q in range(radix)]
        rule = {4: _quarters, 2: _halves}.get(radix)
        made = rule(terms) if rule is not None else _odd(terms, roots.astype(np.int64))
        z = np.stack(made, axis=2).reshape(batch, -1, 2)
        length *= radix
    return z


def _quarters(terms: list[_Integers]) -> list[_Integers]:
    a, b, c, d = terms
    turned = _minus_i(b - d)
    return [a + c + b + d, a - c + turned, a + c - b - d, a - c - turned]


def _halves(terms: list[_Integers]) -> list[_Integers]:
    return [terms[0] + terms[1], terms[0] - terms[1]]


def _odd(terms: list[_Integers], roots: _Integers) -> list[_Integers]:
    radix, made = len(terms), [sum(terms[1:], terms[0])]
    pairs = [(q, terms[q] + terms[radix - q], terms[q] - terms[radix - q]) for q in range(1, radix // 2 + 1)]
    for k in range(1, radix):
        here = terms[0]
        at = min(k, radix - k)
        for q, together, apart in pairs:
            cosine, sine = roots[q * at % radix]
            across = _share(apart, sine)
            here = here + _share(together, cosine) + (_minus_i(-across) if at == k else _minus_i(across))
        made.append(here)
    return made


def _powers(front_end: FixedLogMel, z: _Integers) -> _Integers:
    """Of twice the spectrum, `(B, M + 1)`."""
    points = front_end.points
    k = np.arange(1, points // 2 + 1)
    a, b = z[:, k], z[:, points - k]
    even = np.stack([a[..., 0] + b[..., 0], a[..., 1] - b[..., 1]], axis=-1)
    odd = np.stack([a[..., 1] + b[..., 1], b[..., 0] - a[..., 0]], axis=-1)
    turned = _turned(odd, front_end.rotations)
    powers = np.zeros((len(z), points + 1), np.int64)
    powers[:, points - k] = np.square(even - turned).sum(axis=-1)
    powers[:, k] = np.square(even + turned).sum(axis=-1)
    powers[:, 0] = np.square(2 * (z[:, 0, 0] + z[:, 0, 1]))
    powers[:, points] = np.square(2 * (z[:, 0, 0] - z[:, 0, 1]))
    return powers


def _of_powers(front_end: FixedLogMel, filters: PowerFilters, powers: _Integers, exponent: _Integers) -> _Integers:
    slopes = []
    start = filters.first
    for count, before, behind in zip(filters.count.tolist(), filters.rising, filters.falling, strict=True):
        slopes.append(_slopes(powers[:, start : start + count], filters.count_bits, int(before), int(behind)))
        start += count
    found = np.empty((len(powers), front_end.mels), np.int64)
    for mel in range(front_end.mels):
        (rise, _, one), (_, fall, other) = slopes[mel], slopes[mel + 1]
        left_out = np.maximum(one, other)
        rise = _portion(rise, filters.up[mel]) >> np.minimum(left_out - one, 62)
        fall = _portion(fall, filters.down[mel]) >> np.minimum(left_out - other, 62)
        heard = rise + fall
        level = _logarithm(front_end, np.maximum(heard, 1))
        level += (left_out + 2 * exponent - int(filters.shift[mel])) << LEVEL_BITS
        found[:, mel] = np.where(heard > 0, np.maximum(level, filters.least), filters.least)
    return found


def _slopes(powers: _Integers, count_bits: int, before: int, behind: int) -> tuple[_Integers, _Integers, _Integers]:
    """Rise, fall, and the power of two `(B,)` that both were divided by, of the bins `(B, n)` between two edges."""
    count = powers.shape[1]
    total = powers.sum(axis=1)
    falling = (powers * np.arange(count - 1, -1, -1)).sum(axis=1)
    left_out = np.maximum(_length_of(total) + count_bits - 32, 0)
    everything, part = total >> left_out, falling >> left_out
    rise = np.maximum((count - 1) * everything - part, 0) if count else everything
    return rise + _portion(everything, before), part + _portion(everything, behind), left_out


def _of_magnitudes(
    front_end: FixedLogMel, filters: MagnitudeFilters, powers: _Integers, exponent: _Integers
) -> _Integers:
    magnitudes = _root(front_end, powers)
    shift = np.maximum(filters.least_exponent - exponent, -15)
    less = np.maximum(shift - 14, 0)
    shift = np.minimum(shift, 14)
    least = (filters.least << np.maximum(shift, 0)) >> np.maximum(-shift, 0)
    found = np.empty((len(powers), front_end.mels), np.int64)
    at = 0
    for mel, (first, count) in enumerate(zip(filters.first.tolist(), filters.count.tolist(), strict=True)):
        heard = _portion(magnitudes[:, first : first + count], filters.filters[at : at + count]).sum(axis=1)
        heard = (heard >> np.minimum(less, 62)) + least
        found[:, mel] = _logarithm(front_end, heard) + ((less + exponent) << LEVEL_BITS)
        at += count
    return found


def _root(front_end: FixedLogMel, powers: _Integers) -> _Integers:
    bits = _length_of(powers)
    half = (bits + (bits & 1)) // 2 - 16
    mantissa = (powers << (2 * np.maximum(-half, 0))) >> (2 * np.maximum(half, 0))
    mantissa = np.maximum(mantissa, 1 << 30)  # of 0, which has none
    between = _between(front_end.square_roots, mantissa, ROOT_PARTS)
    right = np.maximum(-half, 0)
    found = ((between + ((1 << right) >> 1)) >> right) << np.maximum(half, 0)
    return np.where(powers > 0, found, 0)


def _logarithm(front_end: FixedLogMel, values: _Integers) -> _Integers:
    bits = _length_of(values)
    return ((bits - 1) << LEVEL_BITS) + _between(front_end.logarithms, values << (32 - bits), LOG_PARTS)


def _between(table: NDArray[np.uint16], mantissa: _Integers, parts: int) -> _Integers:
    """The table at a number of 32 bits, or 31 where the table has more than a factor of two."""
    near = (mantissa >> 25) - parts
    low, high = table.astype(np.int64)[near], table.astype(np.int64)[near + 1]
    return low + (((high - low) * ((mantissa >> 9) & 0xFFFF)) >> 16)


def _turned(z: _Integers, by: NDArray[np.int16]) -> _Integers:
    """Complex numbers `(..., 2)` times others in 2^-15."""
    w = by.astype(np.int64)
    re = z[..., 0] * w[..., 0] - z[..., 1] * w[..., 1]
    im = z[..., 0] * w[..., 1] + z[..., 1] * w[..., 0]
    return (np.stack([re, im], axis=-1) + _HALF) >> TURN_BITS


def _minus_i(z: _Integers) -> _Integers:
    """Complex numbers `(..., 2)` times -i."""
    return np.stack([z[..., 1], -z[..., 0]], axis=-1)


def _share(values: _Integers, by: NDArray[np.int16] | np.int64) -> _Integers:
    return (values * np.asarray(by, np.int64) + _HALF) >> TURN_BITS


def _portion(values: _Integers, by: NDArray[np.uint16] | np.uint16 | int) -> _Integers:
    return (values * np.asarray(by, np.int64)) >> 16


def _length_of(values: _Integers) -> _Integers:
    """Bits of numbers that are not negative."""
    high = values >> 32
    _, bits = np.frexp(np.where(high > 0, high, values & 0xFFFFFFFF).astype(np.float64))
    return np.where(high > 0, bits + 32, bits).astype(np.int64)
