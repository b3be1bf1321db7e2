"""The text of tables as spreadsheets, data frames and people save them, and what parts its columns.

Bytes are UTF-8 or UTF-16, with a byte order mark or without, else Windows-1252, which Excel writes as 'CSV' in western
Europe. A file that has letters of UTF-8, and is broken in places, is damaged and not another encoding: read as one, its
names would be wrong without a word.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import InputError
from edgekd.files.spelling import alike

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".tab")
SEPARATORS = ",;\t|"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEPARATOR_LINE = re.compile(r"\s*\"?sep=(.)\"?[ \t]*(?:\r\n|\r|\n|$)", re.IGNORECASE)


def is_table(path: Path) -> bool:
    """Whether `path` is named as a table."""
    return path.suffix.lower() in TABLE_SUFFIXES


def table_at(folder: Path, name: str) -> Path | None:
    """The table called `name` in `folder`, whatever its case, with any ending of a table; None where there is none.

    Raises `InputError` for two.
    """
    if not folder.is_dir():
        return None
    stem = Path(name).stem.casefold()
    found = sorted(
        path for path in folder.iterdir() if path.stem.casefold() == stem and is_table(path) and path.is_file()
    )
    if len(found) > 1:
        raise InputError(f"{folder}: '{found[0].name}' and '{found[1].name}': which of the two counts? Take one out.")
    return found[0] if found else None


def text_of(table: Path) -> str:
    """All of a table, without a byte order mark. Raises `InputError` where it cannot be read or is no text."""
    try:
        content = table.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{table}: no such file.") from None
    except OSError as failure:
        raise InputError(f"{table}: cannot be read: {failure.strerror}.") from None
    return _decoded(table, content).rstrip("\x1a")  # the end of a file, to DOS


def separated(text: str, columns: Sequence[str] = ()) -> tuple[str, str, int]:
    """The separator of a table's `text`, the text from its header on, and how many lines stand before that.

    `sep=;` in the first line says it, as in files that Excel opens. Else it is the one by which the first line has most
    of the `columns` that are expected, and of these the one that it has most of.
    """
    said = _SEPARATOR_LINE.match(text)
    if said:
        return said[1], text[said.end() :], 1
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    expected = {alike(name) for name in columns}

    def fits(separator: str) -> tuple[int, int]:
        try:
            fields = next(csv.reader([first], delimiter=separator), [])
        except csv.Error:
            fields = first.split(separator)
        return len(expected & {alike(field) for field in fields}), first.count(separator)

    return max(SEPARATORS, key=fits), text, 0


def _decoded(table: Path, content: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None) or _unmarked(content)
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as failure:
        if encoding != "utf-8" or _holds_utf8(content):
            line = content.count(b"\n", 0, failure.start) + 1
            raise InputError(
                f"{table}, line {line}: not text in {encoding.upper()} ({failure.reason}). Save it as 'CSV UTF-8'."
            ) from None
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise InputError(f"{table}, line {line}: not a table in UTF-8. Save it as 'CSV UTF-8'.") from None


def _unmarked(content: bytes) -> str:
    """UTF-16 without its mark has a 0 beside each ASCII letter of the header."""
    head = content[:64]
    low, high = head[0::2].count(0), head[1::2].count(0)
    if len(head) >= 8 and max(low, high) >= 0.7 * (len(head) // 2) and min(low, high) == 0:
        return "utf-16-le" if high else "utf-16-be"
    return "utf-8"


def _holds_utf8(content: bytes) -> bool:
    """Whether some of the bytes above ASCII are letters of UTF-8: in Windows-1252 they would be `Ã¤` and the like."""
    return any(
        letter >= "\x80" and not "\udc80" <= letter <= "\udcff" for letter in content.decode(errors="surrogateescape")
    )
