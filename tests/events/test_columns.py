"""Tables of other programs, and what is said of one that is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.events.event import Event
from edgekd.events.tables import read_events

OPENSOUNDSCAPE = (
    "audio_file,annotation_file,annotation,start_time,end_time,low_f,high_f,Notes\n"
    "rec/a.wav,a.txt,tug,1.5,3.0,100.0,900.0,near\n"
)
BIRDNET = "Start (s),End (s),Scientific name,Common name,Confidence,File\n1.5,3.0,Tursiops,tug,0.8123,rec/a.wav\n"
BIRDNET_GO = (
    "Selection\tView\tChannel\tBegin File\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies Code\t"
    "Common Name\tConfidence\n1\tSpectrogram 1\t1\trec/a.wav\t1.5\t3.0\t0\t15000\ttg\ttug\t0.8123\n"
)
KALEIDOSCOPE = (
    "INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name,confidence,lat,lon,week,overlap,sensitivity\n"
    "data,rec,a.wav,1.5,1.5,Tursiops,tug,0.8123,-1,-1,-1,0,1\n"
)
KETOS = "filename,start,end,label,score\nrec/a.wav,1.5,3.0,tug,0.8123\n"
DCASE = "filename\tonset\toffset\tevent_label\nrec/a.wav\t1.5\t3.0\ttug\n"
SPREADSHEET = "Datei;file;start_s;end_s;class\nx;rec\\a.wav;1,5;3,0;tug\n"


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (OPENSOUNDSCAPE, {"low_hz": 100.0, "high_hz": 900.0}),
        (BIRDNET, {"score": 0.8123}),
        (BIRDNET_GO, {"score": 0.8123, "low_hz": 0.0, "high_hz": 15_000.0, "channel": 1}),
        (KALEIDOSCOPE, {"score": 0.8123}),
        (KETOS, {"score": 0.8123}),
        (DCASE, {}),
        (SPREADSHEET, {}),
    ],
)
def test_tables_of_other_programs_are_read_by_their_columns(tmp_path: Path, text: str, more: dict) -> None:
    assert read_events(written(tmp_path, text)) == [Event("rec/a.wav", 1.5, 3.0, "tug", **more)]


def test_of_several_names_of_a_species_the_common_one_is_the_label_unless_another_is_named(tmp_path: Path) -> None:
    table = written(tmp_path, BIRDNET)
    assert read_events(table)[0].label == "tug"
    assert read_events(table, label="scientific NAME")[0].label == "Tursiops"


def test_a_column_under_any_name_can_hold_the_labels_and_the_scores(tmp_path: Path) -> None:
    table = written(tmp_path, "file,start,end,what,how sure\na.wav,1,2,tug,0.5\n")
    assert read_events(table, label="what", score="How sure") == [Event("a.wav", 1, 2, "tug", 0.5)]


def test_a_table_that_names_no_recording_is_of_the_one_it_is_named_after(tmp_path: Path) -> None:
    table = written(tmp_path, "start,end,label\n1,2,tug\n", "a.wav.csv")
    assert read_events(table) == [Event("a.wav", 1, 2, "tug")]


def test_a_table_with_a_header_alone_has_no_events(tmp_path: Path) -> None:
    assert read_events(written(tmp_path, "file,start,end,label\n")) == []


def test_times_have_a_zone_that_the_column_says_or_the_value(tmp_path: Path) -> None:
    header = "file,start,end,label,time_utc\n"
    text = f"{header}a.wav,1,2,tug,2024-05-01T12:00:00\na.wav,3,4,tug,2024-05-01T14:00:00+02:00\na.wav,5,6,tug,\n"
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert [event.time for event in read_events(written(tmp_path, text))] == [noon, noon, None]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,start,end,label\na.wav,1,x,tug\n", r", line 2: end must be a number, not 'x'\."),
        ("file,start,end,label\na.wav,1,inf,tug\n", r", line 2: end must be a number, not 'inf'\."),
        ("file,start,end,label\n\na.wav,,2,tug\n", r", line 3: start is empty: it must be a number of seconds\."),
        ("file,start,end,label\na.wav,3,2,tug\n", r", line 2: ends at 2 s, before it begins \(3 s\)"),
        ("file,start,end,label\na.wav,1,2,\n", r", line 2: label is empty: an event needs a label\."),
        ("file,start,end,label\n,1,2,tug\n", r", line 2: file is empty: which recording is it\?"),
        ("file,start,end,label,score\na.wav,1,2,tug,high\n", r", line 2: score must be a number, not 'high'\."),
        (
            "file,start,end,label,channel\na.wav,1,2,tug,1.5\n",
            r", line 2: channel must be a whole number, not '1\.5'\.",
        ),
        (
            "file,start,end,label,time_utc\na.wav,1,2,tug,noon\n",
            r", line 2: time_utc must be a time such as .*'noon'\.",
        ),
        ("file,begin,label\na.wav,1,tug\n", r": no column says when an event ends .* There are: file, begin, label\."),
        ("path,label\na.wav,tug\n", r": no column says when an event starts .* There are: path, label\."),
        (
            "file,start,end,notes\na.wav,1,2,x\n",
            r": no known column holds the labels\. Name it \(--label, --truth-label, data",
        ),
        ("file,start,end,label\na.wav,1,2\n", r", line 2: has 3 values for 4 columns\."),
        ("", r": is empty: a table has a header"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_column(tmp_path: Path, text: str, told: str) -> None:
    table = written(tmp_path, text)
    with pytest.raises(InputError, match=told) as refused:
        read_events(table)
    assert str(refused.value).startswith(str(table))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("role", ["label", "score"])
def test_a_column_that_is_named_and_not_there_is_refused(tmp_path: Path, role: str) -> None:
    with pytest.raises(InputError, match=rf"no column 'kind' for the {role}\. There are: "):
        read_events(written(tmp_path, KETOS), **{role: "kind"})
