"""Standard error without the lines of libmpg123, which writes there on its own behind libsndfile's back."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_LINES = re.compile(
    rb"(?:\[[^\]\n]*libmpg123[^\]\n]*\]|Warning: Xing stream size off|Note: (?:Skipped|Trying to resync|Xing|Info:|"
    rb"Input data end|broken frame|Cut frame|free format|Junk at|Looks like a RIFF|Illegal Audio-MPEG|Could be a BMP|"
    rb"Hit end|ID3v2|RVA|doing RVA|frame of group|Ignoring Xing|missing \d+ bytes))[^\n]*\n?"
)

_lock = threading.Lock()
_users = 0
_aside: tuple[int, BinaryIO] | None = None  # the real standard error, and where its lines go meanwhile


@contextmanager
def hushed() -> Iterator[None]:
    """Within it what libmpg123 writes to standard error is dropped, and what others write comes through at its end.

    For any number of threads at once; the last to leave brings standard error back. For short calls.
    """
    global _users  # noqa: PLW0603
    with _lock:
        if _users == 0:
            _turn_aside()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _bring_back()


def _turn_aside() -> None:
    global _aside  # noqa: PLW0603
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
        real = os.dup(2)
    except (OSError, ValueError):  # it is closed: there is nothing to keep clean
        return
    meanwhile = _own_file()
    os.dup2(meanwhile.fileno(), 2)
    _aside = real, meanwhile


def _own_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):  # on Linux: in memory
        return open(os.memfd_create("stderr"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _bring_back() -> None:
    global _aside  # noqa: PLW0603
    if _aside is None:
        return
    real, meanwhile = _aside
    _aside = None
    os.dup2(real, 2)
    os.close(real)
    with meanwhile:
        meanwhile.seek(0)
        written = meanwhile.read()
    if rest := _LINES.sub(b"", written):
        os.write(2, rest)
