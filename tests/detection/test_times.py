"""When events began, by the names of recordings; tables of a sequence; what is odd about a deployment."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile

from edgekd.detection.detect import detect
from edgekd.errors import InputError, UsageError
from edgekd.events.tables import read_events
from tests.detection.conftest import RATE, restless

NAMES = ("A_20240501_235950.wav", "A_20240502_000000.wav", "B_20240501_120000Z.wav")


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """10 s, 12 s and 10 s of two recorders, the first recorder's around midnight; the names of the other say UTC."""
    folder = tmp_path / "buoy"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        soundfile.write(folder / name, restless(number, 12.0 if number == 1 else 10.0), RATE)
    return folder


@pytest.fixture
def asked(thresholds: dict[str, float]) -> dict[str, Any]:
    return {"thresholds": thresholds, "hop_s": 0.256}


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.txt"])
def test_events_have_the_time_at_which_they_began(
    tiny_bundle: Path, deployment: Path, asked: dict[str, Any], tmp_path: Path, name: str
) -> None:
    found = detect(tiny_bundle, [deployment], tmp_path / name, time_zone="+02:00", **asked)
    assert {event.recording.rpartition("/")[2] for event in found.events} == set(NAMES)
    begins = dict(zip(NAMES, (21 * 3600 + 59 * 60 + 50, 22 * 3600, 12 * 3600), strict=True))
    for event in read_events(tmp_path / name):
        assert event.time is not None
        assert event.time.date().isoformat() == "2024-05-01"
        time = event.time.hour * 3600 + event.time.minute * 60 + event.time.second + event.time.microsecond / 1e6
        assert time == pytest.approx(begins[event.recording.rpartition("/")[2]] + event.start, abs=1e-5)
    assert found.notes == (
        f"1 names tell their zone themselves ({deployment}/{NAMES[2]}, ...): --time-zone is of the other 2.",
    )


def test_without_a_zone_only_names_that_tell_one_have_times(
    tiny_bundle: Path, deployment: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    found = detect(tiny_bundle, [deployment], tmp_path / "d.csv", **asked)
    assert {event.recording.rpartition("/")[2] for event in read_events(tmp_path / "d.csv") if event.time} == {NAMES[2]}
    (note,) = found.notes
    assert "but not in which zone: times in UTC stay empty. Add --time-zone UTC" in note


def test_the_same_table_gets_times_without_listening_again(
    tiny_bundle: Path, deployment: Path, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = detect(tiny_bundle, [deployment], tmp_path / "d.csv", **asked)
    monkeypatch.setattr("edgekd.detection.detect.hear_file", None)
    after = detect(tiny_bundle, [deployment], tmp_path / "d.csv", time_zone="Europe/Oslo", **asked)
    assert [event.start for event in after.events] == [event.start for event in before.events]
    assert all(event.time for event in read_events(tmp_path / "d.csv"))


def test_tables_of_a_recording_are_not_mixed(
    tiny_bundle: Path, deployment: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    detect(tiny_bundle, [deployment], tmp_path / "t", time_zone="UTC", **asked)
    assert all(event.time for event in read_events(tmp_path / "t"))
    with pytest.raises(UsageError, match="was begun with time_zone 'UTC', not '-3'"):
        detect(tiny_bundle, [deployment], tmp_path / "t", time_zone="-3", **asked)


def test_a_table_for_raven_counts_through_the_sequence(
    tiny_bundle: Path, deployment: Path, asked: dict[str, Any], tmp_path: Path
) -> None:
    found = detect(tiny_bundle, [deployment], tmp_path / "d.txt", **asked)
    begins = dict(zip(NAMES, (0.0, 10.0, 22.0), strict=True))
    with open(tmp_path / "d.txt", encoding="utf-8") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    assert len(lines) == len(found.events)
    for line in lines:
        offset = float(line["File Offset (s)"])
        assert float(line["Begin Time (s)"]) == pytest.approx(begins[line["Begin File"]] + offset, abs=2e-6)
        assert float(line["End Time (s)"]) <= begins[line["Begin File"]] + 12.000_001
    assert [float(line["Begin Time (s)"]) for line in lines] == sorted(float(line["Begin Time (s)"]) for line in lines)


def test_what_is_odd_about_a_deployment_is_told(tiny_bundle: Path, deployment: Path, asked: dict[str, Any]) -> None:
    soundfile.write(deployment / "A_20240502_000112.wav", restless(4, 5.0), 2 * RATE)
    shutil.copy(deployment / NAMES[2], deployment / "B_20240501_120005Z.wav")
    (deployment / "B_20240501_130000Z.wav").write_bytes(b"no sound")
    told: list[str] = []
    found = detect(tiny_bundle, [deployment], time_zone="UTC", tell=told.append, **asked)
    assert tuple(told) == found.notes
    notes = " ".join(told)
    assert f"a gap of 1 min between {deployment}/{NAMES[1]} and {deployment}/A_20240502_000112.wav." in notes
    assert f"the rate changes from {RATE} to {2 * RATE} Hz" in notes
    assert f"{deployment}/B_20240501_120005Z.wav begins 5 s before {deployment}/{NAMES[2]} ends" in notes
    assert len(found.recordings) == 6
    assert "B_20240501_130000Z" not in notes


def test_times_are_wrong_before_anything_is_listened_to(
    tiny_bundle: Path, deployment: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.detection.detect.open_predictor", None)
    with pytest.raises(UsageError, match="'Mars' is no time zone"):
        detect(tiny_bundle, [deployment], time_zone="Mars", **asked)
    with pytest.raises(InputError, match=r"none of 3 recordings fits --time-pattern '%d%m%y %H'"):
        detect(tiny_bundle, [deployment], time_pattern="%d%m%y %H", time_zone="UTC", **asked)
