"""Whatever lies in a data folder is a clip, or is told of with the reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.data.layouts import folder
from edgekd.data.load import load_index
from edgekd.data.unlabelled import load_unlabelled
from edgekd.data.walk import NAMED, audio_files, files_below, reasons, told
from edgekd.errors import InputError

RATE = 8_000


def record(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = 0.1 * np.random.default_rng(number).standard_normal(RATE)
        soundfile.write(path, sound, RATE, format="WAV")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    record(*(tmp_path / "data" / name / f"{number}.wav" for name in ("cargo", "tug") for number in range(3)))
    return tmp_path / "data"


def left_out(root: Path, **settings: Any) -> dict[str, str]:
    """Name -> why."""
    index = load_index(DataConfig(data_dir=root, clip_seconds=1.0, **settings))
    return {os.path.relpath(each.path, index.root): each.why for each in index.left_out}


def test_nothing_is_left_out_of_a_folder_of_recordings(root: Path) -> None:
    assert left_out(root) == {}


def test_each_thing_that_is_no_clip_is_told_of_with_the_reason(root: Path) -> None:
    record(root / "stray.wav", root / "cargo" / ".hidden.wav", root / ".trash" / "old.wav", root / "cargo" / "4.dat")
    (root / "cargo" / "annexed.wav").symlink_to("../.git/annex/objects/zz/1.wav")
    (root / "cargo" / "round.wav").symlink_to("round.wav")
    (root / "cargo" / "voice.M4A").write_bytes(b"\0\0\0\x20ftypM4A ")
    (root / "tug" / "more.tar.gz").write_bytes(b"\x1f\x8b")
    (root / "tug" / "deep" / "deeper").mkdir(parents=True)
    (root / "tug" / "deep" / "deeper" / "log.txt").write_text("calm sea")
    (root / "tug" / "weights.bin").write_bytes(b"\x01\x02")
    os.mkfifo(root / "tug" / "pipe.wav")
    assert left_out(root) == {
        ".trash": "hidden",
        "cargo/.hidden.wav": "hidden",
        "cargo/4.dat": "sound by its first bytes, but its ending is not one that is read: rename it",
        "cargo/annexed.wav": "a link that leads nowhere: fetch what it stands for ('git annex get'), or mend it",
        "cargo/round.wav": "cannot be read (Too many levels of symbolic links)",
        "cargo/voice.M4A": "in a format that is not read (.m4a): convert it to flac or wav",
        "stray.wav": "outside the folders of the classes",
        "tug/deep/deeper/log.txt": "no audio",
        "tug/more.tar.gz": "packed: unpack it",
        "tug/pipe.wav": "neither file nor folder",
        "tug/weights.bin": "no audio",
    }


def test_tables_that_were_read_are_not_left_out(root: Path) -> None:
    for name in ("cargo", "tug"):
        (root / name).rename(root / name.capitalize())
        (root / f"{name}-metafile").write_text("".join(f"{n},1,SHIP {n},20170101,01010{n},1\n" for n in range(3)))
    (root / "notes.csv").write_text("sea,calm\n")
    assert left_out(root, dataset="deepship") == {"notes.csv": "no audio"}
    (root / "Groups.tsv").write_text("path\tgroup\nCargo/0.wav\ta\n")
    assert left_out(root, dataset="deepship") == {"notes.csv": "no audio"}
    (root / "Groups.tsv").unlink()
    (root / "recordings.csv").write_text("")
    metafiles = dict.fromkeys(("cargo-metafile", "tug-metafile"), "no audio")
    assert left_out(root, dataset="sonar_sim") == {"notes.csv": "no audio", **metafiles}
    names = "".join(f"{name}/{number}.wav,{name}\n" for name in ("Cargo", "Tug") for number in range(3))
    (root / "groups.csv").write_text(f"path,group\n{names}")
    unlabelled = load_unlabelled(DataConfig(unlabelled=[root]))
    assert {each.path.name for each in unlabelled.left_out} == {"notes.csv", "recordings.csv", *metafiles}


def test_linked_folders_are_read(root: Path, tmp_path: Path) -> None:
    record(tmp_path / "elsewhere" / "9.wav", tmp_path / "ferries" / "1.wav")
    (root / "cargo" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "ferry").symlink_to(tmp_path / "ferries", target_is_directory=True)
    index = load_index(DataConfig(data_dir=root, clip_seconds=1.0))
    assert index.classes == ("cargo", "ferry", "tug")
    assert [index.name(clip) for clip in index][3:5] == ["cargo/more/9.wav", "ferry/1.wav"]
    assert index.left_out == ()


def test_links_that_lead_back_end_and_a_folder_is_read_by_its_own_name(root: Path) -> None:
    (root / "cargo" / "a-link").symlink_to("year", target_is_directory=True)
    (root / "cargo" / "up").symlink_to("../..", target_is_directory=True)
    (root / "cargo" / "year" / "round").mkdir(parents=True)
    (root / "cargo" / "year" / "round" / "again").symlink_to("../..", target_is_directory=True)
    record(root / "cargo" / "year" / "7.wav")
    names = [path.relative_to(root).as_posix() for path in audio_files(root / "cargo")]
    assert names == ["cargo/0.wav", "cargo/1.wav", "cargo/2.wav", "cargo/year/7.wav"]
    again = "a link to a folder that is read already"
    assert left_out(root) == {"cargo/a-link": again, "cargo/up": again, "cargo/year/round/again": again}


def test_folders_that_all_link_to_each_other_are_each_read_once(tmp_path: Path) -> None:
    for number in range(12):
        record(tmp_path / str(number) / "1.wav")
        for other in range(12):
            (tmp_path / str(number) / f"to{other}").symlink_to(f"../{other}", target_is_directory=True)
    assert len(list(files_below(tmp_path))) == 12


def test_a_class_that_is_a_link_to_another_is_read_as_both(root: Path) -> None:
    (root / "tow").symlink_to("tug", target_is_directory=True)
    index = load_index(DataConfig(data_dir=root, clip_seconds=1.0))
    assert [index.labels.count(label) for label in range(3)] == [3, 3, 3]
    assert index.left_out == ()


def test_a_folder_that_may_not_be_read_is_told_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(root / "cargo" / "locked" / "9.wav")

    def refuse(path: Any, scan: Any = os.scandir) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert left_out(root) == {"cargo/locked": "cannot be read (Permission denied)"}


def test_what_a_table_does_not_name_is_told_of_and_no_loss(root: Path, tmp_path: Path) -> None:
    lines = "path,label\ncargo/0.wav,cargo\ntug/./0.wav,tug\ncargo/.hidden.wav,tug\n"
    record(root / "cargo" / ".hidden.wav", tmp_path / "data2.wav")
    (root / "manifest.csv").write_text(lines)
    (root / "cargo" / "same.wav").symlink_to("0.wav")
    unnamed = [f"{name}/{number}.wav" for name in ("cargo", "tug") for number in (1, 2)]
    expected = dict.fromkeys(unnamed, "not named by the table")
    assert left_out(root) == expected
    index = load_index(DataConfig(data_dir=root / "manifest.csv", clip_seconds=1.0))
    assert {each.path.relative_to(root).as_posix() for each in index.left_out} == set(unnamed)
    assert told(reasons(index)) == ""


def test_the_clips_of_esc50_that_are_not_of_esc10_are_no_loss(root: Path) -> None:
    record(*(root / "esc" / "audio" / f"{number}.wav" for number in range(4)))
    (root / "esc" / "meta").mkdir()
    rows = "".join(f"{number}.wav,1,{number},t{number},{number < 2},s{number}\n" for number in range(3))
    (root / "esc" / "meta" / "esc50.csv").write_text(f"filename,fold,target,category,esc10,src_file\n{rows}")
    other = "of other classes than esc10 has"
    expected = {"audio/2.wav": other, "audio/3.wav": "not named by the table"}
    assert left_out(root / "esc", dataset="esc10") == expected
    assert left_out(root / "esc", dataset="esc50") == {"audio/3.wav": "not named by the table"}


def test_reasons_count_and_name_the_first_and_losses_come_first(root: Path) -> None:
    for number in range(NAMED + 2):
        (root / "tug" / f"{number}.m4a").write_bytes(b"")
        (root / "tug" / f"{number}.txt").write_text("")
    (root / "tug" / "last.txt").write_text("")
    first, last = reasons(load_index(DataConfig(data_dir=root, clip_seconds=1.0)))
    assert (first.count, first.lost, last.count, last.lost) == (NAMED + 2, True, NAMED + 3, False)
    assert first.files == tuple(f"tug/{number}.m4a" for number in range(NAMED))
    assert (
        told([first, last])
        == "in a format that is not read (.m4a): convert it to flac or wav (7: tug/0.m4a, tug/1.m4a, ...)"
    )


def test_a_class_without_audio_says_what_it_holds_instead(root: Path) -> None:
    for name in ("ferry", "yacht"):
        (root / name).mkdir()
        (root / name / "1.wav").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"'ferry' has no audio files .* Found: a link that .*\(1: 1.wav\)"):
        folder.load(root, DataConfig())
    with pytest.raises(InputError, match=r"no known layout.* Found: a link that .*\(2: ferry/1.wav, yacht/1.wav\)"):
        alone = root / "alone"
        alone.mkdir()
        (root / "ferry").rename(alone / "ferry")
        (root / "yacht").rename(alone / "yacht")
        load_index(DataConfig(data_dir=alone))
    record(alone / "ferry" / "sub" / "x.wav", root / "flat" / "0_theo.wav", root / "flat" / "1_theo.wav")
    with pytest.raises(InputError, match=r"no known layout: found 0_theo.wav, 1_theo.wav(?!.* Found:)"):
        load_index(DataConfig(data_dir=root / "flat"))


def test_audio_without_labels_tells_likewise(root: Path) -> None:
    (root / "tug" / "more.zip").write_bytes(b"PK")
    index = load_unlabelled(DataConfig(unlabelled=(root, root / "tug"), clip_seconds=1.0))
    assert len(index) == 6
    assert [each.path.name for each in index.left_out] == ["more.zip"]
