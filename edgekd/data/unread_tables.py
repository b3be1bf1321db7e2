"""Tables that lie beside recordings and say which of them belong together, where that is not heeded.

A table counts by the names of its columns: one of files, one of vessels, sources, sessions, ... Whether its layout read
it or not, what counts is whether it would join recordings that are now groups of their own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from edgekd.data.index import ClipIndex, Note
from edgekd.data.walk import files_below
from edgekd.errors import InputError
from edgekd.files.csv_table import records
from edgekd.files.spelling import alike
from edgekd.files.table_text import is_table, separated, text_of

_WORDS = frozenset(
    {
        *("group", "groups", "vessel", "vessels", "ship", "ships", "boat", "mmsi", "imo", "machine"),
        *("deployment", "session", "cruise", "mooring", "site", "station", "location", "track", "tape"),
        *("source", "src", "srcfile", "fsid", "freesound", "recording", "original", "parent"),
        *("speaker", "subject", "patient", "individual", "animal", "bird"),
    }
)
_SPREADSHEETS = frozenset({".xlsx", ".xls", ".ods", ".numbers"})
_NAMES = frozenset({"group", "groups", "manifest", "metadata", "meta", "recordings", "labels"})
_DEPTH, _TABLES, _LARGEST = 2, 20, 64 << 20  # folders below the root, tables, bytes


def unheeded(index: ClipIndex) -> list[Note]:
    """A note for each table beside the recordings of `index` by which some of them belong together that do not."""
    notes = []
    files: list[tuple[str, Path, str]] = []
    for path in _tables(index.root):
        if path.suffix.lower() in _SPREADSHEETS:
            notes.append(Note("groups", f"{path}: a spreadsheet, which is not read. Save it as 'CSV UTF-8'."))
            continue
        if "metafile" in path.name.lower():
            if index.dataset != "deepship":
                notes.append(
                    Note("groups", f"{path}: a metafile of DeepShip, not heeded. --dataset deepship reads it.")
                )
            continue
        rows = _rows(path)
        if rows is None:
            continue
        once = {clip.path: clip for clip in index}.values()
        files = files or [(index.name(clip), clip.path, clip.group) for clip in once]
        found = _joins(*rows, path.parent, files)
        if found is not None:
            column, recordings, wanted, groups = found
            notes.append(
                Note(
                    "groups",
                    f"{path}: its column '{column}' is not heeded: by it {recordings} recordings are {wanted} groups, "
                    f"and they count as {groups}. If they belong together, say so in groups.csv (path, group).",
                )
            )
    return notes


def _tables(root: Path) -> list[Path]:
    """The first tables in `root` and in the folders below it, and spreadsheets that are called as a table would be."""
    if not root.is_dir():
        return []
    found = sorted(filter(_may_tell, files_below(root, depth=_DEPTH)), key=lambda path: (len(path.parts), path))
    return found[:_TABLES]


def _may_tell(path: Path) -> bool:
    if path.suffix.lower() in _SPREADSHEETS:
        return bool(_NAMES.intersection(_words(path.stem)))
    return (is_table(path) or "metafile" in path.name.lower()) and path.stat().st_size <= _LARGEST


def _rows(table: Path) -> tuple[list[str], list[list[str]]] | None:
    """The names of a table's columns and its lines, where some of them may say what belongs together."""
    try:
        separator, text, above = separated(text_of(table))
        lines = (values for _, values in records(table, text, separator, above))
        header = next(lines, [])
        if not _wanted(header):
            return None
        rows = list(lines)
    except InputError:
        return None  # no table, or the layout's own, which complains itself
    return (header, [row for row in rows if len(row) == len(header)]) if len(rows) > 1 else None


def _wanted(header: list[str]) -> list[int]:
    return [place for place, name in enumerate(header) if _WORDS.intersection(_words(name))]


def _joins(
    header: list[str], rows: list[list[str]], folder: Path, files: list[tuple[str, Path, str]]
) -> tuple[str, int, int, int] | None:
    """The column of a table in `folder` that joins most, how many recordings it joins, into how many groups, out of how
    many."""
    found = _files_of(rows, folder, files) if rows else []
    best: tuple[str, int, int, int] | None = None
    for place in _wanted(header):
        members: defaultdict[str, set[str]] = defaultdict(set)
        recordings: defaultdict[str, set[str]] = defaultdict(set)
        for row, (name, group) in found:
            value = alike(row[place])
            if value not in ("", "nan", "none", "na", "-", "?"):
                members[value].add(group)
                recordings[value].add(name)
        joined = [value for value, groups in members.items() if len(groups) > 1]
        count = sum(len(recordings[value]) for value in joined)
        if joined and (best is None or count > best[1]):
            best = header[place].strip(), count, len(joined), len(set().union(*(members[value] for value in joined)))
    return best


def _files_of(
    rows: list[list[str]], folder: Path, files: list[tuple[str, Path, str]]
) -> list[tuple[list[str], tuple[str, str]]]:
    """The rows that name a recording, by its path or else by its name where that is only one's, each with the name and
    the group. The column is the one that names most."""
    ways: dict[str, dict[str, tuple[str, str] | None]] = {"path": {}, "name": {}, "stem": {}}
    inside = f"{folder.as_posix()}/"
    for name, path, group in files:
        below = path.as_posix().removeprefix(inside)
        for kind, key in (("path", name), ("path", below), ("name", path.name), ("stem", path.stem)):
            known = ways[kind].setdefault(key, (name, group))
            if known is not None and known[0] != name:
                ways[kind][key] = None
    best: list[tuple[list[str], tuple[str, str]]] = []
    for place in range(len(rows[0])):
        said = [row[place].strip().replace("\\", "/") for row in rows]
        for way in ways.values():
            found = [(row, file) for row, name in zip(rows, said, strict=True) if (file := way.get(name)) is not None]
            if len(found) > len(best):
                best = found
    return best


def _words(name: str) -> list[str]:
    """The words of a column's or a file's name: `srcFile_ID` is `srcfile` and `id`, `src`, `file`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [*re.findall(r"[a-z]+", name.lower()), *re.findall(r"[a-z]+", apart.lower())]
