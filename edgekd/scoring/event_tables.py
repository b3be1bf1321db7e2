"""A table of detections beside one of true events, whoever wrote them: is it the same audio, and how good are they?

What is found in the one and the other is brought together first: a recording has the name it has below the folder of
the audio (or, without audio, in the truth), events lie within it, and no class is spelled in two ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.audio.read import probe
from edgekd.data.background import background_of
from edgekd.data.walk import audio_files, is_audio, why_no_audio
from edgekd.errors import InputError, UsageError, shown, unknown_name
from edgekd.events.event import Event, check_no_copies, overlaps
from edgekd.events.matching import Criterion, Overlap
from edgekd.events.names import RecordingNames
from edgekd.events.placing import begins_within, check_spelling, meant, renamed, told_apart, within
from edgekd.events.tables import labels_of
from edgekd.number_formats import setting
from edgekd.scoring.event_counts import count_events, covered_seconds
from edgekd.scoring.event_scores import EventScores, score_events


@dataclass(frozen=True)
class ScoredTables:
    """`scores`, by which `criterion` a detection is right, and what whoever reads them should know: `notes`."""

    scores: EventScores
    criterion: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"criterion": self.criterion, **self.scores.to_dict(), "notes": list(self.notes)}


def score_tables(
    detections: Sequence[Event],
    truth: Sequence[Event],
    criterion: Criterion,
    *,
    audio: Path | None = None,
    hours: float | None = None,
    threshold: float | None = None,
    class_thresholds: Mapping[str, float] | None = None,
    classes: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> ScoredTables:
    """The figures of `detections` whose score is `threshold` or more, or that of their class in `class_thresholds`.

    `audio`: folder (or file) with all recordings that were listened to, those without an event, too; or `hours`: how
    long they are together. `classes`: those that are scored, empty: all but the background. `only`: recordings that
    alone are scored, of all there are. Raises `InputError`, with
    table and line, for tables that do not go with each other or with the audio, and `UsageError` for classes that
    neither has.
    """
    if not detections and not truth and audio is None:
        raise InputError("neither table has an event: there is nothing to score. Give the audio (--audio).")
    check_spelling([*truth, *detections])
    _check_scores(detections, threshold is not None or bool(class_thresholds))
    seconds = None if audio is None else lengths(audio)
    truth, detections = _in_one_name(truth, detections, seconds, audio)
    notes: list[str] = []
    if only is not None:
        of_others = len(truth) + len(detections)
        truth, detections, seconds = _only(only, truth, detections, seconds)
        of_others -= len(truth) + len(detections)
        notes.append(f"{len(only)} recordings are scored; {of_others} line(s) of others are left out.")
    if seconds is not None:
        truth = [within(event, seconds) for event in truth]
        detections = [begins_within(event, seconds) for event in detections]
        cut = sum(event.end > seconds[event.recording] for event in detections)
        if cut:
            notes.append(f"{cut} detection(s) reach behind the end of their recording, and end there.")
        detections = [replace(event, end=min(event.end, seconds[event.recording])) for event in detections]
    for events in (truth, detections):
        check_no_copies(events)
    recordings = list(seconds) if seconds is not None else sorted({event.recording for event in [*truth, *detections]})
    truth, detections = _without_background(truth, detections, classes, notes)
    if isinstance(criterion, Overlap):
        _check_extended([*truth, *detections])
    labels = labels_of([*truth, *detections])
    for name in (*classes, *(class_thresholds or ())):
        if name not in labels:
            raise unknown_name("class", name, labels)
    scored = tuple(classes) or tuple(labels)
    for name in class_thresholds or ():
        if name not in scored:
            raise UsageError(
                f"--threshold {name}=...: {shown(name)} is not scored. Add --class {name}, or leave its threshold out."
            )
    covered = covered_seconds(truth) / 3600
    if hours is not None and hours < covered:
        raise UsageError(f"--hours {hours:g}: true events alone take {covered:.3g} h. How long are all recordings?")
    counts = count_events(detections, truth, recordings, scored, criterion, seconds)
    chosen = None
    if threshold is not None or class_thresholds:
        everywhere = float("-inf") if threshold is None else threshold
        chosen = {name: (class_thresholds or {}).get(name, everywhere) for name in scored}
    notes += _notes(truth, detections, scored)
    return ScoredTables(score_events(counts, chosen, hours, covered), str(criterion), tuple(notes))


def lengths(audio: Path) -> dict[str, float]:
    """Seconds of each recording in a folder, by its name below it, in alphabetical order; or of one file.

    Raises `InputError` for what is not there, for a folder without recordings, and for one that cannot be read.
    """
    if not audio.exists():
        raise InputError(f"{audio}: no such file or folder.")
    files = [audio] if audio.is_file() and is_audio(audio) else audio_files(audio) if audio.is_dir() else []
    if not files:
        raise InputError(f"{audio}: no recordings here.{why_no_audio(audio) if audio.is_dir() else ''}")
    root = audio.parent if audio.is_file() else audio
    return {file.relative_to(root).as_posix(): probe(file).seconds for file in files}


def _in_one_name(
    truth: Sequence[Event], detections: Sequence[Event], seconds: Mapping[str, float] | None, audio: Path | None
) -> tuple[list[Event], list[Event]]:
    """Both with the names of the audio, or without audio with those of the truth."""
    if seconds is not None:
        known = RecordingNames(seconds)
        return renamed(truth, known, audio), renamed(detections, known, audio)
    truth, detections = told_apart(truth), told_apart(detections)
    known = RecordingNames({event.recording: None for event in truth})
    names = meant(detections, known)
    if names and truth and not any(names.values()):
        raise InputError(
            f"the tables have no recording in common: {shown(detections[0].recording)} of the detections, "
            f"{shown(truth[0].recording)} of the truth. Are they of the same audio?"
        )
    return truth, [
        replace(event, recording=names[event.folder, event.recording] or event.recording) for event in detections
    ]


def _without_background(
    truth: Sequence[Event], detections: Sequence[Event], classes: Sequence[str], notes: list[str]
) -> tuple[list[Event], list[Event]]:
    """Both without lines that say that nothing is heard, unless they are asked for; `notes` tells how many."""
    nothing = background_of(labels_of([*truth, *detections]))
    if nothing is None or nothing in classes:
        return list(truth), list(detections)
    marked = sum(event.label == nothing for event in [*truth, *detections])
    notes.append(f"{marked} line(s) say {nothing}, where nothing is to be found: they are no events.")
    kept = ([event for event in events if event.label != nothing] for events in (truth, detections))
    return next(kept), next(kept)


def _only(
    only: Sequence[str], truth: Sequence[Event], detections: Sequence[Event], seconds: Mapping[str, float] | None
) -> tuple[list[Event], list[Event], dict[str, float] | None]:
    """What is of these recordings alone. Raises `InputError` for one that is not in the audio."""
    known = RecordingNames(seconds if seconds is not None else [event.recording for event in [*truth, *detections]])
    wanted = {name: known.find(name) for name in only}
    missing = [name for name, found in wanted.items() if found is None]
    if missing and (seconds is not None or len(missing) == len(only)):
        raise InputError(
            f"{shown(missing[0])}: no such recording here ({len(missing)} of the {len(only)} that are to be scored "
            "missing). Are tables and audio of this run's data?"
        )
    kept = set(wanted.values())
    return (
        [event for event in truth if event.recording in kept],
        [event for event in detections if event.recording in kept],
        None if seconds is None else {name: length for name, length in seconds.items() if name in kept},
    )


def _check_extended(events: Iterable[Event]) -> None:
    for event in events:
        if event.seconds <= 0:
            raise event.error(
                f"{shown(event.label)} is a point at {event.start:g} s, which nothing overlaps. Score by how far times "
                "are apart: --tolerance SECONDS."
            )


def _check_scores(detections: Sequence[Event], needed: bool) -> None:
    """Raises `InputError` where some detections have a score and others none, or none where one is `needed`."""
    without = next((event for event in detections if event.score is None), None)
    scored = next((event for event in detections if event.score is not None), None)
    if without is not None and scored is not None:
        raise without.error(f"has no score, but {scored.where or 'another detection'} has one.")
    if without is not None and needed:
        raise without.error("has no score, so no threshold can be set. Which column is it (--score COLUMN)?")


def _notes(truth: Sequence[Event], detections: Sequence[Event], scored: Sequence[str]) -> list[str]:
    notes = []
    known = set(labels_of(truth))
    unknown = [event for event in detections if event.label in scored and event.label not in known]
    if unknown:
        names = labels_of(unknown)
        notes.append(
            f"{len(unknown)} detection(s) are of classes that the truth never has ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}), and false alarms: --class scores chosen ones alone."
        )
    shared = next(overlaps(truth), None)
    if shared is not None:
        one, other = shared
        notes.append(
            f"true events of two classes overlap, such as {one.label} and {other.label} at {setting(other.start)} s of "
            f"{other.recording}: each is to be found."
        )
    return notes
