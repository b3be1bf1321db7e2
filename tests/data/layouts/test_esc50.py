from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.data.layouts import esc50
from edgekd.data.load import load_index
from edgekd.data.splits import make_split
from edgekd.errors import InputError

CONFIG = DataConfig()
ROWS = [  # file, fold, target, category, esc10, src_file
    ("1-7-A-3.wav", 1, 3, "cow", False, "7"),
    ("1-7-B-3.wav", 1, 3, "cow", False, "7"),
    ("2-8-A-10.flac", 2, 10, "rain", True, "8"),
    ("3-9-A-0.ogg", 3, 0, "dog", True, "9"),
]


def make_esc50(root: Path, rows: list[tuple[object, ...]] = ROWS, columns: tuple[str, ...] = esc50.COLUMNS) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    with open(root / "meta" / "esc50.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    for name, *_ in ROWS:
        soundfile.write(root / "audio" / name, np.full(100, 0.1), 8_000)
    return root


def test_the_file_name_is_the_table_s_whatever_its_extension(tmp_path: Path) -> None:
    index = esc50.load(make_esc50(tmp_path), CONFIG)
    assert [clip.path.name for clip in index] == [row[0] for row in ROWS]
    assert [(clip.start, clip.length) for clip in index] == [(0, 100)] * 4


def test_labels_are_contiguous_in_the_order_of_targets(tmp_path: Path) -> None:
    index = esc50.load(make_esc50(tmp_path), CONFIG)
    assert index.classes == ("dog", "cow", "rain")
    assert index.labels == [1, 1, 2, 0]


def test_esc10_is_the_marked_subset_with_labels_of_its_own(tmp_path: Path) -> None:
    index = esc50.load_subset(make_esc50(tmp_path), "esc10")
    assert (index.dataset, index.classes, index.labels) == ("esc10", ("dog", "rain"), [1, 0])


def test_the_group_is_the_source_recording(tmp_path: Path) -> None:
    index = esc50.load(make_esc50(tmp_path), CONFIG)
    assert [(clip.group, clip.fold) for clip in index] == [("7", 1), ("7", 1), ("8", 2), ("9", 3)]


def test_a_table_saved_by_a_spreadsheet_just_works(tmp_path: Path) -> None:
    table = make_esc50(tmp_path) / "meta" / "esc50.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(esc50.load(tmp_path, CONFIG)) == 4


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    make_esc50(tmp_path, [(row[0], *row[2:]) for row in ROWS], tuple(c for c in esc50.COLUMNS if c != "fold"))
    with pytest.raises(InputError, match=r"esc50.csv: no column fold; needed: filename, fold"):
        esc50.load(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (("new.wav", "one", 3, "cow", False, "7"), "fold must be a whole number, not 'one'"),
        (("new.wav", 1, "", "cow", False, "7"), "target must be a whole number, not ''"),
        (("new.wav",), "has 1 values for 6 columns"),
        (("new.wav", 1, 3, "cow"), "has 4 values for 6 columns"),
        (("new.wav", 1, 3, "", False, "7"), "the class has no name"),
        (("new.wav", 1, 3, "cow", False, ""), "src_file is empty"),
        (("1-7-B-3.wav", 1, 3, "cow", False, "7"), "'1-7-B-3.wav' is in line 3 already"),
        (("new.wav", 3, 0, "wolf", True, "9"), "target 0 has two categories, 'dog' and 'wolf'"),
        (("new.wav", 3, 5, "dog", True, "9"), "category 'dog' is target 0 and 5"),
        (("new.wav", 3, 5, "Rain", True, "9"), "class 'Rain' is 'rain' in line 4: they differ only in case"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path: Path, row: tuple[object, ...], complaint: str) -> None:
    make_esc50(tmp_path, [*ROWS, row])
    with pytest.raises(InputError, match=f"esc50.csv, line 6: {complaint}"):
        esc50.load(tmp_path, CONFIG)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    make_esc50(tmp_path, ROWS[:2])
    with pytest.raises(InputError, match=r"esc50.csv: only one class \('cow'\)"):
        esc50.load(tmp_path, CONFIG)


def test_clips_without_their_table_say_to_get_it(tmp_path: Path) -> None:
    (make_esc50(tmp_path) / "meta" / "esc50.csv").unlink()
    with pytest.raises(InputError, match=r"meta/esc50.csv: not there; .* Download it with the data set\."):
        esc50.load(tmp_path, CONFIG)


def test_a_table_without_its_clips_says_where_they_belong(tmp_path: Path) -> None:
    (make_esc50(tmp_path) / "audio").rename(tmp_path / "clips")
    with pytest.raises(InputError, match=r"audio: no such folder, but .*esc50.csv lists the clips in it"):
        esc50.load(tmp_path, CONFIG)


def test_missing_audio_is_named_and_counted(tmp_path: Path) -> None:
    make_esc50(tmp_path)
    for name in ("1-7-B-3.wav", "3-9-A-0.ogg"):
        (tmp_path / "audio" / name).unlink()
    counted = r"1-7-B-3.wav: listed in .*esc50.csv but not there \(2 of 4 missing, with all of fold 3\)"
    with pytest.raises(InputError, match=counted):
        esc50.load(tmp_path, CONFIG)


def test_a_truncated_clip_is_named(tmp_path: Path) -> None:
    clip = make_esc50(tmp_path) / "audio" / "1-7-A-3.wav"
    clip.write_bytes(clip.read_bytes()[:100])
    with pytest.raises(InputError, match=r"1-7-A-3.wav: truncated"):
        esc50.load(tmp_path, CONFIG)


def test_a_table_that_is_no_table_is_named(tmp_path: Path) -> None:
    (make_esc50(tmp_path) / "meta" / "esc50.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"esc50.csv: no column filename"):
        esc50.load(tmp_path, CONFIG)


def test_a_table_without_esc10_rows_is_not_esc10(tmp_path: Path) -> None:
    make_esc50(tmp_path, ROWS[:2])
    with pytest.raises(InputError, match=r"lists no clip of esc10"):
        esc50.load_subset(tmp_path, "esc10")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        load_index(DataConfig(dataset="esc50", data_dir=tmp_path / "nowhere"))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder is empty"):
        load_index(DataConfig(dataset="esc50", data_dir=tmp_path))


def test_another_layout_says_what_was_expected_what_is_there_and_what_fits(tmp_path: Path) -> None:
    for name in ("cargo", "tug"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.zeros(10), 8_000)
    expected = (
        r"not in the layout of 'esc50': expected meta/esc50.csv and audio/, found cargo/, tug/\..*--dataset folder"
    )
    with pytest.raises(InputError, match=expected):
        load_index(DataConfig(dataset="esc50", data_dir=tmp_path))


# Real clips


@pytest.fixture(scope="module")
def real(esc10: Path) -> ClipIndex:
    return esc50.load_subset(esc10, "esc10")


def test_esc10_has_398_clips_in_ten_classes_and_five_folds(real: ClipIndex) -> None:
    assert len(real) == 398
    assert len(real.classes) == 10
    assert sorted(set(real.labels)) == list(range(10))
    assert {clip.fold for clip in real} == {1, 2, 3, 4, 5}


def test_no_group_of_esc10_crosses_its_folds(real: ClipIndex) -> None:
    for fold in range(1, 6):
        split = make_split(real, DataConfig(fold=fold))
        sides = [{real.clips[row].group for row in rows} for rows in (split.train, split.validation, split.test)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sum(map(len, (split.train, split.validation, split.test))) == 398
        assert {real.clips[row].fold for row in split.test} == {fold}
        assert {real.clips[row].fold for row in split.validation} == {fold % 5 + 1}
