"""Rows of numbers of one shape in a memory-mapped file, each believed only with its CRC.

    <name>       (N, ...) the rows
    <name>.crc   N CRC-32 sums, 0: not there yet

A row's sum is written only after its numbers were flushed to the disk, and every sum is checked when a table is opened.
So a fill that was killed goes on where it stopped, and a row that was damaged is found missing.
"""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgekd.files.caches import reserve, write_at
from edgekd.files.threads import threaded
from edgekd.progress import Progress, silent

_CRC = np.dtype("<u4")


class RowTable:
    """`values (N, ...)`, read-only, and which of them are `present (N,)`; within `with`, rows can be written.

    Several processes may write at a time, each its own rows. `values` stays valid after `with`.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        shape: tuple[int, ...],
        dtype: str,
        progress: Progress = silent,
        present: NDArray[np.bool_] | None = None,
    ) -> None:
        """Open the table in the file `path`, or begin it, and take its space. Raises `OSError` where there is none.

        `present`: what another process that has it open has found there, so that it is not verified again.
        """
        self._dtype = np.dtype(dtype)
        self._row_bytes = math.prod(shape) * self._dtype.itemsize
        self._unflushed: dict[int, bytes] = {}
        crc_file = crc_path(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._crc_file = os.open(crc_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            reserve(self._file, rows * self._row_bytes)
            reserve(self._crc_file, rows * _CRC.itemsize)
        except OSError:
            self._close()
            raise
        self.values: NDArray[Any] = np.memmap(path, self._dtype, mode="r", shape=(rows, *shape))
        self.present = self._verified(np.fromfile(crc_file, _CRC), progress) if present is None else present.copy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._close()

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return len(self.present) * self._row_bytes

    def write(self, first: int, rows: NDArray[Any]) -> None:
        """Write `rows (n, ...)` from row `first` on; they are kept for good from the next `flush` on."""
        given = np.ascontiguousarray(rows, dtype=self._dtype)
        write_at(self._file, given.tobytes(), first * self._row_bytes)
        for number, row in enumerate(given, first):
            self._unflushed[number] = np.array(_crc(row), _CRC).tobytes()
        self.present[first : first + len(given)] = True

    def flush(self) -> None:
        """Bring what was written to the disk."""
        os.fdatasync(self._file)
        for number, crc in self._unflushed.items():
            write_at(self._crc_file, crc, number * _CRC.itemsize)
        self._unflushed.clear()

    def forget(self) -> None:
        """Have no row present."""
        self._unflushed.clear()
        self.present[:] = False
        write_at(self._crc_file, bytes(len(self.present) * _CRC.itemsize), 0)

    def _verified(self, sums: NDArray[np.uint32], progress: Progress) -> NDArray[np.bool_]:
        present = np.zeros(len(sums), dtype=bool)
        written = np.flatnonzero(sums).tolist()
        for done, (row, right) in enumerate(threaded(lambda row: _crc(self.values[row]) == sums[row], written), 1):
            present[row] = right
            progress("check answers", done, len(written))
        return present

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._crc_file)


def crc_path(path: Path) -> Path:
    """The file of the sums of the table in the file `path`."""
    return path.with_name(f"{path.name}.crc")


def _crc(row: NDArray[Any]) -> int:
    """CRC-32 of a row, never 0: that stands for a row not written."""
    return zlib.crc32(np.ascontiguousarray(row).data) or 1
