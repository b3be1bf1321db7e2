"""The lock on a folder from the first file that a command writes to the last: one writer, or any number of readers.

It is held on `.NAME.edgekd-lock` beside the folder, so that the folder itself can be replaced under it (`folders`). The
kernel keeps it (`flock`) and releases it when the process ends, however that happens; over NFS (Linux 2.6.12 and later)
other machines see it too. A program that the process starts does not inherit it. Within the file each holder has a line
that says who it is, for whom it keeps out; the last one to leave removes the file.

A thread that holds the lock of a folder may take it again, as commands do that are made of others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, UsageError
from edgekd.escaping import plain_text

SUFFIX = ".edgekd-lock"

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # a disk without them, such as Lustre mounted so
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT
_LONGEST_COMMAND = 200
_HELD = threading.local()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be alone with `folder`, which need not be there yet.

    Raises `UsageError` that names the process that has it, `InputError` where nothing may be written.
    """
    with _held(folder, exclusive=True):
        yield


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Have nobody write `folder`. Where no lock file can be made, on a read-only disk, none is needed.

    Raises `UsageError` that names the process that writes it.
    """
    with _held(folder, exclusive=False):
        yield


def is_free(folder: Path) -> bool:
    """Whether nobody holds the lock of `folder` at this moment."""
    try:
        with _held(folder, exclusive=True):
            return True
    except (UsageError, InputError):
        return False


def real(folder: Path) -> Path:
    """`folder` without links in its path: what has two names has one lock."""
    return Path(os.path.realpath(folder))


@contextmanager
def _held(folder: Path, *, exclusive: bool) -> Iterator[None]:
    own: dict[Path, bool] = _HELD.__dict__.setdefault("folders", {})
    place = real(folder)
    if place in own and own[place] >= exclusive:
        yield
        return
    made = [parent for parent in place.parents if exclusive and not parent.exists()]
    file = _taken(place, folder, exclusive)
    before = own.get(place)
    own[place] = exclusive
    try:
        yield
    finally:
        if before is None:
            del own[place]
        else:
            own[place] = before
        if file is not None:
            _release(*file)
        for parent in made:  # from the innermost on; kept where there is something in it now
            with contextlib.suppress(OSError):
                parent.rmdir()


def _taken(place: Path, shown: Path, exclusive: bool) -> tuple[Path, int] | None:
    """The lock file and its descriptor; None where there are no locks to be had, or none that a reader needs."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        opened = _opened(place, shown, exclusive)
        if opened is None:
            return None
        path, file = opened
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            os.close(file)
            raise UsageError(f"{shown}: {holder}. Wait for its end, or name another folder.") from None
        except OSError as failure:
            os.close(file)
            if failure.errno in _NO_LOCKS:
                return None
            raise
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file), path.stat()):
                _sign(file, exclusive)
                return path, file
        os.close(file)  # its last holder has removed it meanwhile


def _opened(place: Path, shown: Path, exclusive: bool) -> tuple[Path, int] | None:
    beside, inside = place.with_name(f".{place.name}{SUFFIX}"), place / SUFFIX
    try:
        if exclusive:
            beside.parent.mkdir(parents=True, exist_ok=True)
        return beside, os.open(beside, _FLAGS, 0o666)
    except OSError as failure:
        refused = failure
    if refused.errno in _NOT_WRITABLE:
        with contextlib.suppress(OSError):
            return beside, os.open(beside, os.O_RDONLY)  # another user's
        with contextlib.suppress(OSError):  # a folder of the user's in one that is not
            if os.access(place, os.W_OK):
                return inside, os.open(inside, _FLAGS, 0o666)
    if exclusive:
        raise InputError(f"{shown}: cannot be written: {refused.strerror}. Name another folder.")
    return None


def _release(path: Path, file: int) -> None:
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # others read
            _note(file, {"left": True})
        else:
            if os.path.samestat(os.fstat(file), path.stat()):
                path.unlink()
    os.close(file)


def _sign(file: int, exclusive: bool) -> None:
    """Say who has the lock."""
    if exclusive:
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
    _note(file, {})


def _note(file: int, more: dict[str, bool]) -> None:
    """Write a line of this process. A disk that is full, or another user's file, does not keep anybody from a lock."""
    with contextlib.suppress(OSError):
        os.write(file, (json.dumps({**_self(), **more}) + "\n").encode())


def _self() -> dict[str, Any]:
    program, *arguments = sys.argv or [""]
    if Path(program).name == "edgekd" or Path(program).parts[-2:] == ("edgekd", "__main__.py"):
        program = "edgekd"
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([program, *arguments])[:_LONGEST_COMMAND],
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    }


def _holder(file: int) -> str:
    """Who has the lock, as far as that can be read."""
    there: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        os.lseek(file, 0, os.SEEK_SET)
        for line in os.read(file, 1 << 16).decode(errors="replace").splitlines():
            told = json.loads(line)
            if told.pop("left", False):
                there = [each for each in there if (each["pid"], each["host"]) != (told["pid"], told["host"])]
            elif told["host"] != socket.gethostname() or is_alive(int(told["pid"])):
                there.append(told)
    if not there:
        return "in use by another process"
    last = there[-1]
    words = f"{last['pid']} on {last['host']}, '{last.get('command')}' since {last.get('since')}"
    return f"in use by process {plain_text(words)}"


def is_alive(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
