"""Short clips at a low rate whose class is the order of notes: what a long window and wide masks would hide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.config import DistillConfig
from edgekd.training import outcome
from edgekd.training.distill import distill

RATE, SECONDS = 8_000, 0.8
NOTES = 500.0, 1_000.0, 2_000.0  # Hz
SIDES = {"train": 40, "validation": 10, "test": 20}  # clips of each class


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def word(notes: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    """Three notes of 35 ms somewhere in a clip, in a voice and at a level of their own, in noise."""
    time = np.arange(round(0.035 * RATE)) / RATE
    voice = random.uniform(0.9, 1.1)
    spoken = np.concatenate([np.sin(2 * np.pi * voice * note * time) * np.hanning(len(time)) for note in notes])
    clip = 0.003 * random.standard_normal(round(SECONDS * RATE))
    start = random.integers(len(clip) - len(spoken))
    clip[start : start + len(spoken)] += spoken
    return random.uniform(0.3, 0.9) * clip


@pytest.fixture
def words(tmp_path: Path) -> Path:
    random, lines = np.random.default_rng(0), ["path,label,group,split"]
    for number, notes in enumerate((NOTES, NOTES[::-1])):
        for side, count in SIDES.items():
            for take in range(count):
                name = f"{number}-{side}-{take}.wav"
                soundfile.write(tmp_path / name, word(notes, random), RATE)
                lines.append(f"{name},word{number},{side},{side}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_order_of_notes_is_learned_with_the_defaults(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1024 and 320 samples at 8 kHz, and masks of 48 frames, it is guessed: half of the clips."""
    monkeypatch.setattr(outcome, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(outcome, "plot_curves", lambda *_: None)
    config = DistillConfig.model_validate(
        {
            "out": words / "run",
            "device": "cpu",
            "data": {"data_dir": words, "sample_rate": RATE, "clip_seconds": SECONDS},
            "loss": {"terms": ["classification"]},
            "training": {"epochs": 15, "batch_size": 8},
        }
    )
    assert distill(config).report()["test"]["student"]["accuracy"] > 0.9
