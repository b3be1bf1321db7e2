from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.checks.prepare import Preparation, prepare_data
from edgekd.config import DataConfig
from edgekd.errors import InputError

RATE = 4_000


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(4):
        path = tmp_path / "data" / ("cat", "dog")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.5, 0.5, RATE), RATE)
    return DataConfig(data_dir=tmp_path / "data", sample_rate=RATE, clip_seconds=0.5)


def test_everything_is_decoded_and_fingerprinted_once(config: DataConfig, tmp_path: Path) -> None:
    stages: list[str] = []
    first = prepare_data(config, lambda stage, *_, **__: stages.append(stage))
    assert (first.clips, first.decoded, first.sample_rate, first.clip_seconds) == (8, 8, RATE, 0.5)
    assert first.folder.parent == tmp_path / "cache"
    assert first.bytes == sum(path.stat().st_size for path in first.folder.iterdir())
    assert {"cache clips", "fingerprint"} <= set(stages)
    stages.clear()
    again = prepare_data(config, lambda stage, *_, **__: stages.append(stage))
    assert (again.decoded, again.folder, again.real_time_factor) == (0, first.folder, None)
    assert not {"cache clips", "fingerprint"} & set(stages)


def test_fingerprints_that_nobody_reads_are_not_taken(config: DataConfig) -> None:
    stages: list[str] = []
    prepared = prepare_data(
        config.model_copy(update={"near_duplicates": "off"}), lambda stage, *_, **__: stages.append(stage)
    )
    assert "fingerprint" not in stages
    assert sorted(path.name for path in prepared.folder.iterdir()) == ["clips.i16", "rows.bin"]


def test_the_real_time_factor_is_seconds_of_work_for_one_of_sound() -> None:
    prepared = Preparation(
        Path("cache"), clips=10, decoded=4, sample_rate=RATE, clip_seconds=5.0, bytes=1, seconds=0.01, warnings=()
    )
    assert prepared.real_time_factor == pytest.approx(0.0005)
    assert prepared.to_dict() == {
        "folder": "cache",
        "clips": 10,
        "decoded": 4,
        "sample_rate": RATE,
        "clip_seconds": 5.0,
        "bytes": 1,
        "seconds": 0.01,
        "warnings": (),
        "real_time_factor": 0.0005,
    }


def test_a_broken_file_is_named(config: DataConfig) -> None:
    (config.data_dir / "cat" / "0.wav").write_text("not audio")
    with pytest.raises(InputError, match=r"cat/0\.wav: not an audio file"):
        prepare_data(config)
