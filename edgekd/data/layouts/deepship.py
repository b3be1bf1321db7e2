"""DeepShip (M. Irfan et al., "DeepShip: An underwater acoustic benchmark dataset", Expert Systems with Applications
183, 2021).

    root/Cargo/ Passengership/ Tanker/ Tug/     upper or lower case; the full release says Passenger and Tank
        7.wav                                   flat, named by the metafile's id,
        20171104a-7/203623.wav                  a folder a transit (date-id) and in it a file (time), the full release,
        SEASPAN SWIFT/*.wav                     or a folder a vessel, or any other folder of recordings
    root/Cargo/cargo-metafile, or root/cargo-metafile     optional: id, AIS type, ship's name, date, time, seconds, ...

Some of the four are enough, and with a metafile there may be others beside them (Background). A `groups.csv` joins what
it says to what the metafiles do.

A recording is cut into windows of a clip, and its windows stay together. So do, in all classes, the recordings of one
ship, where the metafile tells: by date and time if they are in the path, else by the id or by the folder named after
the ship. The published metafiles start to count again in the middle (Tanker has three ships numbered 9): of several
rows with one id that counts whose duration is the recording's within 2 s. A recording that no row fits belongs with
its folder (to the folder's ship if the metafile knows one), and is its own group when it lies in the class folder.

Names are compared without regard to case and blanks, and without the MMSI number some of them end with. Some were cut
short when the data were published ('QUEEN OF'): all ferries of that name are one group, which leaks nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.audio.read import probe
from edgekd.data.index import Clip, ClipIndex, LeftOut, Note
from edgekd.data.layouts.folder import GROUPS, class_folders, windows
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.walk import audio_files, holds_audio, why_no_audio
from edgekd.errors import InputError
from edgekd.files.csv_table import records
from edgekd.files.spelling import alike
from edgekd.files.table_text import separated, table_at, text_of

if TYPE_CHECKING:
    from edgekd.config import DataConfig

CLASSES = ("Cargo", "Passengership", "Tanker", "Tug")

_SPELLED = {name.lower(): name for name in CLASSES} | {"passenger": "Passengership", "tank": "Tanker"}
_SAME_DURATION_S = 2.0
_DATE = re.compile(r"(?<!\d)20\d{6}(?!\d)")
_TIME = re.compile(r"(?<!\d)\d{6}(?!\d)")
_TRANSIT = re.compile(r"20\d{6}[a-z]*-0*(?P<number>\d+)", re.IGNORECASE)


def recognise(root: Path) -> bool:
    """Whether `root` has a folder for each of the four classes and no other folder of recordings, or for some of them,
    others beside them, and a metafile."""
    folders = [path for path in class_folders(root) if _class_of(path.name) or holds_audio(path)]
    ships = [path for path in folders if _class_of(path.name)]
    if len(folders) > 1 and any(_metafiles_in(folder) for folder in (root, *ships)):
        return bool(ships)
    return {_class_of(path.name) for path in folders} == set(CLASSES) and table_at(root, GROUPS) is None


def load(root: Path, config: DataConfig) -> ClipIndex:
    """The windows of every recording, class by class. The four, alone and without a `groups.csv`, have the names in
    `CLASSES`; else each class has that of its folder.

    Raises `InputError` when there are fewer than two classes, for one with two folders or no audio, unreadable audio,
    and a metafile that cannot be read, contradicts itself or lists none of its class's recordings.
    """
    folders = _class_folders(root)
    recordings = {name: audio_files(folder) for name, folder in folders.items()}
    for name, files in recordings.items():
        if not files:
            raise InputError(
                f"{folders[name]}: class '{name}' has no audio files. Add them, or fetch them (Git LFS)."
                f"{why_no_audio(folders[name])}"
            )
    tables = {name: _metafile(root, folder, list(folders)) for name, folder in folders.items()}
    groups, absent, notes = _groups(root, folders, recordings, tables)
    clips = [
        Clip(path, label, groups[path], None, start, length)
        for label, name in enumerate(folders)
        for path in recordings[name]
        for start, length in windows(path, config.clip_seconds)
    ]
    read = tuple(table for table in tables.values() if table is not None)
    return ClipIndex("deepship", root, tuple(folders), tuple(clips), tuple(absent), tuple(notes), read)


# Classes


def _class_of(name: str) -> str | None:
    """The class a folder's name stands for."""
    return _SPELLED.get(alike(name))


