"""Writing files whole or not at all, and reading back the tables among them."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
from pathlib import Path

from edgekd.errors import InputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` under a temporary name beside it, then rename: a reader sees the old file or the new one.

    Raises `InputError` when it cannot be written; the old file is then still there, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as failure:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{path}: no space left on the disk ({len(data):,} bytes were to be written). "
                "What was written before is whole: free some space, then go on (--resume for a run)."
            ) from None
        raise InputError(f"{path}: cannot be written: {failure.strerror or failure}.") from None


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text, `legible` where it holds names that are none."""
    write_bytes(path, legible(text).encode())


def legible(text: str) -> str:
    """`text`, where a byte of a file's name that is no UTF-8 (a surrogate, to Python) is its code: `\\udce9`, as in
    JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


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
