from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.unlabelled import load_unlabelled
from edgekd.errors import InputError


def record(path: Path, seconds: float, rate: int = 8_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate)), rate)
    return path


def config(*folders: Path) -> DataConfig:
    return DataConfig(unlabelled=folders, clip_seconds=2.0)


def test_recordings_of_any_length_and_rate_are_cut_into_clips_without_a_label(tmp_path: Path) -> None:
    record(tmp_path / "a" / "long.wav", 5.2)
    record(tmp_path / "a" / "deep" / "half.flac", 3.0, 11_025)
    record(tmp_path / "b" / "short.ogg", 0.4)
    index = load_unlabelled(config(tmp_path / "a", tmp_path / "b"))
    assert (index.dataset, index.root, index.classes) == ("unlabelled", tmp_path, ())
    assert {clip.label for clip in index} == {-1}
    assert [(index.name(clip), clip.start, clip.length) for clip in index] == [
        ("a/deep/half.flac", 0, 22_050),
        ("a/deep/half.flac", 22_050, 11_025),  # half a clip: kept, and padded
        ("a/long.wav", 0, 16_000),
        ("a/long.wav", 16_000, 16_000),  # and 1.2 s left
        ("a/long.wav", 32_000, 9_600),
        ("b/short.ogg", 0, 3_200),
    ]


def test_a_recording_is_a_group_by_its_full_path(tmp_path: Path) -> None:
    path = record(tmp_path / "a" / "one.wav", 4.0)
    assert {clip.group for clip in load_unlabelled(config(tmp_path / "a"))} == {str(path)}


def test_groups_are_read_from_a_table_beside_the_audio(tmp_path: Path) -> None:
    record(tmp_path / "one.wav", 2.0)
    record(tmp_path / "two.wav", 2.0)
    (tmp_path / "groups.csv").write_text("path,group\none.wav,59277\ntwo.wav,59277\n")
    assert [clip.group for clip in load_unlabelled(config(tmp_path))] == ["59277", "59277"]
    (tmp_path / "groups.csv").write_text("path,group\none.wav,59277\n")
    with pytest.raises(InputError, match=r"groups\.csv: no group for 'two\.wav'"):
        load_unlabelled(config(tmp_path))


def test_a_file_below_two_of_the_folders_is_taken_once(tmp_path: Path) -> None:
    record(tmp_path / "a" / "one.wav", 2.0)
    record(tmp_path / "a" / "b" / "two.wav", 2.0)
    for folders in ([tmp_path / "a", tmp_path / "a" / "b"], [tmp_path / "a" / "b", tmp_path / "a"]):
        assert sorted(clip.path.name for clip in load_unlabelled(config(*folders))) == ["one.wav", "two.wav"]


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder\. Check --unlabelled\."):
        load_unlabelled(config(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no audio"):
        load_unlabelled(config(tmp_path / "empty"))
    path = record(tmp_path / "damaged" / "a.wav", 2.0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"a\.wav"):
        load_unlabelled(config(tmp_path / "damaged"))


def test_days_are_groups_by_the_name_that_labelled_recordings_of_them_have(tmp_path: Path) -> None:
    for name in ("a/AM1_20240501_120000.WAV", "a/AM1_20240501_130000.WAV", "a/b.wav", "c/AM1_20240502_120000.WAV"):
        record(tmp_path / name, 2.0)
    settings = config(tmp_path / "a", tmp_path / "c").model_copy(update={"group_by": "day"})
    groups = [clip.group for clip in load_unlabelled(settings)]
    assert groups == ["AM1 2024-05-01", "AM1 2024-05-01", str(tmp_path / "a" / "b.wav"), "AM1 2024-05-02"]