def _class_folders(root: Path) -> dict[str, Path]:
    """The classes and their folders, in the order of labels."""
    ships: dict[str, Path] = {}
    others = []
    for path in class_folders(root):
        name = _class_of(path.name)
        if name is None:
            others += [path] if holds_audio(path) else []
        elif ships.setdefault(name, path) != path:
            raise InputError(
                f"{root}: '{ships[name].name}' and '{path.name}' are both class '{name}'. Put their recordings "
                "together."
            )
    if not ships:
        raise WrongLayout(root)
    if len(ships) + len(others) < 2:
        raise InputError(f"{root}: only one class folder ('{next(iter(ships))}'); a classifier needs at least two.")
    if len(ships) == len(CLASSES) and not others and table_at(root, GROUPS) is None:
        return {name: ships[name] for name in CLASSES}
    return {path.name: path for path in sorted([*ships.values(), *others])}


# Ships


@dataclass(frozen=True)
class _Row:
    """A line of a metafile; `date` is YYYYMMDD and `time` HHMMSS, empty where the line does not say."""

    line: int
    number: str
    ship: str
    date: str
    time: str
    seconds: float | None


def _groups(
    root: Path, folders: dict[str, Path], recordings: dict[str, list[Path]], tables: dict[str, Path | None]
) -> tuple[dict[Path, str], list[LeftOut], list[Note]]:
    """The group of each recording: its ship, else its folder, else itself; what the metafiles list and is not there;
    and what of the ships is not known."""
    rows = {name: [] if table is None else _read(table) for name, table in tables.items()}
    known = {row.ship for listed in rows.values() for row in listed}
    groups: dict[Path, str] = {}
    unknown = []
    absent: list[LeftOut] = []
    for name, files in recordings.items():
        ships = _ships(folders[name], files, rows[name], known)
        if rows[name] and not ships:
            raise InputError(
                f"{tables[name]}: lists none of the {len(files)} recordings of class '{name}' ({files[0].name}, ...), "
                "which are looked up by id (7.wav) or date and time (20171104-7/203623.wav). Correct it or take it out."
            )
        absent += _absent(folders[name], files, rows[name])
        ships_in = defaultdict(set)
        for path, ship in ships.items():
            ships_in[_home(path, folders[name])].add(ship)
        without = 0
        for path in files:
            home = _home(path, folders[name])
            if path in ships:
                groups[path] = ships[path]
            elif len(ships_in[home]) == 1:
                groups[path] = next(iter(ships_in[home]))
            else:
                groups[path] = home.relative_to(root).as_posix()
                without += 1
        if without:
            unknown.append(
                f"{name} {without} of {len(files)} ({'no metafile' if tables[name] is None else 'unlisted'})"
            )
    if not unknown:
        return groups, absent, []
    note = (
        f"recordings whose ship is not known: {', '.join(unknown)}. Each is a group of its own, or its folder is: a "
        "ship that passed twice may be on two sides. Add the metafiles (cargo-metafile, ...), or a groups.csv."
    )
    return groups, absent, [Note("groups", note)]


def _absent(folder: Path, files: list[Path], rows: list[_Row]) -> list[LeftOut]:
    """The rows that describe none of the recordings in a class folder, by the name that one would have. Of a ship with
    a folder of its own nobody can tell."""
    below = [path.relative_to(folder) for path in files]
    fitting = {row.line for path in below for row in _fitting(path, rows, is_id=True)}
    ships = {_ship(part) for path in below for part in path.parts[:-1]}
    return [
        LeftOut(folder / f"{row.number}.wav", "listed by its metafile, but not there")
        for row in rows
        if row.line not in fitting and row.ship not in ships
    ]


def _home(path: Path, folder: Path) -> Path:
    """The folder whose recordings belong together: of the transit, else the one in the class folder; a file that lies
    there is its own."""
    below = path.relative_to(folder).parts
    depth = next((depth for depth, part in enumerate(below[:-1]) if _TRANSIT.fullmatch(part)), 0)
    return folder.joinpath(*below[: depth + 1])


