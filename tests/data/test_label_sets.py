"""Labels of tables: one class a clip, or several parted by `;`; what tells them apart, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.data.label_sets import LabelSets, read_labels
from edgekd.data.load import load_index
from edgekd.data.splits import make_split, read_splits, write_splits
from edgekd.errors import InputError, UsageError
from edgekd.files.csv_table import read_table
from edgekd.recordings import Labels
from edgekd.task import MULTI, SINGLE

Read = Callable[..., LabelSets]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(*labels: str, told: Labels | None = None) -> LabelSets:
        table = tmp_path / "manifest.csv"
        table.write_text("path,label\n" + "".join(f'{place}.wav,"{label}"\n' for place, label in enumerate(labels)))
        return read_labels(table, read_table(table, ("path", "label")), told)

    return read


def test_labels_without_a_semicolon_are_classes_and_nothing_is_told(read: Read) -> None:
    assert read("tug", "cargo", "tug") == LabelSets(("cargo", "tug"), (), (1, 0, 1), ())


def test_a_part_that_stands_elsewhere_makes_them_several_and_that_is_told(read: Read) -> None:
    found = read("tug;cargo", "tug", "none", "cargo; tug", "Background")
    assert found.classes == ("cargo", "tug")
    assert [found.combinations[label] for label in found.labels] == [(0, 1), (1,), (), (0, 1), ()]
    assert "2 of 5 lines have several classes (line 2: 'tug;cargo') and 2 none" in found.notes[0].message
    assert "data.labels=single" in found.notes[0].message


def test_a_name_with_a_semicolon_whose_parts_stand_nowhere_else_is_one_class_and_that_is_told(read: Read) -> None:
    found = read("rock;metal", "jazz", "rock;metal")
    assert found[:3] == (("jazz", "rock;metal"), (), (1, 0, 1))
    assert "data.labels=multi" in found.notes[0].message


def test_what_the_user_says_counts(read: Read) -> None:
    assert read("tug;cargo", "tug", "cargo", told="single").classes == ("cargo", "tug", "tug;cargo")
    assert not read("tug;cargo", "tug", "cargo", told="single").notes
    assert read("rock;metal", "jazz", told="multi").classes == ("jazz", "metal", "rock")
    alone = read("tug", "cargo", told="multi")
    assert alone.combinations == ((0,), (1,))
    assert "no line has two classes" in alone.notes[0].message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("a;", "a", "b"), "line 2: label 'a;': an empty name beside a ';'"),
        (("a;;b", "a"), "an empty name beside a ';'"),
        (("a;b", "a", "b;A;b"), "line 4: label 'b;A;b': 'b' is there twice"),
        (("a;b", "a", ""), "line 4: has no label. Name its classes, or write 'none'"),
        (("a;b", "a;none"), "'none' says that none of the classes is heard, and stands beside another"),
        (("a;b", "a"), "class 'a' is in every line, so nothing tells it from its absence"),
        (("a;c", "a;b", "a;B;c", "none"), "class 'B' is 'b' in line 3: they differ only in case or blanks"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_with_their_line(
    read: Read, labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message.replace(";", r"\;")):
        read(*labels)


def test_one_class_and_its_absence_are_too_little(read: Read) -> None:
    with pytest.raises(InputError, match=r"only one class \('a'\)"):
        read("a", "none", "a", told="multi")


def recordings(root: Path, labels: list[str], seconds: float = 1.0) -> Path:
    """A table of as many recordings, each its own group."""
    rng = np.random.default_rng(0)
    for place in range(len(labels)):
        soundfile.write(root / f"{place}.wav", rng.uniform(-0.1, 0.1, round(seconds * 8_000)), 8_000)
    lines = [f'{place}.wav,"{label}"' for place, label in enumerate(labels)]
    (root / "manifest.csv").write_text("\n".join(["path,label", *lines]))
    return root


def index_of(root: Path, labels: Labels | None = None) -> ClipIndex:
    return load_index(DataConfig(data_dir=root, clip_seconds=1.0, labels=labels))


def test_an_index_knows_what_each_clip_is(tmp_path: Path) -> None:
    index = index_of(recordings(tmp_path, ["a;b", "b", "none", "a"]))
    assert index.task == MULTI
    assert index.truth.tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]
    assert [index.label_names[clip.label] for clip in index] == ["a;b", "b", "none", "a"]
    single = index_of(tmp_path, "single")
    assert single.task == SINGLE
    assert single.truth.tolist() == single.labels == [1, 2, 3, 0]


def test_a_split_has_every_class_on_every_side_in_its_share_and_is_read_back(tmp_path: Path) -> None:
    kinds = ["a;b", "b;c", "a", "c", "none"]
    index = index_of(recordings(tmp_path, kinds * 10))
    split = make_split(index, DataConfig(split=(0.6, 0.2, 0.2)))
    for side, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        truth = index.truth[list(split.side(side))]  # type: ignore[arg-type]
        assert np.abs(truth.sum(axis=0) - share * index.truth.sum(axis=0)).max() <= 1
        assert abs(int((truth.sum(axis=1) == 0).sum()) - share * 10) <= 1
    write_splits(tmp_path / "splits.csv", index, split)
    assert read_splits(tmp_path / "splits.csv", index) == split


def test_a_class_in_one_clip_is_on_no_three_sides(tmp_path: Path) -> None:
    index = index_of(recordings(tmp_path, ["a;b", "b", "a", "none", "b", "a;c", "b", "a"]))
    with pytest.raises(InputError, match=r"class 'c' has 1 group\(s\)"):
        make_split(index, DataConfig())


def test_a_folder_a_class_cannot_have_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "x.wav", np.full(8_000, 0.1), 8_000)
    with pytest.raises(UsageError, match=r"data\.labels = multi: 'folder' gives each clip one class\. List .* a table"):
        index_of(tmp_path, "multi")


def test_the_same_region_under_two_labels_is_to_be_one_line(tmp_path: Path) -> None:
    recordings(tmp_path, ["a;b", "b", "a"])
    with (tmp_path / "manifest.csv").open("a") as table:
        table.write("\n1.wav,a\n")
    with pytest.raises(InputError, match=r"line 5: the same region .* line 3\. Name all its classes in one"):
        index_of(tmp_path)
