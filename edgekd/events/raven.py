"""Selection tables of Raven: text with tabs, a line a selection, or several of one selection in several views.

Raven lays the files that are open one behind the other, and `Begin Time (s)` counts from the beginning of the first.
Where `Begin File` (or `Begin Path`) and `File Offset (s)` are measured, they say in which file a selection begins and
how far from its beginning: they count here, and `End Time (s)` less `Begin Time (s)` is its length. Raven itself goes
by the one or the other, as a table is opened: as a selection table by the times, as a sound selection table by file and
offset. So a table that is written here has both, and they agree.

Without an offset the times are those in the file where a table is of one file. Where it names several, and times of one
lie among those of another, they can only be counted in each file; where they do not, the table does not say, and is
refused.

Raven puts no quotes around a value. A spreadsheet that saves the table does, around one with a comma or quotes in it:
such are taken away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from edgekd.errors import InputError, shown
from edgekd.escaping import legible, plain_text
from edgekd.events.columns import (
    Columns,
    channel_in,
    find_columns,
    label_in,
    needed_number,
    number_in,
    place,
    posix,
    recording_in,
    time_in,
)
from edgekd.events.event import Event, check_times
from edgekd.files.csv_table import Line, read_lines
from edgekd.files.spelling import alike

BEGIN, END, OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
_KNOWN = ("Selection", "View", "Channel", BEGIN, END, OFFSET, "Begin File", "Begin Path", "End File")
_HEADER = (
    *("Selection", "View", "Channel", BEGIN, END, "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin File", OFFSET, "Begin Path", "End File", "Annotation", "Score", "time_utc"),
)
_NO_CALL = "nocall"  # what BirdNET-Analyzer writes into a table without detections, so that it has a line


def read_raven(table: Path, recording: str, label: str | None = None, score: str | None = None) -> list[Event]:
    """The selections of a table, in its order; of `recording` where no column names a file.

    Raises `InputError`, with the line, for what is no such table, and for times that may count from two beginnings.
    """
    header, lines = read_lines(table, _KNOWN, quoted=False)
    header = [_unquoted(name) for name in header]
    lines = [_line_unquoted(line) for line in lines]
    columns = find_columns(table, header, label, score)
    columns = replace(columns, start=BEGIN, end=END)
    for name in (BEGIN, END):
        if name not in header:
            raise InputError(f"{table}: no column {name}, which a selection table of Raven has.")
    lines = [line for line in _one_each(lines, columns) if not _is_dummy(line, columns)]
    events = [_event(line, columns, recording) for line in lines]
    _check_beginnings(lines, events)
    return [check_times(event) for event in events]


def raven_text(events: Sequence[Event], seconds: Mapping[str, float] | None = None) -> str:
    """A selection table. `seconds`: the length of each recording, by name, in the order in which Raven is to open them;
    events of several need it, as `Begin Time (s)` counts from the beginning of the first.

    Raises `InputError` for events of a recording whose place in the sequence is not known.
    """
    recordings = list(dict.fromkeys(event.recording for event in events))
    begins = _begins(recordings, seconds)
    lines = ["\t".join(_HEADER)]
    for number, event in enumerate(sorted(events, key=lambda each: begins[each.recording] + each.start), 1):
        begin = begins[event.recording]
        cells = (
            str(number),
            "Spectrogram 1",
            str(event.channel or 1),
            _number(begin + event.start),
            _number(begin + event.end),
            _number(event.low_hz),
            _number(event.high_hz),
            event.recording.rpartition("/")[2],
            _number(event.start),
            event.recording,
            (event.ends_in or event.recording).rpartition("/")[2],
            event.label,
            "" if event.score is None else repr(event.score),
            "" if event.time is None else event.time.isoformat(),
        )
        lines.append("\t".join(legible(plain_text(cell)) for cell in cells))
    return "\n".join(lines) + "\n"


def _begins(recordings: Sequence[str], seconds: Mapping[str, float] | None) -> dict[str, float]:
    """Where each recording begins in the sequence, in seconds."""
    if seconds is None:
        if len(recordings) > 1:
            raise InputError(
                f"{recordings[0]}, {recordings[1]}: one table for Raven counts times from the beginning of the first, "
                "so the length of each recording is needed. Write a table for each, or give the audio."
            )
        return dict.fromkeys(recordings, 0.0)
    begins, begin = {}, 0.0
    for recording, length in seconds.items():
        begins[recording] = begin
        begin += length
    for recording in recordings:
        if recording not in begins:
            raise InputError(f"{recording}: its length is not known, so neither where it begins in a sequence.")
    return begins


def _line_unquoted(line: Line) -> Line:
    values = {_unquoted(name): _unquoted(value) for name, value in line.values.items()}
    return Line(line.table, line.number, values, line.separator)


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"' and '"' not in value[1:-1].replace('""', ""):
        return value[1:-1].replace('""', '"')
    return value


def _number(value: float | None) -> str:
    """To the microsecond, without an exponent, as Raven reads it; empty for None."""
    return "" if value is None else f"{value:.6f}".rstrip("0").removesuffix(".")


def _one_each(lines: Iterable[Line], columns: Columns) -> list[Line]:
    """One line of each selection: Raven writes one for every view that shows it, and every channel of it."""
    kept: dict[tuple[str, ...], Line] = {}
    views: defaultdict[tuple[str, ...], set[tuple[str, str]]] = defaultdict(set)
    copies: list[Line] = []
    for line in lines:
        same = (BEGIN, END, OFFSET, "Begin File", "Begin Path", columns.label)
        key = (line.text("Selection"), *(line.text(name) for name in same))
        view = (line.text("View"), line.text("Channel"))
        if not key[0] or view in views[key] or key not in kept:
            copies += [line] if key in kept else []
            kept.setdefault(key, line)
        elif alike(line.text("View")).startswith("spectrogram") and not _shows_band(kept[key]):
            kept[key] = line
        views[key].add(view)
    return sorted([*kept.values(), *copies], key=lambda line: line.number)


def _shows_band(line: Line) -> bool:
    return alike(line.text("View")).startswith("spectrogram")


def _is_dummy(line: Line, columns: Columns) -> bool:
    return line.text(columns.label).casefold() == _NO_CALL


def _event(line: Line, columns: Columns, recording: str) -> Event:
    begin, end = needed_number(line, BEGIN), needed_number(line, END)
    named = columns.recording is not None
    offset = number_in(line, OFFSET) if named else None
    name = recording_in(line, columns, recording)
    last = posix(line.text("End File")).rpartition("/")[2]
    return Event(
        recording=name,
        start=begin if offset is None else offset,
        end=end if offset is None else offset + (end - begin),
        label=label_in(line, columns),
        score=number_in(line, columns.score),
        channel=channel_in(line, columns),
        low_hz=number_in(line, columns.low),
        high_hz=number_in(line, columns.high),
        time=time_in(line, columns),
        ends_in=last if last and last != name.rpartition("/")[2] else None,
        where=place(line),
    )


def _check_beginnings(lines: Sequence[Line], events: Sequence[Event]) -> None:
    """Raises `InputError` where the times of several recordings, without offsets, may count from the first's beginning:
    where each recording's lie behind those of another."""
    spans: dict[str, tuple[float, float]] = {}
    for line, event in zip(lines, events, strict=True):
        if not line.text(OFFSET):
            first, last = spans.get(event.recording, (event.start, event.start))
            spans[event.recording] = min(first, event.start), max(last, event.start)
    ordered = sorted(spans.items(), key=lambda item: item[1])
    if any(begin < last for (_, (_, last)), (_, (begin, _)) in pairwise(ordered)):
        return
    if len(ordered) > 1:
        table, (one, _), (other, _) = lines[0].table, *ordered[:2]
        raise InputError(
            f"{table}: names {shown(one)} and {shown(other)}, but has no {OFFSET}, so {BEGIN} may count from the "
            "beginning of the first. Add that measurement in Raven, or say that each counts in its own file: "
            "--format csv (--truth-format csv, data.selections.format=csv)."
        )
