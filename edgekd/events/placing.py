"""Events brought together with the audio that they are of: each has the name of a recording that is there, and lies
within it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.errors import InputError, shown
from edgekd.events.event import Event
from edgekd.events.names import RecordingNames
from edgekd.files.spelling import alike, difference

Name = tuple[str, str]
"""The folder of a table, and what it calls a recording."""
ROUNDED_SECONDS = 0.01
"""How far behind the end of its recording a true event may end: its time may have been rounded to two digits."""


def meant(events: Iterable[Event], known: RecordingNames) -> dict[Name, str | None]:
    """What each name means in the tables of each folder. Raises `InputError`, with the line, for one that may mean
    several."""
    names: dict[Name, str | None] = {}
    for event in events:
        name = event.folder, event.recording
        if name not in names:
            try:
                names[name] = known.find(event.recording, event.folder)
            except InputError as several:
                raise event.error(str(several)) from None
    return names


def renamed(events: Sequence[Event], known: RecordingNames, audio: Path | None) -> list[Event]:
    """The events under the names that the recordings in the folder `audio` are `known` by. Raises `InputError`, with
    the line, for one of a recording that is not there, or may be several."""
    names = meant(events, known)
    missing = [event for event in events if names[event.folder, event.recording] is None]
    if missing:
        count = len({event.recording for event in missing})
        raise missing[0].error(
            f"{shown(missing[0].recording)}: no such recording in {audio} ({count} missing in all). "
            "Add it, or take its lines out."
        )
    return [replace(event, recording=names[event.folder, event.recording] or event.recording) for event in events]


def told_apart(events: Sequence[Event]) -> list[Event]:
    """The events, those of recordings that tables in two folders call alike with the folder in the name: without the
    audio nothing else says that they are two."""
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        folders[event.recording].add(event.folder)
    return [
        replace(event, recording=f"{event.folder}/{event.recording}")
        if event.folder and "/" not in event.recording and len(folders[event.recording]) > 1
        else event
        for event in events
    ]


def begins_within(event: Event, seconds: Mapping[str, float]) -> Event:
    """The event itself. Raises `InputError` where it begins behind the end of its recording."""
    length = seconds[event.recording]
    if event.start >= length and not (event.start == event.end == length):
        raise event.error(
            f"begins at {event.start:g} s of {event.recording}, which is {length:.3f} s long. Is it of another "
            "recording, or does its time count from the beginning of a sequence?"
        )
    return event


def within(event: Event, seconds: Mapping[str, float]) -> Event:
    """A true event as far as its recording goes. Raises `InputError` where it does not belong there."""
    length = seconds[begins_within(event, seconds).recording]
    if event.end > length + ROUNDED_SECONDS and event.ends_in is None:
        raise event.error(
            f"ends at {event.end:g} s of {event.recording}, which is {length:.3f} s long. Is it of another recording?"
        )
    return replace(event, end=min(event.end, length))


def pieces(event: Event, seconds: Mapping[str, float], known: RecordingNames) -> list[Event]:
    """A true event in each of the recordings that it is in: two where it ends in the next one of a sequence.

    Raises `InputError` where it does not belong there, or ends behind the end of the one that it ends in.
    """
    first = within(event, seconds)
    if event.ends_in is None or event.end <= seconds[event.recording]:
        return [replace(first, ends_in=None)]
    folder = event.recording.rpartition("/")[0]
    name = f"{folder}/{event.ends_in}".lstrip("/")
    other = name if name in seconds else known.find(event.ends_in)
    if other is None or other not in seconds:
        raise event.error(
            f"ends in {shown(event.ends_in)}: no such recording here. Add it, or end the event before it."
        )
    rest = replace(event, recording=other, start=0.0, end=event.end - seconds[event.recording], ends_in=None)
    return [replace(first, ends_in=None), within(rest, seconds)]


def check_spelling(events: Iterable[Event]) -> None:
    """Raises `InputError` for a class that is spelled in two ways."""
    first: dict[str, Event] = {}
    spelled: dict[str, Event] = {}
    for event in events:
        spelled.setdefault(event.label, event)
    for label, event in spelled.items():
        other = first.setdefault(alike(label), event)
        if other.label != label:
            raise event.error(
                f"class {shown(label)} is {shown(other.label)} in {other.where or 'another line'}: they differ only in "
                f"{difference(label, other.label)}. Write them alike."
            )
