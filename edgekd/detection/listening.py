"""One recording, listened to from its first sample to its last: its events, and what of it could not be heard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.hearing import audible, unchecked_pieces
from edgekd.audio.recording import opened
from edgekd.device.runner.detect import missed
from edgekd.device.runner.detection import Detection, Rule, event_line
from edgekd.device.runner.scores import Listener
from edgekd.events.event import Event
from edgekd.events.tables import event_json
from edgekd.exporting.predict import Predictor

Samples = NDArray[np.float32]
Piece = tuple[Samples, Samples]  # as it is heard, and with the digital silence that a lossy format has made noise of


@dataclass(frozen=True)
class Heard:
    """A recording that was listened to: how long it is, its events in the order of their beginnings, and in words what
    of it could not be heard; with `failed` that was all, or some.
    """

    recording: str
    seconds: float
    events: tuple[Event, ...] = ()
    missed: str | None = None
    failed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        events = [json.loads(event_json(event)) for event in self.events]
        return {
            "recording": self.recording,
            "seconds": round(self.seconds, 6),
            "events": events,
            "missed": self.missed,
            "failed": self.failed,
        }


def hear_file(
    predictor: Predictor, rule: Rule, path: Path, name: str, progress: Callable[[float], None] = lambda _: None
) -> Heard:
    """The events of the file at `path`, whatever its length; `progress` is told how many seconds have been heard.

    Raises `InputError` for one that cannot be decoded, or not be heard as the classifier hears.
    """
    with opened(path) as recording:
        info = recording.info

        def pieces() -> Iterator[Piece]:
            for piece in unchecked_pieces(recording, predictor.hearing):
                yield piece, audible(piece, info.subtype)

        return hear(predictor, rule, pieces(), info.rate, name, progress)


def hear(
    predictor: Predictor,
    rule: Rule,
    pieces: Iterable[Piece],
    rate: int,
    name: str,
    progress: Callable[[float], None] = lambda _: None,
    tell: Callable[[Event], None] = lambda _: None,
) -> Heard:
    """The events of a recording at `rate` Hz that comes in `pieces`; `tell` hears of each as soon as it is certain."""
    listener = Listener(predictor, rule, rate)
    found: list[Event] = []

    def take(detections: Iterable[Detection]) -> None:
        for detection in detections:
            found.append(_event(event_line(detection, rule, listener.seconds, name)))
            tell(found[-1])

    for piece, as_audible in pieces:
        take(listener.push(piece, as_audible))
        progress(listener.seconds)
    take(listener.finish())
    found.sort(key=lambda event: (event.start, event.end, event.label))
    return Heard(name, listener.seconds, tuple(found), missed(listener) or None, listener.unscored > 0)


def _event(line: dict[str, Any]) -> Event:
    return Event(line["audio_file"], line["start_time"], line["end_time"], line["annotation"], line["score"])
