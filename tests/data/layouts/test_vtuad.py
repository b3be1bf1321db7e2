from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import SIDES, Clip
from edgekd.data.layouts import vtuad
from edgekd.data.load import load_index, recognise
from edgekd.data.splits import make_split
from edgekd.errors import GateError, InputError

RATE = 1_000
CONFIG = DataConfig(clip_seconds=1.0)
CLASSES = ("background", "cargo", "passengership", "tanker", "tug")


def record(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(RATE, 0.1), RATE)
    return path


def write_sides(root: Path, per_class: int = 2) -> Path:
    """As published: on each side, files named by a running number over all classes."""
    for side in SIDES:
        for number in range(per_class * len(CLASSES)):
            record(root / side / "audio" / CLASSES[number % len(CLASSES)] / f"{number}.wav")
    return root


def write_metadata(folder: Path, rows: list[dict[str, object]]) -> None:
    """As pandas writes it, with a column of row numbers that has no name."""
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["", "label", "path", "date", "MMSI", "sub_init", "file_index"])
        writer.writeheader()
        writer.writerows({"": number} | row for number, row in enumerate(rows))


def cut_from(label: str, file_index: int, mmsi: int, recording: str, second: int = 0) -> dict[str, object]:
    path = f"./{'vessel' if mmsi else 'background'}/{recording}.wav"
    row = {"label": label, "path": path, "date": recording[:8], "MMSI": mmsi, "sub_init": second}
    return row | {"file_index": file_index}


