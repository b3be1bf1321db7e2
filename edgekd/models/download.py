"""Published weights over HTTP: resumed where they were cut off, and kept only when they are what was published.

A file arrives under `NAME.part` and takes its name when its digest is the pinned one: a file under its name is whole.
What a cut-off download left is gone on with (`Range`, RFC 9110 section 14); a server that cannot do that starts the
file again. Faults that pass (a lost connection, a busy server) are tried again while they bring new bytes, and a few
times when they do not. Only the standard library is used.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekd import __version__
from edgekd.errors import NO_SPACE, InputError
from edgekd.files.caches import cache_folder, locked
from edgekd.progress import Progress, silent

TIMEOUT_S = 30.0
ATTEMPTS = 4  # in a row without a new byte
CHUNK = 1 << 18  # bytes
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP statuses that another attempt may not meet


@dataclass(frozen=True)
class WeightsFile:
    """A file of published weights, pinned: where it is, and how to tell that it is the one."""

    url: str
    name: str
    """Under which it is kept."""
    size: int | None
    """Bytes; None where nobody published them."""
    digest: str | None
    """`sha256:...`, or `md5:...` where its publisher gives no other; None where none is known."""

    def check_command(self) -> str:
        """What to type to see the digest of the file, and what it must be."""
        algorithm, _, value = (self.digest or "").partition(":")
        return f"'{algorithm}sum {self.name}' must say {value}"


def teachers_folder() -> Path:
    """Where fetched weights are kept: `teachers/` in the cache folder (`$EDGEKD_CACHE_DIR`, or `~/.cache/edgekd`)."""
    return cache_folder() / "teachers"


def fetch(
    file: WeightsFile, folder: Path, progress: Progress = silent, sleep: Callable[[float], None] = time.sleep
) -> Path:
    """Download `file`, whose digest is pinned, into `folder` and return its path; a file that is there is checked.

    Raises `InputError` where it cannot be had (no connection, no such address, no space; what arrived is kept and gone
    on with next time) or is not what was published (then nothing is kept).
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{file.name}.lock", lambda: progress("wait for another download", 0, 1)):
            if target.exists():
                _check_present(target, file)
                return target
            _Download(file, part, progress, sleep).finish()
            part.replace(target)
    except OSError as failure:
        if failure.errno in NO_SPACE:
            kept = part.stat().st_size if part.exists() else 0
            needed = "" if file.size is None else f"{_mb(file.size - kept)} more are needed, "
            raise InputError(
                f"{folder}: no space left for {file.name}: {needed}{_mb(shutil.disk_usage(folder).free)} are free. "
                "Make room, or name another folder (--out)."
            ) from None
        raise InputError(
            f"{folder}: cannot be written ({failure.strerror or failure}). Name another (--out)."
        ) from None
    return target


def matches(path: Path, digest: str) -> bool:
    """Whether the file has this digest, `algorithm:hexadecimal`."""
    algorithm, _, expected = digest.partition(":")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected.lower()


class _Cut(Exception):
    """A fault that another attempt may not meet; what arrived until then is in the `.part` file."""


@dataclass
class _Download:
    """One file on its way into `part`."""

    file: WeightsFile
    part: Path
    progress: Progress
    sleep: Callable[[float], None]

    def finish(self) -> None:
        """Return when `part` is whole and its digest right; raise `InputError` when that cannot be reached."""
        resumed = self._size() > 0
        self._complete()
        assert self.file.digest is not None
        if resumed and not matches(self.part, self.file.digest):
            # The earlier part may be of another download under the same name: only a fresh one can tell.
            self.part.unlink()
            self._complete()
        if not matches(self.part, self.file.digest):
            self.part.unlink()
            raise InputError(
                f"{self.file.url}: what came is not the published {self.file.name} (its digest is not "
                f"{self.file.digest}), so it was not kept. A proxy or captive portal may answer in its place: try "
                "another connection, or get the file in another way and check it."
            )

    def _complete(self) -> None:
        """Fetch until `part` has all its bytes."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._attempt(before)
                return
            except _Cut as fault:
                failures = 0 if self._size() > before else failures + 1
                if failures == ATTEMPTS:
                    raise self._unreachable(str(fault)) from None
                self.sleep(2.0**failures)

    def _attempt(self, start: int) -> None:
        """One request, from byte `start`. Raises `_Cut` for a fault that may pass, `InputError` for one that stays."""
        if self.file.size is not None and start >= self.file.size:
            if start == self.file.size:
                return
            start = self._restart()
        headers = {"User-Agent": f"edgekd/{__version__}", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            response = urllib.request.urlopen(urllib.request.Request(self.file.url, headers=headers), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as refusal:
            if refusal.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if _total(refusal.headers.get("Content-Range")) == start:
                    return  # it was whole already; the digest decides
                self._restart()
                raise _Cut("the server has fewer bytes than are here") from None
            answer = f"the server answered {refusal.code} {refusal.reason}"
            raise (_Cut(answer) if refusal.code in _PASSING else self._unreachable(answer)) from None
        except (OSError, http.client.HTTPException) as failure:
            raise _cut(failure) from None
        with response:
            self._receive(response, start)

    def _receive(self, response: http.client.HTTPResponse, start: int) -> None:
        """Write the body of an answer to a request for bytes from `start`."""
        total: int | None
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            span = response.headers.get("Content-Range", "")
            if not re.match(rf"bytes {start}-", span):
                self._restart()
                raise _Cut("the server sent another range than was asked for")
            total = _total(span)
        else:
            start = 0  # the whole file, whatever was asked for
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        if self.file.size is not None and total is not None and total != self.file.size:
            raise _Cut(f"the server offers {total:,} bytes, not the {self.file.size:,} of the published file")
        total = self.file.size if total is None else total
        if total is not None and shutil.disk_usage(self.part.parent).free < total - start:
            raise OSError(errno.ENOSPC, "no space left")
        with open(self.part, "r+b" if start else "wb") as out:
            out.seek(start)
            done = start
            while chunk := _read(response):
                out.write(chunk)
                done += len(chunk)
                self.progress("download, MB", done // 1_000_000, max((total or done) // 1_000_000, 1))
        if total is not None and done < total:
            raise _Cut(f"the connection ended after {done:,} of {total:,} bytes")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _restart(self) -> int:
        self.part.unlink(missing_ok=True)
        return 0

    def _unreachable(self, reason: str) -> InputError:
        kept = self._size()
        again = f" {_mb(kept)} are kept: the same command goes on from there." if kept else ""
        return InputError(
            f"{self.file.url}: cannot be downloaded ({reason}).{again} Without a connection: get the file elsewhere, "
            f"put it at {self.part.parent / self.file.name}, and check it: {self.file.check_command()}."
        )


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as failure:  # told apart from a disk that refuses
        raise _cut(failure) from None


def _cut(failure: Exception) -> _Cut:
    reason = failure.reason if isinstance(failure, urllib.error.URLError) else failure
    return _Cut(str(reason) or type(failure).__name__)


def _check_present(target: Path, file: WeightsFile) -> None:
    assert file.digest is not None
    if not matches(target, file.digest):
        raise InputError(
            f"{target}: not the published file, or a damaged one (its digest is not {file.digest}). Delete it, and "
            "fetch again."
        )


def _total(content_range: str | None) -> int | None:
    """The size of the whole from `bytes 5-9/10` or `bytes */10`."""
    found = re.search(r"/(\d+)$", content_range or "")
    return int(found[1]) if found else None


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
