from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.checks.inspection import inspect_data
from edgekd.config import DistillConfig
from edgekd.report import spectrograms
from edgekd.report.spectrograms import draw_spectrograms

RATE = 4_000
FRONT_END = {"n_fft": 256, "hop_length": 128, "n_mels": 32, "f_max": 1_900.0}


@pytest.fixture
def config(tmp_path: Path) -> DistillConfig:
    """Tones of 300 and of 1,200 Hz, and silence."""
    for name, hertz in (("low", 300), ("high", 1_200), ("nothing", 0)):
        (tmp_path / "data" / name).mkdir(parents=True)
        tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)
        soundfile.write(tmp_path / "data" / name / "a.wav", tone, RATE)
    data = {"data_dir": tmp_path / "data", "sample_rate": RATE, "clip_seconds": 1.0}
    return DistillConfig(data=data, frontend=FRONT_END)


def test_each_class_that_has_sound_is_drawn(config: DistillConfig, tmp_path: Path) -> None:
    inspection, index = inspect_data(config.data)
    done: list[int] = []
    draw_spectrograms(inspection, index, config, tmp_path / "all.png", lambda _, count, total: done.append(count))
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert done == [1, 2, 3]


def test_a_tone_lies_at_its_frequency(config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plotted: dict[str, object] = {}

    def plot(by_class: dict[str, np.ndarray], hertz: np.ndarray, hop_s: float, out: Path) -> None:
        plotted.update(loudest={name: hertz[image.mean(0).argmax()] for name, image in by_class.items()}, hop=hop_s)

    monkeypatch.setattr(spectrograms, "plot_spectrograms", plot)
    draw_spectrograms(*inspect_data(config.data), config, tmp_path / "all.png")
    assert plotted["loudest"] == {"low": pytest.approx(300, rel=0.1), "high": pytest.approx(1_200, rel=0.1)}
    assert plotted["hop"] == 128 / RATE


def test_magnitudes_are_drawn_in_db_and_averages_as_they_were_before(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loudest = {}

    def plot(by_class: dict[str, np.ndarray], hertz: np.ndarray, hop_s: float, out: Path) -> None:
        loudest.update({name: (image.max(), hop_s) for name, image in by_class.items()})

    monkeypatch.setattr(spectrograms, "plot_spectrograms", plot)
    magnitudes = {"convention": "yamnet", "n_mels": 32, "frames_per_step": 8}
    drawn = DistillConfig(data=config.data, frontend=magnitudes)
    draw_spectrograms(*inspect_data(config.data), drawn, tmp_path / "all.png")
    level, hop_s = loudest["low"]
    assert hop_s == 0.01
    assert level == pytest.approx(20 * np.log10(0.5 * 100 / 4), abs=3), (
        "half full scale in a Hann window of 100 samples"
    )


def test_where_all_is_silent_nothing_is_drawn(config: DistillConfig, tmp_path: Path) -> None:
    for path in (tmp_path / "data").rglob("*.wav"):
        soundfile.write(path, np.zeros(RATE), RATE)
    draw_spectrograms(*inspect_data(config.data), config, tmp_path / "all.png")
    assert not (tmp_path / "all.png").exists()
