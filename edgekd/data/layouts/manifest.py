"""A table of recordings, for every data set that has no layout of its own.

    path,label[,group][,split][,fold][,start_s][,end_s]

`path` is absolute, under `~`, or relative to the table's folder. `start_s` and `end_s` select a region of the
recording (left empty: from its beginning, to its end); a region longer than a clip is cut into consecutive windows.
`group` is what must not cross a split (left empty: the file). `split` (train, validation or test) or `fold` (from 1)
says where a line belongs, for all lines or for none; with neither, whole groups are dealt out. `label` is a class, or
several (`edgekd.data.label_sets`).

A file has one group, whatever paths lead to it. Regions of one file may overlap, but where their labels differ not by
half of the shorter one: a clip has one label, which may name several classes.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgekd.audio.read import AudioInfo, probe
from edgekd.data.index import SIDES, Clip, ClipIndex, Note, Side
from edgekd.data.label_sets import read_labels
from edgekd.data.layouts.folder import cut
from edgekd.data.layouts.layout import WrongLayout
from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.files.csv_table import Line, missing_files, read_table
from edgekd.files.spelling import alike
from edgekd.files.table_text import table_at

if TYPE_CHECKING:
    from edgekd.config import DataConfig

TABLE = "manifest.csv"
NEEDED = ("path", "label")
OPTIONAL = ("group", "split", "fold", "start_s", "end_s")

_SIDES: dict[str, Side] = {
    "train": "train",
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    "test": "test",
}
# An `end_s` that was rounded to two digits may lie this far behind the last sample.
_ROUNDED_SECONDS = 0.01


class _Region(NamedTuple):
    """What a line selects, in samples of the file."""

    line: Line
    path: Path
    label: int
    start: int
    stop: int
    rate: int


def recognise(root: Path) -> bool:
    """Whether there is a `manifest.csv`, or another table of that name."""
    return table_at(root, TABLE) is not None


def load(table_or_folder: Path, config: DataConfig) -> ClipIndex:
    """The windows of every line, in the order of the table; classes in alphabetical order. `root` is its folder.

    `table_or_folder` is the table, or a folder with a `manifest.csv`. Raises `InputError`, with the line, for whatever
    in the table is not as described above, and for files that are missing or unreadable. A group on two given sides is
    left to the split to refuse.
    """
    table = table_at(table_or_folder, TABLE) if table_or_folder.is_dir() else table_or_folder
    if table is None:
        raise WrongLayout(table_or_folder)
    root = table.parent
    lines = read_table(table, NEEDED, OPTIONAL)
    named = read_labels(table, lines, config.labels, config.background)
    for column in ("split", "fold"):
        _check_all_or_none(lines, column)
    if lines[0].text("split") and lines[0].text("fold"):
        raise InputError(f"{table}: has a split and a fold. Take one of the two columns out.")
    sides, folds = [_side(line) for line in lines], [_fold(line) for line in lines]
    paths = _paths(root, lines)
    groups = _groups(root, lines, paths)
    regions = _regions(lines, paths, named.labels)
    _check_overlaps(regions, several=bool(named.combinations))
    clips = [
        Clip(region.path, region.label, groups[region.path], fold, start, length, side)
        for region, side, fold in zip(regions, sides, folds, strict=True)
        for start, length in cut(region.start, region.stop, config.clip_seconds * region.rate)
    ]
    return ClipIndex(
        "manifest",
        root,
        named.classes,
        tuple(clips),
        notes=(*named.notes, *_without_group(lines)),
        tables=(table,),
        combinations=named.combinations,
    )


# Where a line belongs


def _check_all_or_none(lines: list[Line], column: str) -> None:
    given = {bool(line.text(column)): line for line in reversed(lines)}
    if len(given) == 2:
        raise given[False].error(
            f"has no {column}, but line {given[True].number} has one. Give every line one, or none."
        )


def read_side(name: str) -> Side | None:
    """The side that `name` says, None where it is empty. Raises `UsageError` for one that is none."""
    if not name:
        return None
    if name.lower() not in _SIDES:
        raise unknown_name("split", name, SIDES)
    return _SIDES[name.lower()]


def read_fold(text: str) -> int | None:
    """The fold that `text` says, None where it is empty. Raises `UsageError` for one that is none."""
    if not text:
        return None
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise UsageError(f"fold must be a whole number, not {text[:80]!r}.")
    if int(text) < 1:
        raise UsageError(f"fold is {text}; folds are counted from 1.")
    return int(text)


def _side(line: Line) -> Side | None:
    try:
        return read_side(line.text("split"))
    except UsageError as mistake:
        raise line.error(str(mistake)) from None


def _fold(line: Line) -> int | None:
    if not line.text("fold"):
        return None
    try:
        return read_fold(str(line.whole("fold")))
    except UsageError as mistake:
        raise line.error(str(mistake)) from None


# Files


def _paths(root: Path, lines: list[Line]) -> list[Path]:
    """The file of each line, one spelling a file: by another path it would be another group."""
    written = []
    for line in lines:
        if not line.text("path"):
            raise line.error("has no path.")
        try:
            written.append(_file(root, line))
        except RuntimeError:
            raise line.error(f"no user's home is known for {line.text('path')!r}.") from None
    missing = missing_files(zip(lines, written, strict=True))
    for path, line in missing.items():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise line.error(f"{str(path)!r}: {what} ({len(missing)} missing in all). Paths are relative to {root}.")
    spelling: dict[Path, Path] = {}
    return [spelling.setdefault(path.resolve(), path) for path in written]


def _file(root: Path, line: Line) -> Path:
    """The file that a line names: as it is written, or else in another Unicode form, with the blanks at its ends, or
    with the separators of Windows. Raises `RuntimeError` for the home of a user who is not known."""
    text = line.text("path")
    path = root / Path(text).expanduser()
    forms = (text, line.values["path"], text.replace("\\", "/"))
    others = [root / unicodedata.normalize(form, each) for each in forms for form in ("NFC", "NFD")]
    with contextlib.suppress(OSError):  # names that no file can have are named later
        return next((each for each in (path, *others) if each.is_file()), path)
    return path


def _groups(root: Path, lines: list[Line], paths: list[Path]) -> dict[Path, str]:
    """The group of each file."""
    first: dict[Path, Line] = {}
    groups: dict[Path, str] = {}
    for line, path in zip(lines, paths, strict=True):
        other = first.setdefault(path, line)
        if alike(line.text("group")) != alike(other.text("group")):
            raise line.error(
                f"the group of {line.text('path')!r} is {line.text('group')!r}, but {other.text('group')!r} in line "
                f"{other.number}. A recording has one group."
            )
        below = path.relative_to(root) if path.is_relative_to(root) else path
        groups.setdefault(path, line.text("group") or below.as_posix())
    return groups


def _without_group(lines: list[Line]) -> tuple[Note, ...]:
    """A note where some lines have a group and others none."""
    without = [line for line in lines if not line.text("group")]
    if not without or len(without) == len(lines):
        return ()
    first = without[0]
    return (
        Note(
            "groups",
            f"{first.table}: {len(without)} of {len(lines)} lines have no group (line {first.number}, ...): each file "
            "of theirs is a group of its own.",
        ),
    )


# Regions


def _regions(lines: list[Line], paths: list[Path], labels: Sequence[int]) -> list[_Region]:
    infos = {path: probe(path) for path in dict.fromkeys(paths)}
    return [_region(line, path, label, infos[path]) for line, path, label in zip(lines, paths, labels, strict=True)]


def _region(line: Line, path: Path, label: int, info: AudioInfo) -> _Region:
    begin, end = line.number_or("start_s", 0.0), line.number_or("end_s", info.seconds)
    if min(begin, end) < 0:
        raise line.error(f"{min(begin, end):g} s is before the beginning of the recording.")
    if max(begin, end) > info.seconds + _ROUNDED_SECONDS:
        raise line.error(f"{max(begin, end):g} s is beyond the end of {path}, which is {info.seconds:.3f} s long.")
    start, stop = round(begin * info.rate), min(round(end * info.rate), info.frames)
    if stop <= start:
        raise line.error(f"from {begin:g} s to {end:g} s there is no sample; end_s must be greater than start_s.")
    return _Region(line, path, label, start, stop, info.rate)


def _check_overlaps(regions: list[_Region], several: bool) -> None:
    """Raises `InputError` for a region that is there twice, and for audio under two labels."""
    by_file: defaultdict[Path, list[_Region]] = defaultdict(list)
    for region in regions:
        by_file[region.path].append(region)
    for of_file in by_file.values():
        of_file.sort(key=lambda region: region.start)
        for number, region in enumerate(of_file):
            for other in of_file[number + 1 :]:
                if other.start >= region.stop:
                    break
                _check_pair(*sorted((region, other), key=lambda one: one.line.number), several=several)


def _check_pair(one: _Region, other: _Region, *, several: bool) -> None:
    if (one.start, one.stop) == (other.start, other.stop):
        advice = "Name all its classes in one of the lines" if several else "Take one of them out"
        raise other.line.error(f"the same region of the same file as line {one.line.number}. {advice}.")
    shared = min(one.stop, other.stop) - max(one.start, other.start)
    shorter = min(one.stop - one.start, other.stop - other.start)
    if one.label != other.label and 2 * shared >= shorter:
        first, second = (region.line.text("label") for region in (one, other))
        advice = "A clip has one label: part the regions, or take one out."
        if several:
            advice = "Part the regions, so that each is of the same classes throughout."
        raise other.line.error(
            f"{second!r} shares {shared / one.rate:.2f} s with line {one.line.number}, which is {first!r}. {advice}"
        )
