"""The clip length that fits the recordings, and the refusal of one that most do not half fill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.checks.inspection import inspect_data
from edgekd.config import DataConfig
from edgekd.data.clip_length import check_clip_length, fitting_seconds
from edgekd.data.load import load_index
from edgekd.errors import UsageError

RATE = 8_000


def write_folder(root: Path, *seconds: float) -> Path:
    for name in ("cargo", "tug"):
        (root / name).mkdir(parents=True)
        for number, length in enumerate(seconds):
            soundfile.write(root / name / f"{number}.wav", np.full(round(RATE * length), 0.1), RATE)
    return root


def test_clips_much_shorter_than_the_clip_length_get_advice(tmp_path: Path) -> None:
    config = DataConfig(data_dir=write_folder(tmp_path / "data", 1.0, 1.0))
    with pytest.raises(UsageError, match=r"are 1 s long or shorter.*clip_seconds = 5\. Pass --clip-seconds 1\."):
        check_clip_length(load_index(config), config)
    for seconds in (0.5, 1.0, 2.0):
        config = config.model_copy(update={"clip_seconds": seconds})
        check_clip_length(load_index(config), config)


def test_the_advice_is_that_of_inspect(tmp_path: Path) -> None:
    config = DataConfig(data_dir=write_folder(tmp_path, 0.3, 0.4, 0.41, 0.62, 9.0), sample_rate=RATE)
    inspection, _ = inspect_data(config)
    assert inspection.fitting.clip_seconds == pytest.approx(0.73)  # 1.8 times the median
    with pytest.raises(UsageError, match=r"Pass --clip-seconds 0\.73\.$"):
        check_clip_length(load_index(config), config)


@pytest.mark.parametrize(
    ("lengths", "seconds"), [([1.0], 1.0), ([0.3, 0.4, 0.5, 0.6], 0.6), ([1.0, 1.0, 9.0], 1.8), ([0.05], 0.1)]
)
def test_most_recordings_fit_and_none_is_mostly_filling(lengths: list[float], seconds: float) -> None:
    assert fitting_seconds(lengths) == pytest.approx(seconds)
