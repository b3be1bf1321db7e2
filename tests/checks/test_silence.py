"""Clips with nothing to hear, as all checks tell of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.checks.audit import audit_data
from edgekd.checks.inspection import inspect_data
from edgekd.checks.prepare import prepare_data
from edgekd.config import DataConfig

RATE = 8_000


def noise(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(RATE)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Two classes of five stereo recordings of a second, one in opposite phase, one constant, one silent, and two with
    a dead channel."""
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    sounds = [np.stack([noise(seed), noise(seed + 100)], 1) for seed in range(10)]
    sounds[3][:, 1] = -sounds[3][:, 0]
    sounds[4][:] = 0.3
    sounds[5][:] = 0
    sounds[6][:, 0] = 0.1
    sounds[7][:, 0] = 0
    for number, sound in enumerate(sounds):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, RATE)
    return DataConfig(data_dir=tmp_path / "data", sample_rate=RATE, clip_seconds=1.0)


def test_inspection_counts_each_kind_and_names_the_channel_that_helps(config: DataConfig) -> None:
    found, _ = inspect_data(config)
    assert (found.silent, found.constant, found.cancelled) == (("b/5.wav",), ("a/4.wav",), ("b/3.wav",))
    assert found.dead_channels == {"a/6.wav": (0,), "b/7.wav": (0,)}
    assert found.fitting.channel == 1
    one, _ = inspect_data(config.model_copy(update={"channel": 0}))
    assert (one.silent, one.constant, one.cancelled) == (("b/5.wav", "b/7.wav"), ("a/4.wav", "a/6.wav"), ())
    assert one.fitting.channel is None


def test_the_class_table_has_levels_as_they_are_heard(config: DataConfig) -> None:
    assert inspect_data(config)[0].classes[0].level_db == pytest.approx(-23, abs=0.3)  # the mean of two
    one = config.model_copy(update={"channel": 1})
    assert inspect_data(one)[0].classes[0].level_db == pytest.approx(-20, abs=0.3)


def test_audit_and_preparation_warn_with_what_helps(config: DataConfig) -> None:
    lost = (
        "1 clip is lost when their channels are averaged, for they are in opposite phase (--set data.channel=0 hears "
        "one): b/3.wav"
    )
    nothing = "2 clips are silent (digital silence, or one value throughout): a/4.wav, ..."
    audited, _ = audit_data(config)
    assert [each.message for each in audited.warnings if each.kind in ("silence", "cancelled")] == [nothing, lost]
    assert prepare_data(config).warnings == (nothing, lost)
    assert prepare_data(config.model_copy(update={"channel": 1})).warnings == (nothing,)
