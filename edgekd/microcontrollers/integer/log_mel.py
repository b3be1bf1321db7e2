"""The log-mel in integers: what a core without an FPU has in place of floats. `log_mel_reference` computes with it.

A frame times its window is a number of 31 bits for each sample, exactly. All are shifted to the left or right by the
same count, so that the largest has `bits` of them: quiet sound keeps what it has, and nothing overflows on the way
through a transform whose words have 32. Products there are of 32 bits and 16, rounded once, halves upwards. Powers are
exact.

Triangles on the scale of frequencies (convention "panns") need no weight for each bin. Between two edges one filter
rises and the one before it falls; with n bins there of powers P_0 ... P_(n-1),

    sum = P_0 + ... + P_(n-1),    falling = (n - 1) P_0 + (n - 2) P_1 + ... + P_(n-2),

of which the second is a sum of sums, the fall is `falling + (edge behind - last bin) sum`, and the rise
`(n - 1) sum - falling + (first bin - edge before) sum`. Times the slopes of a filter they are what it hears.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.errors import GateError
from edgekd.front_end import FrontendConfig
from edgekd.log_mel import MAGNITUDE_OFFSET, POWER_FLOOR, mel_filterbank
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.trained_log_mel import Floats, TrainedLogMel
from edgekd.microcontrollers.integer.transform import order_of, radices_of

FULL_SCALE = 1 << 15  # what stands for 1 in 16-bit samples
WINDOW = (1 << 16) - 1  # what stands for 1 in a window
TURN_BITS = 15
LEVEL_BITS = 16  # a logarithm is a multiple of 2^-16
LOG_PARTS, ROOT_PARTS = 64, 32  # in which a factor of two is divided in the tables
_WORD = 29.0  # bits of the largest number that a transform may meet, less what rounding and turns may add
_OCTAVES = 160  # more than any logarithm has, of either sign


@dataclass(frozen=True)
class PowerFilters:
    """Triangles of powers. Between the edges, from the first filter's lower one on, lie `count (mels + 1,)` bins, the
    very first of which is `first`; the first of them is `rising` behind the edge before it and the last is `falling`
    before that behind it, in 2^-16 bins. `up` and `down (mels,)` are slopes times 2^shift."""

    first: int
    count: NDArray[np.uint16]
    rising: NDArray[np.uint16]
    falling: NDArray[np.uint16]
    up: NDArray[np.uint16]
    down: NDArray[np.uint16]
    shift: NDArray[np.int8]
    least: int  # a logarithm

    @property
    def count_bits(self) -> int:
        """Of the largest count."""
        return int(self.count.max()).bit_length()


@dataclass(frozen=True)
class MagnitudeFilters:
    """Any filters, of magnitudes: `count (mels,)` weights in 2^-16 from bin `first (mels,)` on, filter by filter; and
    the least that is added, 16 bits times 2^least_exponent."""

    first: NDArray[np.uint16]
    count: NDArray[np.uint16]
    filters: NDArray[np.uint16]
    least: int
    least_exponent: int


@dataclass(frozen=True)
class FixedLogMel:
    """Tables of the log-mel in integers; `edgekd/device/c/edgekd_log_mel.h` says what each is.

    `unit` and `origin`: a logarithm `l` stands for `unit (l / 2^16 + origin)`, dB or natural.
    """

    points: int
    bits: int
    radices: list[int]
    order: NDArray[np.uint16]
    window: NDArray[np.uint16]
    twiddles: list[NDArray[np.int16]]  # of each stage (radix - 1, L - 1, 2)
    roots: list[NDArray[np.int16]]  # of each stage (radix, 2)
    rotations: NDArray[np.int16]  # (M / 2, 2)
    filters: PowerFilters | MagnitudeFilters
    mels: int
    bins_per_step: int
    factor: NDArray[np.int16]
    offset: NDArray[np.int32]
    fraction_bits: int
    unit: float
    origin: float
    logarithms: NDArray[np.uint16] = field(default_factory=lambda: _table(np.log2, LOG_PARTS, 1, 1 << LEVEL_BITS))
    square_roots: NDArray[np.uint16] = field(default_factory=lambda: _table(np.sqrt, ROOT_PARTS, 3, 1 << 15))


def fixed_log_mel(trained: TrainedLogMel, entry: Map) -> FixedLogMel:
    """The tables that give the rows of `trained` as values of the network's `entry`.

    Raises `GateError` for a transform whose length has a prime factor above 16, and for numbers that 32 bits do not
    hold.
    """
    config, sample_rate = trained.config, trained.sample_rate
    points = config.n_fft // 2
    radices = radices_of(points)
    lengths = np.cumprod([1, *radices])[:-1].tolist()
    # Twice the spectrum is computed, of samples and a window with these for 1.
    one = math.log2(2 * WINDOW * FULL_SCALE / trained.gain)
    filters: PowerFilters | MagnitudeFilters
    if trained.of_magnitudes:
        origin = -one
        filters = _magnitude_filters(config, sample_rate, one)
        widest = int(filters.count.max())
        bits = 31 - (1 + math.log2(widest)) / 2 - math.log2(config.n_fft)
    else:
        origin = 16 - 2 * one
        filters = _power_filters(config, sample_rate, origin)
        widest = int(filters.count.max())
        bits = (62 - math.log2(widest)) / 2 - math.log2(config.n_fft)
    bits = min(bits, _WORD - math.log2(config.n_fft)) - 0.02
    per_unit = trained.scale * trained.unit / trained.averaged / entry.scale / (1 << LEVEL_BITS)
    steps = trained.scale * trained.unit * origin / config.frames_per_step / entry.scale
    offset = steps + (trained.shift / entry.scale + entry.zero_point) / config.frames_per_step
    fraction_bits = _fraction_bits(per_unit, offset, config)
    if fraction_bits < 1:
        raise GateError(
            f"The log-mel at {sample_rate} Hz has no form in fixed point: its normalisation goes beyond 32 bits. "
            "Train the student longer, or name a board with an FPU."
        )
    return FixedLogMel(
        points=points,
        bits=int(bits),
        radices=radices,
        order=order_of(radices),
        window=np.rint(torch.hann_window(config.window_length, dtype=torch.float64).numpy() * WINDOW).astype(np.uint16),
        twiddles=[
            _turns(-2 * math.pi * np.arange(1, radix)[:, None] * np.arange(1, length) / (length * radix))
            for length, radix in zip(lengths, radices, strict=True)
        ],
        roots=[_turns(-2 * math.pi * np.arange(radix) / radix) for radix in radices],
        rotations=_turns(-math.pi * np.arange(1, points // 2 + 1) / points),
        filters=filters,
        mels=config.n_mels,
        bins_per_step=config.bins_per_step,
        factor=np.rint(per_unit * 2.0 ** (fraction_bits + TURN_BITS)).astype(np.int16),
        offset=np.rint(offset * 2.0**fraction_bits).astype(np.int32),
        fraction_bits=fraction_bits,
        unit=trained.unit,
        origin=origin,
    )


def _fraction_bits(per_unit: Floats, offset: Floats, config: FrontendConfig) -> int:
    """As many as factors of 16 bits have, and sums of 32."""
    largest = max(float(np.abs(per_unit).max()), 2.0**-50)
    sums = _OCTAVES * (1 << LEVEL_BITS) * config.bins_per_step
    most = (largest * sums + float(np.abs(offset).max())) * config.frames_per_step
    by_factor = math.floor(math.log2(32_767 / largest)) - TURN_BITS
    return min(by_factor, math.floor(30 - math.log2(max(most, 1.0))), 20)


def _power_filters(config: FrontendConfig, sample_rate: int, origin: float) -> PowerFilters:
    bin_hz = (sample_rate // 2) / (config.n_fft // 2)
    mels = np.linspace(_slaney(config.f_min), _slaney(config.f_max), config.n_mels + 2)
    edges = np.array([_hertz(mel) for mel in mels]) / bin_hz
    ends = np.floor(edges + 1e-9).astype(np.int64)  # the last bin up to each edge
    ends[-1] = min(ends[-1], config.n_fft // 2)
    width = np.diff(edges)
    height = 2 / (edges[2:] - edges[:-2]) / bin_hz  # of unit area
    slopes = np.stack([height / width[:-1], height / width[1:]])
    shift = np.floor(15 - np.log2(slopes.max(axis=0))).astype(np.int64)
    up, down = np.rint(slopes * 2.0**shift)
    return PowerFilters(
        first=int(ends[0]) + 1,
        count=np.diff(ends).astype(np.uint16),
        rising=_fraction(ends[:-1] + 1 - edges[:-1]),
        falling=_fraction(edges[1:] - ends[1:]),
        up=up.astype(np.uint16),
        down=down.astype(np.uint16),
        shift=shift.astype(np.int8),
        least=round((math.log2(POWER_FLOOR) - origin) * (1 << LEVEL_BITS)),
    )


def _magnitude_filters(config: FrontendConfig, sample_rate: int, one: float) -> MagnitudeFilters:
    first, weights = heard_bins(mel_filterbank(config, sample_rate).double().numpy())
    mantissa, exponent = math.frexp(MAGNITUDE_OFFSET * 2.0**one)
    return MagnitudeFilters(
        first=np.array(first, np.uint16),
        count=np.array([len(each) for each in weights], np.uint16),
        filters=_fraction(np.concatenate(weights)),
        least=min(round(mantissa * (1 << 16)), (1 << 16) - 1),
        least_exponent=exponent - 16,
    )


def heard_bins(filters: Floats) -> tuple[list[int], list[Floats]]:
    """Of each of `filters (n_fft/2+1, mels)` the first bin that it hears, and its weights from there to the last."""
    first, weights = [], []
    for column in filters.T:
        (heard,) = column.nonzero()
        start, end = (int(heard[0]), int(heard[-1]) + 1) if len(heard) else (0, 0)
        first.append(start)
        weights.append(column[start:end])
    return first, weights


def _fraction(values: Floats) -> NDArray[np.uint16]:
    """In 2^-16, 1 being a little less."""
    return np.clip(np.rint(values * (1 << 16)), 0, (1 << 16) - 1).astype(np.uint16)


def _turns(angles: Floats) -> NDArray[np.int16]:
    """`exp(i angle)` in 2^-15, `(..., 2)`; 1 itself being a little less."""
    parts = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * (1 << TURN_BITS)
    return np.clip(np.rint(parts), -(1 << TURN_BITS), (1 << TURN_BITS) - 1).astype(np.int16)


def _table(of: np.ufunc, parts: int, last: int, one: int) -> NDArray[np.uint16]:
    """A function from 1 to `1 + last`, in `parts` of 1."""
    values = np.rint(of(1 + np.arange(parts * last + 1) / parts) * one)
    return np.minimum(values, (1 << 16) - 1).astype(np.uint16)


def _slaney(hertz: float) -> float:
    """Slaney's scale: linear up to 1 kHz, 27 steps for a factor of 6.4 from there."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)


def _hertz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)
