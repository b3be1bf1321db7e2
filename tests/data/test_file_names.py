from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.file_names import parse_pattern, read_names, write_manifest
from edgekd.data.load import load_index
from edgekd.errors import InputError, UsageError


def record(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, 0.1), 800, format="WAV")
    return root


@pytest.mark.parametrize(
    ("pattern", "name", "reads"),
    [
        ("{label}_{group}_{_}", "tug_swift_7.wav", {"label": "tug", "group": "swift"}),
        ("{_}_{label}_{group}_{_}", "a_tug_swift_7.wav", {"label": "tug", "group": "swift"}),
        ("{label}_{_}", "tug_swift_7.wav", {"label": "tug"}),
        ("{label}/{_}_{group}.wav", "sea/tug/7_swift.WAV", {"label": "tug", "group": "swift"}),
        ("fold{fold}/{group}-{label}", "fold3/77-dog.flac", {"label": "dog", "group": "77", "fold": "3"}),
        ("{side}/{label}/{_}", "val/dog/1.wav", {"label": "dog", "split": "val"}),
        ("{label}_{group}-{group}-{_}", "owl_north-0501-1.wav", {"label": "owl", "group": "north_0501"}),
        ("{label}.{_}", "ein.zwei.drei.wav", {"label": "ein"}),
        ("x{label}x{_}", "xtugx7.wav", {"label": "tug"}),
        ("{label}", "Grüße an Bord.ogg", {"label": "Grüße an Bord"}),
    ],
)
def test_a_pattern_reads_the_last_parts_of_a_path(pattern: str, name: str, reads: dict[str, str]) -> None:
    (reading,) = parse_pattern(pattern).readings(Path(name))
    columns: dict[str, list[str]] = {}
    for field, value in reading:
        columns.setdefault("split" if field == "side" else field, []).append(value)
    assert {field: "_".join(values) for field, values in columns.items()} == reads


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{label}_{group}", "tug_swift_7.wav"),  # a field does not hold what parts it from another
        ("{label}_{group}", "tug.wav"),
        ("{label}_{group}", "_swift.wav"),
        ("{label}_{group}", " _swift.wav"),
        ("{label}_{_}.wav", "tug_1.flac"),
        ("{label}/{_}", "1.wav"),
        ("Tug{label}", "tug1.wav"),
    ],
)
def test_names_that_do_not_fit_are_none(pattern: str, name: str) -> None:
    assert parse_pattern(pattern).readings(Path(name)) == []


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("{label}{group}", r"\{label\} and \{group\} stand side by side"),
        ("{_}{label}", "stand side by side"),
        ("{group}_{_}", r"no \{label\}"),
        ("dog", r"no \{label\}"),
        ("{lable}_{_}", r"Unknown field 'lable'\. Did you mean 'label'"),
        ("{label}_{label}", r"\{label\} is there twice"),
        ("{label}_{fold}_{fold}", r"\{fold\} is there twice"),
        ("{label}_{side}_{split}", r"\{split\} is there twice"),
        ("{label}_{fold}_{split}", "a fold and a split"),
        ("{label_{group}", "a bracket without its other half"),
        ("{label}}", "a bracket without its other half"),
        ("", "write parts of a path"),
        ("/{label}", "write parts of a path"),
        ("{label}/", "write parts of a path"),
        ("{label}//{_}", "write parts of a path"),
        (".wav", r"write parts of a path|no \{label\}"),
        ("{}_{label}", "Unknown field ''"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=f"--pattern .*({complaint})"):
        parse_pattern(pattern)


def test_a_name_that_reads_in_two_ways_is_a_question(tmp_path: Path) -> None:
    record(tmp_path, "a_tug_swift_7.wav", "a_b_tug_swift_7.wav")
    with pytest.raises(InputError, match=r"two ways: label=tug, group=b or label=swift, group=tug|in two ways"):
        read_names(tmp_path, parse_pattern("{_}_{label}_{group}_{_}"))


def test_a_long_name_that_may_be_read_in_many_ways_takes_no_time() -> None:
    pattern = parse_pattern("_".join(["{_}"] * 20) + "_{label}_{group}")
    assert len(pattern.readings(Path("_".join("abcdefghij" * 12)))) == 1
    assert len(parse_pattern("{_}_{label}_{group}_{_}_{_}").readings(Path("_".join("abcdefghij" * 12)))) == 2


