"""Tables of events, read and written: Raven's selections, Audacity's labels, CSV, JSON lines.

What a file is, is told by what it holds. A CSV table of ours has the columns of opensoundscape's annotations and more;
JSON lines have an object a line with the same names. Both, and those of other programs, are read by what their columns
are called (`columns`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.escaping import csv_text, json_text, legible
from edgekd.events.audacity import audacity_text, is_audacity, read_audacity
from edgekd.events.columns import events_of, find_columns
from edgekd.events.event import Event
from edgekd.events.names import recording_of_table, table_of_recording
from edgekd.events.raven import raven_text, read_raven
from edgekd.files.csv_table import Line, read_lines
from edgekd.files.spelling import alike
from edgekd.files.table_text import TABLE_SUFFIXES, text_of
from edgekd.files.tables import csv_of
from edgekd.files.whole import write_text

Format = Literal["raven", "audacity", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES = (*TABLE_SUFFIXES, ".jsonl", ".ndjson")
HEADER = ("audio_file", "annotation", "start_time", "end_time", "low_f", "high_f", "score", "channel", "time_utc")

_BESIDE = {"birdnet_analysis_params.csv"}  # what BirdNET-Analyzer writes beside its tables, and is none


def read_events(
    path: Path,
    format_: str | None = None,
    label: str | None = None,
    score: str | None = None,
    audio: Path | None = None,
) -> list[Event]:
    """The events of a table, or of all tables in a folder and below it.

    `format_`: one of `FORMATS`, None: told by what the file holds. `label` and `score` name the columns of those. A
    table that names no recording is of the one that it is named after, below the folder. `audio`: the folder of the
    recordings, where it is known; which of two alike is meant, a table that lies among them tells. Raises `UsageError`
    for a format that is not known, and `InputError`, with file, line and column, for what cannot be read.
    """
    if not path.is_dir():
        return events_in(
            path, recording_of_table(path.name), format_, label, score, folder_of(path, path.parent, audio)
        )
    tables = tables_below(path)
    if not tables:
        raise InputError(f"{path}: no table ({', '.join(SUFFIXES)}) in this folder.")
    events: list[Event] = []
    for table in tables:
        recording = recording_of_table(table.relative_to(path).as_posix())
        events += events_in(table, recording, format_, label, score, folder_of(table, path, audio))
    return events


def folder_of(table: Path, place: Path, audio: Path | None) -> str:
    """The folder of a table below that of the audio, where it lies there; else below that of all tables."""
    folder = table.parent.resolve()
    for root in (audio, place):
        if root is not None and folder.is_relative_to(root.resolve()):
            return "" if folder == root.resolve() else folder.relative_to(root.resolve()).as_posix()
    return ""


def tables_below(folder: Path) -> list[Path]:
    """What is named as a table in a folder and below it, in alphabetical order."""
    return sorted(
        each
        for each in folder.rglob("*")
        if each.suffix.lower() in SUFFIXES and each.name.lower() not in _BESIDE and not each.name.startswith(".")
    )


def events_in(
    table: Path,
    recording: str,
    format_: str | None = None,
    label: str | None = None,
    score: str | None = None,
    folder: str = "",
) -> list[Event]:
    """The events of one table as `read_events` has them, of `recording` where it names none."""
    return [replace(event, folder=folder) for event in _read(table, recording, format_, label, score)]


def _read(table: Path, recording: str, format_: str | None, label: str | None, score: str | None) -> list[Event]:
    if format_ is not None and format_ not in FORMATS:
        raise unknown_name("format", format_, FORMATS)
    chosen = format_ or _recognised(table)
    if chosen == "raven":
        return read_raven(table, recording, label, score)
    if chosen == "audacity":
        return read_audacity(table, recording)
    header, lines = _json_lines(table) if chosen == "jsonl" else read_lines(table)
    if chosen == "jsonl" and not lines:
        return []
    return events_of(lines, find_columns(table, header, label, score), recording, tuple(header) == HEADER)


def kind_of(table: Path, label: str | None = None, named: bool = False) -> Format | None:
    """What a table of events is; None for one that is none: of something else, empty, or that cannot be read.

    CSV and JSON lines are if they have times, a label (in the column `label`, or a known one) and a recording, which
    they need not where they are `named` after one.
    """
    try:
        chosen = _recognised(table)
        if chosen in ("csv", "jsonl"):
            header, _ = _json_lines(table) if chosen == "jsonl" else read_lines(table)
            return chosen if find_columns(table, header, label).recording is not None or named else None
        return None if chosen == "audacity" and not is_audacity(_first_line(table)) else chosen
    except InputError:
        return None


def write_events(
    path: Path, events: Sequence[Event], format_: Format | None = None, seconds: Mapping[str, float] | None = None
) -> list[Path]:
    """Write a table, and return the files: `path`, or for Audacity, whose files are of one recording each, those in the
    folder `path` where it has no ending.

    `format_` None: by the ending, `.csv`, `.jsonl`, `.txt` (Raven's). `seconds` as in `raven_text`; each recording in
    it gets a file of Audacity's, though it have no events. Raises `UsageError` for another ending, `InputError` where
    the format cannot hold the events or a file cannot be written.
    """
    chosen = format_ or _by_ending(path)
    if chosen == "audacity" and not path.suffix:
        by_recording: dict[str, list[Event]] = {recording: [] for recording in seconds or ()}
        for event in events:
            by_recording.setdefault(event.recording, []).append(event)
        files: dict[Path, str] = {}
        for recording, of_one in by_recording.items():
            file = path / table_of_recording(recording)
            if file in files:
                raise InputError(f"{file}: labels of two recordings would be in this file. Rename one of them.")
            files[file] = audacity_text(of_one)
    else:
        text = {
            "raven": lambda: raven_text(events, seconds),
            "audacity": lambda: audacity_text(events),
            "csv": lambda: csv_of([HEADER, *([_cell(each[name]) for name in HEADER] for each in map(_values, events))]),
            "jsonl": lambda: "".join(f"{event_json(each)}\n" for each in events),
        }[chosen]()
        files = {path: text}
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    return list(files)


def _recognised(table: Path) -> Format:
    """What a file is by its first line. Raises `InputError` for an empty one that is no label file."""
    first = _first_line(table)
    if not first:
        if table.suffix.lower() == ".csv":
            raise InputError(f"{table}: is empty: a table has a header, even without events.")
        return "audacity"
    if first.lstrip().startswith("{"):
        return "jsonl"
    names = {alike(name) for name in first.split("\t")}
    if {alike("Begin Time (s)"), alike("End Time (s)")} <= names:
        return "raven"
    return "audacity" if is_audacity(first) else "csv"


def _first_line(table: Path) -> str:
    return next((line for line in re.split(r"[\r\n]+", text_of(table)) if line.strip()), "")


def _by_ending(path: Path) -> Format:
    by_ending: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".txt": "raven"}
    if path.suffix.lower() not in by_ending:
        raise UsageError(f"{path}: end its name in {', '.join(by_ending)}, or say which format it is to have.")
    return by_ending[path.suffix.lower()]


def _json_lines(table: Path) -> tuple[list[str], list[Line]]:
    """The keys of all objects, and each object as the line of a table."""
    keys: dict[str, None] = {}
    lines = []
    for number, text in enumerate(re.split(r"\r\n|\n", text_of(table)), 1):
        if not text.strip():
            continue
        line = Line(table, number, {}, ",")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as failure:
            why = "nested too deeply" if isinstance(failure, RecursionError) else failure
            raise line.error(f"not JSON ({why}).") from None
        if not isinstance(values, dict):
            raise line.error("not an object, such as {...}.")
        flat = {key: _text(value) for key, value in values.items() if not isinstance(value, dict | list)}
        lines.append(Line(table, number, flat, ","))
        keys |= dict.fromkeys(flat)
    return list(keys), lines


def _text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _values(event: Event) -> dict[str, Any]:
    """An event by the names of `HEADER`."""
    values = (event.recording, event.label, event.start, event.end, event.low_hz, event.high_hz, event.score)
    time = None if event.time is None else event.time.isoformat()
    return dict(zip(HEADER, (*values, event.channel, time), strict=True))


def _cell(value: Any) -> str:
    return csv_text(value) if isinstance(value, str) else _text(value)


def event_json(event: Event) -> str:
    """An event as a JSON object on one line, without what is not known of it."""
    values = {name: value for name, value in _values(event).items() if value is not None}
    return json_text({name: legible(value) if isinstance(value, str) else value for name, value in values.items()})


def labels_of(events: Iterable[Event]) -> list[str]:
    """The labels of some events, in alphabetical order."""
    return sorted({event.label for event in events})
