"""Every event by which a process changes the disk, counted, and a kill -9 of itself at one of them.

Caught are opening a file for writing, each write to it (Python's own files, `os.write`, `os.pwrite`), its length
(`os.ftruncate`, `os.posix_fallocate`), bringing it to the disk (`os.fsync`, `os.fdatasync`), and rename, link, unlink,
mkdir, rmdir, chmod and the exchange of two folders: the files by functions put in place of Python's, the names by its
audit hook, which nobody gets past. What a library of C writes by itself is not seen; in edgekd none does, which
`strace` of the commands confirms.

Between two events nothing on the disk changes, so a kill after one is a kill before the next.
"""

# ruff: noqa: PTH100, PTH115, PTH117, PTH118
from __future__ import annotations

import _io
import builtins
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NAMES = {
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.truncate": (0,),
}
PRESENT = -1  # of an audit event: there is no descriptor of a folder


class Events:
    """The events below the folder `root` in this process from now on, as `seen`: a line each.

    At the event of number `kill_at` (from 0) the process kills itself: before it, or, with `half`, when half of the
    bytes of a write are written. What it writes elsewhere is not counted.
    """

    def __init__(self, root: Path, kill_at: int | None = None, *, half: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.kill_at, self.half = kill_at, half
        self.seen: list[str] = []
        self._lock = threading.RLock()

    def install(self) -> None:
        """Begin to count."""
        sys.addaudithook(self._audited)
        real_open = _io.open
        events = self

        class File(io.FileIO):
            def write(self, data: Any, /) -> int:
                name = self.name
                path = events.inside(name if isinstance(name, str | bytes | os.PathLike) else self.fileno())
                if path is not None:
                    view = memoryview(data).cast("B")
                    events.happens("write", path, lambda: io.FileIO.write(self, view[: len(view) // 2]))
                return io.FileIO.write(self, data)

        def opened(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not set(mode) & set("wxa+"):
                return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            size = io.DEFAULT_BUFFER_SIZE if buffering < 2 else buffering
            kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
            buffered = kind(raw, size)
            if "b" in mode:
                return buffered
            text = io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
            text.mode = mode  # type: ignore[misc]
            return text

        builtins.open = io.open = _io.open = opened  # type: ignore[assignment]
        for name in ("write", "pwrite", "ftruncate", "posix_fallocate", "fsync", "fdatasync"):
            setattr(os, name, self._descriptor_function(name, getattr(os, name)))
        folders = sys.modules.get("edgekd.files.folders")
        if folders is not None:
            real_exchange = folders.exchange

            def exchanged(first: Path, second: Path) -> bool:
                path = self.inside(first)
                if path is not None:
                    self.happens("exchange", path)
                return bool(real_exchange(first, second))

            folders.exchange = exchanged  # type: ignore[attr-defined]

    def inside(self, file: Any, folder: int = PRESENT) -> str | None:
        """The path of `file`, a name or a descriptor, below the root; None where it lies elsewhere."""
        if isinstance(file, int):
            try:
                path = os.readlink(f"/proc/self/fd/{file}")
            except OSError:
                return None
        else:
            path = os.fsdecode(file)
            if folder != PRESENT and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            path = os.path.abspath(path)
        return path[len(self.root) + 1 :] if path.startswith(self.root + os.sep) else None

    def happens(self, kind: str, path: str, half: Any = None) -> None:
        """Note an event that is about to happen; the process may not outlive it."""
        with self._lock:
            if len(self.seen) == self.kill_at:
                if self.half and half is not None:
                    half()
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen.append(f"{kind} {path}")

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            file, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(file, int):
                path = self.inside(file)
                if path is not None:
                    self.happens("open", path)
        elif event in NAMES:
            last = arguments[-1]
            folder = last if isinstance(last, int) and event in ("os.remove", "os.rmdir") else PRESENT
            for place in NAMES[event]:
                path = self.inside(arguments[place], folder)
                if path is not None:
                    self.happens(event.removeprefix("os."), path)
                    return

    def _descriptor_function(self, name: str, real: Any) -> Any:
        def called(file: int, *rest: Any) -> Any:
            path = self.inside(file)
            if path is not None:
                half = None
                if name in ("write", "pwrite"):
                    view = memoryview(rest[0]).cast("B")
                    half = lambda: real(file, view[: len(view) // 2], *rest[1:])  # noqa: E731
                self.happens(name, path, half)
            return real(file, *rest)

        return called
