"""Simulated vessels at 1 m, analysed as a sonar operator would, with scipy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import signal, stats

from edgekd.data.simulation import sonar, vessels
from edgekd.data.simulation.vessels import DESIGNS, Lines, Vessel
from edgekd.errors import UsageError

RATE = 8000


def a_vessel(class_name: str, seed: int = 0, **traits: object) -> Vessel:
    return replace(vessels.vessel(class_name, np.random.default_rng(seed)), **traits)


def demon(pressure: np.ndarray, rate: int, band: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the envelope of a band, over its local level: what a DEMON display shows. Resolution 0.1 Hz."""
    filtered = signal.sosfiltfilt(signal.butter(6, band, "band", fs=rate, output="sos"), pressure)
    slow = signal.decimate(signal.decimate(np.abs(signal.hilbert(filtered)) ** 2, 8), 8)
    frequency, density = signal.welch(slow / slow.mean(), rate / 64, nperseg=int(10 * rate / 64))
    return frequency, density / signal.medfilt(density, 41)


def line(frequency: np.ndarray, density: np.ndarray, hertz: float) -> float:
    """The highest value within 2 % (or 0.15 Hz) of `hertz`."""
    return float(density[np.abs(frequency - hertz) < max(0.15, 0.02 * hertz)].max())


@pytest.mark.parametrize(("class_name", "seed"), [("tanker", 0), ("cargo", 1), ("tug", 2)])
def test_demon_analysis_finds_the_blade_and_shaft_rates(class_name: str, seed: int):
    irregular = tuple(np.linspace(0.5, 1.5, 4).tolist())
    ship = a_vessel(class_name, seed, blades=4, blade_strength=irregular, screws=1, modulation=0.6)
    rng = np.random.default_rng(seed)
    scene = sonar.scene(ship, (15.0, 15.0), 60.0, rng)
    frequency, density = demon(sonar.render(ship, scene, RATE, 60.0, rng), RATE, (1500, 3500))
    searched = frequency > 0.8 * ship.shaft_hz
    strongest = frequency[searched][np.argmax(density[searched])]
    assert any(strongest == pytest.approx(order * ship.shaft_hz, rel=0.03) for order in (1, 2, 3, 4, 8))
    assert line(frequency, density, ship.blade_hz) > 8
    assert line(frequency, density, ship.shaft_hz) > 4
    assert line(frequency, density, 1.5 * ship.shaft_hz) < 4


def test_modulation_is_deeper_at_high_frequencies():
    ship = a_vessel("tanker", modulation=0.6, modulated_above_hz=400.0, lines=())
    pressure = vessels.radiate(ship, RATE, RATE * 60, np.random.default_rng(0))
    low = line(*demon(pressure, RATE, (150, 300)), ship.blade_hz)
    assert line(*demon(pressure, RATE, (2000, 3500)), ship.blade_hz) > 5 * low


def test_cavitation_noise_has_its_level_slope_and_hump():
    ship = a_vessel("cargo", lines=(), level_db=130.0, slope_db_decade=20.0, hump_hz=80.0, unsteadiness_db=0.0)
    pressure = vessels.radiate(ship, 32_000, 32_000 * 30, np.random.default_rng(0)).astype(np.float64)
    frequency, density = signal.welch(pressure, 32_000, nperseg=16_384)

    def level(hertz: float) -> float:
        return float(10 * np.log10(density[np.abs(frequency - hertz) < 0.1 * hertz].mean()))

    assert level(1000) == pytest.approx(130, abs=1)
    assert level(1000) - level(10_000) == pytest.approx(20, abs=1)
    assert 50 < frequency[np.argmax(density)] < 120


def test_source_level_goes_with_the_sixth_power_of_speed():
    ships = [a_vessel("cargo", seed) for seed in range(400)]
    length = np.array([20 * np.log10(ship.length_m / 91.44) for ship in ships])
    speed = np.array([np.log10(ship.speed_kn) for ship in ships])
    fit = stats.linregress(speed, np.array([ship.level_db for ship in ships]) - length)
    assert fit.slope == pytest.approx(60, abs=4 * fit.stderr)


@pytest.mark.parametrize("class_name", ["cargo", "passengership"])
def test_lines_stand_at_the_firing_rate(class_name: str):
    ship = a_vessel(class_name, 3, screws=1)
    pressure = vessels.radiate(ship, RATE, RATE * 60, np.random.default_rng(1)).astype(np.float64)
    frequency, density = signal.welch(pressure, RATE, nperseg=RATE * 8)
    firing = ship.engine_hz * ship.cylinders * 2 / ship.strokes
    near = np.abs(frequency - firing) < 0.02 * firing
    around = (np.abs(frequency - firing) < 0.3 * firing) & ~near
    assert density[near].max() > 10 * np.median(density[around])


def test_a_line_is_as_wide_as_its_shaft_wanders():
    def narrowness(wander: float) -> float:
        line_at_150_hz = (Lines(1.5, (100.0,), (50.0,), on_shaft=True),)
        ship = a_vessel("cargo", shaft_hz=1.5, screws=1, wander=wander, lines=line_at_150_hz)
        pressure = vessels.radiate(ship, RATE, RATE * 60, np.random.default_rng(1)).astype(np.float64)
        frequency, density = signal.welch(pressure, RATE, nperseg=RATE * 8)
        power = np.sort(density[np.abs(frequency - 150) < 3])[::-1]
        return float(power[:3].sum() / power.sum())

    assert narrowness(0.0) > 0.95
    assert narrowness(3e-3) < 0.7


def test_every_class_but_background_can_be_drawn_and_ranges_overlap():
    assert set(sonar.CLASSES) == {"background", *DESIGNS}
    rates = {name: [a_vessel(name, seed).blade_hz for seed in range(60)] for name in DESIGNS}
    order = sorted(rates, key=lambda name: float(np.median(rates[name])))
    assert order == ["tanker", "cargo", "passengership", "tug"]
    for slower, faster in itertools.pairwise(order):
        assert max(rates[slower]) > min(rates[faster])
    with pytest.raises(UsageError, match="Did you mean 'tanker'"):
        vessels.vessel("tankr", np.random.default_rng(0))