def _ships(folder: Path, files: list[Path], rows: list[_Row], known: set[str]) -> dict[Path, str]:
    """The ship of each recording whose folder is named after one of `known`, or that fits the rows of just one."""
    homes = defaultdict(set)  # numbers that start from 1 again in each folder of a vessel are no ids
    for path in files:
        homes[path.stem].add(path.parent)
    ships: dict[Path, str] = {}
    for path in files:
        below = path.relative_to(folder)
        named = {ship for ship in map(_ship, below.parts[:-1]) if ship in known}
        fitting = [] if named else _fitting(below, rows, is_id=len(homes[path.stem]) == 1)
        if len({row.ship for row in fitting}) > 1:
            seconds = probe(path).seconds
            fitting = [row for row in fitting if row.seconds and abs(row.seconds - seconds) <= _SAME_DURATION_S]
        candidates = named or {row.ship for row in fitting}
        if len(candidates) == 1:
            ships[path] = candidates.pop()
    return ships


def _fitting(below: Path, rows: list[_Row], is_id: bool) -> list[_Row]:
    """The rows that may describe the recording at `below` its class folder."""
    date = _DATE.search(below.as_posix())
    if date:
        that_day = [row for row in rows if row.date == date.group()]
        time = _TIME.search(below.stem)
        transit = next((match for part in below.parts if (match := _TRANSIT.fullmatch(part))), None)
        return [row for row in that_day if time and row.time == time.group()] or [
            row for row in that_day if transit and row.number == transit.group("number")
        ]
    return [row for row in rows if is_id and row.number == (below.stem.lstrip("0") or "0")]


def _ship(name: str) -> str:
    """A ship's name as it is compared: upper case, single blanks, no MMSI number at the end."""
    plain = unicodedata.normalize("NFKC", name).replace("_", " ").upper()
    return re.sub(r" \d{9}$", "", " ".join(plain.split()))


# Metafiles


def _metafile(root: Path, folder: Path, classes: list[str]) -> Path | None:
    """The metafile of a class, in its folder or at the root."""
    found = _metafiles_in(folder)
    spelled = {alike(name): name for name in classes}
    for path in _metafiles_in(root):
        word = re.split(r"[^a-z]", path.name.lower())[0]
        named = _class_of(word) or spelled.get(word)
        if named is None:
            raise InputError(
                f"{path}: a metafile of which class? Call it cargo-metafile, tanker-metafile, ..., or put it into the "
                "folder of its class."
            )
        if named == (_class_of(folder.name) or folder.name):
            found.append(path)
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]}: two metafiles of class '{folder.name}'. Take one out.")
    return found[0] if found else None


def _metafiles_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if "metafile" in path.name.lower() and not path.name.startswith(".") and path.is_file()
    )


def _read(table: Path) -> list[_Row]:
    """The lines of a metafile, which has no header (one is skipped) and commas, semicolons or tabs between values."""
    separator, text, above = separated(text_of(table))
    if not above:
        separator = max(",;\t", key=text.count)
    rows: list[_Row] = []
    at: dict[tuple[str, str], _Row] = {}
    for number, values in records(table, text, separator, above, strict=False):
        fields = [value.strip() for value in values]
        if number == above + 1 and not any(map(str.isdigit, fields[0])):
            continue
        row = _row(table, number, fields)
        rows.append(row)
        other = at.setdefault((row.date, row.time), row)
        if row.date and row.time and other.ship != row.ship:
            raise InputError(
                f"{table}, lines {other.line} and {row.line}: two ships at {row.date} {row.time}, '{other.ship}' "
                f"and '{row.ship}'. Correct one."
            )
    if not rows:
        raise InputError(f"{table}: lists no recording. Restore it or take it out.")
    return rows


def _row(table: Path, line: int, fields: list[str]) -> _Row:
    number = re.fullmatch(r"0*(\d+)(\.\w+)?", fields[0])
    place = next((place for place, field in enumerate(fields) if place and any(map(str.isalpha, field))), None)
    if number is None or place is None:
        wrong = f"the id must be a whole number, not '{fields[0]}'" if number is None else "there is no ship's name"
        raise InputError(f"{table}, line {line}: {wrong}. A line is: id, AIS type, ship's name, date, time, seconds.")
    date, time, seconds = ([*fields[place + 1 :], "", "", ""])[:3]
    date, time = re.sub(r"\D", "", date), re.sub(r"\D", "", time)
    return _Row(
        line=line,
        number=number.group(1),
        ship=_ship(fields[place]),
        date=date if len(date) == 8 else "",
        time=time.zfill(6) if time else "",
        seconds=float(seconds) if re.fullmatch(r"\d+(\.\d*)?", seconds) else None,
    )
