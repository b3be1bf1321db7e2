r"""Label files of Audacity: a line a label with start, end and text between tabs, a file a recording.

Below a label that was drawn in a spectrogram stands a line that begins with `\`, with the bounds of its band in Hz, -1
for one that is open. A fourth field, which BirdNET-Analyzer writes, is a score. There is no header, and a file without
labels is empty. The recording is the one that the file is named after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.errors import InputError, shown
from edgekd.escaping import legible, plain_text
from edgekd.events.columns import place
from edgekd.events.event import Event, check_times
from edgekd.files.csv_table import Line
from edgekd.files.table_text import text_of

_BAND = "\\"


def is_audacity(first: str) -> bool:
    """Whether the first line of a file is a label: two numbers and a text."""
    fields = first.split("\t")
    return len(fields) in (2, 3, 4) and all(re.fullmatch(r"\s*-?\d+([.,]\d+)?\s*", field) for field in fields[:2])


def read_audacity(table: Path, recording: str) -> list[Event]:
    """The labels of a file. Raises `InputError`, with the line, for what is none."""
    events: list[Event] = []
    bands: list[tuple[float | None, float | None]] = []
    for number, text in enumerate(re.split(r"\r\n|\r|\n", text_of(table)), 1):
        if not text.strip():
            continue
        fields = text.split("\t")
        if fields[0].strip() == _BAND:
            line = Line(table, number, dict(zip(("", "lowest Hz", "highest Hz"), fields, strict=False)), "\t")
            if not events:
                raise line.error("the bounds of a band stand before the first label.")
            low, high = (_hertz(line, name) for name in ("lowest Hz", "highest Hz"))
            bands[-1] = low, high
            continue
        line = Line(table, number, dict(zip(("start", "end", "label", "score"), fields, strict=False)), "\t")
        if len(fields) not in (2, 3, 4):
            raise line.error(f"has {len(fields)} fields between tabs; a label has start, end and text.")
        if not line.text("start") or not line.text("end"):
            raise line.error("a label begins with two numbers of seconds, its start and its end.")
        start, end = line.number_or("start", 0.0), line.number_or("end", 0.0)
        if not line.text("label"):
            raise line.error("the label has no text.")
        score = line.number_or("score", 0.0) if line.text("score") else None
        events.append(check_times(Event(recording, start, end, line.text("label"), score, where=place(line))))
        bands.append((None, None))
    return [replace(event, low_hz=low, high_hz=high) for event, (low, high) in zip(events, bands, strict=True)]


def audacity_text(events: Sequence[Event]) -> str:
    """The label file of one recording. Raises `InputError` for events of several."""
    recordings = list(dict.fromkeys(event.recording for event in events))
    if len(recordings) > 1:
        names = f"{shown(recordings[0])}, {shown(recordings[1])}"
        raise InputError(f"{names}: a label file of Audacity is of one recording. Name a folder, for a file each.")
    lines = []
    for event in sorted(events, key=lambda each: (each.start, each.end)):
        fields = [f"{event.start:.6f}", f"{event.end:.6f}", plain_text(event.label)]
        lines.append("\t".join([*fields, repr(event.score)] if event.score is not None else fields))
        if event.low_hz is not None or event.high_hz is not None:
            bounds = (f"{-1 if bound is None else bound:.6f}" for bound in (event.low_hz, event.high_hz))
            lines.append("\t".join([_BAND, *bounds]))
    return legible("".join(f"{line}\n" for line in lines))


def _hertz(line: Line, name: str) -> float | None:
    """A bound of a band, None where it is open."""
    if not line.text(name):
        raise line.error("a line that begins with \\ holds the two bounds of a band.")
    bound = line.number_or(name, -1.0)
    return bound if bound >= 0 else None
