"""The sea between a source and a hydrophone: ambient noise, two propagation paths, Doppler.

Ambient noise is Gaussian with the spectrum of Wenz (1962), in the closed form of Coates (1990): f in kHz, wind speed
w in m/s, shipping activity s in 0..1, each term in dB re 1 uPa^2/Hz:

    turbulence  17 - 30 log f                          shipping  40 + 20 (s - 0.5) + 26 log f - 60 log(f + 0.03)
    wind        50 + 7.5 sqrt(w) + 20 log f - 40 log(f + 0.4)          thermal  -15 + 20 log f

Rain and the snaps of a distant shrimp bed are added where a `Sea` has them. A moving source is heard over the direct
path and over the sea surface (image method), so that Lloyd's mirror and the Doppler shift both follow from the two
travel times, and nothing about them is put in by hand. No bottom path: deep water, or a soft bottom.

Coates, *Underwater Acoustic Systems* (1990). Wenz, *Acoustic ambient noise in the ocean*, JASA 34, 1936 (1962).
Urick, *Principles of Underwater Sound*, 3rd ed. (1983). Ma and Nystuen, *Passive acoustic detection and measurement of
rainfall at sea*, J. Atmos. Oceanic Technol. 22, 1225 (2005). Au and Banks, *The acoustics of the snapping shrimp*, JASA
103, 41 (1998). Thorp, *Analytic description of the low-frequency attenuation coefficient*, JASA 42, 270 (1967).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgekd.data.fourier import fast_length

Samples = NDArray[np.floating]  # pressure in uPa, single precision
Spectrum = NDArray[np.complexfloating]  # the rfft of such
Values = NDArray[np.float64]

SOUND_SPEED = 1500.0
"""m/s, the same at every depth."""

_COUPLING_HZ = 10.0  # a hydrophone's preamplifier is AC-coupled; without it turbulence at 0 Hz would fill the recording
_MARGIN_S = 0.1  # of source before and after what is heard, where a filter may wrap round


@dataclass(frozen=True)
class Sea:
    """The conditions that make the ambient noise; `shipping` is 0 (none) to 1 (heavy distant traffic)."""

    wind_m_s: float
    shipping: float
    rain_mm_h: float = 0.0
    snaps_per_s: float = 0.0


@dataclass(frozen=True)
class Track:
    """A straight, level passage of a source at depth `source_depth_m` by a hydrophone at `receiver_depth_m`.

    At the start of the recording the source is `start_m` along its course from the closest point of approach (negative:
    still to come), whose horizontal range is `closest_m`.
    """

    closest_m: float
    start_m: float
    speed_m_s: float
    source_depth_m: float
    receiver_depth_m: float

    def horizontal_range(self, time: ArrayLike) -> Values:
        """Horizontal range in m at `time` s from the start of the recording."""
        return np.hypot(self.closest_m, self.start_m + self.speed_m_s * np.asarray(time, np.float64))

    def path(self, time: ArrayLike, surface: bool) -> Values:
        """Length in m of the direct or the surface-reflected path, for sound that leaves the source at `time` s."""
        image_depth = -self.source_depth_m if surface else self.source_depth_m
        return np.hypot(self.horizontal_range(time), self.receiver_depth_m - image_depth)

    def lead(self, seconds: float) -> float:
        """Seconds of source that `propagate` needs before the start of a recording; it needs 0.1 s after the end."""
        time = np.linspace(0.0, seconds, 64)
        spread = self.path(time, surface=True).max() - self.path(time, surface=False).min()
        return 1.1 * float(spread) / SOUND_SPEED + _MARGIN_S


def ambient_level(frequency: ArrayLike, wind_m_s: float, shipping: float) -> Values:
    """Wenz spectrum level in dB re 1 uPa^2/Hz at `frequency` Hz; the equations of the module's docstring."""
    khz = np.asarray(frequency, np.float64) / 1000
    log = np.log10(khz)
    turbulence = 17 - 30 * log
    traffic = 40 + 20 * (shipping - 0.5) + 26 * log - 60 * np.log10(khz + 0.03)
    wind = 50 + 7.5 * np.sqrt(wind_m_s) + 20 * log - 40 * np.log10(khz + 0.4)
    thermal = -15 + 20 * log
    return power_sum(turbulence, traffic, wind, thermal)


def rain_level(frequency: ArrayLike, rate_mm_h: float) -> Values:
    """Spectrum level of rain in dB re 1 uPa^2/Hz: 42.4 + 15.4 log10(rate) at 5 kHz (Ma and Nystuen 2005).

    Nearly level over 1-10 kHz, falling below 1 kHz, with the broad peak of small drops near 14 kHz.
    """
    khz = np.asarray(frequency, np.float64) / 1000
    drops = 5 * np.exp(-(((khz - 14) / 4) ** 2))
    return 42.4 + 15.4 * np.log10(rate_mm_h) - 10 * np.log10(1 + khz**-2.0) - 10 * np.log10(1 + (khz / 18) ** 4) + drops


