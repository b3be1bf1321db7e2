"""CSV tables that people write and spreadsheets export, with every complaint at its line.

Columns are separated by commas, semicolons, tabs or bars and quoted as in RFC 4180 (`table_text` finds out by what, and
in which encoding). Their names count without regard to case and blanks. Lines without any value are skipped, and so are
columns that only number the lines, as data frames write them.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError, shown, unknown_name
from edgekd.files.spelling import alike, difference
from edgekd.files.table_text import separated, text_of

_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")  # what pandas calls the column of row numbers that it wrote itself
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}")


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
        """The value as a whole number (`3.0` is one: data frames write it). Raises `InputError`."""
        try:
            return int(re.sub(r"[.,]0+$", "", self.text(column)))
        except ValueError:
            raise self.error(f"{column} must be a whole number, not {shown(self.text(column))}.") from None

    def number_or(self, column: str, default: float) -> float:
        """The value as a finite number, `default` where it is empty. Raises `InputError`.

        A decimal comma, as spreadsheets write it, is read where columns are not parted by commas; after a tab not
        where it may as well part thousands.
        """
        text = self.text(column)
        if not text:
            return default
        comma = self.separator == ";" or (self.separator != "," and not _THOUSANDS.fullmatch(text))
        try:
            number = float(text.replace(",", ".") if comma else text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{column} must be a number, not {shown(text)}.")
        return number

    def error(self, what: str) -> InputError:
        return InputError(f"{self.table}, line {self.number}: {what}")


def read_table(table: Path, needed: Sequence[str], optional: Sequence[str] | None = None) -> list[Line]:
    """The lines of a table. `optional` are the other columns it may have (None: any, and they are ignored).

    Raises `InputError` for a file that cannot be read or is no table, a needed column that is absent, one that is
    unknown or there twice, a line with too few or too many values, and a table without lines.
    """
    known = (*needed, *(optional or ()))
    columns, lines = read_lines(table, known, lambda names: _check_columns(table, names, needed, optional))
    if optional is not None:
        _check_unknown(table, columns, lines, needed, optional)
    if not lines:
        raise InputError(f"{table}: has no lines below the names of its columns.")
    return lines


def read_lines(
    table: Path, known: Sequence[str] = (), check: Callable[[list[str]], None] | None = None, quoted: bool = True
) -> tuple[list[str], list[Line]]:
    """The names of a table's columns, whatever they are (those `known` as they are known), and its lines.

    `check` sees the names before any line is read: a file that is no table has a wrong header first of all. Not
    `quoted`, quotes are letters. Raises `InputError` for a file that cannot be read or is no table, a column that is
    there twice, and a line with too few or too many values.
    """
    separator, text, above = separated(text_of(table), known)
    columns: list[str] = []
    lines = []
    for number, values in records(table, text, separator, above, quoted=quoted):
        if not columns:
            columns = _names(values, known)
            if check is not None:
                check(columns)
            _check_twice(table, columns)
            continue
        line = Line(table, number, dict(zip(columns, values, strict=False)), separator)
        if len(values) != len(columns):
            quote = f" Put quotes around a value with {separator!r} in it." if len(values) > len(columns) else ""
            raise line.error(f"has {len(values)} values for {len(columns)} columns.{quote}")
        lines.append(line)
    if not columns and check is not None:
        check(columns)
    return columns, lines


def records(
    table: Path, text: str, separator: str, above: int = 0, strict: bool = True, quoted: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """The number of each line with a value in it, in a file with `above` lines before `text`, and its values.

    Not `strict`, blanks before quotes and quotes inside values are let pass; not `quoted`, quotes are letters. Raises
    `InputError`, with the line, for what is no CSV.
    """
    file = io.StringIO(text, newline="")
    reader = csv.reader(
        file,
        delimiter=separator,
        strict=strict,
        skipinitialspace=not strict,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield above + reader.line_num, values
    except csv.Error as failure:
        raise InputError(f"{table}, line {above + reader.line_num}: not a CSV table ({failure}).") from None


def check_names(names: Iterable[tuple[Line, str]]) -> None:
    """Raises `InputError` for a name that is empty, and for two that are `alike`."""
    first: dict[str, tuple[Line, str]] = {}
    for line, name in names:
        plain = alike(name)
        if not plain:
            raise line.error("the class has no name.")
        other, spelled = first.setdefault(plain, (line, name))
        if spelled != name:
            raise line.error(
                f"class {shown(name)} is {shown(spelled)} in line {other.number}: they differ only in "
                f"{difference(name, spelled)}. Write them alike."
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
            raise line.error(f"{shown(str(path))} cannot be read: {failure.strerror}.") from None
    return dict(sorted(missing.items(), key=lambda item: item[1].number))


def _names(values: Sequence[str], known: Sequence[str]) -> list[str]:
    """The names of the columns, a known one as it is known."""
    spelled = {alike(name): name for name in known}
    return [spelled.get(alike(value), value.strip()) for value in values]


def _check_columns(table: Path, columns: list[str], needed: Sequence[str], optional: Sequence[str] | None) -> None:
    absent = [name for name in needed if name not in columns]
    if absent:
        for name in _unknown(columns, needed, optional):  # it may be the one that is absent, misspelled
            raise InputError(f"{table}: {unknown_name('column', name[:80], (*needed, *(optional or ())))}")
        raise InputError(
            f"{table}: no column {', '.join(absent)}; needed: {', '.join(needed)}. The first line names the columns."
        )


def _check_twice(table: Path, columns: list[str]) -> None:
    twice = [name for name in columns if name and columns.count(name) > 1]
    if twice:
        raise InputError(f"{table}: column '{twice[0]}' is there twice.")


def _check_unknown(
    table: Path, columns: list[str], lines: Sequence[Line], needed: Sequence[str], optional: Sequence[str]
) -> None:
    for name in _unknown(columns, needed, optional):
        if not _numbers_lines([line.text(name) for line in lines]):
            raise InputError(f"{table}: {unknown_name('column', name[:80], (*needed, *optional))}")


def _unknown(columns: list[str], needed: Sequence[str], optional: Sequence[str] | None) -> list[str]:
    """The columns that the table should not have, but for those whose name says that they number its lines."""
    known = columns if optional is None else (*needed, *optional)
    return [name for name in columns if name and name not in known and not _UNNAMED.fullmatch(name)]


def _numbers_lines(values: list[str]) -> bool:
    """Whether a column holds 0, 1, 2, ... or 1, 2, 3, ... and so nothing."""
    return any(values == [str(number) for number in range(first, first + len(values))] for first in (0, 1))
