"""A recording in which something happens, and a threshold that its scores cross."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.device.runner import Runner
from edgekd.device.runner.scores import WindowScores

RATE = 4_000  # of the tiny run
CHANGES = 40


def restless(seed: int, seconds: float = 30.0, rate: int = RATE) -> np.ndarray:
    """Tones, hum and noise in turn."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    steps = np.minimum((time / seconds * CHANGES).astype(int), CHANGES - 1)
    pitch, level = rng.uniform(40, 1_800, CHANGES), rng.choice([0.0, 0.05, 0.3], CHANGES)
    sound = level[steps] * np.sin(2 * np.pi * pitch[steps] * time) + rng.choice([0.01, 0.1], CHANGES)[steps] * (
        rng.standard_normal(len(time))
    )
    return np.asarray(np.clip(sound, -1, 1), np.float32)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """`site/a.wav`, `site/night/b.wav`: 30 s each."""
    folder = tmp_path / "site"
    (folder / "night").mkdir(parents=True)
    soundfile.write(folder / "a.wav", restless(1), RATE)
    soundfile.write(folder / "night" / "b.wav", restless(2), RATE)
    return folder


@pytest.fixture(scope="session")
def thresholds(tiny_bundle: Path) -> dict[str, float]:
    """The upper quartile of the scores of each class but the background on such a recording: what is over it comes and
    goes."""
    runner = Runner(tiny_bundle)
    scores = WindowScores(runner, RATE, RATE // 4)
    rows: Any = [row.scores for row in [*scores.push(restless(1)), *scores.finish()]]
    quartiles = dict(zip(runner.classes, np.quantile(np.stack(rows), 0.75, axis=0).tolist(), strict=True))
    return {name: score for name, score in quartiles.items() if name != "background"}
