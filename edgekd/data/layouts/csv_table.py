"""CSV tables that people write and spreadsheets export, with every complaint at its line.

Columns are separated by commas, semicolons or tabs, whichever the first line has most of, and quoted as in RFC 4180;
the text is UTF-8, with a byte order mark or without. Lines without any value are skipped.
"""

from __future__ import annotations

import csv
import math
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

from edgekd.errors import InputError, unknown_name

_SHORT = reprlib.Repr()
_SHORT.maxstring = 160


@dataclass(frozen=True)
class Line:
    """One line of a table: its number in the file, from 1, and its values by column, blanks around them kept."""

    table: Path
    number: int
    values: dict[str, str]
    separator: str

    def text(self, column: str) -> str:
        """The value without blanks around it; empty where the table has no such column."""
        return self.values.get(column, "").strip()

    def whole(self, column: str) -> int:
        """The value as a whole number. Raises `InputError`."""
        try:
            return int(self.text(column))
        except ValueError:
            raise self.error(f"{column} must be a whole number, not {_shown(self.text(column))}.") from None

    def number_or(self, column: str, default: float) -> float:
        """The value as a finite number, `default` where it is empty. Raises `InputError`.

        With semicolons between columns, as spreadsheets write where the decimal sign is a comma, that is read too.
        """
        text = self.text(column)
        if not text:
            return default
        try:
            number = float(text.replace(",", ".") if self.separator == ";" else text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{column} must be a number, not {_shown(text)}.")
        return number

    def error(self, what: str) -> InputError:
        return InputError(f"{self.table}, line {self.number}: {what}")


def read_table(table: Path, needed: Sequence[str], optional: Sequence[str] | None = None) -> list[Line]:
    """The lines of a CSV file. `optional` are the other columns it may have (None: any, and they are ignored).

    Raises `InputError` for a file that cannot be read or is no table in UTF-8, a needed column that is absent, one
    that is unknown or there twice, a line with too few or too many values, and a table without lines.
    """
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            lines = _lines(table, file, needed, optional)
    except FileNotFoundError:
        raise InputError(f"{table}: no such file.") from None
    except OSError as failure:
        raise InputError(f"{table}: cannot be read: {failure.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{table}: not a CSV table in UTF-8. Save it as 'CSV UTF-8'.") from None
    if not lines:
        raise InputError(f"{table}: has no lines below the names of its columns.")
    return lines


def check_names(names: Iterable[tuple[Line, str]]) -> None:
    """Raises `InputError` for a name that is empty, and for two that differ only in case or in blanks."""
    first: dict[str, tuple[Line, str]] = {}
    for line, name in names:
        alike = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if not alike:
            raise line.error("the class has no name.")
        other, spelled = first.setdefault(alike, (line, name))
        if spelled != name:
            raise line.error(
                f"class {_shown(name)} is {_shown(spelled)} in line {other.number}: they differ only in case or "
                "blanks. Write them alike."
            )


def missing_files(files: Iterable[tuple[Line, Path]]) -> dict[Path, Line]:
    """Those of the files that are not there, each with the first line that names it.

    Raises `InputError` for a path that cannot even be looked for.
    """
    missing: dict[Path, Line] = {}
    for path, line in {path: line for line, path in reversed(list(files))}.items():
        try:
            if not path.is_file():
                missing[path] = line
        except OSError as failure:
            raise line.error(f"{_shown(str(path))} cannot be read: {failure.strerror}.") from None
    return dict(sorted(missing.items(), key=lambda item: item[1].number))


def _shown(value: str) -> str:
    """A value in quotes, for a message: on one line, and not all of it where it is very long."""
    return _SHORT.repr(value)


def _lines(table: Path, file: TextIO, needed: Sequence[str], optional: Sequence[str] | None) -> list[Line]:
    first = file.readline()
    separator = max(",;\t", key=first.count)
    reader = csv.reader(chain([first], file), delimiter=separator, strict=True)
    try:
        columns = [name.strip() for name in next(reader)] if first else []
        _check_columns(table, columns, needed, optional)
        lines = []
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            line = Line(table, reader.line_num, dict(zip(columns, values, strict=False)), separator)
            if len(values) != len(columns):
                quote = f" Put quotes around a value with {separator!r} in it." if len(values) > len(columns) else ""
                raise line.error(f"has {len(values)} values for {len(columns)} columns.{quote}")
            lines.append(line)
    except csv.Error as failure:
        raise InputError(f"{table}, line {reader.line_num}: not a CSV table ({failure}).") from None
    return lines


def _check_columns(table: Path, columns: list[str], needed: Sequence[str], optional: Sequence[str] | None) -> None:
    if optional is not None:
        for name in columns:
            if name and name not in (*needed, *optional):  # unnamed: line numbers of a data frame, or nothing
                raise InputError(f"{table}: {unknown_name('column', name[:80], (*needed, *optional))}")
    absent = [name for name in needed if name not in columns]
    if absent:
        raise InputError(
            f"{table}: no column {', '.join(absent)}; needed: {', '.join(needed)}. The first line names the columns."
        )
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise InputError(f"{table}: column '{twice[0]}' is there twice.")
