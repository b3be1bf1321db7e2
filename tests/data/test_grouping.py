"""Groups that are one are not taken for two, and what could join some more is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import SIDES, ClipIndex
from edgekd.data.load import load_index
from edgekd.data.splits import make_split, read_splits, write_splits
from edgekd.data.unlabelled import load_unlabelled
from edgekd.errors import GateError, InputError
from edgekd.files.spelling import alike, one_spelling

SPELLINGS = [
    *("Fähre Ärö", "fähre  ärö ", "FÄHRE ÄRÖ", "Fa\u0308hre A\u0308ro\u0308", "F\u00e4hre\u00a0\u00c4r\u00f6"),
    *("\uff26ähre Ärö", "FähreÄrö", "\ufeffFähre Ärö", "Fähre\u200b Ärö", "\tFähre Ärö"),
]


def record(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, 0.1), 800, format="WAV")
    return root


def load(root: Path, **settings: object) -> ClipIndex:
    return load_index(DataConfig.model_validate({"data_dir": root, "clip_seconds": 1.0, **settings}))


def groups(index: ClipIndex) -> dict[str, str]:
    return {index.name(clip): clip.group for clip in index}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of five recordings."""
    return record(tmp_path / "sea", *(f"{label}/{n}.wav" for label in ("cargo", "tug") for n in range(5)))


def write_groups(root: Path, names: list[str], table: str = "groups.csv") -> None:
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.wav"))
    lines = [f'{file},"{name}"\n' for file, name in zip(files, names, strict=True)]
    (root / table).write_text("path,group\n" + "".join(lines), encoding="utf-8")


def test_spellings_of_one_name_are_one_group_in_a_folder(root: Path) -> None:
    write_groups(root, SPELLINGS)
    index = load(root)
    assert set(groups(index).values()) == {SPELLINGS[0]}
    assert "8 name(s) of groups are taken for another spelling of one: " in index.notes[0].message


def test_spellings_of_one_name_are_one_group_in_a_manifest(root: Path) -> None:
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.wav"))
    lines = [f'{file},{file.split("/")[0]},"{name}"\n' for file, name in zip(files, SPELLINGS, strict=True)]
    (root / "manifest.csv").write_text("path,label,group\n" + "".join(lines), encoding="utf-8")
    assert len(set(groups(load(root)).values())) == 1


def test_numbers_of_vessels_are_one_however_they_are_written(root: Path) -> None:
    write_groups(root, ["1", "01", "1.0", "+1", "001", "2", "2.", "02,0", "10", "12"])
    assert list(groups(load(root)).values()) == ["1"] * 5 + ["2"] * 3 + ["10", "12"]


def test_names_that_are_two_stay_two() -> None:
    names = ["1", "10", "1.5", "15", "-1", "ship 1", "ship 10", "1 10", "11 0", "a-b", "ab", "C", "C#", "1e3", "1000"]
    assert one_spelling(names) == {name: name for name in names}
    assert alike("") == alike(" \u200b") == ""


def test_an_unlabelled_folder_is_read_alike(root: Path) -> None:
    write_groups(root, SPELLINGS)
    assert {clip.group for clip in load_unlabelled(DataConfig(unlabelled=(root,)))} == {SPELLINGS[0]}


def test_a_run_whose_groups_have_become_one_since_is_still_read(root: Path, tmp_path: Path) -> None:
    write_groups(root, [f"ship {n}" for n in range(10)])
    index, table = load(root), tmp_path / "splits.csv"
    split = make_split(index, DataConfig())
    write_splits(table, index, split)
    write_groups(root, [f"ship {n // 5}" for n in range(10)])
    assert read_splits(table, load(root)) == split
    write_splits(table, load(root), split)
    write_groups(root, [f"ship {n}" for n in range(10)])
    with pytest.raises(InputError, match="does not match the data"):  # known apart now: another grouping, other data
        read_splits(table, load(root))


@pytest.mark.parametrize("name", ["groups.tsv", "Groups.CSV", "groups.txt"])
def test_a_table_of_groups_of_another_ending_is_read(root: Path, name: str) -> None:
    write_groups(root, ["x"] * 5 + ["y"] * 5, name)
    assert set(groups(load(root)).values()) == {"x", "y"}


def test_two_tables_of_groups_are_a_question(root: Path) -> None:
    write_groups(root, ["x"] * 10)
    write_groups(root, ["y"] * 10, "groups.tsv")
    with pytest.raises(InputError, match=r"'groups\.csv' and 'groups\.tsv': which of the two counts"):
        load(root)


def test_paths_in_tables_are_found_in_the_forms_that_disks_and_systems_have(tmp_path: Path) -> None:
    record(tmp_path, "tug/Fa\u0308hre.wav", "cargo/ü.wav")
    (tmp_path / "groups.csv").write_text("path,group\ntug\\F\u00e4hre.wav,x\n./cargo/u\u0308.wav,x\n", encoding="utf-8")
    assert set(groups(load(tmp_path)).values()) == {"x"}
    (tmp_path / "manifest.csv").write_text("path,label\ntug\\F\u00e4hre.wav,t\ncargo/u\u0308.wav,c\n", encoding="utf-8")
    assert len(load(tmp_path)) == 2


