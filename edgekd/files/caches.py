"""The cache folder, locks on what is in it, and files of a size known beforehand that several threads write."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`$EDGEKD_CACHE_DIR`, or `~/.cache/edgekd`."""
    return Path(os.environ.get("EDGEKD_CACHE_DIR") or "~/.cache/edgekd").expanduser()


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the exclusive lock on the file `path`; `waiting()` is called once if another process has it.

    The kernel releases it when the process ends, however that happens.
    """
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def reserve(file: int, size: int) -> None:
    """Make the open `file` exactly `size` bytes long and take the space now rather than fail half way."""
    os.ftruncate(file, size)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as failure:
        if failure.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot reserve
            raise


def write_at(file: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset` of the open `file`. Raises `OSError` where the disk takes less."""
    if os.pwrite(file, data, offset) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
