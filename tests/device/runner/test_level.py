"""What is no sound, in whole recordings and in windows of a signal that comes in pieces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edgekd.device.runner.level import Stretches, is_flat, largest, zeros_at_ends, zeros_in_runs

RATE = 1_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1, samples).astype(np.float32)


def muted(*parts: int) -> np.ndarray:
    """Noise, zeros, noise, ... of so many samples."""
    return np.concatenate(
        [noise(count) if place % 2 == 0 else np.zeros(count, np.float32) for place, count in enumerate(parts)]
    )


def test_digital_silence_at_the_ends_is_counted_from_10_ms_on() -> None:
    assert zeros_at_ends(muted(0, 30, 100, 12), RATE) == (30, 12)
    assert zeros_at_ends(muted(0, 9, 100, 10), RATE) == (0, 10)
    assert zeros_at_ends(np.zeros(100), RATE) == (0, 0), "nothing would be left"


def test_digital_silence_in_all_is_that_of_runs() -> None:
    assert zeros_in_runs(muted(0, 30, 5, 9, 5, 12, 1), RATE) == 42
    assert zeros_in_runs(np.zeros(100), RATE) == 100


def test_one_value_throughout_is_flat_and_the_largest_is_a_magnitude() -> None:
    assert is_flat(np.full(5, -0.3))
    assert not is_flat(np.array([0, 0, 1e-9]))
    assert largest(np.array([0.5, -2.0])) == 2


@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_stretches_know_of_windows_what_their_samples_say(piece: int) -> None:
    signal = np.concatenate([muted(0, 250, 100, 40, 50, 5, 30, 120), np.full(150, 0.25, np.float32), noise(40)])
    stretches = Stretches(RATE, RATE)
    for start in range(0, len(signal), piece):
        stretches.push(signal[start : start + piece])
    assert not stretches.flat
    for first in range(0, len(signal) - 100, 10):
        window = signal[first : first + 100]
        before, after = (0, 0) if is_flat(window) else zeros_at_ends(window, RATE)
        assert stretches.window(first, 100) == (is_flat(window), before, 100 - after), first


def test_at_another_rate_what_is_left_begins_and_ends_with_sound() -> None:
    stretches = Stretches(48_000, 32_000)
    stretches.push(muted(0, 24_001, 12_000, 11_999))
    assert stretches.window(0, 32_000) == (False, 16_001, 24_001)


def test_a_constant_signal_is_flat_as_long_as_it_is() -> None:
    stretches = Stretches(RATE, RATE)
    assert stretches.flat
    for _ in range(3):
        stretches.push(np.full(50, 0.3, np.float32))
    assert stretches.flat
    assert stretches.window(50, 100) == (True, 0, 100)
    stretches.push(noise(1))
    assert not stretches.flat


@pytest.mark.parametrize("seed", range(8))
def test_what_is_looked_at_here_and_there_is_found_sample_by_sample(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random, rate = np.random.default_rng(seed), 8_000
    sound = np.round(random.standard_normal(30_000) * 3).astype(np.float32)
    for start in range(1_000, 29_000, 3_500):
        begin = start + int(random.integers(1_000))
        sound[begin : begin + random.choice([78, 79, 80, 81, 159, 700])] = random.choice([0.0, 2.0])
    cuts = [0, *np.sort(random.integers(0, 30_000, random.integers(1, 12))), 30_000]
    found = []
    for lively in (True, False):
        stretches = Stretches(rate, rate)
        if not lively:
            monkeypatch.setattr(stretches, "_is_lively", lambda _: False)
        told = []
        for start, stop in pairwise(cuts):
            stretches.push(sound[start:stop])
            told += [stretches.window(max(0, int(stop) - 900), 900), stretches.window(max(0, int(stop) - 80), 80)]
        found.append((told, stretches.flat))
    assert found[0] == found[1]
