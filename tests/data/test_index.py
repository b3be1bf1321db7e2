"""The rows of a data set: the names that tables give them, and their sides."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.index import SIDES, Clip, ClipIndex, Split


def index_of(*paths: str) -> ClipIndex:
    clips = tuple(Clip(Path(path), row % 2, path, None, 0, 100) for row, path in enumerate(paths))
    return ClipIndex("made", Path("/data"), ("cargo", "tug"), clips)


def test_a_file_below_the_root_is_named_from_there_and_any_other_in_full() -> None:
    index = index_of("/data/tug/a.wav", "/elsewhere/b.wav", "/database/c.wav")
    assert [index.name(clip) for clip in index] == ["tug/a.wav", "/elsewhere/b.wav", "/database/c.wav"]


def test_an_index_is_its_clips_in_their_order() -> None:
    index = index_of("/data/c.wav", "/data/a.wav", "/data/b.wav")
    assert (len(index), tuple(index), index.labels) == (3, index.clips, [0, 1, 0])


def test_each_side_is_found_by_its_name() -> None:
    split = Split(train=(0, 3), validation=(1,), test=(2,))
    assert [split.side(side) for side in SIDES] == [(0, 3), (1,), (2,)]
