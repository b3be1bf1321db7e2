"""Each format gives back what was written, and is recognised by what it holds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekd.errors import InputError, UsageError
from edgekd.events.event import Event
from edgekd.events.tables import FORMATS, read_events, write_events

EVENTS = [
    Event("site 1/a.wav", 0.0, 2.25, "tug", 0.1 + 0.2, 2, 100.5, 900.0, datetime(2024, 5, 1, 12, 0, 1, tzinfo=UTC)),
    Event("site 1/a.wav", 3.5, 3.5, "Größe, „µ“"),
    Event("site 1/a.wav", 59.0, 60.0, "tug", -7.5, low_hz=10.0),
    Event("site 2/b.wav", 0.125, 1.0, "whale", 1e-9),
]
SECONDS = {"site 1/a.wav": 60.0, "site 2/b.wav": 10.0}


def kept(event: Event, format_: str) -> Event:
    """What a format can hold of an event."""
    if format_ == "raven":
        return replace(event, channel=event.channel or 1)  # it has always one
    if format_ == "audacity":
        return replace(event, recording=event.recording.removesuffix(".wav"), channel=None, time=None)
    return event


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_written_is_read_back(tmp_path: Path, format_: str) -> None:
    path = tmp_path / {"csv": "t.csv", "jsonl": "t.jsonl", "raven": "t.txt", "audacity": "labels"}[format_]
    files = write_events(path, EVENTS, format_, SECONDS)
    assert all(file.is_file() for file in files)
    assert read_events(path) == [kept(event, format_) for event in EVENTS]


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_names_that_mean_something_to_a_spreadsheet_or_a_terminal_are_read_back(tmp_path: Path, format_: str) -> None:
    names = ["=1+1", "-tug", "two\nlines", "a\tb", 'say "x"', "a,b", "\x1b[31m", "\\x41", "'=x", " \u202e"]
    events = [Event(f"{name.strip().replace(chr(92), '')}.wav", 1.0, 2.0, name.strip()) for name in names]
    write_events(tmp_path / f"t.{format_}", events)
    assert read_events(tmp_path / f"t.{format_}") == events
    assert "\x1b" not in (tmp_path / f"t.{format_}").read_text()


def test_a_label_cannot_add_a_line_or_a_column_to_a_table_of_raven(tmp_path: Path) -> None:
    write_events(tmp_path / "t.txt", [Event("a.wav", 1, 2, "two\nlines\tand more")])
    assert [event.label for event in read_events(tmp_path / "t.txt")] == ["two lines and more"]


def test_tables_without_events_are_read_back(tmp_path: Path) -> None:
    for name in ("t.csv", "t.jsonl", "t.txt"):
        write_events(tmp_path / name, [])
        assert read_events(tmp_path / name) == []


def test_a_recording_without_events_has_a_label_file_too(tmp_path: Path) -> None:
    files = write_events(tmp_path / "labels", EVENTS[:1], "audacity", SECONDS)
    assert [file.relative_to(tmp_path / "labels").as_posix() for file in files] == ["site 1/a.txt", "site 2/b.txt"]
    assert files[1].read_bytes() == b""


def test_label_files_of_two_recordings_do_not_become_one(tmp_path: Path) -> None:
    events = [Event("a.wav", 1, 2, "tug"), Event("a.flac", 1, 2, "tug")]
    with pytest.raises(InputError, match=r"a\.txt: labels of two recordings would be in this file"):
        write_events(tmp_path / "labels", events, "audacity")
    assert not (tmp_path / "labels").exists()


def test_label_files_are_named_after_recordings_without_an_ending_too(tmp_path: Path) -> None:
    events = [Event(f"site/2024.05.0{day}", 1, 2, "tug") for day in (1, 2)]
    files = write_events(tmp_path, events, "audacity")
    assert [file.name for file in files] == ["2024.05.01.txt", "2024.05.02.txt"]
    assert read_events(tmp_path) == events


@pytest.mark.parametrize("name", ["../a.wav", "site/../../a.wav", "..", "/"])
def test_label_files_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no table can be named after this recording"):
        write_events(tmp_path / "labels", [Event(name, 1, 2, "tug")], "audacity")
    assert list(tmp_path.iterdir()) == []


def test_the_ending_says_the_format_and_another_is_refused(tmp_path: Path) -> None:
    write_events(tmp_path / "t.txt", EVENTS[:1])
    assert (tmp_path / "t.txt").read_text().startswith("Selection\t")
    with pytest.raises(UsageError, match=r"end its name in \.csv, \.jsonl, \.txt"):
        write_events(tmp_path / "t.xlsx", EVENTS)


def test_the_format_can_be_said_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1\t2\ttug\n")
    assert read_events(tmp_path / "t.txt", "audacity") == [Event("t", 1, 2, "tug")]
    with pytest.raises(InputError, match=r"no column says when an event starts"):
        read_events(tmp_path / "t.txt", "raven")
    with pytest.raises(UsageError, match=r"Unknown format 'ravn'\. Did you mean 'raven'\?"):
        read_events(tmp_path / "t.txt", "ravn")


def test_a_folder_is_all_its_tables_each_of_the_recording_it_is_named_after(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1" / "a.BirdNET.results.txt").write_text("1\t2\ttug\t0.5\n")
    (tmp_path / "b.Table.1.selections.txt").write_text(
        "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t1\t2\ttug\n"
    )
    (tmp_path / "c.wav.jsonl").write_text('{"start": 1, "end": 2, "label": "tug"}\n')
    (tmp_path / "BirdNET_analysis_params.csv").write_text("File splitting duration\n600\n")
    (tmp_path / ".hidden.csv").write_text("nothing\n")
    (tmp_path / "notes.md").write_text("nothing\n")
    assert [event.recording for event in read_events(tmp_path)] == ["b", "c.wav", "s1/a"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no table \(\.csv, "):
        read_events(tmp_path / "empty")


def test_json_lines_of_others_are_read_by_their_names(tmp_path: Path) -> None:
    lines = [
        {"file": "a.wav", "onset": 1, "offset": 2.5, "species": 7, "box": [1, 2], "confidence": 0.5, "high_f": None},
        {"species": "tug", "onset": 3.0, "offset": 4, "file": "b.wav", "confidence": 1},
    ]
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert read_events(tmp_path / "t.jsonl") == [
        Event("a.wav", 1, 2.5, "7", 0.5),
        Event("b.wav", 3, 4, "tug", 1.0),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", r"line 2: not JSON \("),
        ("[1]", r"line 2: not an object"),
        ("[" * 100_000, r"line 2: not JSON \("),
        ('{"file": "a", "start": true, "end": 2, "label": "x"}', r"line 2: start must be a number, not 'True'"),
        ('{"file": "a", "start": [1], "end": 2, "label": "x"}', r"line 2: start is empty"),
        ('{"file": "a", "start": ' + "7" * 5000 + ', "end": 2, "label": "x"}', r"line 2: not JSON \("),
        ('{"file": "a", "start": 1, "end": 1e999, "label": "x"}', r"line 2: end must be a number, not 'inf'"),
        ('{"file": "a", "start": 1, "end": 2}', r"line 2: label is empty"),
    ],
)
def test_a_mistake_in_json_lines_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"file": "a.wav", "start": 1, "end": 2, "label": "x"}}\n{line}\n')
    with pytest.raises(InputError, match=told):
        read_events(tmp_path / "t.jsonl")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_events(tmp_path / "gone.csv")
