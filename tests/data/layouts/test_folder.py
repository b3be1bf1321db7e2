from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.layouts import folder
from edgekd.data.load import load_index
from edgekd.errors import InputError

RATE = 8_000
CONFIG = DataConfig(clip_seconds=1.0)


def record(path: Path, seconds: float = 1.0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), 0.1), rate)
    return path


def write_groups(root: Path, *rows: tuple[str, ...]) -> None:
    with open(root / "groups.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    record(tmp_path / "tug" / "a.wav")
    record(tmp_path / "cargo" / "2023" / "may" / "b.flac")
    record(tmp_path / "cargo" / "a.WAV")
    (tmp_path / "cargo" / "notes.txt").write_text("calm sea")
    record(tmp_path / ".trash" / "old.wav")
    record(tmp_path / "cargo" / "._a.wav")
    return tmp_path


def test_each_folder_is_a_class_and_files_are_found_at_any_depth(root: Path) -> None:
    index = folder.load(root, CONFIG)
    assert index.classes == ("cargo", "tug")
    names = [(clip.path.relative_to(root).as_posix(), clip.label) for clip in index]
    assert names == [("cargo/2023/may/b.flac", 0), ("cargo/a.WAV", 0), ("tug/a.wav", 1)]


def test_without_groups_each_file_is_its_own(root: Path) -> None:
    assert [clip.group for clip in folder.load(root, CONFIG)] == ["cargo/2023/may/b.flac", "cargo/a.WAV", "tug/a.wav"]


def test_groups_are_read_from_the_table(root: Path) -> None:
    rows = [("cargo/a.WAV", "Ever Given"), ("tug/a.wav", "Svitzer"), ("cargo/2023/may/b.flac", "Ever Given")]
    write_groups(root, ("path", "group"), *rows)
    assert [clip.group for clip in folder.load(root, CONFIG)] == ["Ever Given", "Ever Given", "Svitzer"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3.0, [(0, RATE), (RATE, RATE), (2 * RATE, RATE)]),
        (2.5, [(0, RATE), (RATE, RATE), (2 * RATE, RATE // 2)]),  # half a clip is kept
        (2.49, [(0, RATE), (RATE, RATE)]),  # less is not
        (0.1, [(0, RATE // 10)]),  # all there is
    ],
)
def test_a_recording_is_cut_into_consecutive_windows(
    root: Path, seconds: float, expected: list[tuple[int, int]]
) -> None:
    record(root / "tug" / "a.wav", seconds)
    clips = [clip for clip in folder.load(root, CONFIG) if clip.label == 1]
    assert [(clip.start, clip.length) for clip in clips] == expected
    assert {clip.group for clip in clips} == {"tug/a.wav"}


def test_windows_are_counted_at_the_file_s_own_rate(tmp_path: Path) -> None:
    assert folder.windows(record(tmp_path / "a.wav", 2.0, 44_100), 1.0) == [(0, 44_100), (44_100, 44_100)]


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    with pytest.raises(
        InputError, match=r"not in the layout of 'folder': expected a folder of recordings .* found a.wav"
    ):
        load_index(DataConfig(dataset="folder", data_dir=tmp_path))


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    record(tmp_path / "tug" / "a.wav")
    with pytest.raises(InputError, match=r"only one class folder \('tug'\)"):
        folder.load(tmp_path, CONFIG)


def test_classes_that_differ_only_in_case_are_refused(root: Path) -> None:
    record(root / "Tug" / "b.wav")
    with pytest.raises(
        InputError, match=r"tug: class 'tug' differs from 'Tug' \(.*/Tug\) only in case or blanks\. Ren"
    ):
        folder.load(root, CONFIG)


def test_an_empty_class_is_named(root: Path) -> None:
    (root / "ferry").mkdir()
    with pytest.raises(InputError, match=r"class 'ferry' has no audio files"):
        folder.load(root, CONFIG)


def test_an_unreadable_recording_is_named(root: Path) -> None:
    (root / "tug" / "a.wav").write_text("not a wav")
    with pytest.raises(InputError, match=r"tug/a.wav: not an audio file"):
        folder.load(root, CONFIG)


def test_a_group_for_an_unknown_file_is_refused(root: Path) -> None:
    write_groups(root, ("path", "group"), ("cargo/c.wav", "x"))
    with pytest.raises(InputError, match=r"groups.csv, line 2: 'cargo/c.wav' is no audio file"):
        folder.load(root, CONFIG)


def test_a_file_left_out_of_the_groups_is_named(root: Path) -> None:
    write_groups(root, ("path", "group"), ("cargo/a.WAV", "x"))
    with pytest.raises(InputError, match=r"groups.csv: no group for 'cargo/2023/may/b.flac' \(2 left out\)"):
        folder.load(root, CONFIG)


@pytest.mark.parametrize("group", ["", "another"])
def test_a_file_has_exactly_one_group(root: Path, group: str) -> None:
    write_groups(root, ("path", "group"), ("cargo/a.WAV", "x"), ("cargo/a.WAV", group))
    with pytest.raises(InputError, match=r"groups.csv, line 3: 'cargo/a.WAV' needs exactly one group"):
        folder.load(root, CONFIG)


def test_groups_without_their_columns_are_refused(root: Path) -> None:
    write_groups(root, ("file", "vessel"), ("cargo/a.WAV", "x"))
    with pytest.raises(InputError, match=r"groups.csv: no column path, group"):
        folder.load(root, CONFIG)
