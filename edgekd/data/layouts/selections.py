"""Selections as labels: long recordings, and the tables in which somebody has marked what is heard in them.

    root/**/<recording>.wav              any format libsndfile reads
    root/**/<table>.txt                  Raven's selections, Audacity's labels, CSV, JSON lines (`edgekd.events`)

A table names recordings, or is named after one. Recordings are cut into windows, and these sorted by the selections
(`selection_windows`): of the class whose selection they share enough with, or background. A recording that no table
tells of may hold anything: it is left out, unless `data.selections.background` says that tables tell of all there is.
One that was looked through in vain has an empty table.

A window of two classes is left out or, with `data.labels = multi`, of both; background is then none of the classes.

A recording is a group; `data.group_by` makes groups of a day, or of a deployment.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.read import AudioInfo, is_broken, probe
from edgekd.data.background import BACKGROUND, background_of
from edgekd.data.deployments import as_named, deployments
from edgekd.data.index import Clip, ClipIndex, LeftOut, Note
from edgekd.data.layouts import folder
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.layouts.selection_windows import Sorted, Window, cut_windows, evenly, sort_windows
from edgekd.data.recording_times import begun, pattern_of
from edgekd.data.times_in_names import TimePattern
from edgekd.data.walk import audio_files, files_below, holds_audio, why_no_audio
from edgekd.errors import InputError, shown, unknown_name
from edgekd.events.event import Event
from edgekd.events.names import RecordingNames, recording_of_table
from edgekd.events.placing import check_spelling, pieces, renamed
from edgekd.events.tables import SUFFIXES, events_in, kind_of, tables_below
from edgekd.files.table_text import table_at, text_of
from edgekd.number_formats import percent

if TYPE_CHECKING:
    from edgekd.config import DataConfig
    from edgekd.recordings import SelectionsConfig

_UNTOLD = "no table tells of it, and an empty one would say that nothing is heard"
_TRIED = 50  # tables that are looked into before a folder is said to have none


def recognise(root: Path) -> bool:
    """Whether there are recordings, and a table of Raven's or Audacity's; or, where folders do not say what is heard,
    one in CSV or JSON lines."""
    kinds = {kind_of(path) for path in _near(root) if path.stem.casefold() != "manifest"} - {None}
    if not kinds & {"raven", "audacity"} and (not kinds or folder.several_classes(root)):
        return False
    return holds_audio(root)


def beside(root: Path) -> bool:
    """Whether it is there beside another layout: a manifest says better what is heard."""
    return table_at(root, "manifest.csv") is None and recognise(root)


def is_selections(table: Path) -> bool:
    """Whether a table that is given itself is one of Raven's or Audacity's."""
    return kind_of(table) in ("raven", "audacity")


@dataclass
class _Found:
    """What tables say: the events of each recording that they tell of, and the tables that were read."""

    events: defaultdict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, None] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)


def load(root: Path, config: DataConfig) -> ClipIndex:
    """The windows of every recording that a table tells of, in the order of their names. `root` may be the table.

    Raises `InputError`, with table and line, for a selection of a recording that is not there, that begins or ends
    behind it, or ends before it begins; for a class that is spelled in two ways; and where there are fewer than two
    classes, or one that no window is of. `UsageError` for classes that no table has.
    """
    settings = config.selections
    audio = root if root.is_dir() else root.parent
    files = {path.relative_to(audio).as_posix(): path for path in audio_files(audio)}
    if not files:
        raise InputError(f"{audio}: no recordings here.{why_no_audio(audio)}")
    found = _read(root, files, settings)
    if not found.tables:
        raise WrongLayout(root)
    background = config.background or BACKGROUND
    check_spelling(event for events in found.events.values() for event in events)
    classes = _classes(found, settings, background, root)
    recordings = {name: None for name in files if settings.background == "everywhere" or name in found.told}
    infos = {name: probe(files[name]) for name in recordings}
    infos = {name: info for name, info in infos.items() if not is_broken(files[name])}
    events = _placed(found, infos, RecordingNames(files))
    windows = {
        name: cut_windows(info.frames, info.rate, config.clip_seconds, settings.hop_seconds)
        for name, info in infos.items()
    }
    sorted_ = _Windows(classes, background, settings, several=config.labels == "multi")
    for name, info in infos.items():
        sorted_.add(name, windows[name], info.rate, events[name])
    labels, told = sorted_.labels(root)
    clips = tuple(
        Clip(files[name], label, name, None, start, length)
        for name in infos
        for (start, length), label in zip(windows[name], labels[name], strict=True)
        if label >= 0
    )
    kinds, combinations = sorted_.kinds(clips, root)
    clips = tuple(replace(clip, label=kinds.of[clip.label]) for clip in clips)
    left = [LeftOut(files[name], _UNTOLD) for name in files if name not in recordings]
    left += [LeftOut(files[name], "cannot be read") for name in recordings if name not in infos]
    return ClipIndex(
        "selections",
        audio,
        kinds.classes,
        clips,
        left_out=tuple(left),
        notes=(Note("labels", f"{_named(found.tables, audio)}: {told}"), *_odd(infos, pattern_of(config))),
        tables=tuple(found.tables),
        combinations=combinations,
    )


# Tables


def _near(root: Path) -> list[Path]:
    """The first tables in `root` and the folders of two levels below it."""
    return sorted(path for path in files_below(root, depth=2) if path.suffix.lower() in SUFFIXES)[:_TRIED]


def _read(root: Path, files: Mapping[str, Path], settings: SelectionsConfig) -> _Found:
    """The events of all tables, of recordings as they are called below the folder of the audio."""
    place = settings.tables or root
    if not place.exists():
        raise InputError(f"{place}: no such file or folder. Check data.selections.tables.")
    audio = root if root.is_dir() else root.parent
    known, manifest = RecordingNames(files), table_at(audio, "manifest.csv")
    found = _Found()
    for table in [place] if place.is_file() else tables_below(place):
        below = recording_of_table(table.name if place.is_file() else table.relative_to(place).as_posix())
        of_table = _name_of(known, below)
        if place == root and root.is_dir():  # among whatever else lies there
            empty = of_table is not None and not text_of(table).strip()
            if table == manifest or not (empty or kind_of(table, settings.label, of_table is not None)):
                continue
        events = events_in(table, below, settings.format, settings.label)
        found.tables.append(table)
        if of_table is not None:
            found.told[of_table] = None
        for event in renamed(events, known, audio):
            found.told[event.recording] = None
            found.events[event.recording].append(event)
    return found


def _named(tables: Sequence[Path], audio: Path) -> str:
    """Which tables the labels are of."""
    names = [(path.relative_to(audio) if path.is_relative_to(audio) else path).as_posix() for path in tables]
    return names[0] if len(names) == 1 else f"{len(names)} tables ({names[0]}, ...)"


def _name_of(known: RecordingNames, name: str) -> str | None:
    try:
        return known.find(name)
    except InputError:
        return None  # of several: then its lines have to say which


def _classes(found: _Found, settings: SelectionsConfig, background: str, root: Path) -> tuple[str, ...]:
    """The labels that are classes, without the background."""
    there = {event.label for events in found.events.values() for event in events}
    for name in settings.classes:
        if name not in there:
            raise unknown_name("class", name, there)
    nothing = background_of(sorted(there), background)
    classes = tuple(sorted((set(settings.classes) or there) - {nothing}))
    if not classes:
        raise InputError(f"{root}: no table has a selection of any class. Mark what is heard, or check the tables.")
    return classes


def _placed(found: _Found, infos: Mapping[str, AudioInfo], known: RecordingNames) -> defaultdict[str, list[Event]]:
    """The events of each recording within it, those that end in the next one in both."""
    seconds = {name: info.seconds for name, info in infos.items()}
    placed: defaultdict[str, list[Event]] = defaultdict(list)
    for name, events in found.events.items():
        for event in events if name in infos else ():
            for piece in pieces(event, seconds, known):
                placed[piece.recording].append(piece)
    return placed


# Windows


class _Kinds(NamedTuple):
    """The classes of an index, and which of its labels stands for each label of windows."""

    classes: tuple[str, ...]
    of: dict[int, int]


class _Windows:
    """The windows of all recordings, sorted, and what of them is kept.

    A label is the number of a class, or of the background behind them; where a window may be of `several`, those behind
    it are the sets of classes in `_combined`.
    """

    def __init__(
        self, classes: Sequence[str], background: str, settings: SelectionsConfig, *, several: bool = False
    ) -> None:
        self._classes, self._background, self._settings = classes, background, settings
        self._may_combine = several
        self._combined: dict[tuple[int, ...], int] = {}
        self._labels: dict[str, list[int]] = {}
        self._between = self._others = self._several = self._unmarked = 0
        self._example = ""

    def add(self, name: str, windows: Sequence[Window], rate: int, events: Sequence[Event]) -> None:
        nothing = background_of([*{event.label for event in events}], self._background)
        heard = [event for event in events if event.label != nothing]
        found = sort_windows(windows, rate, heard, self._classes, self._settings.overlap)
        quiet = ~found.touched & self._may_be_background(windows, rate, events, nothing)
        others = {event.label for event in heard} - {*self._classes}
        of_others = sort_windows(windows, rate, heard, sorted(others), self._settings.overlap).enough.any(axis=1)
        several = found.enough.sum(axis=1) > 1
        labels = np.full(len(windows), -1)
        labels[quiet] = len(self._classes)
        one = (found.enough.sum(axis=1) == 1) & ~of_others
        labels[one] = found.enough[one].argmax(axis=1)
        if self._may_combine:
            for place in np.flatnonzero(several & ~of_others).tolist():
                members = tuple(np.flatnonzero(found.enough[place]).tolist())
                labels[place] = self._combined.setdefault(members, len(self._classes) + 1 + len(self._combined))
            several = several & of_others
        self._labels[name] = labels.tolist()
        self._count(name, windows, rate, found, several, of_others & ~several)
        self._unmarked += int((~found.touched & ~quiet).sum())

    def labels(self, root: Path) -> tuple[dict[str, list[int]], str]:
        """The label of each window by recording, -1 for one that is left out, and a line about them.

        Raises `InputError` for a class that no window is of.
        """
        counts = Counter(label for labels in self._labels.values() for label in labels)
        for members, combined in self._combined.items():
            counts.update(dict.fromkeys(members, counts[combined]))
        for number, name in enumerate(self._classes):
            if not counts[number]:
                raise InputError(
                    f"{root}: no window is of class {shown(name)}: its selections share less than "
                    f"{percent(self._settings.overlap)} with any, or others lie over them. Lower "
                    "data.selections.overlap or --clip-seconds, or leave it out (data.selections.classes)."
                )
        nothing, ratio = len(self._classes), self._settings.background_ratio
        largest = max(counts[number] for number in range(nothing))
        kept = counts[nothing] if ratio == "all" else min(counts[nothing], max(1, round(ratio * largest)))
        places = [
            (name, place)
            for name, labels in self._labels.items()
            for place, label in enumerate(labels)
            if label == nothing
        ]
        chosen = set(evenly(len(places), kept).tolist())
        for number, (name, place) in enumerate(places):
            if number not in chosen:
                self._labels[name][place] = -1
        return self._labels, self._told(counts, kept)

    def kinds(self, clips: Sequence[Clip], root: Path) -> tuple[_Kinds, tuple[tuple[int, ...], ...]]:
        """The classes that `clips` are of, and, where they may be of several, the sets of them that occur.

        Raises `InputError` for fewer than two classes.
        """
        nothing, there = len(self._classes), {clip.label for clip in clips}
        named = (*self._classes, self._background) if nothing in there and not self._may_combine else self._classes
        if len(named) < 2:
            what = "" if self._may_combine else " and no background"
            raise InputError(
                f"{root}: only one class ({named[0]!r}){what}; a classifier needs at least two. Is anything "
                "left between the selections?"
            )
        if not self._may_combine:
            order = sorted(named)
            return _Kinds(tuple(order), {label: order.index(name) for label, name in enumerate(named)}), ()
        members: dict[int, tuple[int, ...]] = {label: (label,) for label in range(nothing)} | {nothing: ()}
        members |= {label: each for each, label in self._combined.items()}
        combinations = tuple(sorted({members[label] for label in there}))
        return _Kinds(tuple(named), {label: combinations.index(members[label]) for label in there}), combinations

    def _may_be_background(
        self, windows: Sequence[Window], rate: int, events: Sequence[Event], nothing: str | None
    ) -> NDArray[np.bool_]:
        if self._settings.background != "labelled":
            return np.ones(len(windows), dtype=np.bool_)
        marked = [event for event in events if event.label == nothing]
        if nothing is None:
            return np.zeros(len(windows), dtype=np.bool_)
        return sort_windows(windows, rate, marked, [nothing], self._settings.overlap).enough[:, 0]

    def _count(
        self,
        name: str,
        windows: Sequence[Window],
        rate: int,
        found: Sorted,
        several: NDArray[np.bool_],
        of_others: NDArray[np.bool_],
    ) -> None:
        if several.any() and not self._example:
            place = int(several.argmax())
            both = [each for each, is_it in zip(self._classes, found.enough[place], strict=True) if is_it]
            self._example = f"{' and '.join(both[:2])} at {windows[place][0] / rate:g} s of {name}"
        self._several += int(several.sum())
        self._others += int(of_others.sum())
        self._between += int((found.touched & ~found.enough.any(axis=1) & ~of_others).sum())

    def _told(self, counts: Counter[int], kept: int) -> str:
        nothing, share = len(self._classes), percent(self._settings.overlap)
        kinds = [f"{name} {counts[number]}" for number, name in enumerate(self._classes)]
        of = "" if kept == counts[nothing] else f" of {counts[nothing]} (data.selections.background_ratio)"
        left = [
            f"{count} {why}"
            for count, why in (
                (self._between, f"that a selection shares less than {share} with"),
                (self._several, f"of two classes ({self._example})"),
                (self._others, "of other labels (data.selections.classes)"),
                (self._unmarked, "that are not marked (data.selections.background)"),
            )
            if count
        ]
        told = f"windows: {', '.join(kinds)}, {self._background} {kept}{of}"
        if self._combined:
            told += f", {sum(counts[label] for label in self._combined.values())} of several classes"
        return f"{told}; left out: {', '.join(left)}." if left else f"{told}."


def _odd(infos: Mapping[str, AudioInfo], pattern: TimePattern | None) -> Iterable[Note]:
    """What is odd about the deployments, but for gaps."""
    times = {name: time for name in infos if (time := begun(PurePosixPath(name), pattern=pattern)) is not None}
    for each in deployments(infos, as_named(times)):
        for note in each.notes(gaps=False):
            yield Note("groups", note)
