"""Tables of events with a header: which column holds what, in whoever's words, and each line as an event.

Columns are known by the names that viewers and programs give them (opensoundscape, BirdNET, ketos, Kaleidoscope,
sed_eval and the DCASE challenges, Raven), without regard to case and blanks. A label or score under another name is
named by whoever reads the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgekd.errors import InputError, shown
from edgekd.escaping import from_csv_text
from edgekd.events.event import Event, check_times
from edgekd.files.csv_table import Line
from edgekd.files.spelling import alike

# By role, the names of columns; the first that a table has counts.
NAMES = {
    "recording": (
        *("audio_file", "file", "filename", "file_name", "path", "file_path", "filepath", "recording"),
        *("audio_filename", "begin path", "begin file", "in file", "sound.files", "wav", "soundfile"),
    ),
    "file": ("begin file",),
    "folder": ("folder",),
    "start": (
        *("start_time", "start", "start_s", "start (s)", "start_seconds", "onset", "event_onset"),
        *("begin_time", "begin time (s)", "begin_s", "begin"),
    ),
    "end": (
        *("end_time", "end", "end_s", "end (s)", "end_seconds", "offset", "event_offset"),
        *("end time (s)", "stop", "stop_time"),
    ),
    "length": ("duration", "duration (s)", "duration_s", "delta time (s)"),
    "label": (
        *("annotation", "label", "class", "event_label", "species", "common name", "common_name", "scientific name"),
        *("scientific_name", "species_name", "class_name", "call type", "call_type", "sound type", "sound_type"),
        *("species code", "species_code", "tag", "tags", "type", "name"),
    ),
    "score": ("score", "confidence", "probability", "event_probability", "conf"),
    "channel": ("channel",),
    "low": ("low_f", "low_hz", "low freq (hz)", "freq_min", "min_freq", "low_frequency", "fmin", "low_freq"),
    "high": ("high_f", "high_hz", "high freq (hz)", "freq_max", "max_freq", "high_frequency", "fmax", "high_freq"),
    "time": ("time_utc",),
}
_ROLES = tuple(NAMES.items())


@dataclass(frozen=True)
class Columns:
    """The column of each role in a table, as its header spells it; None where it has none."""

    start: str
    label: str
    end: str | None
    length: str | None
    recording: str | None = None
    file: str | None = None
    folder: str | None = None
    score: str | None = None
    channel: str | None = None
    low: str | None = None
    high: str | None = None
    time: str | None = None


def find_columns(table: Path, header: Sequence[str], label: str | None = None, score: str | None = None) -> Columns:
    """Which column of `header` holds what; `label` and `score` name theirs. Raises `InputError` for one missing."""
    spelled = {alike(name): name for name in reversed(header) if name}
    found = {role: next((spelled[key] for key in map(alike, names) if key in spelled), None) for role, names in _ROLES}
    if found["length"] and alike(found["end"] or "") == "offset" and found["start"] is None:
        found["start"], found["end"] = found["end"], None  # Kaleidoscope's OFFSET is where an event begins
    if label is not None:
        found["label"] = _named(table, spelled, label, "label")
    if score is not None:
        found["score"] = _named(table, spelled, score, "score")
    there = f"There are: {', '.join(name for name in header if name)}." if any(header) else "It has no header."
    if found["start"] is None or (found["end"] is None and found["length"] is None):
        what = "start" if found["start"] is None else "end"
        raise InputError(f"{table}: no column says when an event {what}s (start_time, end_time). {there}")
    if found["label"] is None:
        raise InputError(
            f"{table}: no known column holds the labels. Name it (--label, --truth-label, data.selections.label). "
            f"{there}"
        )
    start, label_column = found.pop("start"), found.pop("label")
    assert start is not None
    assert label_column is not None
    return Columns(start=start, label=label_column, **found)


def events_of(lines: Iterable[Line], columns: Columns, recording: str, decode: bool = False) -> list[Event]:
    """Each line as an event, of `recording` where the table has no column for it.

    `decode`: cells are as `escaping.csv_text` writes them. Raises `InputError`, with the line and the column.
    """
    return [check_times(_event(line, columns, recording, decode)) for line in lines]


def recording_in(line: Line, columns: Columns, otherwise: str, decode: bool = False) -> str:
    """The recording that a line names, with `/` between folders, `decode` as `events_of` has it. Raises `InputError`
    where it is empty."""
    if columns.recording is None:
        return otherwise
    name = from_csv_text(line.text(columns.recording)) if decode else posix(line.text(columns.recording))
    if columns.file is not None and columns.file != columns.recording:  # a path with the file, or of its folder alone
        file = posix(line.text(columns.file))
        name = name if not file or f"/{name}".endswith(f"/{file}") else f"{name}/{file}".lstrip("/")
    if columns.folder is not None and alike(columns.recording) == alike("in file") and line.text(columns.folder):
        name = f"{posix(line.text(columns.folder))}/{name}"
    if not name:
        raise line.error(f"{columns.recording} is empty: which recording is it?")
    return name


def label_in(line: Line, columns: Columns) -> str:
    """The label of a line. Raises `InputError` where it is empty."""
    label = line.text(columns.label)
    if not label:
        raise line.error(f"{columns.label} is empty: an event needs a label.")
    return label


def number_in(line: Line, column: str | None) -> float | None:
    """A number, None where the column or its value is not there. Raises `InputError` for what is none."""
    if column is None or line.text(column).casefold() in ("", "nan", "none", "na", "n/a"):
        return None
    return line.number_or(column, 0.0)


def needed_number(line: Line, column: str) -> float:
    """A number. Raises `InputError` where there is none."""
    number = number_in(line, column)
    if number is None:
        raise line.error(f"{column} is empty: it must be a number of seconds.")
    return number


def channel_in(line: Line, columns: Columns) -> int | None:
    """The channel, from 1, None where it is not said. Raises `InputError` for what is no whole number."""
    known = columns.channel is not None and number_in(line, columns.channel) is not None
    return line.whole(columns.channel) if known and columns.channel is not None else None


def posix(path: str) -> str:
    """A path as tables have it, with `/` between folders, none at its end, and no `./` before it."""
    return path.replace("\\", "/").removeprefix("./").rstrip("/")


def _event(line: Line, columns: Columns, recording: str, decode: bool) -> Event:
    start = needed_number(line, columns.start)
    if columns.end is not None:
        end = needed_number(line, columns.end)
    else:
        assert columns.length is not None
        end = start + needed_number(line, columns.length)
    label = label_in(line, columns)
    return Event(
        recording=recording_in(line, columns, recording, decode),
        start=start,
        end=end,
        label=from_csv_text(label) if decode else label,
        score=number_in(line, columns.score),
        channel=channel_in(line, columns),
        low_hz=number_in(line, columns.low),
        high_hz=number_in(line, columns.high),
        time=time_in(line, columns),
        where=place(line),
    )


def place(line: Line) -> str:
    """Where a line is, for messages."""
    return f"{line.table}, line {line.number}"


def time_in(line: Line, columns: Columns) -> datetime | None:
    """When the event begins, in UTC, None where that is not said. Raises `InputError` for what is no time."""
    column = columns.time
    if column is None or not (text := line.text(column)):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise line.error(f"{column} must be a time such as 2024-05-01T12:00:00Z, not {shown(text)}.") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _named(table: Path, spelled: dict[str, str], name: str, role: str) -> str:
    if alike(name) not in spelled:
        there = ", ".join(reversed(spelled.values()))  # of two alike the first counts, so they were taken from the end
        raise InputError(f"{table}: no column {shown(name)} for the {role}. There are: {there}.")
    return spelled[alike(name)]
