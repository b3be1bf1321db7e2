"""Labels and groups from the names of files, by a pattern, as a manifest.

    {_}_{label}_{group}_{_}           the name of a file, without its ending
    {label}/{_}_{group}.wav           the last parts of its path below the folder, as many as the pattern has

A field is `label`, `group`, `fold` or `split` (`side` is another name for it); `{_}` is anything but the `/` between
folders. The others do not hold the signs that stand beside them in the pattern either: `{label}_{group}` reads `tug_7`,
and not `tug_a_7`. The parts of a `group` that is there twice are put together: site and day.

A name that can be read in two ways is a question to whoever wrote the pattern, not a guess.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edgekd.audio.read import AUDIO_SUFFIXES
from edgekd.data.layouts.manifest import OPTIONAL, read_fold, read_side
from edgekd.data.walk import audio_files
from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.escaping import is_utf8
from edgekd.files.spelling import alike, difference, one_spelling
from edgekd.files.tables import write_csv

FIELDS = ("label", "group", "fold", "split", "side")
ANYTHING = "_"

Reading = tuple[tuple[str, str], ...]
Part = tuple[Literal["field", "text"], str]

_PART = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Pattern:
    """A pattern in its parts, a list for each folder and the last for the name; `suffix` is the ending that names must
    have, empty where any is right."""

    text: str
    parts: tuple[tuple[Part, ...], ...]
    suffix: str

    def readings(self, below: Path) -> list[Reading]:
        """The ways to read the file at `below` the folder, two at most; none: it does not fit."""
        if self.suffix and below.suffix.lower() != self.suffix:
            return []
        names = [*below.parent.parts, below.stem]
        if len(names) < len(self.parts):
            return []
        readings: list[Reading] = [()]
        for part, name in zip(self.parts, names[len(names) - len(self.parts) :], strict=True):
            readings = [(*begun, *found) for begun in readings for found in _readings(part, name)][:2]
        return list(dict.fromkeys(readings))


@dataclass(frozen=True)
class NamedFiles:
    """What a pattern reads: a row a file, path and columns by their names, the files of each label, how many groups,
    and the files that do not fit."""

    folder: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    unfit: tuple[str, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    groups: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "files": len(self.rows),
            "columns": list(self.columns),
            "labels": self.labels,
            "groups": self.groups,
            "rows": list(self.rows),
            "unfit": list(self.unfit),
        }


def parse_pattern(text: str) -> Pattern:
    """Raises `UsageError` for one without a label, with an unknown field, one that is there twice, two side by side, or
    a bracket that is left open."""
    suffix = Path(text).suffix.lower()
    whole = text
    if suffix in AUDIO_SUFFIXES:
        text = text[: -len(suffix)]
    else:
        suffix = ""
    if not text.strip() or text.startswith("/") or "//" in text or text.endswith("/"):
        raise UsageError(f"--pattern {whole!r}: write parts of a path, e.g. '{{label}}/{{group}}_{{_}}.wav'.")
    parts = tuple(_parts(whole, each) for each in text.split("/"))
    names = [name for part in parts for kind, name in part if kind == "field" and name != ANYTHING]
    for name in names:
        if name not in FIELDS:
            raise UsageError(f"--pattern {whole!r}: {unknown_name('field', name, (*FIELDS, ANYTHING))}")
    if "label" not in names:
        raise UsageError(f"--pattern {whole!r}: no {{label}}: which part of a name is the class?")
    twice = [name for name in names if names.count(name) > 1 and name != "group"]
    if twice or {"split", "side"} <= {*names}:
        raise UsageError(f"--pattern {whole!r}: {{{twice[0] if twice else 'split'}}} is there twice.")
    if "fold" in names and {"split", "side"} & {*names}:
        raise UsageError(f"--pattern {whole!r}: a fold and a split. Take one of the two.")
    return Pattern(whole, parts, suffix)


def read_names(folder: Path, pattern: Pattern) -> NamedFiles:
    """The audio files in `folder` and below, as `pattern` reads them, in alphabetical order.

    Raises `InputError` where none fits, one can be read in two ways, labels are alike or just one, and for a fold or
    split that is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'a file, no folder' if folder.exists() else 'no such folder'}.")
    files = [path.relative_to(folder) for path in audio_files(folder)]
    if not files:
        raise InputError(f"{folder}: holds no audio ({' '.join(sorted(AUDIO_SUFFIXES))}).")
    rows, unfit, unclear = [], [], []
    for below in files:
        readings = pattern.readings(below) if is_utf8(str(below)) else []
        if len(readings) > 1:
            unclear.append((below, readings))
        elif readings:
            rows.append({"path": below.as_posix(), **_columns(readings[0])})
        else:
            unfit.append(below.as_posix())
    if unclear:
        below, readings = unclear[0]
        ways = " or ".join(", ".join(f"{name}={value}" for name, value in reading) for reading in readings)
        raise InputError(
            f"{folder / below}: --pattern {pattern.text!r} reads it in two ways: {ways} ({len(unclear)} such). Write "
            "more of the name into the pattern, a field for each part."
        )
    if not rows:
        raise InputError(f"{folder}: none of {len(files)} names fits --pattern {pattern.text!r}, e.g. {unfit[0]}.")
    labels = _counted(folder, rows)
    for row in rows:
        _check(folder, row)
    columns = ("path", *(name for name in ("label", *OPTIONAL) if name in rows[0]))
    groups = len({alike(row.get("group", row["path"])) for row in rows})
    return NamedFiles(folder, columns, tuple(rows), tuple(unfit), labels, groups)


