"""`Event`: something that was heard, in which recording, from when to when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from edgekd.errors import InputError, shown


@dataclass(frozen=True)
class Event:
    """One line of a table: a detection where it has a `score`, else what somebody has heard or seen.

    `recording` is the file, as a path with `/` as its table has it; `names.RecordingNames` finds which file is meant.
    `start` and `end` are in seconds from the beginning of that file, 0 <= start <= end; a point has both alike.
    `channel` counts from 1, as viewers do. `low_hz` and `high_hz` bound the band where a table does. `time` is when
    the event begins, with its zone, where that is known. `ends_in` is the recording that it ends in, where that is a
    later one of a sequence: `end` then lies behind the end of `recording`. `where` it was read, for messages; `folder`
    is that of its table, below that of all tables or of the audio.
    """

    recording: str
    start: float
    end: float
    label: str
    score: float | None = None
    channel: int | None = None
    low_hz: float | None = None
    high_hz: float | None = None
    time: datetime | None = None
    ends_in: str | None = None
    where: str = field(default="", compare=False)
    folder: str = field(default="", compare=False)

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def error(self, what: str) -> InputError:
        """An error that says which line of which table is meant, or else which event."""
        return InputError(f"{self.where or f'{self.recording}, {self.start:g} s'}: {what}")


def check_times(event: Event) -> Event:
    """The event itself. Raises `InputError` where it begins before its recording, or ends before it begins."""
    if event.start < 0:
        raise event.error(f"begins at {event.start:g} s, before its recording does.")
    if event.end < event.start:
        raise event.error(f"ends at {event.end:g} s, before it begins ({event.start:g} s). Are the two reversed?")
    return event


def check_no_copies(events: Iterable[Event]) -> None:
    """Raises `InputError` for an event that is there twice, with both lines: it would count twice."""
    first: dict[tuple[str, float, float, str], Event] = {}
    for event in events:
        key = (event.recording, event.start, event.end, event.label)
        if key in first:
            raise event.error(
                f"{shown(event.label)} from {event.start:g} to {event.end:g} s of {event.recording} again, as in "
                f"{first[key].where or 'another line'}. Take one out."
            )
        first[key] = event


def overlaps(events: Iterable[Event]) -> Iterator[tuple[Event, Event]]:
    """The pairs of events of one recording that share time and have two labels, the earlier of the two first."""
    open_: list[Event] = []
    recording = None
    for event in sorted(events, key=lambda each: (each.recording, each.start, each.end)):
        if event.recording != recording:
            recording, open_ = event.recording, []
        open_ = [other for other in open_ if other.end > event.start]
        yield from ((other, event) for other in open_ if other.label != event.label and event.seconds > 0)
        open_.append(event)
