"""What is heard of a recording: which channel, at what full scale, without which silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.audio.read import HeardClip, read, read_clip
from edgekd.config import DataConfig
from edgekd.errors import InputError

RATE = 8_000


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def clip_of(path: Path, seconds: float = 1.0, **settings: Any) -> HeardClip:
    frames = soundfile.info(path).frames
    return read_clip(
        path, 0, frames, sample_rate=RATE, samples=round(seconds * RATE), hearing=DataConfig.model_validate(settings)
    )


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([noise(seed=1), noise(seed=2)], 1), RATE, subtype="FLOAT")
    return path


def test_the_mean_or_one_channel_is_heard(stereo: Path) -> None:
    channels = [read(stereo, RATE, hearing=DataConfig(channel=number)) for number in (0, 1)]
    np.testing.assert_array_equal(channels[0], noise(seed=1))
    np.testing.assert_array_equal(channels[1], noise(seed=2))
    np.testing.assert_allclose(read(stereo, RATE), np.mean(channels, axis=0), atol=1e-8)


def test_a_channel_that_is_not_there_is_named_with_the_file(stereo: Path) -> None:
    with pytest.raises(InputError, match=r"stereo\.wav: has 2 channel\(s\), counted from 0, so none with number 2"):
        read(stereo, RATE, hearing=DataConfig(channel=2))


@pytest.mark.parametrize(("right", "left"), [(1.0, 1.0), (0.0, 0.5), (-1.0, 0.0), (-0.9, 0.0028)])
def test_what_averaging_leaves_of_the_channels_is_known(tmp_path: Path, right: float, left: float) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([noise(), right * noise()], 1), RATE, subtype="FLOAT")
    assert clip_of(tmp_path / "a.wav").left == pytest.approx(left, abs=2e-4)
    assert clip_of(tmp_path / "a.wav", channel=0).left == 1


@pytest.mark.parametrize(("unit", "advice"), [(32_768, "data.full_scale=32768"), (1e6, "data.full_scale=8388608")])
def test_floats_of_another_unit_are_refused_or_scaled(tmp_path: Path, unit: float, advice: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise() * unit, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=rf"a\.wav: samples reach .*, where full scale is 1\..*{advice}"):
        read(path, RATE)
    np.testing.assert_allclose(read(path, RATE, hearing=DataConfig(full_scale=unit)), noise(), rtol=1e-5)
    with pytest.raises(InputError, match=r"where full scale is 2\. Give the full scale of its unit"):
        read(path, RATE, hearing=DataConfig(full_scale=2))


def test_floats_above_full_scale_and_integers_are_left_alone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 10 * noise(), RATE, subtype="FLOAT")
    assert np.abs(read(tmp_path / "loud.wav", RATE)).max() > 2
    soundfile.write(tmp_path / "integers.wav", noise(), RATE, subtype="PCM_16")
    np.testing.assert_allclose(
        read(tmp_path / "integers.wav", RATE, hearing=DataConfig(full_scale=32_768)), noise(), atol=1e-4
    )


@pytest.mark.parametrize("value", [0.0, 0.3, 1 / 32_768, -1.0])
def test_one_value_throughout_is_silence(tmp_path: Path, value: float) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(2 * RATE, value), 2 * RATE)
    assert not clip_of(tmp_path / "a.wav").waveform.any()


def test_digital_silence_is_measured_and_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    sound = noise(0.5)
    soundfile.write(tmp_path / "a.wav", np.pad(sound, (800, 1_600)), RATE, subtype="FLOAT")
    heard = clip_of(tmp_path / "a.wav", 0.8)
    assert heard[2:] == pytest.approx((0.1, 0.2, 0.3))
    trimmed = clip_of(tmp_path / "a.wav", 0.8, trim_silence=True)
    np.testing.assert_array_equal(trimmed.waveform, np.resize(sound, 6_400))
    assert trimmed[2:] == (0, 0, 0)
    filled = clip_of(tmp_path / "a.wav", 0.8, trim_silence=True, padding="zeros").waveform
    np.testing.assert_array_equal(filled, np.pad(sound, (0, 2_400)))


def test_a_click_that_is_gone_at_a_lower_rate_leaves_silence(tmp_path: Path) -> None:
    click = np.zeros(6 * RATE)
    click[3 * RATE + 1] = 0.5
    soundfile.write(tmp_path / "a.wav", click, 6 * RATE)
    assert not clip_of(tmp_path / "a.wav", trim_silence=True).waveform.any()


def test_a_silent_clip_stays(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    heard = clip_of(tmp_path / "a.wav", trim_silence=True)
    assert not heard.waveform.any()
    assert heard[2:] == (0, 0, 1)


def test_what_a_lossy_format_makes_of_digital_silence_is_some(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.ogg", np.pad(noise(2.0), (0, RATE)), RATE, format="OGG", subtype="VORBIS")
    sound, _ = soundfile.read(tmp_path / "a.ogg")
    heard = clip_of(tmp_path / "a.ogg", 3.0)
    assert heard.silence_end == pytest.approx(1, abs=0.1), (
        f"its samples are {np.abs(sound[-RATE // 2 :]).max()} at most"
    )
