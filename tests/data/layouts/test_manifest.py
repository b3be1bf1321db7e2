from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.data.layouts import manifest
from edgekd.data.load import load_index
from edgekd.data.splits import make_split, read_splits, write_splits
from edgekd.errors import EdgekdError, GateError, InputError

RATE = 8_000


def record(path: Path, seconds: float = 1.0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), 0.1), rate)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four recordings of 10 s and no table yet."""
    for name in ("a.wav", "b.flac", "deep/c.wav", "d, e.wav"):
        record(tmp_path / "sea" / name, 10.0)
    return tmp_path / "sea"


def load(root: Path, *lines: str, clip_seconds: float = 2.0) -> ClipIndex:
    (root / "manifest.csv").write_text("\n".join(lines))
    return manifest.load(root / "manifest.csv", DataConfig(clip_seconds=clip_seconds))


def spans(index: ClipIndex) -> list[tuple[str, float, float]]:
    """File, begin and end of each clip, in seconds."""
    return [(index.name(clip), clip.start / RATE, (clip.start + clip.length) / RATE) for clip in index]


def test_a_path_and_a_label_are_enough(root: Path) -> None:
    index = load(root, "path,label", "a.wav,tug", "b.flac,cargo", "deep/c.wav,tug", '"d, e.wav",ferry', clip_seconds=10)
    assert (index.dataset, index.root, index.classes) == ("manifest", root, ("cargo", "ferry", "tug"))
    assert index.labels == [2, 0, 2, 1]
    assert spans(index) == [(name, 0, 10) for name in ("a.wav", "b.flac", "deep/c.wav", "d, e.wav")]
    assert [clip.group for clip in index] == ["a.wav", "b.flac", "deep/c.wav", "d, e.wav"]
    assert {(clip.side, clip.fold) for clip in index} == {(None, None)}


def test_the_folder_of_a_table_will_do(root: Path) -> None:
    index = load(root, "path,label", "a.wav,tug", "b.flac,cargo")
    assert manifest.load(root, DataConfig(clip_seconds=2.0)) == index


def test_a_folder_without_a_table_says_what_was_expected(root: Path) -> None:
    with pytest.raises(InputError, match=r"sea: not in the layout of 'manifest': expected .*found .*a\.wav"):
        load_index(DataConfig(dataset="manifest", data_dir=root))
    with pytest.raises(InputError, match=r"other\.csv: no such file"):
        manifest.load(root / "other.csv", DataConfig(clip_seconds=2.0))


def test_a_recording_is_cut_into_consecutive_windows(root: Path) -> None:
    index = load(root, "path,label", "a.wav,tug", "b.flac,cargo", clip_seconds=4.0)
    assert spans(index)[:3] == [("a.wav", 0, 4), ("a.wav", 4, 8), ("a.wav", 8, 10)]  # half a clip is kept


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("2,8", [(2, 5), (5, 8)]),
        ("2,6.4", [(2, 5)]),
        ("2,6.5", [(2, 5), (5, 6.5)]),
        ("8.5,", [(8.5, 10)]),
        (",2.5", [(0, 2.5)]),
        ("9.5,10.009", [(9.5, 10)]),  # the length of the recording, rounded
        ("0.25,0.5", [(0.25, 0.5)]),
    ],
)
def test_a_region_is_cut_like_a_recording(root: Path, region: str, expected: list[tuple[float, float]]) -> None:
    index = load(root, "path,label,start_s,end_s", f"a.wav,tug,{region}", "b.flac,cargo,,", clip_seconds=3.0)
    assert [(start, end) for name, start, end in spans(index) if name == "a.wav"] == expected


def test_a_region_is_counted_at_the_rate_of_its_file(root: Path) -> None:
    record(root / "fast.wav", 3.0, 44_100)
    index = load(root, "path,label,start_s,end_s", "fast.wav,tug,0.5,2.5", "a.wav,cargo,0.5,2.5", clip_seconds=2.0)
    assert [(clip.start, clip.length) for clip in index] == [(22_050, 88_200), (4_000, 16_000)]


def test_regions_of_one_file_share_a_group(root: Path) -> None:
    index = load(root, "path,label,start_s,end_s", "a.wav,tug,0,4", "b.flac,cargo,,", "a.wav,cargo,4,8")
    assert {clip.group for clip in index if clip.path.name == "a.wav"} == {"a.wav"}


def test_an_empty_group_is_the_file(root: Path) -> None:
    index = load(root, "path,label,group", "a.wav,tug,Ever Given", "b.flac,tug,", "deep/c.wav,cargo,Ever Given")
    groups = {clip.path.name: clip.group for clip in index}
    assert groups == {"a.wav": "Ever Given", "b.flac": "b.flac", "c.wav": "Ever Given"}


# Paths


def test_paths_are_relative_absolute_or_at_home(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    outside, at_home = record(tmp_path / "lake" / "x.wav"), record(tmp_path / "home" / "y.wav")
    index = load(root, "path,label", "a.wav,tug", f"{outside},tug", "~/y.wav,cargo")
    assert [clip.path for clip in index][-2:] == [outside, at_home]
    assert [index.name(clip) for clip in index][-2:] == [outside.as_posix(), at_home.as_posix()]


def test_one_file_is_one_group_whatever_paths_lead_to_it(root: Path) -> None:
    (root / "link.wav").symlink_to(root / "a.wav")
    spellings = ["a.wav", "./a.wav", "deep/../a.wav", str(root / "a.wav"), "link.wav"]
    regions = [f"{path},tug,{2 * number},{2 * number + 2}" for number, path in enumerate(spellings)]
    index = load(root, "path,label,start_s,end_s", *regions, "b.flac,cargo,,")
    assert spans(index)[:5] == [("a.wav", 2 * number, 2 * number + 2) for number in range(5)]
    assert {clip.group for clip in index} == {"a.wav", "b.flac"}
    with pytest.raises(InputError, match=r"line 3: the same region of the same file as line 2"):
        load(root, "path,label", "a.wav,tug", "link.wav,tug", "b.flac,cargo")


def test_missing_files_are_named_and_counted(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"csv, line 3: '.*/x\.wav': no such file \(2 missing in all\)\. Paths are rel"
    ):
        load(root, "path,label", "a.wav,tug", "x.wav,tug", "/no/y.wav,cargo", "x.wav,tug")
    with pytest.raises(InputError, match=r"line 3: '.*/deep': is a folder, not a file"):
        load(root, "path,label", "a.wav,tug", "deep,cargo")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        (" ", "has no path"),
        ("~nobody-at-all/a.wav", "no user's home is known for '~nobody-at-all/a.wav'"),
        ("a" * 300, "cannot be read: File name too long"),
        ("nul\0.wav", r"'.*/nul\\x00\.wav': no such file"),
    ],
)
def test_a_path_that_is_none_is_named(root: Path, path: str, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"manifest\.csv, line 3: .*{complaint}|line 3: {complaint}"):
        load(root, "path,label", "a.wav,tug", f"{path},cargo")


def test_a_recording_that_cannot_be_read_is_named(root: Path) -> None:
    (root / "a.wav").write_text("not a wav")
    with pytest.raises(InputError, match=r"a\.wav: not an audio file"):
        load(root, "path,label", "a.wav,tug", "b.flac,cargo")


# Sides


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("train", "train"),
        ("Validation", "validation"),
        ("val", "validation"),
        ("VALID", "validation"),
        ("test", "test"),
    ],
)
def test_a_side_has_several_names(root: Path, name: str, side: str) -> None:
    index = load(root, "path,label,split", f"a.wav,tug,{name}", "b.flac,cargo,train")
    assert {clip.side for clip in index if clip.label == 1} == {side}


def test_an_unknown_side_gets_the_nearest(root: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: Unknown split 'tset'\. Did you mean 'test'\?"):
        load(root, "path,label,split", "a.wav,tug,tset", "b.flac,cargo,train")


@pytest.mark.parametrize("column", ["split", "fold"])
def test_all_lines_have_a_side_or_none(root: Path, column: str) -> None:
    value = "train" if column == "split" else "1"
    with pytest.raises(
        InputError, match=rf"line 3: has no {column}, but line 2 has one\. Give every line one, or none"
    ):
        load(root, f"path,label,{column}", f"a.wav,tug,{value}", "b.flac,cargo,", f"deep/c.wav,cargo,{value}")
    with pytest.raises(InputError, match=rf"line 2: has no {column}, but line 3 has one"):
        load(root, f"path,label,{column}", "a.wav,tug,", f"b.flac,cargo,{value}")
    assert {clip.side for clip in load(root, f"path,label,{column}", "a.wav,tug,", "b.flac,cargo,")} == {None}


def given(root: Path, column: str, values: tuple[str, ...]) -> ClipIndex:
    """Two recordings of each class with each of `values`."""
    lines = []
    for number, value in enumerate(values):
        for label in ("tug", "cargo"):
            record(root / f"{label}{number}.wav", 4.0)
            lines.append(f"{label}{number}.wav,{label},{value}")
    return load(root, f"path,label,{column}", *lines)


def test_a_given_split_is_the_split(root: Path, tmp_path: Path) -> None:
    index = given(root, "split", ("train", "val", "test", "train"))
    split = make_split(index, DataConfig())
    assert (split.train, split.validation, split.test) == ((0, 1, 2, 3, 12, 13, 14, 15), (4, 5, 6, 7), (8, 9, 10, 11))
    write_splits(tmp_path / "splits.csv", index, split)
    assert read_splits(tmp_path / "splits.csv", index) == split


def test_folds_work_as_everywhere(root: Path) -> None:
    index = given(root, "fold", ("1", "2", "3", "4"))
    split = make_split(index, DataConfig(fold=4))
    assert {index.clips[row].fold for row in split.test} == {4}
    assert {index.clips[row].fold for row in split.validation} == {1}


@pytest.mark.parametrize(("column", "on_line_2", "on_line_3"), [("split", "train", "test"), ("fold", "3", "1")])
def test_a_recording_on_two_given_sides_is_refused(root: Path, column: str, on_line_2: str, on_line_3: str) -> None:
    given(root, column, ("train", "val", "test") if column == "split" else ("3", "2", "1"))
    header, *lines = (root / "manifest.csv").read_text().splitlines()
    regions = [f"a.wav,tug,{on_line_2},0,4", f"a.wav,tug,{on_line_3},4,8", *(f"{line},," for line in lines)]
    index = load(root, f"{header},start_s,end_s", *regions)
    with pytest.raises(GateError, match=r"the split leaks: group 'a\.wav' is on the train and the test side"):
        make_split(index, DataConfig(fold=1))


def test_split_and_fold_together_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match="has a split and a fold"):
        load(root, "path,label,split,fold", "a.wav,tug,train,1", "b.flac,cargo,test,2")


# Tables as people write them


def test_a_spreadsheet_s_table_just_works(root: Path) -> None:
    table = root / "manifest.csv"
    table.write_bytes("\ufeffpath;label;start_s;end_s\r\na.wav;tug;2,5;4,5\r\nb.flac;cargo;;\r\n;;;\r\n".encode())
    index = manifest.load(table, DataConfig(clip_seconds=2.0))
    assert spans(index)[0] == ("a.wav", 2.5, 4.5)
    assert index.classes == ("cargo", "tug")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("path,lable", r"Unknown column 'lable'\. Did you mean 'label'\?"),
        ("path,label,grup", r"Unknown column 'grup'\. Did you mean 'group'\?"),
        ("path,label,start", r"Unknown column 'start'\. Did you mean 'start_s'\?"),
        ("path", r"no column label; needed: path, label"),
    ],
)
def test_a_misspelt_or_missing_column_is_named(root: Path, header: str, complaint: str) -> None:
    values = ",".join(["a.wav", "tug", "x"][: header.count(",") + 1])
    with pytest.raises(InputError, match=rf"manifest\.csv: {complaint}"):
        load(root, header, values, values)


def test_labels_that_differ_only_in_case_or_blanks_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"line 4: class 'tug' is 'Tug' in line 2: they differ only in case or blanks"):
        load(root, "path,label", "a.wav,Tug", "b.flac,cargo", "deep/c.wav,tug")
    with pytest.raises(InputError, match=r"line 3: class 'tug ' is 'tug' in line 2"):
        load(root, "path,label", "a.wav,tug", "b.flac,tug ")
    assert load(root, "path, label", "a.wav, tug", "b.flac, cargo").classes == ("cargo", "tug")


def test_one_class_is_not_enough(root: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.csv: only one class \('tug'\)"):
        load(root, "path,label", "a.wav,tug", "b.flac,tug")


def test_an_empty_table_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.csv: has no lines"):
        load(root, "path,label")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a.wav,tug,,12,", r"12 s is beyond the end of .*a\.wav, which is 10\.000 s long"),
        ("a.wav,tug,,2,10.02", r"10\.02 s is beyond the end"),
        ("a.wav,tug,,10,", r"from 10 s to 10 s there is no sample; end_s must be greater"),
        ("a.wav,tug,,5,5", r"from 5 s to 5 s there is no sample"),
        ("a.wav,tug,,5,3", r"from 5 s to 3 s there is no sample"),
        ("a.wav,tug,,-1,3", r"-1 s is before the beginning"),
        ("a.wav,tug,,,-1e308", r"-1e\+308 s is before the beginning"),
        ("a.wav,tug,,,1e308", r"1e\+308 s is beyond the end"),
        ("a.wav,tug,,early,3", r"start_s must be a number, not 'early'"),
        ("a.wav,tug,,,nan", r"end_s must be a number, not 'nan'"),
        ("a.wav,tug,x,,", r"fold must be a whole number, not 'x'"),
        ("a.wav,tug,0,,", r"fold is 0; folds are counted from 1"),
        ("a.wav,,,,", r"the class has no name"),
        ("a.wav,tug,,2", r"has 4 values for 5 columns"),
        ("b.flac,cargo,,2,4", r"the same region of the same file as line 2"),
        ("b.flac,tug,,2,4", r"the same region of the same file as line 2"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(root: Path, line: str, complaint: str) -> None:
    fold = "1" if line.split(",")[2] else ""
    others = f"b.flac,cargo,{fold},2,4", f"deep/c.wav,ferry,{fold},,"
    with pytest.raises(InputError, match=rf"manifest\.csv, line 3: {complaint}"):
        load(root, "path,label,fold,start_s,end_s", others[0], line, others[1])


@pytest.mark.parametrize("second", ["", "Svitzer"])
def test_a_recording_has_one_group(root: Path, second: str) -> None:
    regions = ["a.wav,tug,Fairplay,0,2", f"a.wav,tug,{second},4,6", "b.flac,cargo,,,"]
    with pytest.raises(InputError, match=rf"line 3: the group of 'a\.wav' is '{second}', but 'Fairplay' in line 2"):
        load(root, "path,label,group,start_s,end_s", *regions)


def test_regions_may_overlap_unless_one_sound_gets_two_labels(root: Path) -> None:
    header, other = "path,label,start_s,end_s", "b.flac,cargo,,"
    assert len(load(root, header, "a.wav,tug,0,4", "a.wav,tug,1,5", other)) == 4 + 5
    assert len(load(root, header, "a.wav,tug,0,4", "a.wav,cargo,3.1,5.1", other)) == 2 + 1 + 5
    with pytest.raises(InputError, match=r"line 3: 'cargo' shares 1\.00 s with line 2, which is 'tug'"):
        load(root, header, "a.wav,tug,0,4", "a.wav,cargo,3,5", other)
    with pytest.raises(InputError, match=r"line 4: 'cargo' shares 1\.00 s with line 2, which is 'tug'"):
        load(root, header, "a.wav,tug,,", "a.wav,tug,1,2", "a.wav,cargo,5,6", other)
    with pytest.raises(InputError, match=r"line 4: 'tug' shares 1\.00 s with line 2, which is 'cargo'"):
        load(root, header, "a.wav,cargo,6,8", "a.wav,cargo,9,10", "a.wav,tug,0,7", other)


def test_no_damage_to_the_table_gets_past_the_loader(
    root: Path, damaged: Callable[[bytes, random.Random], bytes]
) -> None:
    lines = ["a.wav,tug,x,1,0,4", "b.flac,cargo,y,2,,", "deep/c.wav,tug,z,3,2.5,7", '"d, e.wav",cargo,y,4,,9.5']
    load(root, "path,label,group,fold,start_s,end_s", *lines)
    table = root / "manifest.csv"
    whole, refused = table.read_bytes(), 0
    for seed in range(300):
        table.write_bytes(damaged(whole, random.Random(seed)))
        try:
            manifest.load(table, DataConfig(clip_seconds=1.0))
        except EdgekdError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 150
