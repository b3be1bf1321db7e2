"""The log-mel of a student as constants of C: what `edgekd/device/c/edgekd_log_mel.h` has a structure for.

A transform of `2 M` real samples is one of `M` complex numbers, by stages. With radices `r_1 ... r_s`, executed in that
order, the n-th number enters at the place that reads its digits backwards: `n mod r_s` is the block of the last stage,
and so on inside the block. Stage i, which makes blocks of `L r_i` numbers of those of `L`, has the twiddle factors
`exp(-2 pi i q j / (L r_i))`, for j below L and q from 1 to r_i - 1.

Folded in: the gain, the scale of 16-bit samples and a half into the window; the normalisation of mel bins, averages and
the first rounding into `factor * log2(mel) + offset`, in steps of the network's entry.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.errors import GateError
from edgekd.front_end import FrontendConfig
from edgekd.log_mel import MAGNITUDE_OFFSET, POWER_FLOOR, mel_filterbank
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.integer.layers import Map

FULL_SCALE = 1 << 15  # what stands for 1 in 16-bit samples
LARGEST_RADIX = 16
_Floats = NDArray[np.float64]


def log_mel_constants(
    config: FrontendConfig, sample_rate: int, gain: float, scale: _Floats, shift: _Floats, entry: Map, name: str
) -> str:
    """The definitions that `const edgekd_log_mel NAME` takes, and it.

    `scale` and `shift` `(F,)` are the normalisation of the mel bins. Raises `GateError` for a transform whose length
    has a prime factor above 16.
    """
    points = config.n_fft // 2
    radices = radices_of(points)
    window = torch.hann_window(config.window_length, dtype=torch.float64).numpy() * gain / FULL_SCALE / 2
    first, filters = _heard(mel_filterbank(config, sample_rate).double().numpy())
    of_magnitudes = config.convention == "yamnet"
    unit = math.log(2) if of_magnitudes else 10 * math.log10(2)
    averaged = config.bins_per_step * config.frames_per_step
    arrays: dict[str, NDArray[np.generic]] = {
        "radices": np.array(radices, np.uint8),
        "order": order_of(radices),
        "window": window.astype(np.float32),
        "twiddles": _twiddles(radices),
        "rotations": _complex(-math.pi * np.arange(points // 2 + 1) / points),
        "first": np.array(first, np.uint16),
        "count": np.array([len(each) for each in filters], np.uint16),
        "filters": np.concatenate(filters).astype(np.float32),
        "factor": (scale * unit / averaged / entry.scale).astype(np.float32),
        "offset": ((shift / entry.scale + entry.zero_point) / config.frames_per_step).astype(np.float32),
    }
    least = np.float32(MAGNITUDE_OFFSET if of_magnitudes else POWER_FLOOR)
    fields = ", ".join(f".{field} = {name}_{field}" for field in arrays)
    return "\n".join(
        [
            *(array(f"{name}_{field}", values) for field, values in arrays.items()),
            f"const edgekd_log_mel {name} = {{\n"
            f"    .points = {points}, .window_length = {config.window_length}, .mels = {config.n_mels}, "
            f".bins_per_step = {config.bins_per_step}, .stages = {len(radices)},\n"
            f"    .of_magnitudes = {int(of_magnitudes)}, .least = {float(least).hex()}f,\n"
            f"    {fields},\n}};\n",
        ]
    )


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


def _twiddles(radices: list[int]) -> NDArray[np.float32]:
    """Stage by stage; before those of a radix that has no code of its own its roots of 1."""
    length, found = 1, []
    for radix in radices:
        if radix not in (2, 4):
            found.append(_complex(-2 * math.pi * np.arange(radix) / radix))
        turns = np.arange(length)[:, None] * np.arange(1, radix)[None, :] / (length * radix)
        found.append(_complex(-2 * math.pi * turns.ravel()))
        length *= radix
    return np.concatenate(found)


def _complex(angles: _Floats) -> NDArray[np.float32]:
    """`exp(i angle)`: real and imaginary parts in turn."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).ravel().astype(np.float32)


def _heard(filters: _Floats) -> tuple[list[int], list[_Floats]]:
    """Of each filter `(n_fft/2+1,)` the first bin that it hears, and its weights from there to the last."""
    first, weights = [], []
    for column in filters.T:
        (heard,) = column.nonzero()
        start, end = (int(heard[0]), int(heard[-1]) + 1) if len(heard) else (0, 0)
        first.append(start)
        weights.append(column[start:end])
    return first, weights
