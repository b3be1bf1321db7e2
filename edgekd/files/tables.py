"""CSV tables that edgekd writes and reads back; those that people write are read by `csv_table`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekd.errors import InputError
from edgekd.files.whole import write_text


def csv_of(lines: Iterable[Iterable[Any]]) -> str:
    """The text of a table, its header first. Names in it are coded by the caller (`escaping.csv_text`)."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write_csv(path: Path, lines: Iterable[Iterable[Any]]) -> None:
    """Write the table whole, as `write_text` does."""
    write_text(path, csv_of(lines))


def read_csv(path: Path) -> list[list[str]]:
    """The lines of a table that a run has written, its header first. Raises `InputError` where it is unreadable."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; is this a complete run?") from None
    except (UnicodeDecodeError, csv.Error) as failure:
        raise InputError(f"{path}: not a CSV table ({failure}).") from None
    except OSError as failure:
        raise InputError(f"{path}: cannot be read: {failure.strerror}.") from None
