"""The runner's own log-mel, for graphs without a front end, against the front end of training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch

from edgekd import log_mel
from edgekd.config import FrontendConfig
from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.commands import main
from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.log_mel import LogMel, mel_filters

if TYPE_CHECKING:
    from tests.device.conftest import Toy

FRONTENDS = [
    (FrontendConfig(), 32_000),
    (FrontendConfig(n_fft=512, hop_length=160, n_mels=64, f_min=125, f_max=7_500), 16_000),
    (FrontendConfig(n_fft=256, hop_length=100, n_mels=40, f_min=0, f_max=900), 4_000),  # below the scale's corner
    (FrontendConfig(n_fft=400, hop_length=147, n_mels=23, f_min=1_500, f_max=5_512), 11_025),  # above; an odd rate
]
OTHERS = [
    (FrontendConfig(convention="yamnet", window_length=400, n_fft=512, hop_length=160), 16_000),
    (FrontendConfig(convention="yamnet", window_length=201, n_fft=256, hop_length=320, n_mels=20, f_max=3_999), 8_000),
    (FrontendConfig(convention="yamnet", window_length=400, n_fft=512, frames_per_step=4, bins_per_step=3), 16_000),
    (FrontendConfig(n_fft=512, hop_length=160, f_max=7_500, frames_per_step=3, bins_per_step=2), 16_000),
]


@pytest.mark.parametrize(("config", "rate"), OTHERS)
def test_magnitudes_and_averages_are_those_of_training(config: FrontendConfig, rate: int) -> None:
    clips = (np.random.default_rng(0).standard_normal((2, rate + 7)) * [[0.3], [1e-3]]).astype(np.float32)
    front_end = LogMel(**config.given().model_dump(), sample_rate=rate, gain=0.37)
    found = front_end(clips)
    oracle = log_mel.LogMel(config, rate)(0.37 * torch.from_numpy(clips)).numpy()
    assert (found.dtype, found.shape) == (np.float32, oracle.shape)
    assert front_end.shape(rate + 7) == found.shape[2:]
    np.testing.assert_allclose(found, oracle, atol=1e-3 if config.convention == "panns" else 1e-4)


def test_an_older_manifest_is_of_convention_panns_and_a_newer_one_is_refused() -> None:
    told = {"n_fft": 512, "hop_length": 160, "n_mels": 64, "f_min": 125, "f_max": 7_500}
    assert LogMel(**told, sample_rate=16_000, gain=1.0).shape(16_000) == (101, 64)
    with pytest.raises(RunnerError, match="convention 'mfcc', which this program does not know"):
        LogMel(**told, convention="mfcc", sample_rate=16_000, gain=1.0)


@pytest.mark.parametrize(("config", "rate"), FRONTENDS)
def test_mel_filters_are_those_of_training(config: FrontendConfig, rate: int) -> None:
    found = mel_filters(config.n_fft, config.n_mels, config.f_min, config.f_max, rate)
    oracle = log_mel.mel_filterbank(config, rate).numpy()
    np.testing.assert_allclose(found, oracle, atol=1e-5 * oracle.max())


@pytest.mark.parametrize(("config", "rate"), FRONTENDS)
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_the_log_mel_has_the_numbers_of_training(config: FrontendConfig, rate: int, seconds: float) -> None:
    random = np.random.default_rng(0)
    clips = (random.standard_normal((3, round(seconds * rate) + 7)) * [[0.3], [1e-3], [0]]).astype(np.float32)
    found = LogMel(**config.given().model_dump(), sample_rate=rate, gain=0.37)(clips)
    # In float64: with one bin at the edge of a filter, training's own float32 is 1e-3 dB off.
    oracle = log_mel.LogMel(config, rate)(0.37 * torch.from_numpy(clips)).numpy()
    assert (found.dtype, found.shape) == (np.float32, oracle.shape)
    np.testing.assert_allclose(found, oracle, atol=1e-3)
    assert (found[2] == -100).all()


def test_predict_and_verify_compute_it(toy: Toy, written_log_mel: Path, tmp_path: Path) -> None:
    assert Runner(written_log_mel).verify()["agrees"]
    waveform = toy.noise(3 * toy.CLIP)
    starts = [*range(0, 2 * toy.CLIP, toy.HOP), 2 * toy.CLIP]
    expected = toy.scores(np.stack([waveform[start : start + toy.CLIP] for start in starts]), "log_mel").mean(axis=0)
    np.testing.assert_allclose(Runner(written_log_mel).predict(waveform, toy.RATE), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["low", "middle", "high"])
def test_a_tone_is_recognised(
    toy: Toy, written_log_mel: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "tone.wav", toy.tone(name, 0.5, 44_100), 44_100)
    assert main(["predict", "--json", str(tmp_path / "tone.wav")], written_log_mel) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["top"][0]["class"] == name


def test_another_gain_is_noticed_by_verify(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = toy.write(tmp_path / "bundle", source="log_mel")
    toy.classifier(bundle, gain=1e-5)
    assert main(["verify"], bundle) == os.EX_OK + 4
    assert "does not agree" in capsys.readouterr().err


def test_bench_times_front_end_and_network_apart(written_log_mel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "--runs", "20", "--warmup", "1"], written_log_mel) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["front_end_ms"] > 0
    assert outcome["network_ms"] > 0
    assert main(["bench", "--runs", "10", "--warmup", "1"], written_log_mel) == 0
    assert "of which front end" in capsys.readouterr().out
