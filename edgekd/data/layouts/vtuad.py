"""VTUAD (L. Domingos, P. Skelton, P. Santos, "VTUAD: Vessel Type Underwater Acoustic Data", IEEE DataPort 2022).

    root/train|validation|test/audio/<class>/<file_index>.wav     seconds of hydrophone recordings, at 32 kHz
    root/train|validation|test/metadata.csv                       label, file_index, MMSI, path, date, sub_init, ...

`root` is one scenario (`inclusion_2000_exclusion_4000`), everything merged under the three sides, or a folder of
scenarios, which are then taken together. The sides are the authors' own (`Clip.side`).

File names are running numbers and tell nothing of where a second was cut. `metadata.csv` does: the group is the ship
(`MMSI`, one group in all scenarios), and for background the recording it was cut from. The authors shuffled single
seconds and then dealt them out (`split_dataset` in github.com/lucascesarfd/onc_dataset), so with `metadata.csv` in
place their sides part almost every group and are refused; `data.given_split = false` splits by group instead. Without
`metadata.csv` each file is its own group and the sides stand, as published: scores to compare with the literature,
not to expect at sea. Files the table does not list are their own group, too.

Clips are 1 s long: pass `--clip-seconds 1`. A longer clip length fills each up, as with every short recording.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgekd.data.index import Clip, ClipIndex, LeftOut, Note
from edgekd.data.layouts.folder import check_spelling, class_folders, holds_sides, sides, windows
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.walk import audio_files, why_no_audio
from edgekd.errors import InputError
from edgekd.files.csv_table import Line, read_table
from edgekd.files.spelling import alike
from edgekd.files.table_text import is_table, separated, table_at, text_of

if TYPE_CHECKING:
    from edgekd.config import DataConfig

METADATA = "metadata.csv"
_ABSENT = f"named by {METADATA}, but not there"
SCENARIO = re.compile(r"inclusion_\d+_exclusion_\d+", re.IGNORECASE)


def recognise(root: Path) -> bool:
    """Whether `root` holds sides with `audio/`, or folders that do."""
    return holds_sides(root) or any(map(holds_sides, class_folders(root)))


def load(root: Path, config: DataConfig) -> ClipIndex:
    """One row a file (more where `config.clip_seconds` is below a second), scenario by scenario, side by side.

    Classes are the folders found on any side, in alphabetical order. Raises `InputError` for another layout, sides
    beside scenarios, scenarios beside a merged copy, class names that differ only in case, no audio, unreadable
    audio, and a `metadata.csv` without its columns or with an index that is no number.
    """
    scenarios = _scenarios(root)
    if not scenarios:
        raise WrongLayout(root)
    parts = [(side, folder) for scenario in scenarios for side, folder in sides(scenario)]
    folders = [path for _, folder in parts for path in class_folders(folder / "audio")]
    check_spelling(folders)
    classes = tuple(sorted({path.name for path in folders}))
    if not classes:
        raise InputError(f"{parts[0][1] / 'audio'}: no class folders. Unpack the archives here.")
    if len(classes) < 2:
        raise InputError(f"{root}: only one class folder ('{classes[0]}'); a classifier needs at least two.")
    clips = []
    unknown = []
    missing: list[LeftOut] = []
    tables = {folder: _table(folder) for _, folder in parts}
    for side, folder in parts:
        table = tables[folder]
        groups = {} if table is None else _groups(table)
        files = unlisted = 0
        absent = dict.fromkeys(groups)
        for class_folder in class_folders(folder / "audio"):
            label = classes.index(class_folder.name)
            for path in audio_files(class_folder):
                file = path.relative_to(root).as_posix()
                listed = alike(class_folder.name), alike(path.stem)
                group = groups.get(listed) or file
                absent.pop(listed, None)
                files += 1
                unlisted += group == file
                clips += [
                    Clip(path, label, group, None, start, length, side)
                    for start, length in windows(path, config.clip_seconds)
                ]
        missing += [LeftOut(folder / "audio" / label / f"{number}.wav", _ABSENT) for label, number in absent]
        if unlisted:
            where = folder.relative_to(root).as_posix()
            unknown.append(f"{where} {unlisted} of {files} ({'no metadata.csv' if table is None else 'unlisted'})")
    if not clips:
        raise InputError(f"{root}: no audio files in the class folders. Unpack the archives here.{why_no_audio(root)}")
    read = tuple(table for table in tables.values() if table is not None)
    notes = _notes(dict.fromkeys((root, *(folder.parent for folder in tables))), read, unknown)
    return ClipIndex("vtuad", root, classes, tuple(clips), tuple(missing), notes, read)


def _scenarios(root: Path) -> list[Path]:
    """The folders that hold the sides: `root` itself, or those in it."""
    inside = [folder for folder in class_folders(root) if holds_sides(folder)]
    if holds_sides(root):
        if inside:
            raise InputError(
                f"{root}: holds sides and also '{inside[0].name}', which has sides of its own. Pass one of them as "
                "--data-dir."
            )
        return [root]
    named = [folder for folder in inside if SCENARIO.fullmatch(folder.name)]
    if named and named != inside:
        other = next(folder for folder in inside if folder not in named)
        raise InputError(
            f"{root}: '{other.name}' lies beside the scenarios ('{named[0].name}'): merged from them, it would repeat "
            "their clips. Take it out, or pass one of them as --data-dir."
        )
    return inside


def _table(folder: Path) -> Path | None:
    """The table of a side, in its folder, or where copies have it."""
    places = (folder, folder / "audio", folder / "metadata")
    return next((found for place in places if (found := table_at(place, METADATA)) is not None), None)


def _groups(table: Path) -> dict[tuple[str, str], str]:
    """The group of each file, empty where none is known, by class and name without suffix, both `alike`."""
    groups: dict[tuple[str, str], str] = {}
    for line in read_table(table, ("label", "file_index", "MMSI")):
        file = alike(line.text("label")), str(line.whole("file_index"))
        groups[file] = _group(line) or groups.get(file, "")
    return groups


def _notes(places: Iterable[Path], read: Collection[Path], unknown: list[str]) -> tuple[Note, ...]:
    """What is not known of ships, and tables in these `places` that know of them but do not lie in their side's
    folder."""
    if not unknown:
        return ()
    elsewhere = [path for place in places for path in sorted(place.iterdir()) if is_table(path) and path not in read]
    unread = [str(path) for path in elsewhere if path.is_file() and _knows_ships(path)]
    also = f" Not read, for it lies beside the sides: {', '.join(unread)}." if unread else ""
    return (
        Note(
            "groups",
            f"seconds whose ship or recording is not known: {', '.join(unknown)}. Each is a group of its own, and "
            f"others of the same recording may be on another side.{also} Add {METADATA} to each side's folder.",
        ),
    )


def _knows_ships(table: Path) -> bool:
    try:
        separator, text, _ = separated(text_of(table), ("MMSI",))
    except InputError:
        return False
    return "mmsi" in {alike(name) for name in text.partition("\n")[0].split(separator)}


def _group(line: Line) -> str:
    """The ship, else the recording, else the day; empty where the line knows none of them."""
    ship = line.text("MMSI").removesuffix(".0")
    if ship not in ("", "0"):
        return f"MMSI {ship}"
    recording = PurePosixPath(line.text("path").replace("\\", "/")).stem
    return recording or line.text("date")
