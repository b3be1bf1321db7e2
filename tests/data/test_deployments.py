from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.audio.read import AudioInfo
from edgekd.data.deployments import Deployment, beginnings, deployments, survey
from edgekd.data.time_zones import parse_zone
from edgekd.data.times_in_names import parse_time_pattern
from edgekd.errors import InputError, UsageError

UTC = parse_zone("UTC")
PATTERN = parse_time_pattern("%Y%m%d_%H%M%S")


def found(*names: str, seconds: float = 3600, rates: dict[str, int] | None = None) -> list[Deployment]:
    """The deployments of recordings of these lengths."""
    infos = {}
    for name in names:
        rate = (rates or {}).get(name, 8_000)
        infos[name] = AudioInfo(rate, round(seconds * rate), 1, "")
    return deployments(infos, beginnings(names, zone=UTC))


def hours(*numbers: int, name: str = "A_20240501_{:02d}0000.wav") -> list[str]:
    return [name.format(number) for number in numbers]


def test_files_that_follow_each_other_are_one_stretch() -> None:
    (one,) = found(*hours(2, 0, 1))
    assert [part.recording for part in one.parts] == hours(0, 1, 2)
    assert (one.name, one.seconds, one.notes()) == ("A", 3 * 3600, [])


def test_a_second_of_rounding_is_no_gap_and_minutes_are_no_finer() -> None:
    assert found("20240501_120000.wav", "20240501_120009.wav", seconds=10)[0].notes() == []
    assert found("20240501_1200.wav", "20240501_1202.wav", seconds=90)[0].notes() == []


def test_gaps_are_told_with_how_long_and_where() -> None:
    (one,) = found(*hours(0, 1, 3, 9))
    assert [gap for *_, gap in one.gaps()] == [3600, 5 * 3600]
    assert one.notes() == [
        "deployment A: 2 gaps, 6 h in all; the longest, 5 h, between A_20240501_030000.wav and A_20240501_090000.wav."
    ]
    (one,) = found(*hours(0, 1, 3))
    assert one.notes() == ["deployment A: a gap of 1 h between A_20240501_010000.wav and A_20240501_030000.wav."]


def test_a_schedule_is_one_line() -> None:
    (one,) = found(*hours(0, 1, 2, 3), seconds=600)
    assert one.notes() == ["deployment A: a gap of 50 min behind each recording."]


def test_recordings_that_overlap_are_told() -> None:
    (one,) = found(*hours(0, 1, 2), seconds=3700)
    assert [shared for *_, shared in one.overlaps()] == [100, 100]
    (note,) = one.notes()
    assert "A_20240501_010000.wav begins 1 min 40 s before A_20240501_000000.wav ends (2 such)" in note
    assert "the clock jumped back" in note


@pytest.mark.parametrize(
    "name", ["REC{number:04d}_20240501_{hour:02d}0000.wav", "20240501_{hour:02d}0000_{number}.wav"]
)
def test_a_running_number_shows_where_a_clock_jumped_back(name: str) -> None:
    names = [name.format(number=number, hour=hour) for number, hour in enumerate((10, 11, 12, 5, 6), 3)]
    (one,) = found(*names)
    assert [(before.recording, after.recording) for before, after, _ in one.jumps()] == [(names[2], names[3])]
    (note, other) = one.notes()
    assert "a gap of 3 h" in note
    assert f"the clock jumped back by 7 h between {names[2]} and {names[3]}" in other


@pytest.mark.parametrize("folder", ["{}", "north{}/x"])
def test_recorders_with_numbers_are_none_that_count(folder: str) -> None:
    names = [f"{folder.format(number)}_20240501_120000.wav" for number in (101, 102, 103)]
    assert [each.notes() for each in found(*names)] == [[], [], []]


def test_a_rate_that_changes_is_told() -> None:
    names = hours(0, 1, 2)
    (one,) = found(*names, rates={names[2]: 16_000})
    (note,) = one.notes()
    assert f"the rate changes from 8000 to 16000 Hz between {names[1]} and {names[2]}: " in note


@pytest.mark.parametrize("unset", ["A_19700101_000003.wav", "A_20000101_000000.wav"])
def test_a_clock_that_was_not_set_is_told_and_no_gap(unset: str) -> None:
    (one,) = found(unset, *hours(0, 1))
    (note,) = one.notes()
    assert f"{unset} is named " in note
    assert "a clock that was not set" in note


def test_a_recorder_is_its_folder_and_what_stands_before_the_time() -> None:
    names = ("n/A_20240501_120000.wav", "n/B_20240501_120000.wav", "s/A_20240501_120000.wav", "s/notes.wav")
    assert [each.name for each in found(*names)] == ["n/A", "n/B", "s/A"]


def test_local_times_without_a_zone_stay_without_utc_and_that_is_told() -> None:
    times = beginnings(["A_20240501_120000.wav", "B_20240501_120000Z.wav"])
    assert times.utc("A_20240501_120000.wav", 1.5) is None
    assert str(times.utc("B_20240501_120000Z.wav", 1.5)) == "2024-05-01 12:00:01.500000+00:00"
    (note,) = times.notes
    assert "(A_20240501_120000.wav: 2024-05-01 12:00:00), but not in which zone" in note
    assert "--time-zone UTC" in note


def test_a_zone_is_of_the_names_that_tell_none() -> None:
    times = beginnings(["A_20240501_120000.wav", "B_20240501_120000Z.wav", "c.wav"], zone=parse_zone("+02:00"))
    assert str(times.utc("A_20240501_120000.wav")) == "2024-05-01 10:00:00+00:00"
    assert str(times.utc("B_20240501_120000Z.wav")) == "2024-05-01 12:00:00+00:00"
    assert times.utc("c.wav") is None
    assert len(times.notes) == 2
    assert "1 names tell their zone themselves" in times.notes[0]
    assert "1 of 3 recordings are named by no time (c.wav)" in times.notes[1]


def test_an_hour_that_was_there_twice_is_told() -> None:
    (note,) = beginnings(["A_20241027_023000.wav"], zone=parse_zone("Europe/Oslo")).notes
    assert "was there twice in Europe/Oslo" in note


def test_what_finds_nothing_or_knows_no_zone_is_refused() -> None:
    with pytest.raises(InputError, match=r"none of 2 recordings fits --time-pattern .* e.g. a.wav"):
        beginnings(["a.wav", "b.wav"], PATTERN, UTC)
    with pytest.raises(UsageError, match=r"--time-zone: no recording is named by a time, e.g. a.wav"):
        beginnings(["a.wav"], zone=UTC)
    with pytest.raises(UsageError, match=r"--time-pattern: tells .* Add --time-zone UTC"):
        beginnings(["A_20240501_120000.wav"], PATTERN)
    with pytest.raises(InputError, match=r"A_20240331_023000.wav: .* never was in Europe/Oslo"):
        beginnings(["A_20240331_023000.wav"], zone=parse_zone("Europe/Oslo"))


def test_a_folder_is_read(tmp_path: Path) -> None:
    for name in ("A_20240501_120000.wav", "A_20240501_120002.wav", "x.wav"):
        soundfile.write(tmp_path / name, np.zeros(8_000), 4_000)
    times, (one,) = survey(tmp_path, zone=UTC)
    assert [part.seconds for part in one.parts] == [2, 2]
    assert one.to_dict()["recordings"][1]["time_utc"] == "2024-05-01T12:00:02+00:00"
    assert "1 of 3 recordings are named by no time (x.wav)" in times.notes[0]
    with pytest.raises(InputError, match="no such folder"):
        survey(tmp_path / "b")
