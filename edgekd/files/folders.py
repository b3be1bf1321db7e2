"""Folders made beside and put in place, so that a kill at any moment leaves the old one, the new one, or both whole.

    .NAME.edgekd-new    what is to be NAME, with the file `.edgekd-new` in it until it is
    .NAME.edgekd-old    what was NAME, for the time of two renames, where the disk cannot exchange folders in one step
    .NAME.edgekd-gone   what is being deleted

All but `put_back` is for who holds the lock of the folder (`held`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, UsageError
from edgekd.files.locks import SUFFIX as LOCK
from edgekd.files.locks import is_free, real, writing
from edgekd.files.whole import folder_to_disk, sweep

MARK = ".edgekd-new"
_NEW, _OLD, _GONE = ".edgekd-new", ".edgekd-old", ".edgekd-gone"
_LEFT = re.compile(rf"\.(.+)({_NEW}|{_OLD}|{_GONE}|{LOCK})")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Be alone with the folder `place` (`locks.writing`), once what a killed process left of it has been put right.

    What it had begun to put in place or to delete is finished; a new folder that it was making stays (`unfinished`).
    """
    with writing(place):
        put_back(place, locked=True)
        if place.exists():
            _delete(_beside(place, _OLD))
        _delete(_beside(place, _GONE))
        new = _beside(place, _NEW)
        if not (new / MARK).is_file():  # the old folder after an exchange, or one in which nothing is yet
            remove(new)
        with contextlib.suppress(OSError):
            (place / MARK).unlink(missing_ok=True)
        yield


def is_here(place: Path) -> bool:
    """Whether this process stands in the folder `place`, or below it: it cannot be replaced without losing its feet."""
    return Path.cwd().is_relative_to(real(place))


def settle(folder: Path) -> None:
    """Put right what killed processes left of the folders in `folder`, but of those that somebody is at."""
    for left in list(folder.glob(".*.edgekd-*")):
        found = _LEFT.fullmatch(left.name)
        if found is not None:
            with contextlib.suppress(UsageError, InputError), held(folder / found[1]):
                pass


def tidy(folder: Path) -> None:
    """Remove what killed processes left in `folder`, half-written or half-deleted."""
    for left in folder.glob(f".*{_GONE}"):
        _delete(left)
    sweep(folder, alone=True)


def put_back(place: Path, *, locked: bool = False) -> None:
    """Bring back the folder `place` where a process was killed while it replaced it and its old contents lie beside it.

    For every command that looks for it. Does nothing where another process is at it, or nothing may be written.
    """
    old = _beside(place, _OLD)
    if place.exists() or not old.is_dir():
        return
    with contextlib.suppress(OSError):
        if locked or is_free(place):
            old.rename(real(place))


def begin(place: Path) -> Path:
    """A new, empty folder that is to become `place`; one that was begun before is deleted. Raises `OSError`."""
    new = _beside(place, _NEW)
    remove(new)
    new.parent.mkdir(parents=True, exist_ok=True)
    new.mkdir()
    (new / MARK).touch()
    return new


def unfinished(place: Path) -> Path | None:
    """The folder that was to become `place` when its process ended; None where there is none."""
    new = _beside(place, _NEW)
    return new if (new / MARK).is_file() else None


def install(new: Path, place: Path, *, replace: bool) -> None:
    """Have the folder `new` become `place`; with `replace`, instead of what is there, which is deleted.

    Raises `OSError`, also where something is there that is not to be replaced.
    """
    target = real(place)
    folder_to_disk(new)
    if not replace or not target.exists():
        new.rename(target)
    elif not exchange(new, target):
        old = _beside(place, _OLD)
        _delete(old)
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        folder_to_disk(target.parent)
        _delete(old)
    folder_to_disk(target.parent)
    (target / MARK).unlink(missing_ok=True)
    remove(new)  # where it was exchanged it is the old one


def remove(folder: Path) -> None:
    """Delete a folder so that no half of it is ever found under its name."""
    if not folder.exists():
        return
    name = folder.name
    gone = folder.with_name((name.removesuffix(_NEW) if name.endswith(_NEW) else f".{name}") + _GONE)
    _delete(gone)
    folder.rename(gone)
    _delete(gone)


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _beside(place: Path, suffix: str) -> Path:
    folder = real(place)
    return folder.with_name(f".{folder.name}{suffix}")


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; whether this system and disk can. Raises `OSError` where they may not."""
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    failure = ctypes.get_errno()
    if failure in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(failure, os.strerror(failure), str(second))


@cache
def _renameat2() -> Any:
    """The call of the C library; None where it has none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function
