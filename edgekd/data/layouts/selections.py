"""Selections as labels: long recordings, and the tables in which somebody has marked what is heard in them.

    root/**/<recording>.wav              any format libsndfile reads
    root/**/<table>.txt                  Raven's selections, Audacity's labels, CSV, JSON lines (`edgekd.events`)

A table names recordings, or is named after one. Recordings are cut into windows, and these sorted by the selections
(`selection_windows`): of the class whose selection they share enough with, or background. With `data.labels = "multi"`
they are of every such class, or of none. A recording that no table
tells of may hold anything: it is left out, unless `data.selections.background` says that tables tell of all there is.
One that was looked through in vain has an empty table.

A recording is a group; `data.group_by` makes groups of a day, or of a deployment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgekd.audio.read import AudioInfo, is_broken, probe
from edgekd.data.background import BACKGROUND, background_of
from edgekd.data.deployments import as_named, deployments
from edgekd.data.index import Clip, ClipIndex, LeftOut, Note
from edgekd.data.layouts import folder
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.layouts.selection_labels import Members, WindowLabels
from edgekd.data.layouts.selection_windows import cut_windows
from edgekd.data.recording_times import begun, pattern_of
from edgekd.data.times_in_names import TimePattern
from edgekd.data.walk import audio_files, files_below, holds_audio, why_no_audio
from edgekd.errors import InputError, shown, unknown_name
from edgekd.events.event import Event
from edgekd.events.names import RecordingNames, recording_of_table
from edgekd.events.placing import check_spelling, pieces, renamed
from edgekd.events.tables import SUFFIXES, events_in, folder_of, kind_of, tables_below
from edgekd.files.table_text import table_at, text_of

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
    """What tables say: the events of each recording that they tell of, the tables that were read, and those named after
    one recording that tell of others alone, with both."""

    events: defaultdict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, None] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    elsewhere: list[tuple[Path, str, str]] = field(default_factory=list)


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
    sorted_ = WindowLabels(classes, background, settings, several=config.labels == "multi")
    for name, info in infos.items():
        sorted_.add(name, windows[name], info.rate, events[name])
    chosen, told = sorted_.chosen(root)
    named, combinations, number = _numbered(root, chosen.values(), classes, background, config.labels == "multi")
    clips = tuple(
        Clip(files[name], number[members], name, None, start, length)
        for name in infos
        for (start, length), members in zip(windows[name], chosen[name], strict=True)
        if members is not None
    )
    left = [LeftOut(files[name], _UNTOLD) for name in files if name not in recordings]
    left += [LeftOut(files[name], "cannot be read") for name in recordings if name not in infos]
    return ClipIndex(
        "selections",
        audio,
        named,
        clips,
        left_out=tuple(left),
        notes=(
            Note("windows", f"{_named(found.tables, audio)}: {told}"),
            *_misnamed(found),
            *_odd(infos, pattern_of(config)),
        ),
        tables=tuple(found.tables),
        combinations=combinations,
    )


def _numbered(
    root: Path, chosen: Iterable[Sequence[Members | None]], classes: Sequence[str], background: str, several: bool
) -> tuple[tuple[str, ...], tuple[Members, ...], dict[Members, int]]:
    """The names of the classes, the sets of them that occur where windows may be of several, and the label of each.

    Raises `InputError` for fewer than two classes and, where windows may be of several, for one that all are of.
    """
    there = sorted({members for of_one in chosen for members in of_one if members is not None})
    if several:
        if len(classes) < 2:
            raise InputError(f"{root}: only one class ({classes[0]!r}); data.labels = multi needs at least two.")
        for place, name in enumerate(classes):
            if all(place in members for members in there):
                raise InputError(
                    f"{root}: class {shown(name)} is in every window, so nothing tells it from its absence. Is "
                    "anything left between its selections?"
                )
        return tuple(classes), tuple(there), {members: label for label, members in enumerate(there)}
    names = {members: classes[members[0]] if members else background for members in there}
    ordered = sorted(names.values())
    if len(ordered) < 2:
        raise InputError(
            f"{root}: only one class ({ordered[0]!r}) and no background; a classifier needs at least two. Is anything "
            "left between the selections?"
        )
    return tuple(ordered), (), {members: ordered.index(name) for members, name in names.items()}


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
        folder = folder_of(table, place if place.is_dir() else place.parent, audio)
        of_table = _name_of(known, below, folder)
        if place == root and root.is_dir():  # among whatever else lies there
            empty = of_table is not None and not text_of(table).strip()
            if table == manifest or not (empty or kind_of(table, settings.label, of_table is not None)):
                continue
        events = events_in(table, below, settings.format, settings.label, folder=folder)
        found.tables.append(table)
        events = renamed(events, known, audio)
        if of_table is not None:
            found.told[of_table] = None
            if events and all(event.recording != of_table for event in events):
                found.elsewhere.append((table, of_table, events[0].recording))
        for event in events:
            found.told[event.recording] = None
            found.events[event.recording].append(event)
    return found


def _named(tables: Sequence[Path], audio: Path) -> str:
    """Which tables the labels are of."""
    names = [(path.relative_to(audio) if path.is_relative_to(audio) else path).as_posix() for path in tables]
    return names[0] if len(names) == 1 else f"{len(names)} tables ({names[0]}, ...)"


def _misnamed(found: _Found) -> Iterable[Note]:
    """A note about tables in another recording's name: one that Raven has made of a sequence, or a mistake."""
    if found.elsewhere:
        table, named, other = found.elsewhere[0]
        such = f" ({len(found.elsewhere)} such tables)" if len(found.elsewhere) > 1 else ""
        yield Note(
            "labels",
            f"{table}: is named after {named}, and tells of {other} and nothing in its own{such}: that one counts "
            "as looked through. If it was not, rename the table.",
        )


def _name_of(known: RecordingNames, name: str, folder: str) -> str | None:
    try:
        return known.find(name, folder)
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


def _odd(infos: Mapping[str, AudioInfo], pattern: TimePattern | None) -> Iterable[Note]:
    """What is odd about the deployments, but for gaps."""
    times = {name: time for name in infos if (time := begun(PurePosixPath(name), pattern=pattern)) is not None}
    for each in deployments(infos, as_named(times)):
        for note in each.notes(gaps=False):
            yield Note("groups", note)