def load_test(root: Path) -> list[Clip]:
    return [clip for clip in vtuad.load(root, CONFIG) if clip.side == "test"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sides(tmp_path / "vtuad")


def test_what_a_table_names_and_is_not_there_is_told_of(root: Path) -> None:
    write_metadata(root / "test", [cut_from("tug", number, 1, "20170101") for number in (4, 9, 14)])
    (left,) = load_index(DataConfig(data_dir=root, clip_seconds=1.0, given_split=False)).left_out  # not the table
    assert left.path == root / "test" / "audio" / "tug" / "14.wav"
    assert (left.why, left.lost) == ("named by metadata.csv, but not there", True)


def test_the_sides_and_classes_are_the_folders(root: Path) -> None:
    assert recognise(root).name == "vtuad"
    index = vtuad.load(root, CONFIG)
    assert (index.dataset, index.classes) == ("vtuad", CLASSES)
    assert Counter((clip.side, clip.label) for clip in index) == {
        (side, label): 2 for side in SIDES for label in range(5)
    }
    for clip in index:
        assert clip.path.relative_to(root).parts[:3] == (clip.side, "audio", CLASSES[clip.label])
        assert (clip.start, clip.length, clip.fold) == (0, RATE, None)


def test_the_given_sides_are_the_split(root: Path) -> None:
    index = vtuad.load(root, CONFIG)
    split = make_split(index, DataConfig(clip_seconds=1))
    assert all(index.clips[row].side == side for side in SIDES for row in split.side(side))


def test_without_metadata_each_file_is_its_own_group(root: Path) -> None:
    index = vtuad.load(root, DataConfig(clip_seconds=0.5))
    assert [clip.group for clip in index][:2] == ["train/audio/background/0.wav"] * 2
    assert len({clip.group for clip in index}) == len(index) / 2 == 30


def test_a_scenario_is_read_alone_and_scenarios_together(tmp_path: Path) -> None:
    names = ["inclusion_2000_exclusion_4000", "inclusion_3000_exclusion_5000", "inclusion_4000_exclusion_6000"]
    for name in names:
        write_sides(tmp_path / name)
    assert recognise(tmp_path).name == recognise(tmp_path / names[1]).name == "vtuad"
    assert len(vtuad.load(tmp_path / names[1], CONFIG)) == 30
    index = vtuad.load(tmp_path, CONFIG)
    assert Counter(clip.path.relative_to(tmp_path).parts[0] for clip in index) == dict.fromkeys(names, 30)
    assert len({clip.group for clip in index}) == 90
    split = make_split(index, DataConfig(clip_seconds=1))
    assert [len(split.side(side)) for side in SIDES] == [30, 30, 30]


def test_a_merged_copy_beside_its_scenarios_is_refused(tmp_path: Path) -> None:
    write_sides(tmp_path / "inclusion_2000_exclusion_4000")
    write_sides(tmp_path / "combined_scenario")
    with pytest.raises(InputError, match=r"'combined_scenario' lies beside the scenarios \('inclusion_2000_"):
        vtuad.load(tmp_path, CONFIG)


def test_sides_beside_scenarios_are_refused(root: Path) -> None:
    write_sides(root / "inclusion_2000_exclusion_4000")
    with pytest.raises(InputError, match=r"holds sides and also 'inclusion_2000_exclusion_4000'"):
        vtuad.load(root, CONFIG)


# Groups from metadata.csv


def test_a_ship_is_one_group_in_all_scenarios_and_background_goes_by_recording(tmp_path: Path) -> None:
    for name in ("inclusion_2000_exclusion_4000", "inclusion_3000_exclusion_5000"):
        write_sides(tmp_path / name)
        rows = [cut_from("tug", 4, 316001234, "20170701T0101"), cut_from("background", 0, 0, "20170702T0202")]
        write_metadata(tmp_path / name / "test", rows)
    groups = Counter(clip.group for clip in vtuad.load(tmp_path, CONFIG) if clip.side == "test")
    assert groups["MMSI 316001234"] == groups["20170702T0202"] == 2
    assert groups["inclusion_2000_exclusion_4000/test/audio/tug/9.wav"] == 1  # the table does not list it


def test_one_index_in_two_classes_is_two_files(root: Path) -> None:
    record(root / "test" / "audio" / "cargo" / "4.wav")
    write_metadata(root / "test", [cut_from("TUG", 4, 1, "a"), cut_from("cargo", 4, 2, "b")])
    groups = {(clip.path.parent.name, clip.path.stem): clip.group for clip in load_test(root)}
    assert (groups["tug", "4"], groups["cargo", "4"]) == ("MMSI 1", "MMSI 2")


@pytest.mark.parametrize(
    ("cells", "group"), [("0,20170702,", "20170702"), ("0,,", "test/audio/tug/4.wav"), ("316.0,,", "MMSI 316")]
)
def test_without_a_ship_and_a_recording_the_day_is_the_group(root: Path, cells: str, group: str) -> None:
    (root / "test" / "metadata.csv").write_text(f"label,file_index,MMSI,date,path\ntug,4,{cells}\n")
    assert [clip.group for clip in load_test(root) if clip.path.stem == "4"] == [group]


def test_sides_that_part_a_ship_are_refused_and_the_way_out_is_named(tmp_path: Path) -> None:
    root = write_sides(tmp_path, 8)
    for side in SIDES:
        rows = [cut_from(CLASSES[n % 5], n, 100 * (n % 5) + n // 5, f"2017070{n // 5}") for n in range(40)]
        write_metadata(root / side, rows)
    index = vtuad.load(root, CONFIG)
    with pytest.raises(GateError, match=r"group '.*' is on the train and the .* --set data.given_split=false"):
        make_split(index, DataConfig(clip_seconds=1))
    split = make_split(index, DataConfig(clip_seconds=1, given_split=False))
    groups = [{index.clips[row].group for row in split.side(side)} for side in SIDES]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("label,file_index\ntug,4\n", "no column MMSI"),
        ("label,file_index,MMSI\ntug,four,0\n", "line 2: file_index must be a whole number, not 'four'"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(root: Path, content: str, says: str) -> None:
    (root / "train" / "metadata.csv").write_text(content)
    with pytest.raises(InputError, match=rf"train/metadata.csv.*{says}"):
        vtuad.load(root, CONFIG)


def test_what_is_not_known_of_ships_is_counted_by_side(root: Path) -> None:
    assert (
        "train 10 of 10 (no metadata.csv), validation 10 of 10 (no metadata.csv)"
        in vtuad.load(root, CONFIG).notes[0].message
    )
    for side in SIDES:
        write_metadata(root / side, [cut_from(CLASSES[n % 5], n, n, "x") for n in range(10 if side != "test" else 7)])
    (note,) = vtuad.load(root, CONFIG).notes
    assert note.message.startswith("seconds whose ship or recording is not known: test 3 of 10 (unlisted). Each is")
    write_metadata(root / "test", [cut_from(CLASSES[n % 5], n, n, "x") for n in range(10)])
    assert vtuad.load(root, CONFIG).notes == ()


@pytest.mark.parametrize("place", ["Metadata.CSV", "audio/metadata.csv", "metadata/metadata.tsv"])
def test_the_table_of_a_side_is_found_where_copies_have_it(root: Path, place: str) -> None:
    target = root / "test" / place
    target.parent.mkdir(exist_ok=True)
    target.write_text("label,file_index,MMSI\nTug,4.0,316\nTug,0009,316\n")
    assert [clip.group for clip in load_test(root) if clip.path.parent.name == "tug"] == ["MMSI 316"] * 2


def test_a_table_that_lies_beside_the_sides_is_named(root: Path) -> None:
    (root / "metadata.csv").write_text("split,label,file_index,MMSI\ntest,tug,4,316\n")
    (root / "other.csv").write_text("split,label\ntest,tug\n")
    (note,) = vtuad.load(root, CONFIG).notes
    assert f"Not read, for it lies beside the sides: {root / 'metadata.csv'}. Add metadata.csv to each" in note.message


# Bad input


def test_classes_that_differ_in_case_between_sides_are_refused(root: Path) -> None:
    (root / "test" / "audio" / "tug").rename(root / "test" / "audio" / "Tug")
    with pytest.raises(
        InputError, match=r"test/audio/Tug: class 'Tug' differs from 'tug' \(.*train/audio/tug\) only in case"
    ):
        vtuad.load(root, CONFIG)


def test_a_missing_side_is_named_when_the_split_is_made(root: Path) -> None:
    (root / "validation").rename(root.parent / "validation")
    index = vtuad.load(root, CONFIG)
    with pytest.raises(InputError, match=r"own split has no validation side.*--set data.given_split=false"):
        make_split(index, DataConfig(clip_seconds=1))


def test_a_class_on_some_sides_only_is_named_when_the_split_is_made(root: Path) -> None:
    record(root / "train" / "audio" / "ferry" / "77.wav")
    index = vtuad.load(root, CONFIG)
    assert index.classes == ("background", "cargo", "ferry", "passengership", "tanker", "tug")
    with pytest.raises(InputError, match=r"class 'ferry' has no clip on the validation side"):
        make_split(index, DataConfig(clip_seconds=1))


def test_class_folders_without_files_are_refused(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "train" / "audio" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="no audio files in the class folders"):
        vtuad.load(tmp_path, CONFIG)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    record(tmp_path / "train" / "audio" / "tug" / "0.wav")
    with pytest.raises(InputError, match=r"only one class folder \('tug'\)"):
        vtuad.load(tmp_path, CONFIG)


def test_another_layout_is_refused_with_what_would_fit(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        record(tmp_path / name / "1.wav")
    with pytest.raises(InputError, match=r"not in the layout of 'vtuad': .*found cat/, dog/\. .*--dataset folder"):
        load_index(DataConfig(dataset="vtuad", data_dir=tmp_path))


def test_an_unreadable_second_is_named(root: Path) -> None:
    (root / "test" / "audio" / "tug" / "4.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"tug/4.wav: the file is empty"):
        vtuad.load(root, CONFIG)
