from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from edgekd.config import DataConfig
from edgekd.data.index import SIDES, Clip, ClipIndex
from edgekd.data.recording_times import begun, by_time, neighbours, pattern_of
from edgekd.data.splits import make_split
from edgekd.errors import UsageError

ROOT = Path("/data")


def index_of(*names: str, group: Callable[[str], str] = str) -> ClipIndex:
    """Clips of two classes, by the first part of each name."""
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    clips = (Clip(ROOT / name, classes.index(name.split("/")[0]), group(name), None, 0, 100) for name in names)
    return ClipIndex("folder", ROOT, classes, tuple(clips))


@pytest.mark.parametrize(
    ("name", "deployment", "time"),
    [
        ("20240501_120000.WAV", "", "2024-05-01T12:00:00"),
        ("20240501_120000T.WAV", "", "2024-05-01T12:00:00"),
        ("24F3190361DA5BA0_20240501_120000.WAV", "24F3190361DA5BA0", "2024-05-01T12:00:00"),
        ("5CD2F2C0.WAV", "", "2019-05-08T15:16:16"),
        ("owl/north/SITE1_20240501_120000.wav", "north/SITE1", "2024-05-01T12:00:00"),
        ("SMU04123_20240501_120000_000.wav", "SMU04123", "2024-05-01T12:00:00"),
        ("5146.240501120000.wav", "5146", "2024-05-01T12:00:00"),
        ("ICLISTENHF1251_20171104T203623.103Z.wav", "ICLISTENHF1251", "2017-11-04T20:36:23"),
        ("PAM_20240501_120000_000.wav", "PAM", "2024-05-01T12:00:00"),
        ("OO-HYEA2--YDH-2024-05-01T12-00-00.flac", "OO-HYEA2--YDH", "2024-05-01T12:00:00"),
        ("2024-05-01 12.00.00.wav", "", "2024-05-01T12:00:00"),
        ("202405011200.wav", "", "2024-05-01T12:00:00"),
        ("north/20240501/120000.wav", "north", "2024-05-01T12:00:00"),
        ("1714564800.wav", "", "2024-05-01T12:00:00"),
        ("1714564800123_a.wav", "", "2024-05-01T12:00:00"),
        ("owl_20240501_120000.wav", "", "2024-05-01T12:00:00"),
    ],
)
def test_names_of_recorders_are_read(name: str, deployment: str, time: str) -> None:
    found = begun(PurePosixPath(name), "owl")
    assert found is not None
    assert (found.deployment, found.time.strftime("%Y-%m-%dT%H:%M:%S")) == (deployment, time)


@pytest.mark.parametrize(
    "name",
    [
        *("1-100032-A-0.wav", "0001.wav", "cargo-01.wav", "20240501.wav", "20241301_120000.wav", "20240230_120000.wav"),
        *(
            "20240501_250000.wav",
            "99812345.wav",
            "203623.wav",
            "DEADBEEF.wav",
            "102857-5-0-0.wav",
            "v20240501_1200001.wav",
        ),
    ],
)
def test_names_without_a_time_are_left_alone(name: str) -> None:
    assert begun(PurePosixPath(name)) is None


def test_neighbours_in_time_are_told_with_the_way_out() -> None:
    minutes = [f"{label}/AM1_20240501_12{minute:02d}00.WAV" for label in ("owl", "rain") for minute in range(0, 60, 5)]
    (note,) = neighbours(index_of(*minutes, "owl/AM2_20240601_120000.WAV"))
    assert note.kind == "groups"
    assert "24 recordings of 2 deployments" in note.message
    assert "owl/AM1_20240501_120000.WAV" in note.message
    assert "--set data.group_by=day (2 groups) or deployment (2)" in note.message


@pytest.mark.parametrize(
    "names",
    [
        ["owl/20240501_120000.WAV", "owl/20240501_130001.WAV"],  # more than an hour apart
        ["owl/A_20240501_120000.WAV", "rain/B_20240501_120000.WAV"],  # two recorders
        ["owl/1.wav", "rain/2.wav"],
    ],
)
def test_recordings_that_are_no_neighbours_are_not(names: list[str]) -> None:
    assert neighbours(index_of(*names)) == []


def test_recordings_that_have_groups_are_not_told_of() -> None:
    names = [f"owl/20240501_12{minute:02d}00.WAV" for minute in range(10)]
    assert neighbours(index_of(*names, group=lambda _: "one night")) == []


def test_a_day_of_a_deployment_is_a_group_in_all_classes() -> None:
    days = [
        f"{label}/AM1_2024050{day}_12{minute:02d}00.WAV" for label in "ab" for day in range(1, 9) for minute in (0, 1)
    ]
    index = by_time(index_of(*days), "day")
    assert {clip.group for clip in index} == {f"AM1 2024-05-0{day}" for day in range(1, 9)}
    split = make_split(index, DataConfig())
    sides = [{index.clips[row].group for row in split.side(side)} for side in SIDES]
    assert all(len(each) for each in sides)
    assert len(set.union(*sides)) == sum(map(len, sides)) == 8
    assert neighbours(index) == []


def test_a_deployment_is_a_group_and_what_has_none_stays_so() -> None:
    index = by_time(index_of("a/x/20240501_120000.wav", "b/x/20240601_120000.wav", "b/notes.wav"), "deployment")
    assert [clip.group for clip in index] == ["x", "x", "b/notes.wav"]
    assert "1 recordings are named by no time (b/notes.wav)" in index.notes[-1].message


def test_a_setting_that_would_do_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data.group_by = 'day': .*: no recording is named by the time it began"):
        by_time(index_of("a/1.wav", "b/2.wav"), "day")
    with pytest.raises(UsageError, match="each recording has a group by a table"):
        by_time(index_of("a/20240501_120000.wav", "b/2.wav", group=lambda _: "x"), "day")


def test_a_pattern_reads_names_of_ones_own() -> None:
    names = [f"{label}/{day}.05.24 at {hour}h.wav" for label in "ab" for day in ("01", "02") for hour in (10, 11)]
    pattern = pattern_of(DataConfig(time_pattern="%d.%m.%y at %Hh"))
    index = by_time(index_of(*names), "day", pattern)
    assert {clip.group for clip in index} == {"2024-05-01", "2024-05-02"}
    (note,) = neighbours(index_of(*names), pattern)
    assert "8 recordings of 1 deployment are" in note.message
    with pytest.raises(UsageError, match=r"time pattern '%d': tells no day"):
        pattern_of(DataConfig(time_pattern="%d"))
    with pytest.raises(UsageError, match=r"no recording is named by the time it began \(data\.time_pattern\)"):
        by_time(index_of(*names), "day")
