from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import SIDES, ClipIndex
from edgekd.data.layouts import deepship
from edgekd.data.load import load_index, recognise
from edgekd.data.splits import make_split
from edgekd.errors import InputError

RATE = 1_000
CONFIG = DataConfig(clip_seconds=1.0)

# Lines as published: types of the AIS, names with and without blanks and MMSI numbers, stray tabs, missing commas.
CARGO = """\
1,70,SEASPAN SWIFT,20171104,203623,3,1583-1981,
2,70,GALLEON ,20171105,084406,4,642-1520,\t
3,70,POYANG 477669100,20171106,115234,3,1579-1906
31,79,PRINCESS SUPERIOR,20171121,031902,6,1765-1976,
31,70,KITE ARROW,20171121,111158,9,1481-1592,

1,70,NEW NADA,20171122,111158,8,1481-1592,            \n
"""


def record(path: Path, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), 0.1), RATE)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Flat files, three a class, no metafile."""
    for name in deepship.CLASSES:
        for number in (1, 2, 3):
            record(tmp_path / "ds" / name / f"{number}.wav")
    return tmp_path / "ds"


def groups(root: Path, name: str = "Cargo") -> dict[str, str]:
    """The group of each recording of a class, by its place in the class folder."""
    index = deepship.load(root, CONFIG)
    paths = {clip.path: clip.group for clip in index if index.classes[clip.label] == name}
    return {"/".join(path.relative_to(root).parts[1:]): group for path, group in paths.items()}


def test_what_a_metafile_lists_and_is_not_there_is_told_of(root: Path) -> None:
    write(root / "cargo-metafile", CARGO)
    record(root / "Cargo" / "PRINCESS SUPERIOR" / "north.wav")
    left = deepship.load(root, CONFIG).left_out
    assert [each.path.relative_to(root).as_posix() for each in left] == ["Cargo/31.wav"], "of the other nobody can tell"
    assert {each.why for each in left} == {"listed by its metafile, but not there"}


# Classes and windows


def test_the_four_folders_are_the_classes(root: Path) -> None:
    assert recognise(root).name == "deepship"
    index = deepship.load(root, CONFIG)
    assert (index.dataset, index.classes) == ("deepship", ("Cargo", "Passengership", "Tanker", "Tug"))
    assert [clip.label for clip in index] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert {clip.path.parent.name for clip in index if clip.label == 3} == {"Tug"}
    assert all(clip.fold is None and clip.side is None for clip in index)


def test_names_of_the_full_release_and_lower_case_are_the_same_classes(root: Path) -> None:
    for name, other in (("Cargo", "cargo"), ("Passengership", "Passenger"), ("Tanker", "TANK")):
        (root / name).rename(root / other)
    assert recognise(root).name == "deepship"
    index = deepship.load(root, CONFIG)
    assert index.classes == deepship.CLASSES
    assert {(clip.path.parent.name, clip.label) for clip in index} == {
        ("cargo", 0),
        ("Passenger", 1),
        ("TANK", 2),
        ("Tug", 3),
    }


def test_a_recording_is_cut_into_windows_of_one_group(root: Path) -> None:
    record(root / "Tug" / "1.wav", 12.4)
    clips = [clip for clip in deepship.load(root, DataConfig(clip_seconds=5.0)) if clip.group == "Tug/1.wav"]
    assert [(clip.start, clip.length) for clip in clips] == [(0, 5_000), (5_000, 5_000)]


def test_pictures_and_notes_beside_the_classes_do_no_harm(root: Path) -> None:
    write(root / "wavelet" / "tug1.png", "")
    write(root / "README.txt", "DeepShip")
    assert recognise(root).name == "deepship"
    assert len(deepship.load(root, CONFIG)) == 12


def test_a_class_in_two_folders_is_refused(root: Path) -> None:
    record(root / "tug" / "9.wav")
    with pytest.raises(InputError, match=r"'Tug' and 'tug' are both class 'Tug'\. Put"):
        deepship.load(root, CONFIG)


def test_some_of_the_classes_and_others_beside_them_keep_their_ships(root: Path) -> None:
    """A missing class, or one more, must not make recordings of a ship groups of their own."""
    write(
        root / "Cargo" / "cargo-metafile", "1,70,SEASPAN SWIFT,20171104\n2,70,SEASPAN SWIFT,20171105\n3,70,POYANG,,\n"
    )
    (root / "Passengership").rename(root.parent / "Passengership")
    record(root / "Background" / "1.wav")
    assert recognise(root).name == "deepship"
    index = load_index(DataConfig(data_dir=root, clip_seconds=1.0))
    assert index.classes == ("Background", "Cargo", "Tanker", "Tug")
    assert [clip.group for clip in index if clip.label == 1] == ["SEASPAN SWIFT", "SEASPAN SWIFT", "POYANG"]
    (note,) = index.notes
    assert "Background 1 of 1 (no metafile), Tanker 3 of 3 (no metafile), Tug 3 of 3 (no metafile)" in note.message


@pytest.mark.parametrize("kept", [combination for n in (1, 2, 3) for combination in combinations(deepship.CLASSES, n)])
def test_a_ship_is_on_one_side_with_any_subset_of_classes(root: Path, kept: tuple[str, ...]) -> None:
    for name in set(deepship.CLASSES) - set(kept):
        (root / name).rename(root.parent / name)
    if len(kept) == 1:
        record(root / "Background" / "1.wav")
        record(root / "Background" / "2.wav")
        record(root / "Background" / "3.wav")
    for name in kept:
        lines = [f"{number},70,{name} {number % 4},," for number in range(1, 13)]
        write(root / name / f"{name.lower()}-metafile", "\n".join(lines))
        for number in range(1, 13):
            record(root / name / f"{number}.wav")
    for seed in range(4):
        config = DataConfig(data_dir=root, clip_seconds=1.0, split_seed=seed)
        index = load_index(config)
        split = make_split(index, config)
        sides = defaultdict(set)
        for side in SIDES:
            for row in split.side(side):
                clip = index.clips[row]
                if index.classes[clip.label] in kept:
                    sides[index.classes[clip.label], int(clip.path.stem) % 4].add(side)
        assert all(len(on) == 1 for on in sides.values())


def test_without_metafiles_folders_of_some_of_the_classes_are_anybody_s(root: Path) -> None:
    (root / "Tug").rename(root.parent / "Tug")
    assert recognise(root).name == "folder"
    assert deepship.load(root, CONFIG).classes == ("Cargo", "Passengership", "Tanker")
    record(root / "dog" / "1.wav")
    assert recognise(root).name == "folder"
    assert deepship.load(root, CONFIG).classes == ("Cargo", "Passengership", "Tanker", "dog")


def test_one_class_is_not_enough(root: Path) -> None:
    for name in deepship.CLASSES[1:]:
        (root / name).rename(root.parent / name)
    with pytest.raises(InputError, match=r"only one class folder \('Cargo'\)"):
        deepship.load(root, CONFIG)


def test_a_table_of_groups_joins_what_the_metafiles_know(root: Path) -> None:
    write(root / "groups.csv", "path,group\nCargo/3.wav,swift\nCargo/1.wav,swift\n")
    assert recognise(root).name == "folder"
    write(root / "Cargo" / "cargo-metafile", "1,70,SEASPAN SWIFT,20171104\n2,70,SEASPAN SWIFT,20171105\n")
    assert recognise(root).name == "deepship"
    index = load_index(DataConfig(data_dir=root, clip_seconds=1.0))
    assert [clip.group for clip in index if clip.label == 0] == ["swift"] * 3


def test_metafiles_that_another_layout_leaves_unread_are_named(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    index = load_index(DataConfig(dataset="folder", data_dir=root, clip_seconds=1.0))
    (note,) = index.notes
    assert "cargo-metafile: a metafile of DeepShip, not heeded. --dataset deepship reads it." in note.message


def test_every_recording_listed_leaves_nothing_to_say(root: Path) -> None:
    for name in deepship.CLASSES:
        write(root / f"{name.lower()}-metafile.txt", "".join(f"{n},70,{name} {n},,\n" for n in (1, 2, 3)))
    assert load_index(DataConfig(data_dir=root, clip_seconds=1.0)).notes == ()


def test_a_class_without_audio_is_named(root: Path) -> None:
    for path in (root / "Tug").iterdir():
        path.unlink()
    write(root / "Tug" / "tug-metafile", "1,52,SEASPAN QUEEN,20171104,200959,636,\n")
    assert recognise(root).name == "deepship"
    with pytest.raises(InputError, match=r"class 'Tug' has no audio files"):
        deepship.load(root, CONFIG)


def test_another_layout_is_refused_with_what_would_fit(tmp_path: Path) -> None:
    record(tmp_path / "cat" / "1.wav")
    record(tmp_path / "dog" / "1.wav")
    with pytest.raises(InputError, match=r"not in the layout of 'deepship': .*found cat/, dog/\. .*--dataset folder"):
        load_index(DataConfig(dataset="deepship", data_dir=tmp_path))


def test_an_unreadable_recording_is_named(root: Path) -> None:
    write(root / "Tug" / "2.wav", "version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"Tug/2.wav: not an audio file"):
        deepship.load(root, CONFIG)


# Groups


def test_without_a_metafile_a_recording_is_its_own_group(root: Path) -> None:
    assert groups(root) == {"1.wav": "Cargo/1.wav", "2.wav": "Cargo/2.wav", "3.wav": "Cargo/3.wav"}


@pytest.mark.parametrize("place", ["Cargo/cargo-metafile", "cargo-metafile", "Cargo-Metafile.csv", "Cargo/metafile"])
def test_the_metafile_tells_the_ships(root: Path, place: str) -> None:
    write(root / place, "1,70,Seaspan  Swift,20171104,203623,458,\n002,70,SEASPAN SWIFT ,20171111,212650,291,\n")
    assert groups(root) == {"1.wav": "SEASPAN SWIFT", "2.wav": "SEASPAN SWIFT", "3.wav": "Cargo/3.wav"}


def test_one_ship_in_two_classes_is_one_group(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    write(root / "Tug" / "tug-metafile", "3,52,Galleon,20180101,000000,9,\n")
    index = deepship.load(root, CONFIG)
    assert {clip.label for clip in index if clip.group == "GALLEON"} == {0, 3}
    assert {clip.group for clip in index if clip.path.name == "3.wav" and clip.label == 0} == {"POYANG"}


@pytest.mark.parametrize(
    "line",
    [
        "1;70;ISTRA ACE;20171104;203623;458;1-2;",
        "1\t70\tISTRA ACE\t20171104\t203623\t458",
        '"1", "70", "Istra Ace", "20171104"',
        "1,ISTRA ACE",
        "1,Istra Ace,2017-11-04,20:36:23",
        "\ufeffid,type,ship,date\n1,70,ISTRA ACE 477669100,20171104",
        "1.wav,70,  ISTRA ACE,,,",
        "sep=;\r\n1;70;ISTRA ACE\u00a0;20171104\r\n",
    ],
)
def test_separators_quotes_blanks_and_a_header_make_no_difference(root: Path, line: str) -> None:
    write(root / "Cargo" / "cargo-metafile", line + "\n\n")
    assert groups(root)["1.wav"] == "ISTRA ACE"


@pytest.mark.parametrize(
    ("seconds", "group"), [(3.0, "SEASPAN SWIFT"), (8.9, "NEW NADA"), (5.5, "Cargo/1.wav"), (20.0, "Cargo/1.wav")]
)
def test_of_two_rows_with_one_id_the_duration_tells_which(root: Path, seconds: float, group: str) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    record(root / "Cargo" / "1.wav", seconds)
    assert groups(root)["1.wav"] == group


def test_a_single_row_needs_no_duration(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    record(root / "Cargo" / "2.wav", 20.0)
    assert groups(root)["2.wav"] == "GALLEON"


def test_a_folder_a_transit_is_found_by_date_and_time_else_by_date_and_id(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    record(root / "Cargo" / "20171121a-31" / "111158.wav")
    record(root / "Cargo" / "2017" / "20171105-2" / "000000.wav")
    record(root / "Cargo" / "20171104-2" / "000000.wav")  # id and date of different rows
    record(root / "Cargo" / "20171122_111158.wav")
    found = groups(root)
    assert found["20171121a-31/111158.wav"] == "KITE ARROW"
    assert found["2017/20171105-2/000000.wav"] == "GALLEON"
    assert found["20171104-2/000000.wav"] == "Cargo/20171104-2"
    assert found["20171122_111158.wav"] == "NEW NADA"


def test_a_folder_a_vessel_is_a_group(root: Path) -> None:
    record(root / "Cargo" / "Cargo1" / "audio1.wav")
    record(root / "Cargo" / "Cargo1" / "2018" / "audio2.wav")
    record(root / "Tug" / "Cargo1" / "audio1.wav")
    assert groups(root)["Cargo1/audio1.wav"] == groups(root)["Cargo1/2018/audio2.wav"] == "Cargo/Cargo1"
    assert groups(root, "Tug")["Cargo1/audio1.wav"] == "Tug/Cargo1"


def test_a_transit_is_a_group_whatever_folder_it_lies_in(root: Path) -> None:
    for name in ("20180101-1/010203.wav", "20180101-1/010303.wav", "20180102-2/010203.wav"):
        record(root / "Cargo" / "2018" / name)
    found = groups(root)
    assert found["2018/20180101-1/010203.wav"] == found["2018/20180101-1/010303.wav"] == "Cargo/2018/20180101-1"
    assert found["2018/20180102-2/010203.wav"] == "Cargo/2018/20180102-2"


def test_a_folder_named_after_a_ship_of_the_metafile_is_that_ship(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    for name in ("Cargo/Seaspan_Swift/2.wav", "Tug/SEASPAN SWIFT/1.wav", "Cargo/Galleon/2.wav"):
        record(root / name)
    assert groups(root)["Seaspan_Swift/2.wav"] == groups(root, "Tug")["SEASPAN SWIFT/1.wav"] == "SEASPAN SWIFT"
    assert groups(root)["Galleon/2.wav"] == "GALLEON"


def test_numbers_that_start_again_in_each_folder_are_no_ids(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    record(root / "Cargo" / "a" / "3.wav")
    record(root / "Cargo" / "b" / "2.wav")
    found = groups(root)
    assert (found["3.wav"], found["a/3.wav"]) == ("Cargo/3.wav", "Cargo/a")
    assert (found["2.wav"], found["b/2.wav"]) == ("Cargo/2.wav", "Cargo/b")


def test_an_unlisted_recording_stays_with_its_folder_and_its_folder_with_the_ship(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    record(root / "Cargo" / "a" / "31.wav", 6.0)
    record(root / "Cargo" / "a" / "77.wav")
    assert groups(root)["a/31.wav"] == groups(root)["a/77.wav"] == "PRINCESS SUPERIOR"


# Metafiles that are wrong


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "lists no recording"),
        (b"\xff\xfe1\x00,", "line 1: not text in UTF-16-LE"),
        (b"1,70,ISTRA ACE,20171104\nseven,70,NYK REMUS,20171106\n", "line 2: the id must be a whole number, not 'sev"),
        (b"1,70,,20171104,203623\n", "line 1: there is no ship's name"),
        (b"1,70\n", "line 1: there is no ship's name"),
        (b"<html>\n<p>404</p>\n", "line 2: the id must be a whole number"),
        (b"1,70,A B,20171104,203623\n\n2,70,C D,20171104,203623\n", r"lines 1 and 3: two ships at 20171104 203623"),
        (b"41,70,ISTRA ACE,20171104\n42,70,NYK REMUS,20171105\n", r"lists none of the 3 recordings of class 'Cargo'"),
        (b'1,70,"' + b"A" * 200_000, "line 1: not a CSV table"),
    ],
)
def test_a_metafile_that_is_none_or_contradicts_itself_is_refused(root: Path, content: bytes, says: str) -> None:
    (root / "Cargo" / "cargo-metafile").write_bytes(content)
    with pytest.raises(InputError, match=rf"Cargo/cargo-metafile.*({says})"):
        deepship.load(root, CONFIG)


def test_two_metafiles_of_a_class_are_refused(root: Path) -> None:
    write(root / "Cargo" / "cargo-metafile", CARGO)
    write(root / "cargo-metafile.csv", CARGO)
    with pytest.raises(InputError, match=r"cargo-metafile and .*cargo-metafile.csv: two metafiles of class 'Cargo'"):
        deepship.load(root, CONFIG)


def test_a_metafile_of_no_class_is_refused(root: Path) -> None:
    write(root / "metafile", CARGO)
    with pytest.raises(InputError, match=r"metafile: a metafile of which class\? Call it cargo-metafile"):
        deepship.load(root, CONFIG)


# The split


def seconds_on(index: ClipIndex, config: DataConfig, label: int) -> list[float]:
    split = make_split(index, config)
    rows = [[index.clips[row] for row in split.side(side)] for side in SIDES]
    return [sum(clip.length for clip in clips if clip.label == label) / RATE for clips in rows]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_class_of_few_long_and_one_of_many_short_recordings_both_get_their_minutes(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = {"Cargo": rng.uniform(25, 40, 10), "Tug": rng.uniform(2.6, 9.0, 60)}  # short ones end in short windows
    for name, durations in lengths.items():
        for number, duration in enumerate(durations, 1):
            record(root / name / f"{number}.wav", duration)
    index = deepship.load(root, DataConfig(clip_seconds=5.0))
    for name, durations in lengths.items():
        held = seconds_on(index, DataConfig(split_seed=seed), deepship.CLASSES.index(name))
        for seconds, share in zip(held, (0.7, 0.1, 0.2), strict=True):
            assert abs(seconds - share * sum(held)) < max(durations) / 2


def test_no_ship_is_on_two_sides(root: Path) -> None:
    rng = np.random.default_rng(3)
    for name in deepship.CLASSES:
        ships = [f"{number},70,SHIP {rng.choice(list('ABCDEFGHIJKL'))},," for number in range(1, 21)]
        write(root / name / f"{name.lower()}-metafile", "\n".join(ships))
        for number in range(1, 21):
            record(root / name / f"{number}.wav")
    index = deepship.load(root, CONFIG)
    split = make_split(index, DataConfig())
    sides = defaultdict(set)
    for side in SIDES:
        for row in split.side(side):
            sides[index.clips[row].group].add(side)
    assert all(group.startswith("SHIP ") and len(on) == 1 for group, on in sides.items())
