"""The log-mel of a student as constants of C: what `edgekd/device/c/edgekd_log_mel.h` has a structure for.

A transform of `2 M` real samples is one of `M` complex numbers, by stages
(`edgekd.microcontrollers.integer.transform`). Folded in: the gain, the scale of 16-bit samples and a half into the
window; the normalisation of mel bins, averages and the first rounding into `factor * log2(mel) + offset`, in steps of
the network's entry.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.log_mel import MAGNITUDE_OFFSET, POWER_FLOOR, mel_filterbank
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.log_mel import FULL_SCALE, FixedLogMel, PowerFilters, heard_bins
from edgekd.microcontrollers.integer.trained_log_mel import Floats, TrainedLogMel
from edgekd.microcontrollers.integer.transform import order_of, radices_of


def log_mel_constants(trained: TrainedLogMel, entry: Map, name: str) -> str:
    """The definitions that `const edgekd_log_mel NAME` takes, and it: rows of `trained` in steps of the `entry`.

    Raises `GateError` for a transform whose length has a prime factor above 16.
    """
    config = trained.config
    points = config.n_fft // 2
    radices = radices_of(points)
    window = torch.hann_window(config.window_length, dtype=torch.float64).numpy() * trained.gain / FULL_SCALE / 2
    first, filters = heard_bins(mel_filterbank(config, trained.sample_rate).double().numpy())
    arrays: dict[str, NDArray[np.generic]] = {
        "radices": np.array(radices, np.uint8),
        "order": order_of(radices),
        "window": window.astype(np.float32),
        "twiddles": _twiddles(radices),
        "rotations": _complex(-math.pi * np.arange(points // 2 + 1) / points),
        "first": np.array(first, np.uint16),
        "count": np.array([len(each) for each in filters], np.uint16),
        "filters": np.concatenate(filters).astype(np.float32),
        "factor": (trained.scale * trained.unit / trained.averaged / entry.scale).astype(np.float32),
        "offset": ((trained.shift / entry.scale + entry.zero_point) / config.frames_per_step).astype(np.float32),
    }
    least = np.float32(MAGNITUDE_OFFSET if trained.of_magnitudes else POWER_FLOOR)
    fields = ", ".join(f".{field} = {name}_{field}" for field in arrays)
    return "\n".join(
        [
            *(array(f"{name}_{field}", values) for field, values in arrays.items()),
            f"const edgekd_log_mel {name} = {{\n"
            f"    .points = {points}, .window_length = {config.window_length}, .mels = {config.n_mels}, "
            f".bins_per_step = {config.bins_per_step}, .stages = {len(radices)},\n"
            f"    .of_magnitudes = {int(trained.of_magnitudes)}, .least = {float(least).hex()}f,\n"
            f"    {fields},\n}};\n",
        ]
    )


def fixed_log_mel_constants(front_end: FixedLogMel, name: str) -> str:
    """The definitions that `const edgekd_fixed_log_mel NAME` takes, and it."""
    filters = front_end.filters
    of_powers = isinstance(filters, PowerFilters)
    turns = [
        part.ravel()
        for radix, roots, twiddles in zip(front_end.radices, front_end.roots, front_end.twiddles, strict=True)
        for part in ((twiddles,) if radix in (2, 4) else (roots, twiddles))
    ]
    arrays: dict[str, NDArray[np.generic]] = {
        "radices": np.array(front_end.radices, np.uint8),
        "order": front_end.order,
        "window": front_end.window,
        "twiddles": np.concatenate(turns),
        "rotations": front_end.rotations,
        "logarithms": front_end.logarithms,
        "factor": front_end.factor,
        "offset": front_end.offset,
        "count": filters.count,
    }
    if isinstance(filters, PowerFilters):
        own = ("rising", "falling", "up", "down", "shift")
        arrays |= {"first": np.array([filters.first], np.uint16)} | {each: getattr(filters, each) for each in own}
        least_exponent, count_bits = 0, filters.count_bits
    else:
        arrays |= {"first": filters.first, "filters": filters.filters, "roots": front_end.square_roots}
        least_exponent, count_bits = filters.least_exponent, 0
    fields = ", ".join(f".{field} = {name}_{field}" for field in arrays)
    return "\n".join(
        [
            *(array(f"{name}_{field}", values) for field, values in arrays.items()),
            f"const edgekd_fixed_log_mel {name} = {{\n"
            f"    .points = {front_end.points}, .window_length = {len(front_end.window)}, .mels = {front_end.mels}, "
            f".bins_per_step = {front_end.bins_per_step}, .stages = {len(front_end.radices)},\n"
            f"    .of_magnitudes = {int(not of_powers)}, .bits = {front_end.bits}, "
            f".fraction_bits = {front_end.fraction_bits}, .least = {filters.least}, "
            f".least_exponent = {least_exponent}, .count_bits = {count_bits},\n"
            f"    {fields},\n}};\n",
        ]
    )


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


def _complex(angles: Floats) -> NDArray[np.float32]:
    """`exp(i angle)`: real and imaginary parts in turn."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1).ravel().astype(np.float32)
