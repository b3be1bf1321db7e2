"""A recording as the parts of its file: what libsndfile is shown where it would misread the file as it lies there."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


Piece = bytes | tuple[int, int]


@dataclass(frozen=True)
class Part:
    """A stream that libsndfile decodes: `pieces` of the file, `(offset, length)`, and bytes of ours, one after another;
    without any the file as it lies there.

    `frames` is how many samples of a channel there are, where libsndfile cannot tell. `most` is how many of them count:
    what fills up the last `block` of a codec is no sound. `loud`: its decoder, libmpg123, writes to standard error.
    """

    pieces: tuple[Piece, ...] = ()
    frames: int | None = None
    most: int | None = None
    block: int = 0
    loud: bool = False


Parts = tuple[Part, ...]
WHOLE: Parts = (Part(),)


class PartFile(io.RawIOBase):
    """A part of the file `path`, to be read like a file of its own."""

    def __init__(self, path: Path, part: Part) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed with this one
        self._pieces = part.pieces
        lengths = (len(piece) if isinstance(piece, bytes) else piece[1] for piece in part.pieces)
        self._begins = list(accumulate(lengths, initial=0))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._begins[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._begins[-1]:
            some = self._some(len(view) - done)
            if not some:
                break  # the file has become shorter
            view[done : done + len(some)] = some
            done += len(some)
            self._position += len(some)
        return done

    def _some(self, most: int) -> bytes:
        number = bisect_right(self._begins, self._position) - 1
        inside, left = self._position - self._begins[number], self._begins[number + 1] - self._position
        piece = self._pieces[number]
        if isinstance(piece, bytes):
            return piece[inside : inside + min(most, left)]
        self._file.seek(piece[0] + inside)
        return self._file.read(min(most, left))

    def close(self) -> None:
        self._file.close()
        super().close()
