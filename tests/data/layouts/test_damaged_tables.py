"""Whatever happens to a table that tells groups: it is read, or refused in one line, and nothing between."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.load import load_index
from edgekd.errors import InputError

CLASSES = ("Cargo", "Passengership", "Tanker", "Tug")
SIDES = ("train", "validation", "test")


def record(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(200, 0.1), 200)


def a_folder_a_class(root: Path) -> tuple[Path, str]:
    record(*(root / name / f"{n}.wav" for name in ("cat", "dog") for n in range(4)))
    lines = [f"{name}/{n}.wav,Büro {n // 2}" for name in ("cat", "dog") for n in range(4)]
    return root / "groups.csv", "\n".join(["path,group", *lines, ""])


def esc50(root: Path) -> tuple[Path, str]:
    record(*(root / "audio" / f"{n}.wav" for n in range(6)))
    (root / "meta").mkdir()
    lines = [f"{n}.wav,{n % 3 + 1},{n % 2},t{n % 2},{n < 4},s{n}" for n in range(6)]
    return root / "meta" / "esc50.csv", "\n".join(["filename,fold,target,category,esc10,src_file", *lines, ""])


def deepship(root: Path) -> tuple[Path, str]:
    record(*(root / name / f"{n}.wav" for name in CLASSES for n in range(1, 4)))
    lines = [f"{n},70,SHIP {n % 2},2017110{n},10200{n},3,1-2," for n in range(1, 4)]
    return root / "Cargo" / "cargo-metafile", "\n".join([*lines, ""])


def vtuad(root: Path) -> tuple[Path, str]:
    record(
        *(root / side / "audio" / name / f"{n}.wav" for side in SIDES for name in ("tug", "cargo") for n in range(3))
    )
    lines = [f"{n},{name},{n},31600{n // 2},2017" for name in ("tug", "cargo") for n in range(3)]
    return root / "train" / "metadata.csv", "\n".join([",label,file_index,MMSI,date", *lines, ""])


@pytest.mark.parametrize("make", [a_folder_a_class, esc50, deepship, vtuad])
def test_no_damage_to_a_table_gets_past_its_loader(
    make: Callable[[Path], tuple[Path, str]], tmp_path: Path, damaged: Callable[[bytes, random.Random], bytes]
) -> None:
    table, text = make(tmp_path)
    config = DataConfig(dataset=None if make is not a_folder_a_class else "folder", data_dir=tmp_path, clip_seconds=1.0)
    table.write_text(text, encoding="utf-8")
    whole = load_index(config)
    outcomes = {"read": 0, "refused": 0}
    for seed in range(80):
        table.write_bytes(damaged(text.encode(), random.Random(seed)))
        try:
            index = load_index(config)
        except InputError as refused:
            assert "\n" not in str(refused)
            outcomes["refused"] += 1
        else:
            assert {clip.path for clip in index} <= {clip.path for clip in whole}
            assert all(clip.group and clip.label >= 0 for clip in index)
            outcomes["read"] += 1
    assert all(outcomes.values())


DIALECTS: dict[str, Callable[[str], bytes]] = {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "sep=;": lambda text: ("sep=;\r\n" + text.replace(",", ";").replace("\n", "\r\n")).encode(),
    "Windows-1252": lambda text: text.replace("\n", "\r\n").encode("cp1252"),
    "UTF-16": lambda text: text.replace(",", "\t").encode("utf-16"),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "blank lines": lambda text: (text + "\n\n \n").encode(),
    "an old Mac's lines": lambda text: text.replace("\n", "\r").encode(),
    "a last line that does not end": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("make", [a_folder_a_class, esc50, deepship, vtuad])
def test_a_table_reads_alike_in_every_dialect(
    make: Callable[[Path], tuple[Path, str]], dialect: str, tmp_path: Path
) -> None:
    table, text = make(tmp_path)
    config = DataConfig(data_dir=tmp_path, clip_seconds=1.0)
    table.write_text(text, encoding="utf-8")
    expected = load_index(config)
    table.write_bytes(DIALECTS[dialect](text))
    assert load_index(config) == expected


@pytest.mark.parametrize("make", [a_folder_a_class, esc50, vtuad])
def test_row_numbers_of_a_data_frame_are_passed_by(make: Callable[[Path], tuple[Path, str]], tmp_path: Path) -> None:
    table, text = make(tmp_path)
    config = DataConfig(data_dir=tmp_path, clip_seconds=1.0)
    table.write_text(text, encoding="utf-8")
    expected = load_index(config)
    header, *lines = text.splitlines()
    numbered = [f"Unnamed: 0,{header}", *(f"{n},{line}" for n, line in enumerate(lines)), ""]
    table.unlink()
    table.with_suffix(".txt").write_text("\n".join(numbered), encoding="utf-8")
    found = load_index(config)
    assert (found.classes, found.clips, found.notes) == (expected.classes, expected.clips, expected.notes)
