"""The groups that an audit asks for, in the table that loaders read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.checks.audit import audit_data, refuse
from edgekd.checks.joined_groups import check_groups_file, write_groups
from edgekd.config import DataConfig
from edgekd.data.clip_store import open_store
from edgekd.data.load import load_index
from edgekd.errors import GateError, InputError, UsageError

RATE = 8_000


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(RATE * seconds))


@pytest.fixture
def chained(tmp_path: Path) -> DataConfig:
    """A manifest of 12 recordings with groups; 0, 2 and 4 overlap in turns, and 4 is of one group with 6."""
    long = noise(100, 2.2)
    sounds = {number: noise(number) for number in range(12)}
    sounds |= {0: long[:RATE], 2: long[RATE // 4 :][:RATE], 4: long[RATE // 2 :][:RATE]}
    lines = ["path,label,group"]
    for number, sound in sounds.items():
        soundfile.write(tmp_path / f"{number}.wav", sound, RATE)
        lines.append(f"{number}.wav,{'ab'[number % 2]},{'ship' if number in (4, 6) else ''}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return DataConfig(data_dir=tmp_path, sample_rate=RATE, clip_seconds=1.0, split_seed=1)


def test_what_shares_audio_in_turns_is_one_group_with_the_groups_it_touches(chained: DataConfig) -> None:
    found, index = audit_data(chained)
    assert len(found.leaks) + len(found.warnings) >= 2
    with pytest.raises(GateError, match="the split leaks"):
        refuse(found, index, chained)
    file = index.root / "groups.csv"
    joined = write_groups(file, index, open_store(index, chained))
    assert (joined.before, joined.after, joined.largest, joined.clips, joined.too_few) == (11, 9, 4, 12, ())
    groups = dict(line.split(",") for line in file.read_text().splitlines()[1:])
    assert {groups[f"{number}.wav"] for number in (0, 2, 4, 6)} == {"0.wav"}
    assert {path for path, group in groups.items() if path == group} == {
        "0.wav",
        *(f"{number}.wav" for number in (1, 3, 5, 7, 8, 9, 10, 11)),
    }
    for seed in range(4):
        config = chained.model_copy(update={"split_seed": seed})
        assert not refuse(*audit_data(config), config)


def test_a_class_that_is_left_with_too_few_groups_is_named(chained: DataConfig) -> None:
    table = chained.data_dir / "manifest.csv" if chained.data_dir else Path()
    table.write_text("".join(line for line in table.open() if not line.startswith(("8.", "10."))))
    index = load_index(chained)
    assert write_groups(index.root / "new.csv", index, open_store(index, chained)).too_few == ("a",)


def test_a_recording_that_the_table_cannot_name_is_refused(chained: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    (tmp_path / "tables" / "ours.csv").write_text("\n".join([lines[0], *(f"{tmp_path}/{line}" for line in lines[1:])]))
    config = chained.model_copy(update={"data_dir": tmp_path / "tables" / "ours.csv"})
    index = load_index(config)
    with pytest.raises(InputError, match=r"2\.wav: is to be of group .* lies outside .*tables, so groups.csv cannot"):
        write_groups(tmp_path / "groups.csv", index, open_store(index, config))
    assert not (tmp_path / "groups.csv").exists()


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("path,group\n")
    with pytest.raises(UsageError, match=r"groups\.csv exists already\. Replace it \(--overwrite"):
        check_groups_file(tmp_path / "groups.csv", overwrite=False)
    check_groups_file(tmp_path / "groups.csv", overwrite=True)
    check_groups_file(tmp_path / "other.csv", overwrite=False)
