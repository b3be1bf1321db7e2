"""Rows of large tables on the device that computes with them: kept there where they fit, else sent ahead of their use.

A table is memory-mapped: the clips, a teacher's taps. Where a CUDA device computes, one that takes no more than
`RESIDENT_SHARE` of its free memory is copied there once. The rows of a larger one are asked for some batches before
they are used: a thread gathers them into page-locked memory, from which they are copied while the device computes.
On the CPU nothing is copied: the mapped file and the system's page cache are all that already.

Rows are requested ahead and had later: `request` returns a `Pending`, to be called once, when the rows are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.data.clip_store import ClipStore
from edgekd.progress import Progress, silent

Pending = Callable[[], Tensor]
"""Rows that were requested: call it to have them."""

RESIDENT_SHARE = 0.25  # of the free memory, for each table: there are up to three, and training needs the rest
CHUNK_BYTES = 64 << 20

CPU = torch.device("cpu")


class Rows(Protocol):
    """A table `(N, ...)` of which rows can be had on a device."""

    def request(self, numbers: Tensor, /) -> Pending:
        """The rows `numbers (B,)`, a tensor on the host, as `(B, ...)` on the device."""
        ...


class Clips(Protocol):
    """The clips of a `ClipIndex` as waveforms on `device`."""

    @property
    def device(self) -> torch.device: ...

    def request(self, rows: Tensor, /) -> Pending:
        """The waveforms `(B, S)`, float32, of the clips `rows (B,)`, a tensor on the host."""
        ...


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, made on the host, on `device`; the host does not wait until it is there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def rows_on(values: NDArray[Any], device: torch.device) -> Rows:
    """The rows of `values` on `device`, in the way that suits both."""
    if device.type == "cpu":
        return MappedRows(values)
    if not fits(values.nbytes, device):
        return StreamedRows(values, device)
    return ResidentRows(copied_to(values, device))


def clips_on(store: ClipStore, rows: Sequence[int], device: torch.device, progress: Progress = silent) -> Clips:
    """The clips `rows` of `store` on `device`, in the way that suits both."""
    return StoredClips(store) if device.type == "cpu" else DeviceClips(store, rows, device, progress)


def fits(needed: int, device: torch.device) -> bool:
    """Whether a table of `needed` bytes may be kept on `device`."""
    return needed <= RESIDENT_SHARE * free_bytes(device)


def copied_to(
    values: NDArray[Any], device: torch.device, rows: Sequence[int] | None = None, progress: Progress = silent
) -> Tensor:
    """The table `values`, or some of its rows, copied to `device` in chunks."""
    chosen = range(len(values)) if rows is None else rows
    table = torch.empty(len(chosen), *values.shape[1:], dtype=_type(values), device=device)
    size = max(1, CHUNK_BYTES // max(1, values[:1].nbytes))
    chunk = _locked(min(size, len(chosen)), values, device)
    for start in range(0, len(chosen), size):
        numbers = np.asarray(chosen[start : start + size], np.int64)
        _gather(values, numbers, chunk[: len(numbers)])
        table[start : start + len(numbers)] = chunk[: len(numbers)]
        progress(f"copy to {device}", start + len(numbers), len(chosen))
    return table


class MappedRows:
    """Rows of a table in the memory or the files of the machine that computes: read when they are used."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def request(self, numbers: Tensor, /) -> Pending:
        return partial(self._read, numbers.numpy())

    def _read(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.values[numbers])


class ResidentRows:
    """Rows of a table that is on the device."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def request(self, numbers: Tensor, /) -> Pending:
        return partial(self.values.index_select, 0, to_device(numbers, self.values.device))


class StreamedRows:
    """Rows of a table that is too large for the device: on their way from when they are asked for."""

    def __init__(self, values: NDArray[Any], device: torch.device) -> None:
        self.values, self.device = values, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._under_way: list[_Sending] = []

    def request(self, numbers: Tensor, /) -> Pending:
        for sending in self._under_way:
            if sending.gathered:
                sending.send()
        self._under_way = [sending for sending in self._under_way if sending.rows is None]
        self._under_way.append(_Sending(self.values, numbers, self.device, self._stream))
        return self._under_way[-1]


class StoredClips:
    """The clips of a `ClipStore` on the CPU."""

    device = CPU

    def __init__(self, store: ClipStore) -> None:
        self.store = store

    def request(self, rows: Tensor, /) -> Pending:
        return partial(self.store.waveforms, rows.tolist())


class DeviceClips:
    """The clips `rows` of a `ClipStore` on `device`: int16, as in the store, until they are used."""

    def __init__(
        self, store: ClipStore, rows: Sequence[int], device: torch.device, progress: Progress = silent
    ) -> None:
        self.store, self.device = store, device
        self._place = torch.arange(len(store))
        if self.resident(len(rows)):
            self._place[torch.tensor(rows)] = torch.arange(len(rows))
            self._levels: Rows = ResidentRows(copied_to(store.clips, device, rows, progress))
        else:
            self._levels = StreamedRows(store.clips, device)

    def resident(self, clips: int) -> bool:
        """Whether so many clips may be kept on the device."""
        return fits(clips * self.store.samples * self.store.clips.itemsize, self.device)

    def request(self, rows: Tensor, /) -> Pending:
        levels = self._levels.request(self._place[rows])
        return partial(_scaled, levels, to_device(torch.from_numpy(self.store.scales(rows.numpy())), self.device))


class _Sending:
    """Some rows under way: gathered by a thread of their own, which ends with that, and then copied."""

    def __init__(
        self, values: NDArray[Any], numbers: Tensor, device: torch.device, stream: torch.cuda.Stream | None
    ) -> None:
        self.rows: Tensor | None = None
        self._device, self._stream = device, stream
        self._locked: Tensor | None = _locked(len(numbers), values, device)
        thread = ThreadPoolExecutor(1, thread_name_prefix="edgekd-gather")
        self._gathering: Future[None] = thread.submit(_gather, values, numbers.numpy(), self._locked)
        thread.shutdown(wait=False)

    @property
    def gathered(self) -> bool:
        """Whether the rows can be sent: nobody need wait for that, and nothing has gone wrong."""
        return self._gathering.done() and self._gathering.exception() is None

    def send(self) -> Tensor:
        """Send the rows, once they are gathered. What went wrong with that is raised here."""
        if self.rows is None:
            self._gathering.result()
            assert self._locked is not None
            if self._stream is None:
                self.rows = self._locked.to(self._device)
            else:
                with torch.cuda.stream(self._stream):
                    self.rows = self._locked.to(self._device, non_blocking=True)
                    self._arrived = self._stream.record_event()
            self._locked = None  # torch gives it to another batch when the copy is done
        return self.rows

    def __call__(self) -> Tensor:
        rows = self.send()
        if self._stream is not None:
            now = torch.cuda.current_stream(self._device)
            now.wait_event(self._arrived)
            rows.record_stream(now)
        return rows


def _scaled(levels: Pending, scales: Tensor) -> Tensor:
    return levels() * scales


def _gather(values: NDArray[Any], numbers: NDArray[np.int64], into: Tensor) -> None:
    np.take(values, numbers, axis=0, out=into.numpy(), mode="clip")  # with "raise" numpy would take a copy first


def _locked(rows: int, values: NDArray[Any], device: torch.device) -> Tensor:
    """Room for so many rows in memory that `device` can copy from by itself."""
    return torch.empty(rows, *values.shape[1:], dtype=_type(values), pin_memory=device.type == "cuda")


def _type(values: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, values.dtype)).dtype


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    free: int = torch.cuda.mem_get_info(device)[0]
    return free
