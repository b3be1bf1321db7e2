"""Rows of numbers of one shape in a memory-mapped file, each believed only with its CRC.

    <name>       (N, ...) the rows
    <name>.crc   N records: the numbers noted beside a row, where a table has such, and a CRC-32 of them and the row;
                 0: not there yet

A row's record is written only after its numbers were flushed to the disk, and every CRC is checked when a table is
opened. So a fill that was killed goes on where it stopped, and a row that was damaged is found missing.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgekd.files.caches import reserve, write_at
from edgekd.files.threads import threaded
from edgekd.progress import Progress, silent

Notes = Sequence[tuple[str, str]]  # names and types
_CRC, _CRC_BYTES = "<u4", 4


class RowTable:
    """`values (N, ...)`, read-only, the `records (N,)` beside them, and which are `present (N,)`.

    Within `with`, rows can be written. Several processes may write at a time, and several threads of one, each its own
    rows. `values` stays valid after `with`.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        shape: tuple[int, ...],
        dtype: str,
        progress: Progress = silent,
        present: NDArray[np.bool_] | None = None,
        *,
        notes: Notes = (),
        records_path: Path | None = None,
        stage: str = "check answers",
    ) -> None:
        """Open the table in the file `path`, or begin it, and take its space. Raises `OSError` where there is none.

        `present`: what another process that has it open has verified, so that it is not verified again. `notes`: the
        names and types of the numbers beside a row. `records_path`: the file of the records, where it is not
        `crc_path(path)`. `stage`: under which verification reports its progress.
        """
        self._dtype = np.dtype(dtype)
        self._row_bytes = math.prod(shape) * self._dtype.itemsize
        self._unflushed: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._flushed = False
        records_path = records_path or crc_path(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._records_file = os.open(records_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            reserve(self._file, rows * self._row_bytes)
            reserve(self._records_file, rows * _record(notes).itemsize)
        except OSError:
            self._close()
            raise
        self.values, self.records = read_rows(path, rows, shape, dtype, notes=notes, records_path=records_path)
        self.present = self._verified(stage, progress) if present is None else present.copy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
            if self._flushed:
                os.fdatasync(self._records_file)
        finally:
            self._close()

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return len(self.present) * self._row_bytes

    @property
    def unflushed(self) -> int:
        """Rows that a kill would cost."""
        return len(self._unflushed)

    def write(self, first: int, rows: NDArray[Any], notes: tuple[Any, ...] = ()) -> None:
        """Write `rows (n, ...)` from row `first` on, `notes` beside each; from the next `flush` on they are there for
        good."""
        given = np.ascontiguousarray(rows, dtype=self._dtype)
        write_at(self._file, given.tobytes(), first * self._row_bytes)
        record = np.array((*notes, 0), self.records.dtype)
        records = np.repeat(record, len(given))
        beside = record.tobytes()[:-_CRC_BYTES]
        records["crc"] = [_crc(beside, row) for row in given]
        with self._lock:
            self.records[first : first + len(given)] = records
            self.present[first : first + len(given)] = True
            self._unflushed.update((number, record.tobytes()) for number, record in enumerate(records, first))

    def flush(self) -> None:
        """Bring what was written to the disk."""
        with self._lock:
            written, self._unflushed = self._unflushed, {}
        if not written:
            return
        os.fdatasync(self._file)
        self._flushed = True
        for number, record in written.items():
            write_at(self._records_file, record, number * self.records.itemsize)

    def forget(self) -> None:
        """Have no row present."""
        with self._lock:
            self._unflushed.clear()
            self.present[:] = False
            write_at(self._records_file, bytes(self.records.nbytes), 0)

    def _verified(self, stage: str, progress: Progress) -> NDArray[np.bool_]:
        content, size, sums = self.records.tobytes(), self.records.itemsize, self.records["crc"]
        present = np.zeros(len(sums), dtype=bool)
        written = np.flatnonzero(sums).tolist()

        def is_right(row: int) -> bool:
            beside = content[row * size : (row + 1) * size - _CRC_BYTES]
            return _crc(beside, self.values[row]) == sums[row]

        for done, (row, right) in enumerate(threaded(is_right, written), 1):
            present[row] = right
            progress(stage, done, len(written))
        return present

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._records_file)


def read_rows(
    path: Path,
    rows: int,
    shape: tuple[int, ...],
    dtype: str,
    *,
    notes: Notes = (),
    records_path: Path | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values and the records of a table that another process has verified, as they are.

    Raises `OSError` where it is not there, `ValueError` where it is shorter than `rows`.
    """
    values: NDArray[Any] = np.memmap(path, np.dtype(dtype), mode="r", shape=(rows, *shape))
    records = np.fromfile(records_path or crc_path(path), _record(notes))
    if len(records) != rows:
        raise ValueError(f"{len(records)} records for {rows} rows")
    return values, records


def crc_path(path: Path) -> Path:
    """The file of the records of the table in the file `path`, where it has no name of its own."""
    return path.with_name(f"{path.name}.crc")


def _crc(notes: bytes, row: NDArray[Any]) -> int:
    """CRC-32 of a row and the notes beside it, never 0: that stands for a row not written."""
    return zlib.crc32(np.ascontiguousarray(row).data, zlib.crc32(notes)) or 1


def _record(notes: Notes) -> np.dtype[Any]:
    """What is kept beside a row: the notes, then the CRC."""
    return np.dtype([*notes, ("crc", _CRC)])
