"""The log-mel in C against PyTorch's, in dB, and its transform at every kind of length."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.device.c import SOURCES
from edgekd.errors import GateError
from edgekd.front_end import FrontendConfig
from edgekd.log_mel import LogMel
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.front_end import log_mel_constants
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel
from edgekd.microcontrollers.integer.transform import radices_of
from tests.microcontrollers.c.programs import needs_host

GAIN = 1.7


class InC:
    """The front end of a configuration: `row(samples, start)` of the frame that begins there, in its own unit."""

    def __init__(self, folder: Path, config: FrontendConfig, rate: int) -> None:
        self.config, self.bins = config, config.n_mels // config.bins_per_step
        entry = Map("entry", 1, self.bins, 1, 1.0, 0)
        ones, zeros = np.ones(self.bins), np.zeros(self.bins)
        constants = log_mel_constants(TrainedLogMel(config, rate, GAIN, ones, zeros), entry, "front_end")
        (folder / "front_end.c").write_text(f'#include "edgekd_log_mel.h"\n{constants}')
        (folder / "edgekd_model.h").write_text('#include "edgekd_log_mel.h"\n')
        flags = ("-shared", "-fPIC", "-Werror", f"-I{SOURCES}", f"-I{folder}")
        toolchain.build([folder / "front_end.c", SOURCES / "edgekd_log_mel.c"], folder / "front_end.so", flags)
        library = ctypes.CDLL(str(folder / "front_end.so"))
        self.row_of, self.front_end = (
            library.edgekd_log_mel_row,
            ctypes.byref(ctypes.c_char.in_dll(library, "front_end")),
        )

    def row(self, samples: NDArray[np.int16], start: int) -> NDArray[np.float32]:
        length = self.config.window_length
        before, after = max(0, -start), max(0, start + length - len(samples))
        places = np.array([start - 1, start + length, *range(start, start + length)])
        heard = np.zeros(length, np.int16)
        for place in places[(places >= 0) & (places < len(samples))]:
            heard[(place - start) % length] = samples[place]
        spectrum, row = np.zeros(self.config.n_fft + 2, np.float32), np.zeros(self.bins, np.float32)
        pointers = (each.ctypes.data_as(ctypes.c_void_p) for each in (heard, spectrum, row))
        taken, *found = pointers
        self.row_of(self.front_end, taken, length, 0, before, after, *found)
        return row


def sound(samples: int, rate: int) -> NDArray[np.int16]:
    """Loud and quiet, tones and noise."""
    time, random = np.arange(samples) / rate, np.random.default_rng(0)
    waves = sum(0.3 * np.sin(6.283 * rate * share * time) for share in (0.01, 0.09, 0.37))
    fading = np.exp(-6 * time / time[-1])
    return np.round(20_000 * fading * (waves + 0.1 * random.standard_normal(samples))).astype(np.int16)


@needs_host
@pytest.mark.parametrize(
    ("config", "rate"),
    [
        (FrontendConfig(), 16_000),  # 512 points
        (FrontendConfig(), 32_000),  # 1024
        (FrontendConfig(n_mels=40, bins_per_step=2), 44_100),  # 1408 = 2^7 * 11
        (FrontendConfig(n_mels=32), 48_000),  # 1536 = 2^9 * 3
        (FrontendConfig(n_mels=16, n_fft=70, hop_length=20, f_max=1_000), 2_000),  # 35 = 5 * 7
    ],
)
def test_every_frame_is_that_of_torch_stft(config: FrontendConfig, rate: int, tmp_path: Path) -> None:
    config = config.at(rate)
    in_c, samples = InC(tmp_path, config, rate), sound(8 * config.n_fft, rate)
    waveform = torch.from_numpy(samples.astype(np.float32) / 32768 * np.float32(GAIN))
    expected = LogMel(config, rate)(waveform[None])[0, 0].numpy()
    starts = np.arange(len(expected)) * config.hop_length - config.n_fft // 2
    found = np.stack([in_c.row(samples, int(start)) for start in starts])
    assert found.shape == expected.shape
    heard = expected > expected.max(axis=1, keepdims=True) - 60  # below, float32's own noise begins
    assert np.abs(found - expected)[heard].max() < 0.001  # dB
    assert np.abs(found - expected).max() < 0.1


@needs_host
def test_every_frame_is_that_of_yamnet(tmp_path: Path) -> None:
    config = FrontendConfig(convention="yamnet").at(16_000)
    in_c, samples = InC(tmp_path, config, 16_000), sound(8_000, 16_000)
    waveform = torch.from_numpy(samples.astype(np.float32) / 32768 * np.float32(GAIN))
    expected = LogMel(config, 16_000)(waveform[None])[0, 0].numpy()
    found = np.stack([in_c.row(samples, frame * config.hop_length) for frame in range(len(expected))])
    assert np.abs(found - expected).max() < 1e-3


@needs_host
def test_digital_silence_is_the_floor(tmp_path: Path) -> None:
    in_c = InC(tmp_path, FrontendConfig().at(8_000), 8_000)
    assert in_c.row(np.zeros(1000, np.int16), 100) == pytest.approx(np.full(64, -100.0), abs=1e-4)


def test_a_length_with_a_large_prime_factor_is_refused() -> None:
    assert radices_of(256) == [4, 4, 4, 4]
    assert radices_of(704) == [4, 4, 4, 11]
    with pytest.raises(GateError, match=r"A transform of 442 samples has no form in C: 221|17 is a factor"):
        radices_of(221)
