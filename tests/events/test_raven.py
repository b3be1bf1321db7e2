"""Raven's selection tables: views, sequences of files, offsets."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.events.event import Event
from edgekd.events.raven import raven_text
from edgekd.events.tables import read_events

HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def table(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "a.Table.1.selections.txt"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def test_rows_of_one_selection_in_several_views_are_one_event_with_the_band_of_the_spectrogram(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        f"{HEADER}\tSpecies",
        "1\tWaveform 1\t1\t1.0\t2.0\t0.0\t24000.0\ttug",
        "1\tSpectrogram 1\t1\t1.0\t2.0\t100.0\t900.0\ttug",
        "1\tSpectrogram 1\t2\t1.0\t2.0\t200.0\t900.0\ttug",
        "2\tSpectrogram 1\t1\t5.0\t6.0\t100.0\t900.0\ttug",
        "1\tSpectrogram 1\t1\t8.0\t9.0\t100.0\t900.0\ttug",  # of another table, put behind the first
    )
    band = {"channel": 1, "low_hz": 100.0, "high_hz": 900.0}
    assert read_events(path) == [Event("a", start, start + 1, "tug", **band) for start in (1.0, 5.0, 8.0)]


def test_a_selection_that_is_there_twice_in_the_same_view_stays_two_events(tmp_path: Path) -> None:
    row = "1\tSpectrogram 1\t1\t1.0\t2.0\t100.0\t900.0\ttug"
    assert len(read_events(table(tmp_path, f"{HEADER}\tSpecies", row, row))) == 2


def test_the_offset_in_the_file_counts_and_not_the_time_in_the_sequence(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        f"{HEADER}\tBegin File\tFile Offset (s)\tAnnotation",
        "1\tSpectrogram 1\t1\t10.0\t12.5\t1\t2\ta.wav\t10.0\ttug",
        "2\tSpectrogram 1\t1\t610.0\t612.5\t1\t2\tb.wav\t10.0\ttug",
    )
    assert [(each.recording, each.start, each.end) for each in read_events(path)] == [
        ("a.wav", 10.0, 12.5),
        ("b.wav", 10.0, 12.5),
    ]


def test_the_whole_path_is_the_recording_where_it_was_measured(tmp_path: Path) -> None:
    row = "1\tSpectrogram 1\t1\t1\t2\t1\t2\tC:\\rec\\site 1\\a.wav\ta.wav\t1\ttug"
    path = table(tmp_path, f"{HEADER}\tBegin Path\tBegin File\tFile Offset (s)\tAnnotation", row)
    assert read_events(path)[0].recording == "C:/rec/site 1/a.wav"
    row = "1\tSpectrogram 1\t1\t1\t2\t1\t2\tC:\\rec\\site 1\\\ta.wav\t1\ttug"
    assert read_events(table(tmp_path, path.read_text().splitlines()[0], row))[0].recording == "C:/rec/site 1/a.wav"


def test_a_selection_that_ends_in_the_next_file_says_so(tmp_path: Path) -> None:
    row = "1\tSpectrogram 1\t1\t59\t62\t1\t2\ta.wav\tb.wav\t59\ttug"
    path = table(tmp_path, f"{HEADER}\tBegin File\tEnd File\tFile Offset (s)\tAnnotation", row)
    (event,) = read_events(path)
    assert (event.recording, event.end, event.ends_in) == ("a.wav", 62.0, "b.wav")


def test_times_of_several_files_without_offsets_are_in_the_file_where_they_lie_among_each_other(tmp_path: Path) -> None:
    header = f"{HEADER}\tBegin File\tAnnotation"
    rows = [f"{n}\tSpectrogram 1\t1\t{begin}\t{begin + 3}\t1\t2\t{file}\ttug" for n, (file, begin) in enumerate(
        [("a.wav", 0), ("a.wav", 9), ("b.wav", 3), ("b.wav", 6)]
    )]  # fmt: skip
    assert [event.start for event in read_events(table(tmp_path, header, *rows))] == [0, 9, 3, 6]


def test_times_of_several_files_that_may_count_from_the_first_are_refused(tmp_path: Path) -> None:
    header = f"{HEADER}\tBegin File\tAnnotation"
    rows = [f"{n}\tSpectrogram 1\t1\t{begin}\t{begin + 3}\t1\t2\t{file}\ttug" for n, (file, begin) in enumerate(
        [("a.wav", 0), ("a.wav", 9), ("b.wav", 63), ("b.wav", 66)]
    )]  # fmt: skip
    path = table(tmp_path, header, *rows)
    with pytest.raises(InputError, match=r"names 'a\.wav' and 'b\.wav', but has no File Offset \(s\)"):
        read_events(path)
    assert [event.start for event in read_events(path, "csv")] == [0, 9, 63, 66]


def test_the_line_that_stands_for_no_detections_is_none(tmp_path: Path) -> None:
    header = f"{HEADER}\tCommon Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)"
    row = "1\tSpectrogram 1\t1\t0\t3\t0\t15000\tnocall\tnocall\t1.0\t/data/a.wav\t0"
    assert read_events(table(tmp_path, header, row)) == []


def test_quotes_of_a_spreadsheet_are_taken_away_and_those_of_a_label_kept(tmp_path: Path) -> None:
    rows = ['1\tSpectrogram 1\t1\t1\t2\t1\t2\t"tug, ""small"""', '2\tSpectrogram 1\t1\t3\t4\t1\t2\t"big" tug']
    labels = [
        event.label for event in read_events(table(tmp_path, f'{HEADER}\t"Call, type"', *rows), label="Call, type")
    ]
    assert labels == ['tug, "small"', '"big" tug']


