"""The log-mel in integers against the same in float64: noise, tones, clipped and faint sound, silence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.errors import GateError
from edgekd.front_end import FrontendConfig
from edgekd.log_mel import MAGNITUDE_OFFSET, POWER_FLOOR, mel_filterbank
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.log_mel import FixedLogMel, fixed_log_mel
from edgekd.microcontrollers.integer.log_mel_reference import logarithms, rows
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel

GAIN = 1.7
SCALE, STEP = 0.05, 0.03  # of a norm for each mel bin, and of the network's entry
CONFIGS = [
    (FrontendConfig(), 16_000),  # 512 points
    (FrontendConfig(), 32_000),  # 1024
    (FrontendConfig(n_mels=40, bins_per_step=3), 44_100),  # 1408 = 2^7 * 11, and a mel bin that is left out
    (FrontendConfig(n_mels=32), 48_000),  # 1536 = 2^9 * 3
    (FrontendConfig(n_mels=16, n_fft=70, hop_length=20, f_max=1_000), 2_000),  # 35 = 5 * 7
    (FrontendConfig(convention="yamnet", n_mels=32, bins_per_step=2), 16_000),
    (FrontendConfig(convention="yamnet"), 44_100),  # an odd window
]


def made(config: FrontendConfig, rate: int, gain: float = GAIN) -> FixedLogMel:
    bins = config.n_mels // config.bins_per_step
    trained = TrainedLogMel(config, rate, gain, np.full(bins, SCALE), np.ones(bins))
    return fixed_log_mel(trained, Map("entry", 1, bins, 1, STEP, 3))


def frames(length: int, noises: int = 24) -> NDArray[np.int16]:
    """What is easy, and then all that may overflow: silence, full scale of every kind, an impulse, the faintest."""
    random, n = np.random.default_rng(0), np.arange(length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / length)
    levels = 10 ** random.uniform(0, 4.5, (2, noises, 1))
    noise = levels[0] * random.standard_normal((noises, length))
    tones = levels[1] * np.sin(random.uniform(0, 3, (noises, 1)) * n) + random.standard_normal((noises, length))
    extreme = [
        *(np.zeros(length), np.full(length, 32_767), np.full(length, -32_768), np.where(n % 2, 32_767, -32_768)),
        *(32_767 * np.sign(np.sin(n)), 32_767 * np.sin(0.3 * n), np.where(n == length // 2, 32_767, 0), 1.0 * (n == 3)),
        *(random.integers(-1, 2, length), np.where(random.random(length) < 0.5, 32_767, -32_768)),
        1 / np.maximum(window, 1e-9),
    ]
    return np.clip(np.rint([*noise, *tones, *extreme]), -32_768, 32_767).astype(np.int16)


def exact(config: FrontendConfig, rate: int, heard: NDArray[np.int16]) -> NDArray[np.float64]:
    window = torch.hann_window(config.window_length, dtype=torch.float64)
    spectrum = torch.fft.rfft(torch.from_numpy(heard / 32768 * GAIN) * window, n=config.n_fft).abs()
    filters = mel_filterbank(config, rate).double()
    if config.convention == "yamnet":
        return torch.log(spectrum @ filters + MAGNITUDE_OFFSET).numpy()
    return (10 * torch.log10((spectrum.square() @ filters).clamp(min=POWER_FLOOR))).numpy()


@pytest.mark.parametrize(("config", "rate"), CONFIGS)
def test_what_is_near_the_loudest_frequency_is_that_of_float64(config: FrontendConfig, rate: int) -> None:
    config = config.at(rate)
    heard = frames(config.window_length)[:-1]  # the last is made of what a window of 16 bits is coarse in
    decibels = 20 / math.log(10) if config.convention == "yamnet" else 1
    error = decibels * np.abs(logarithms(made(config, rate), heard) - exact(config, rate, heard))
    peaks = mel_filterbank(config, rate).numpy().max(axis=0) ** (2 if config.convention == "yamnet" else 1)
    window = torch.hann_window(config.window_length, dtype=torch.float64).numpy()
    loudest = np.abs(np.fft.rfft(heard / 32768 * GAIN * window, n=config.n_fft)).max(axis=1) ** 2
    below = 10 * np.log10(np.maximum(loudest[:, None] * peaks, 1e-12)) - decibels * exact(config, rate, heard)
    assert error[below < 60].max() < 0.1
    assert error[:24].max() < 0.01  # noise


def test_quiet_sound_is_as_exact_as_loud_sound() -> None:
    config = FrontendConfig().at(16_000)
    heard = np.random.default_rng(1).integers(-2, 3, (20, 512)).astype(np.int16)
    front_end = made(config, 16_000)
    quiet, loud = (np.abs(logarithms(front_end, x) - exact(config, 16_000, x)).max() for x in (heard, heard * 8_000))
    assert max(quiet, loud) < 0.01


def test_silence_is_the_floor() -> None:
    for config, rate in CONFIGS:
        found = logarithms(made(config.at(rate), rate), np.zeros((1, config.at(rate).window_length), np.int16))
        floor = math.log(MAGNITUDE_OFFSET) if config.convention == "yamnet" else -100
        assert found == pytest.approx(np.full(found.shape, floor), abs=1e-3)


def test_rows_are_steps_of_the_network() -> None:
    config = replace_steps(FrontendConfig(n_mels=32).at(16_000))
    front_end, heard = made(config, 16_000), frames(512)
    levels = logarithms(front_end, heard).reshape(len(heard), -1, config.bins_per_step).mean(axis=2)
    expected = ((SCALE * levels + 1) / STEP + 3) / config.frames_per_step
    assert rows(front_end, heard) / 2.0**front_end.fraction_bits == pytest.approx(expected, abs=0.02)


def replace_steps(config: FrontendConfig) -> FrontendConfig:
    return config.model_copy(update={"frames_per_step": 3, "bins_per_step": 2})


def test_a_normalisation_beyond_32_bits_is_refused() -> None:
    config, ones = FrontendConfig().at(16_000), np.ones(64)
    with pytest.raises(GateError, match="log-mel at 16000 Hz has no form in fixed point"):
        fixed_log_mel(TrainedLogMel(config, 16_000, GAIN, 1e9 * ones, ones), Map("entry", 1, 64, 1, STEP, 0))


def test_a_length_with_a_large_prime_factor_is_refused() -> None:
    with pytest.raises(GateError, match="A transform of 442 samples has no form in C: 17 is a factor"):
        made(FrontendConfig(n_fft=442, hop_length=100), 16_000)


def test_less_scaling_would_overflow_and_more_would_cost_bits() -> None:
    config, rate = CONFIGS[0][0].at(16_000), 16_000
    front_end, heard = made(config, rate), frames(512)
    coarse = replace(front_end, bits=front_end.bits - 8)
    errors = [np.abs(logarithms(each, heard) - exact(config, rate, heard))[:24].max() for each in (front_end, coarse)]
    assert errors[0] < 0.5 * errors[1]