def test_a_table_of_groups_joins_clips_of_every_layout(tmp_path: Path) -> None:
    for fold in range(1, 11):
        record(tmp_path, *(f"audio/fold{fold}/{fold}{label}-{label}-0-{n}.wav" for label in (0, 3) for n in (0, 1)))
    assert len(set(groups(load(tmp_path)).values())) == 20
    (tmp_path / "groups.csv").write_text("path,group\naudio/fold1/10-0-0-0.wav,x\naudio/fold1/13-3-0-1.wav,x\n")
    index = load(tmp_path)
    assert len(set(groups(index).values())) == 19
    assert groups(index)["audio/fold1/10-0-0-1.wav"] == "x"  # with the rest of its source
    (tmp_path / "groups.csv").write_text("path,group\naudio/fold1/10-0-0-0.wav,x\naudio/fold2/20-0-0-1.wav,x\n")
    with pytest.raises(GateError, match="group 'x' is on the"):
        make_split(load(tmp_path), DataConfig())
    split = make_split(load(tmp_path, given_split=False), DataConfig(given_split=False))
    assert all(split.side(side) for side in SIDES)


@pytest.mark.parametrize(
    ("table", "column", "file"),
    [
        ("info.csv", "vessel", "cargo/{}.wav"),
        ("cargo/info.tsv", "Ship_ID", "{}.wav"),
        ("info.txt", "src_file", "{}"),
        ("Info.CSV", "MMSI", "cargo\\{}.wav"),
    ],
)
def test_a_table_that_knows_what_belongs_together_is_named(root: Path, table: str, column: str, file: str) -> None:
    record(root, *(f"tug/{n}.wav" for n in range(5, 10)))
    for n in range(5):
        (root / "tug" / f"{n}.wav").unlink()
    lines = "".join(f"{n}\t{file.format(n)}\t{n // 2}\t{n}\n" for n in range(5))
    (root / table).write_text(f"no\tfile\t{column}\tdepth\n{lines}")
    (note,) = load(root).notes
    says = f"{table}: its column '{column}' is not heeded: by it 4 recordings are 2 groups, and they count as 4."
    assert says in note.message
    write_groups(root, [str(n // 2) for n in range(10)])
    assert load(root).notes == ()


def test_tables_that_join_nothing_are_not(root: Path) -> None:
    files = "".join(f"cargo/{n}.wav,ship{n},calm\n" for n in range(5))
    (root / "info.csv").write_text(f"file,vessel,weather\n{files}")
    (root / "other.csv").write_text("a,vessel\n1,2\n3,2\n")
    (root / "README.txt").write_text("A vessel is a group.\nThey are many.\nAnd loud.\n")
    (root / ".hidden.csv").write_text("file,vessel\ncargo/1.wav,x\ncargo/2.wav,x\n")
    assert load(root).notes == ()


def test_a_spreadsheet_is_named(root: Path) -> None:
    (root / "groups.xlsx").write_bytes(b"PK")
    assert "groups.xlsx: a spreadsheet, which is not read" in load(root).notes[0].message


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system takes no such name")
@pytest.mark.parametrize("place", [b"tug/F\xe4hre.wav", b"F\xe4hre/a.wav"])
def test_a_name_that_is_no_utf_8_is_named_and_refused(root: Path, place: bytes) -> None:
    target = Path(os.fsdecode(os.fsencode(root) + b"/" + place))
    target.parent.mkdir(exist_ok=True)
    (root / "tug" / "0.wav").rename(target)
    with pytest.raises(InputError, match=r"F\\(xe4|udce4)hre.* (name is not|not named in) UTF-8.* Rename") as refused:
        load(root)
    str(refused.value).encode()
    with pytest.raises(InputError, match="its name is not UTF-8"):
        load_unlabelled(DataConfig(unlabelled=(root,)))


@pytest.mark.parametrize(
    ("present", "fold", "validation"),
    [((1, 2, 5, 9), 1, 2), ((1, 2, 5, 9), 5, 9), ((1, 2, 5, 9), 9, 1), ((3, 7, 10), 7, 10)],
)
def test_folds_that_are_not_there_are_named_and_what_validates_is_said(
    tmp_path: Path, present: tuple[int, ...], fold: int, validation: int
) -> None:
    for number in present:
        record(tmp_path, *(f"fold{number}/{number}{label}-{label}-0-0.wav" for label in (0, 3)))
    index = load(tmp_path, fold=fold)
    (note,) = index.notes
    missing = [number for number in range(1, 11) if number not in present]
    assert (note.kind, "of 10 folds only " + ", ".join(map(str, present)) in note.message) == ("folds", True)
    assert f"({', '.join(map(str, missing))} missing)" in note.message
    assert f"Fold {fold} tests and fold {validation} validates." in note.message
    split = make_split(index, DataConfig(fold=fold))
    assert {index.clips[row].fold for row in split.validation} == {validation}


def test_all_folds_are_nothing_to_tell(tmp_path: Path) -> None:
    for number in range(1, 11):
        record(tmp_path, *(f"fold{number}/{number}{label}-{label}-0-0.wav" for label in (0, 3)))
    assert load(tmp_path).notes == ()
    record(tmp_path / "table", "a.wav", "b.wav", "c.wav", "d.wav")
    lines = "".join(
        f"{name}.wav,{label},{fold}\n" for name, label, fold in zip("abcd", "xyxy", (1, 1, 2, 4), strict=True)
    )
    (tmp_path / "table" / "manifest.csv").write_text("path,label,fold\n" + lines)
    assert "of 4 folds only 1, 2, 4 are there (3 missing)" in load(tmp_path / "table").notes[0].message
