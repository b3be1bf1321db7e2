"""Writing files whole or not at all.

A file is written under a temporary name beside it, brought to the disk, and renamed; then the folder is brought to the
disk. So a reader sees the old file or the new one, whenever the process is killed or the power fails. What killed
processes left is removed by `sweep`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from edgekd.errors import NO_SPACE, InputError
from edgekd.escaping import legible
from edgekd.files.locks import is_alive

_PARTIAL = re.compile(r"\..+?\.(?:(?P<host>[^.]*)\.)?(?P<pid>\d+)\.partial")
_DAY = 86_400  # seconds after which what a process on another machine left is taken for left


class NotWrittenError(InputError):
    """A file could not be written, for a `reason`, a part of a sentence."""

    def __init__(self, path: Path, reason: str, advice: str = "") -> None:
        super().__init__(f"{path}: {reason}.{advice}")
        self.reason = reason


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` under a temporary name beside it, then rename: a reader sees the old file or the new one.

    Raises `InputError` when it cannot be written; the old file is then still there, and nothing else.
    """
    write_together(path.parent, {path.name: data})


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of one `folder`: all under temporary names, and only then each in its place.

    Raises as `write_bytes` does.
    """
    temporaries = {name: _temporary(folder / name) for name in contents}
    name = ""
    try:
        for name, temporary in temporaries.items():
            with open(temporary, "wb") as file:
                file.write(contents[name])
                to_disk(file.fileno())
        for name, temporary in temporaries.items():
            temporary.replace(folder / name)
        folder_to_disk(folder)
    except OSError as failure:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        path = folder / name
        if failure.errno in NO_SPACE:
            raise NotWrittenError(
                path,
                f"no space left on the disk ({len(contents[name]):,} bytes were to be written)",
                " What was written before is whole: free some space, then go on (--resume for a run).",
            ) from None
        raise NotWrittenError(path, f"cannot be written: {failure.strerror or failure}") from None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which becomes `path` when the block ends well. Raises `OSError`."""
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            to_disk(file.fileno())
        temporary.replace(path)
        folder_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text, `legible` where it holds names that are none."""
    write_bytes(path, legible(text).encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def to_disk(file: int) -> None:
    """Wait until the open `file` is on the disk. Raises `OSError` where the disk cannot take it."""
    try:
        os.fsync(file)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a disk that has no such thing
            raise


def folder_to_disk(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk, where it can do that."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def all_to_disk(folder: Path) -> None:
    """Wait until the files in `folder`, and in the folders in it, are on the disk, whoever has written them."""
    for path in folder.iterdir():
        if path.is_dir():
            all_to_disk(path)
            continue
        file = os.open(path, os.O_RDONLY)
        try:
            to_disk(file)
        finally:
            os.close(file)
    folder_to_disk(folder)


def is_partial(name: str) -> bool:
    """Whether this is the temporary name of a file that is being written, or was when its process was killed."""
    return _PARTIAL.fullmatch(name) is not None


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove the files that killed processes left half-written in `folder`, and nothing that lives.

    `alone`: nobody else writes there (the caller holds the lock), so all of them are left, those in its folders too.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.rglob(".*.partial") if alone else folder.glob(".*.partial")):
            found = _PARTIAL.fullmatch(path.name)
            if found is not None and (alone or _is_left(path, found["host"], int(found["pid"]))):
                path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.partial")


def _is_left(path: Path, host: str | None, pid: int) -> bool:
    if host == _host():
        return not is_alive(pid)
    return time.time() - path.stat().st_mtime > _DAY


def _host() -> str:
    """This machine's name, as part of a file's."""
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:40]
