"""The settings that fit a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.checks.inspection import inspect_data
from edgekd.config import DataConfig
from edgekd.data.clip_length import check_clip_length
from edgekd.data.load import load_index


def flags_of(root: Path, files: dict[str, tuple[int, float]], **settings: Any) -> str:
    """What fits a folder of these files: name -> (rate, seconds)."""
    for number, (name, (rate, seconds)) in enumerate(files.items()):
        path = root / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(round(rate * seconds)), rate)
    inspection, _ = inspect_data(DataConfig(data_dir=root, **settings))
    fitting = inspection.fitting
    fitted = {name: value for name, value in vars(fitting).items() if value is not None}
    config = DataConfig(data_dir=root, **{**settings, **fitted})
    check_clip_length(load_index(config), config)  # training takes it
    return " ".join(fitting.flags)


def both(count: int, *forms: tuple[int, float]) -> dict[str, tuple[int, float]]:
    """So many files of each of two classes, of these forms in turns."""
    return {f"{label}/{number}": forms[number % len(forms)] for label in "ab" for number in range(count)}


@pytest.mark.parametrize(
    ("forms", "flags"),
    [
        ([(44_100, 5.0)], ""),
        ([(48_000, 17.0), (44_100, 6.0)], ""),
        ([(8_000, 0.43)], "--sample-rate 8000 --clip-seconds 0.43"),
        ([(8_000, 0.3), (8_000, 0.4), (8_000, 0.5), (8_000, 0.6)], "--sample-rate 8000 --clip-seconds 0.6"),
        ([(16_000, 1.0)], "--sample-rate 16000 --clip-seconds 1"),
        ([(44_100, 5.0), (8_000, 5.0)], "--sample-rate 8000"),
        ([(32_000, 1.0), (32_000, 1.0), (32_000, 9.0)], "--clip-seconds 1.8"),
        ([(1_000, 5.0)], "--sample-rate 2000"),
        ([(8_000, 0.05)], "--sample-rate 8000 --clip-seconds 0.1"),
    ],
)
def test_rate_and_clip_length_fit_the_recordings(tmp_path: Path, forms: list[tuple[int, float]], flags: str) -> None:
    assert flags_of(tmp_path, both(6, *forms)) == flags


def test_a_rate_that_few_recordings_have_does_not_decide(tmp_path: Path) -> None:
    few = {**both(25, (22_050, 0.2)), "a/low": (8_000, 0.2)}
    assert flags_of(tmp_path / "few", few, clip_seconds=0.2) == "--sample-rate 22050"
    one_class = {name: (8_000 if name.startswith("b") else 22_050, 0.2) for name in few}
    assert flags_of(tmp_path / "class", one_class, clip_seconds=0.2) == "--sample-rate 8000"


def test_what_is_said_stays_unless_training_would_refuse_it(tmp_path: Path) -> None:
    assert flags_of(tmp_path / "said", both(3, (8_000, 3.0)), sample_rate=16_000, clip_seconds=1.0) == ""
    assert (
        flags_of(tmp_path / "long", both(3, (8_000, 3.0)), sample_rate=16_000, clip_seconds=9.0) == "--clip-seconds 3"
    )