def absorption(frequency: ArrayLike) -> Values:
    """Absorption of sea water in dB/km (Thorp 1967, in metric units)."""
    square = (np.asarray(frequency, np.float64) / 1000) ** 2
    return 0.11 * square / (1 + square) + 44 * square / (4100 + square) + 3e-4 * square


def surface_reflection(frequency: ArrayLike, wind_m_s: float, sine_of_grazing: float) -> Values:
    """Coherent reflection coefficient of a wind-roughened surface: `-exp(-2 (k sigma sin theta)^2)` (Urick 1983, 5.8).

    `sigma`, the rms wave height, is that of a fully developed sea, `0.0053 w^2` m (Pierson and Moskowitz 1964).
    """
    wavenumber = 2 * np.pi * np.asarray(frequency, np.float64) / SOUND_SPEED
    return -np.exp(-2 * (wavenumber * 0.0053 * wind_m_s**2 * sine_of_grazing) ** 2)


def ambient(sea: Sea, sample_rate: int, samples: int, rng: np.random.Generator) -> Samples:
    """Pressure in uPa `(samples,)` at a hydrophone where no vessel is near."""

    def level(frequency: Values) -> Values:
        calm = ambient_level(frequency, sea.wind_m_s, sea.shipping)
        return power_sum(calm, rain_level(frequency, sea.rain_mm_h)) if sea.rain_mm_h > 0 else calm

    def coupled(frequency: Values) -> Values:
        return level(frequency) + 20 * np.log10(_coupling(frequency))

    # Breaking waves, gusts and far ships come and go: the level wanders by about 1 dB over some seconds.
    pressure = coloured_noise(coupled, sample_rate, samples, rng) * fading(1.0, 4.0, sample_rate, samples, rng)
    if sea.snaps_per_s > 0:
        _add_snaps(pressure, sea.snaps_per_s, sample_rate, rng)
    return pressure