def write_manifest(out: Path, named: NamedFiles, overwrite: bool = False) -> None:
    """Write the table that `--dataset manifest` reads; its paths are relative to its own folder where that holds them.

    Raises `UsageError` where `out` is there and not to be replaced, `InputError` where it cannot be written.
    """
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: is there already. Replace it with --overwrite, or name another with --out.")
    lines = [named.columns]
    here, there = out.parent.resolve(), named.folder.resolve()
    for row in named.rows:
        path = there / row["path"]
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        lines.append((shown.as_posix(), *(row[column] for column in named.columns[1:])))
    write_csv(out, lines)


def _parts(whole: str, text: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    for number, piece in enumerate(_PART.split(text)):
        if number % 2:
            if parts and parts[-1][0] == "field":
                raise UsageError(
                    f"--pattern {whole!r}: {{{parts[-1][1]}}} and {{{piece}}} stand side by side: where does one end? "
                    "Put what parts them in names between."
                )
            parts.append(("field", piece))
        elif piece:
            if "{" in piece or "}" in piece:
                raise UsageError(f"--pattern {whole!r}: a bracket without its other half at {piece!r}.")
            parts.append(("text", piece))
    return tuple(parts)


def _readings(parts: tuple[Part, ...], name: str) -> list[Reading]:
    """The ways to read one name, two at most, `{_}` left out of them."""
    texts = [text if kind == "text" else "" for kind, text in parts]

    @cache
    def after(place: int, start: int) -> tuple[Reading, ...]:
        """The readings of what is left of the name by what is left of the parts."""
        if place == len(parts):
            return ((),) if start == len(name) else ()
        kind, value = parts[place]
        if kind == "text":
            return after(place + 1, start + len(value)) if name.startswith(value, start) else ()
        following = texts[place + 1] if place + 1 < len(parts) else ""
        beside = {texts[place - 1][-1:] if place else "", following[:1]} - {""}
        found: dict[Reading, None] = {}
        for stop in range(start + 1, len(name) + 1):
            if value != ANYTHING and name[stop - 1] in beside:
                break
            if (following and not name.startswith(following, stop)) or not name[start:stop].strip():
                continue
            for rest in after(place + 1, stop):
                found[rest if value == ANYTHING else ((value, name[start:stop]), *rest)] = None
            if len(found) > 1:
                break
        return tuple(found)[:2]

    return list(after(0, 0))


def _columns(reading: Reading) -> dict[str, str]:
    values: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in reading:
        values["split" if name == "side" else name].append(value.strip())
    return {name: "_".join(each) for name, each in values.items()}


def _counted(folder: Path, rows: Sequence[dict[str, str]]) -> dict[str, int]:
    """How many files each label has. Raises `InputError` for labels that are alike, or just one."""
    labels: dict[str, int] = {}
    for row in rows:
        labels[row["label"]] = labels.get(row["label"], 0) + 1
    for name, other in one_spelling(labels).items():
        if other != name or not alike(name):
            raise InputError(
                f"{folder}: labels {other!r} ({labels[other]} files) and {name!r} ({labels[name]}) differ only in "
                f"{difference(name, other)}. Rename the files of one."
            )
    if len(labels) < 2:
        raise InputError(f"{folder}: only one label ({next(iter(labels))!r}); a classifier needs at least two.")
    return dict(sorted(labels.items()))


def _check(folder: Path, row: dict[str, str]) -> None:
    try:
        read_fold(row.get("fold", ""))
        read_side(row.get("split", ""))
    except UsageError as mistake:
        raise InputError(f"{folder / row['path']}: {mistake}") from None
