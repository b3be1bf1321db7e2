"""The sea, measured with scipy: levels, interference, Doppler."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from edgekd.data.simulation import ocean
from edgekd.data.simulation.ocean import Sea, Track

RATE = 16_000


def spectrum_level(pressure: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    frequency, density = signal.welch(pressure.astype(np.float64), rate, nperseg=4096)
    return frequency[1:], 10 * np.log10(density[1:])


def level_near(pressure: np.ndarray, rate: int, hertz: float) -> float:
    """Mean level over a sixth of an octave either side."""
    frequency, level = spectrum_level(pressure, rate)
    return float(level[(frequency > hertz / 1.12) & (frequency < hertz * 1.12)].mean())


def ambient(**conditions: float) -> np.ndarray:
    sea = Sea(**{"wind_m_s": 7.0, "shipping": 0.5} | conditions)
    return ocean.ambient(sea, 32_000, 32_000 * 20, np.random.default_rng(3))


def test_ambient_noise_has_the_levels_of_the_wenz_curves():
    # Read off the published curves: 16 kn of wind is about 64 dB at 1 kHz; traffic is about 70 to 85 at 50 Hz.
    pressure = ambient(wind_m_s=8.0)
    assert level_near(pressure, 32_000, 1000) == pytest.approx(64.5, abs=2)
    assert 68 < level_near(pressure, 32_000, 50) < 88
    for hertz in (100, 300, 3000, 12_000):
        assert level_near(pressure, 32_000, hertz) == pytest.approx(
            float(ocean.ambient_level(hertz, 8.0, 0.5)),
            abs=1.5,  # the level wanders by 1 dB
        ), hertz


def test_wind_noise_falls_by_five_to_six_decibels_an_octave():
    pressure = ambient(wind_m_s=12.0, shipping=0.0)
    octaves = np.diff([level_near(pressure, 32_000, hertz) for hertz in (3000, 6000, 12_000)])
    assert np.all((octaves < -4.3) & (octaves > -6.3)), octaves


def test_more_wind_is_louder_and_more_shipping_is_louder_only_at_low_frequencies():
    calm, wind, traffic = ambient(wind_m_s=4.0), ambient(wind_m_s=9.0), ambient(wind_m_s=4.0, shipping=1.0)
    assert level_near(wind, 32_000, 2000) - level_near(calm, 32_000, 2000) == pytest.approx(7.5, abs=0.8)
    assert level_near(traffic, 32_000, 60) - level_near(calm, 32_000, 60) == pytest.approx(10, abs=1.5)
    assert level_near(traffic, 32_000, 5000) == pytest.approx(level_near(calm, 32_000, 5000), abs=0.5)


def test_rain_is_louder_than_the_wind_at_high_frequencies_and_snaps_are_impulsive():
    calm, rain, snaps = ambient(), ambient(rain_mm_h=10.0), ambient(snaps_per_s=5.0)
    assert level_near(rain, 32_000, 13_000) - level_near(calm, 32_000, 13_000) > 4
    assert level_near(rain, 32_000, 200) == pytest.approx(level_near(calm, 32_000, 200), abs=0.5)
    high = signal.butter(4, 2000, "high", fs=32_000, output="sos")

    def kurtosis(pressure: np.ndarray) -> float:
        filtered = signal.sosfilt(high, pressure)
        return float(np.mean(filtered**4) / np.mean(filtered**2) ** 2)

    assert kurtosis(calm) == pytest.approx(3, abs=0.3)
    assert kurtosis(snaps) > 4.5


def test_absorption_is_that_of_the_tables():
    assert ocean.absorption([1000, 10_000]) == pytest.approx([0.066, 1.19], rel=0.02)


def heard(source: np.ndarray, track: Track, seconds: float, wind: float = 0.0) -> np.ndarray:
    return ocean.propagate(source.astype(np.float32), track, wind, RATE, int(seconds * RATE)).astype(np.float64)


def emission_clock(track: Track, seconds: float) -> np.ndarray:
    lead = track.lead(seconds)
    return np.arange(int((seconds + 2 * lead) * RATE)) / RATE - lead


@pytest.mark.parametrize("hertz", [150.0, 997.0, 3100.0, 6400.0])
def test_a_tone_arrives_as_the_sum_of_source_and_image(hertz: float):
    track = Track(closest_m=400, start_m=0, speed_m_s=0, source_depth_m=6, receiver_depth_m=40)
    received = heard(np.sin(2 * np.pi * hertz * emission_clock(track, 2.0)), track, 2.0)
    direct, image = np.hypot(400, 40 - 6), np.hypot(400, 40 + 6)
    waves = 2 * np.pi * hertz / ocean.SOUND_SPEED
    expected = abs(np.exp(-1j * waves * direct) / direct - np.exp(-1j * waves * image) / image)
    amplitude = np.sqrt(2 * np.mean(received[RATE // 2 : -RATE // 2] ** 2))
    assert amplitude == pytest.approx(expected, rel=0.05, abs=0.02 / 400)


def test_lloyd_mirror_nulls_are_where_the_geometry_puts_them():
    track = Track(closest_m=500, start_m=0, speed_m_s=0, source_depth_m=8, receiver_depth_m=60)
    noise = np.random.default_rng(0).standard_normal(emission_clock(track, 30.0).size)
    frequency, density = signal.welch(heard(noise, track, 30.0), RATE, nperseg=2048)
    difference = 2 * 8 * 60 / np.hypot(500, 60)  # far field: 2 zs zr / R
    spacing = ocean.SOUND_SPEED / difference
    nulls = frequency[signal.find_peaks(-10 * np.log10(density[1:]), prominence=10)[0] + 1]
    count = int(RATE / 2 / spacing)
    assert nulls[:count] == pytest.approx(spacing * np.arange(1, count + 1), rel=0.02)


def test_waves_fill_the_nulls_at_high_frequencies():
    flat, rough = (
        ocean.surface_reflection([200.0, 5000.0], 1.0, 0.1),
        ocean.surface_reflection([200.0, 5000.0], 12, 0.1),
    )
    assert flat == pytest.approx([-1, -1], abs=0.01)
    assert rough[0] < -0.9 and abs(rough[1]) < 0.1


@pytest.mark.parametrize(("start_m", "sign"), [(-3000.0, 1), (3000.0, -1)])
def test_a_tone_of_a_moving_source_is_shifted_by_its_speed_over_that_of_sound(start_m: float, sign: int):
    track = Track(closest_m=1, start_m=start_m, speed_m_s=9, source_depth_m=5, receiver_depth_m=30)
    received = heard(np.sin(2 * np.pi * 1000 * emission_clock(track, 8.0)), track, 8.0)
    density = np.abs(np.fft.rfft(received * signal.windows.hann(received.size), 16 * received.size))
    peak = np.argmax(density) * RATE / (16 * received.size)
    assert peak == pytest.approx(1000 * (1 + sign * 9 / 1500), abs=0.1)


def test_doppler_turns_over_at_the_closest_point_of_approach():
    track = Track(closest_m=60, start_m=-80, speed_m_s=10, source_depth_m=5, receiver_depth_m=8)
    received = heard(np.sin(2 * np.pi * 2000 * emission_clock(track, 16.0)), track, 16.0, wind=14.0)
    band = signal.butter(4, [1900, 2100], "band", fs=RATE, output="sos")
    phase = np.unwrap(np.angle(signal.hilbert(signal.sosfiltfilt(band, received))))
    turned = np.median(np.diff(phase)[: RATE * 15].reshape(15, -1), axis=1)
    hertz = turned * RATE / (2 * np.pi)
    middle = 2000 * (1 - 10 / 1500 * np.sin(np.arctan2(-80 + 10 * (np.arange(15) + 0.5), 60)))
    assert hertz == pytest.approx(middle, abs=1.5)
    assert hertz[0] > 2008 and hertz[-1] < 1992


def test_fading_has_the_deviation_asked_for():
    gain = ocean.fading(2.0, 1.0, 1000, 1_000_000, np.random.default_rng(1))
    assert np.std(20 * np.log10(gain)) == pytest.approx(2.0, abs=0.25)