def test_the_manifest_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = record(tmp_path / "sea", "tug_a_1.wav", "tug_a_2.wav", "x/cargo_b, c_1.wav", "notes.wav", "x/cargo_ü_1.flac")
    named = read_names(root, parse_pattern("{label}_{group}_{_}"))
    assert (named.columns, named.unfit) == (("path", "label", "group"), ("notes.wav",))
    assert (named.labels, named.groups) == ({"cargo": 2, "tug": 2}, 3)
    for out in (root / "manifest.csv", tmp_path / "elsewhere" / "table.csv"):
        out.parent.mkdir(exist_ok=True)
        write_manifest(out, named)
        index = load_index(DataConfig(dataset="manifest", data_dir=out, clip_seconds=1.0))
        assert [(clip.path.name, index.classes[clip.label], clip.group) for clip in index] == [
            ("tug_a_1.wav", "tug", "a"),
            ("tug_a_2.wav", "tug", "a"),
            ("cargo_b, c_1.wav", "cargo", "b, c"),
            ("cargo_ü_1.flac", "cargo", "ü"),
        ]
    assert "x/cargo_ü_1.flac,cargo,ü" in (root / "manifest.csv").read_text()


def test_folds_and_sides_are_read_as_the_data_set_s_own(tmp_path: Path) -> None:
    root = record(tmp_path, *(f"fold{fold}/{label}-{fold}.wav" for fold in (1, 2, 3) for label in ("cat", "dog")))
    write_manifest(root / "manifest.csv", read_names(root, parse_pattern("fold{fold}/{label}-{_}")))
    assert [clip.fold for clip in load_index(DataConfig(data_dir=root, clip_seconds=1.0))] == [1, 1, 2, 2, 3, 3]
    with pytest.raises(InputError, match=r"cat-1\.wav: Unknown split 'fold1'"):
        read_names(root, parse_pattern("{split}/{label}-{_}"))
    with pytest.raises(InputError, match=r"cat-1\.wav: fold must be a whole number, not 'fold1'"):
        read_names(root, parse_pattern("{fold}/{label}-{_}"))


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    named = read_names(record(tmp_path, "tug_1.wav", "cargo_1.wav"), parse_pattern("{label}_{_}"))
    (tmp_path / "manifest.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"manifest\.csv: is there already.*--overwrite"):
        write_manifest(tmp_path / "manifest.csv", named)
    assert (tmp_path / "manifest.csv").read_text() == "mine"
    write_manifest(tmp_path / "manifest.csv", named, overwrite=True)
    assert (tmp_path / "manifest.csv").read_text() == "path,label\ncargo_1.wav,cargo\ntug_1.wav,tug\n"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["Dog_1.wav", "dog _2.wav", "cat_1.wav"], r"labels 'Dog' \(1 files\) and 'dog' \(1\) differ only in case"),
        (["1_1.wav", "01_2.wav", "2_2.wav"], r"labels '01' \(1 files\) and '1' \(1\) differ only in how the number"),
        (["dog_1.wav"], r"only one label \('dog'\)"),
        (["dog.wav"], r"none of 1 names fits --pattern '\{label\}_\{_\}', e\.g\. dog\.wav"),
        ([], "holds no audio"),
    ],
)
def test_names_that_make_no_data_set_are_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read_names(record(tmp_path, *names), parse_pattern("{label}_{_}"))
    with pytest.raises(InputError, match="no such folder"):
        read_names(tmp_path / "no", parse_pattern("{label}_{_}"))


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system takes no such name")
def test_a_name_that_is_no_utf_8_does_not_fit(tmp_path: Path) -> None:
    record(tmp_path, "tug_1.wav", "cargo_1.wav")
    (tmp_path / "tug_1.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/F\xe4hre_1.wav"))
    record(tmp_path, "tug_2.wav")
    named = read_names(tmp_path, parse_pattern("{label}_{_}"))
    assert (len(named.rows), len(named.unfit)) == (2, 1)