def propagate(source: Samples, track: Track, wind_m_s: float, sample_rate: int, samples: int) -> Samples:
    """Pressure in uPa `(samples,)` at the hydrophone, of a source with pressure `source` in uPa at 1 m.

    `source[0]` leaves the vessel `track.lead(...)` seconds before the recording starts (its time is shifted by the
    shortest travel time, which nobody can hear). Each path spreads spherically, absorbs, and delays by its own travel
    time, which is solved for on the moving source; the surface path is also turned over and weakened by the waves.
    """
    seconds = samples / sample_rate
    lead = track.lead(seconds)
    size = fast_length(source.size)
    spectrum = np.fft.rfft(source, size)
    step = max(1, sample_rate // 50)
    knots = np.arange(-(-samples // step) + 1) * (step / sample_rate)
    first_arrival = float(track.path(knots, surface=False).min()) / SOUND_SPEED
    grazing = (track.source_depth_m + track.receiver_depth_m) / float(track.path(seconds / 2, surface=True))
    received = np.zeros(samples, np.float32)
    for surface in (False, True):
        middle = float(track.path(seconds / 2, surface))
        grid = _grid(sample_rate)
        response = 10 ** (-absorption(grid) * middle / 1000 / 20) * _coupling(grid)
        if surface:
            response *= surface_reflection(grid, wind_m_s, grazing)
        emitted = knots - first_arrival
        for _ in range(
            3
        ):  # emission time t solves t + path(t) / c = arrival; v / c is small, so this converges at once
            emitted = knots + first_arrival - track.path(emitted, surface) / SOUND_SPEED
        position = join((emitted + lead) * sample_rate, step, samples)
        gain = join(1 / track.path(emitted, surface), step, samples).astype(np.float32)
        received += gain * _read_at(spectrum * _on_bins(response, sample_rate, size), size, position)
    return received


def coloured_noise(
    level: Callable[[Values], Values], sample_rate: int, samples: int, rng: np.random.Generator
) -> Samples:
    """Gaussian noise `(samples,)` in uPa whose one-sided spectrum is `level(Hz)` in dB re 1 uPa^2/Hz."""
    size = fast_length(samples)
    return np.fft.irfft(noise_spectrum(level, sample_rate, size, rng), size)[:samples]


def noise_spectrum(
    level: Callable[[Values], Values], sample_rate: int, size: int, rng: np.random.Generator
) -> Spectrum:
    """The `rfft` of `size` samples of such noise."""
    bins = size // 2 + 1
    draw = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64)
    # E|X|^2 = P * rate * size / 2, shared by the real and the imaginary part.
    amplitude = np.sqrt(10 ** (level(_grid(sample_rate)) / 10) * sample_rate * size / 4)
    return draw * _on_bins(amplitude, sample_rate, size)


def fading(
    deviation_db: float, correlation_s: float, sample_rate: int, samples: int, rng: np.random.Generator
) -> Samples:
    """A slowly varying gain `(samples,)` around 1 whose level has that standard deviation in dB."""
    step = max(1, sample_rate // 10)
    level = deviation_db * drift(correlation_s, samples / sample_rate, sample_rate / step, rng)
    return join(10 ** (level / 20), step, samples).astype(np.float32)


def drift(correlation_s: float, seconds: float, steps_per_s: float, rng: np.random.Generator) -> Values:
    """A stationary Gauss-Markov process of unit variance that covers `seconds`, in steps to be joined by lines."""
    keep = float(np.exp(-1 / (correlation_s * steps_per_s)))
    values = rng.standard_normal(int(seconds * steps_per_s) + 2)
    values[1:] *= np.sqrt(1 - keep**2)
    for step in range(1, values.size):
        values[step] += keep * values[step - 1]
    return values


def join(values: NDArray[np.floating], step: int, samples: int) -> NDArray[np.floating]:
    """Straight lines through `values`, which lie `step` samples apart: `(samples,)`."""
    ramp = np.arange(step) / step
    return (values[:-1, None] + np.diff(values)[:, None] * ramp).reshape(-1)[:samples]


def power_sum(*levels: Values) -> Values:
    """The level in dB of the sum of independent contributions."""
    return 10 * np.log10(sum(10 ** (level / 10) for level in levels))


def _coupling(frequency: Values) -> Values:
    square = (np.maximum(frequency, 1e-3) / _COUPLING_HZ) ** 2
    return square / (1 + square)


def _grid(sample_rate: int) -> Values:
    """Frequencies in Hz at which smooth spectra are worked out, before they are brought to the bins of a transform."""
    return np.geomspace(0.5, sample_rate / 2, 512)


def _on_bins(values: Values, sample_rate: int, size: int) -> Samples:
    frequency = np.arange(size // 2 + 1) * (sample_rate / size)
    return np.interp(frequency, _grid(sample_rate), values, left=0.0).astype(np.float32)


def _read_at(spectrum: Spectrum, size: int, position: NDArray[np.floating]) -> Samples:
    """The band-limited signal with that `rfft`, read at fractional sample positions.

    Cubic B-splines on the signal at twice its rate; the spline's own response is divided out beforehand, which leaves
    images below -60 dB in the lower half of the band and below -38 dB at its edge.
    """
    angle = np.pi / size * np.arange(spectrum.size, dtype=np.float32)
    knots = np.fft.irfft(spectrum * (6 / (2 + np.cos(angle))), 2 * size)
    result = np.empty(position.size, np.float32)
    for start in range(0, position.size, 1 << 14):  # in pieces that stay in the cache
        doubled = 2 * position[start : start + (1 << 14)]
        index = doubled.astype(np.int64)
        u = (doubled - index).astype(np.float32)
        v = 1 - u
        piece = knots[index - 1] * (v * v * v)
        piece += knots[index] * (4 - u * u * (6 - 3 * u))
        piece += knots[index + 1] * (4 - v * v * (6 - 3 * v))
        piece += knots[index + 2] * (u * u * u)
        result[start : start + piece.size] = piece / 6
    return result


def _add_snaps(pressure: Samples, per_second: float, sample_rate: int, rng: np.random.Generator) -> None:
    """Add the snaps of a shrimp bed 0.5-5 km away: 185 dB re 1 uPa at 1 m, a millisecond, most energy at 2-5 kHz."""
    count = rng.poisson(per_second * pressure.size / sample_rate)
    length = max(8, int(2e-3 * sample_rate))
    clock = np.arange(length) / sample_rate
    distance = 500 * np.sqrt(rng.uniform(1, 100, count))
    peak = rng.choice((-1.0, 1.0), count) * 10 ** (
        (185 - 20 * np.log10(distance) - absorption(4000) * distance / 1000) / 20
    )
    centre = np.minimum(rng.uniform(2000, 5000, count), 0.45 * sample_rate)
    for start, height, hertz in zip(rng.integers(0, max(1, pressure.size - length), count), peak, centre, strict=True):
        snap = height * np.exp(-clock / 3e-4) * np.sin(2 * np.pi * hertz * clock)
        pressure[start : start + length] += snap[: pressure.size - start]