def test_what_is_written_can_be_opened_both_ways_and_columns_are_those_that_others_read(tmp_path: Path) -> None:
    events = [
        Event("s/b.wav", 1.25, 2.5, "tug", 0.5, 2, 10.0, 90.0),
        Event("s/a.wav", 59.0, 61.0, "whale", ends_in="b.wav"),
    ]
    text = raven_text(events, {"s/a.wav": 60.0, "s/b.wav": 60.0})
    header, first, second = (line.split("\t") for line in text.splitlines())
    one, two = (dict(zip(header, row, strict=True)) for row in (first, second))
    assert {"Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation"} <= set(header)
    assert (one["Selection"], one["Begin Time (s)"], one["End Time (s)"], one["File Offset (s)"]) == (
        "1",
        "59",
        "61",
        "59",
    )
    assert (one["Begin File"], one["End File"]) == ("a.wav", "b.wav")
    assert (two["Begin Time (s)"], two["End Time (s)"], two["File Offset (s)"]) == ("61.25", "62.5", "1.25")
    assert (two["Begin Path"], two["Channel"], two["View"]) == ("s/b.wav", "2", "Spectrogram 1")
    (tmp_path / "t.txt").write_text(text)
    assert [
        (each.recording, each.start, each.end, each.label, each.ends_in) for each in read_events(tmp_path / "t.txt")
    ] == [
        ("s/a.wav", 59.0, 61.0, "whale", "b.wav"),
        ("s/b.wav", 1.25, 2.5, "tug", None),
    ]


def test_events_of_several_recordings_need_their_lengths() -> None:
    events = [Event("a.wav", 1, 2, "tug"), Event("b.wav", 1, 2, "tug")]
    with pytest.raises(InputError, match=r"a\.wav, b\.wav: one table for Raven counts times from the beginning"):
        raven_text(events)
    with pytest.raises(InputError, match=r"b\.wav: its length is not known"):
        raven_text(events, {"a.wav": 60.0})


def test_a_small_time_has_no_exponent() -> None:
    assert "\t0.00001\t" in raven_text([Event("a.wav", 1e-5, 100_000.0, "tug")])
