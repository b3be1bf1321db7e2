from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.data.index import Clip, ClipIndex
from edgekd.errors import InputError
from edgekd.runs.unlabelled import read_unlabelled, write_unlabelled


def index_of(folder: Path, clips: int) -> ClipIndex:
    path = folder / "one.wav"
    cut = [Clip(path, -1, "59277", None, number * 16_000, 16_000) for number in range(clips)]
    return ClipIndex("unlabelled", folder, (), tuple(cut))


def test_the_table_says_which_clips_were_dropped(tmp_path: Path) -> None:
    index, table = index_of(tmp_path, 3), tmp_path / "unlabelled.csv"
    write_unlabelled(table, index, ["", "audio", ""])
    assert table.read_text().splitlines()[:3] == [
        "path,group,start,length,dropped",
        "one.wav,59277,0,16000,",
        "one.wav,59277,16000,16000,audio",
    ]
    assert read_unlabelled(table, index) == (0, 2)


def test_other_clips_than_those_of_the_table_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "unlabelled.csv"
    write_unlabelled(table, index_of(tmp_path, 3), ["", "", ""])
    with pytest.raises(InputError, match="3 clips, which are not the 4"):
        read_unlabelled(table, index_of(tmp_path, 4))
    table.write_text("path,group\n")
    with pytest.raises(InputError, match="0 clips, which are not the 3"):
        read_unlabelled(table, index_of(tmp_path, 3))
    with pytest.raises(InputError, match="no such file"):
        read_unlabelled(tmp_path / "other.csv", index_of(tmp_path, 3))
