"""Small tensors between the processes of one machine's CPU, over sockets.

gloo hands every message to threads of its own: a sum of a kilobyte costs it a quarter of a millisecond of processor
time, and a millisecond where the machine has other work. Batch norms ask for dozens of sums a step. Written and read by
the threads that compute, the same kilobyte takes ten microseconds.

Each process has a socket to each other, and every process goes through the same exchanges in the same order; all put
together the same rows in the same order, so that they find the very same numbers.
"""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import DistNetworkError

MOST_BYTES = 16 << 10  # of a message: two at most wait in a socket, which holds several times as much

PATIENCE = 60.0  # seconds in which the others come


class Neighbours:
    """The `others` of this process, which is number `rank`: a socket to each, by their numbers."""

    def __init__(self, rank: int, others: dict[int, socket.socket]) -> None:
        self._rank, self._others = rank, dict(sorted(others.items()))

    def takes(self, values: Tensor) -> bool:
        """Whether these are for sockets: few, and on the CPU."""
        return values.device.type == "cpu" and values.nbytes <= MOST_BYTES

    def stacked(self, own: Tensor) -> Tensor:
        """What every process has in place of `own (...)`, as `(processes, ...)`. Raises `DistNetworkError` where one
        is gone."""
        table = own.new_empty(len(self._others) + 1, *own.shape)
        table[self._rank] = own
        rows = [memoryview(row.view(torch.uint8).numpy()) for row in table.view(len(table), -1)]
        try:
            for other in self._others.values():
                other.sendall(rows[self._rank])
            for number, other in self._others.items():
                _read(other, rows[number])
        except OSError as failure:
            raise DistNetworkError(f"another process of this run is gone: {failure.strerror or failure}") from None
        return table

    def close(self) -> None:
        for other in self._others.values():
            other.close()


def meet(rank: int, count: int, told: Callable[[str], Sequence[str]]) -> Neighbours | None:
    """Join the `count` processes of this machine, of which this is `rank`; `told` tells all what each has to say.

    None, for all of them, where one cannot be reached.
    """
    with ExitStack() as until_met:
        listening = _listening(count, until_met)
        addresses = told("" if listening is None else listening.getsockname())
        if listening is None or not all(addresses):
            return None
        others: dict[int, socket.socket] = {}
        listening.settimeout(PATIENCE)
        try:
            for number in range(rank):  # those before this one listen already
                others[number] = socket.socket(socket.AF_UNIX)
                others[number].connect(addresses[number])
                others[number].sendall(rank.to_bytes(4, "big"))
            for _ in range(rank + 1, count):
                other, _address = listening.accept()
                name = bytearray(4)
                _read(other, memoryview(name))
                others[int.from_bytes(name, "big")] = other
            met = "met"
        except OSError:
            met = ""
        if all(told(met)):
            return Neighbours(rank, others)
        for other in others.values():
            other.close()
        return None


def _listening(count: int, until_met: ExitStack) -> socket.socket | None:
    """A socket that others come to, which is gone after `until_met`; None where there can be none: on a system without
    such sockets, or without a temporary folder that may be written, has room, is on a disk that takes sockets, and has
    a short name."""
    try:
        folder = until_met.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        listening = until_met.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(Path(folder, secrets.token_hex(4))))
        listening.listen(count)
    except (OSError, AttributeError):  # Python has no AF_UNIX on Windows
        return None
    return listening


def _read(source: socket.socket, place: memoryview) -> None:
    """Fill `place`. Raises `OSError` where the other end is closed."""
    done = 0
    while done < len(place):
        read = source.recv_into(place[done:])
        if not read:
            raise ConnectionResetError("it has closed the connection")
        done += read
