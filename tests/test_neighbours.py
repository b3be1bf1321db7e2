"""Sockets between processes, which threads stand for here."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed import DistNetworkError

from edgekd import neighbours
from edgekd.neighbours import MOST_BYTES, Neighbours, meet
from edgekd.processes import is_lost_connection

COUNT = 3


def met(count: int) -> list[Neighbours | None]:
    """What each of `count` processes is given."""
    says, barrier = [""] * count, threading.Barrier(count)

    def telling(rank: int) -> Callable[[str], Sequence[str]]:
        def told(own: str) -> list[str]:
            says[rank] = own
            barrier.wait(10)
            heard = list(says)
            barrier.wait(10)
            return heard

        return told

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda rank: meet(rank, count, telling(rank)), range(count)))


@pytest.fixture
def joined() -> Iterator[list[Neighbours]]:
    found = [each for each in met(COUNT) if each is not None]
    assert len(found) == COUNT
    yield found
    for each in found:
        each.close()


def exchanged(joined: Sequence[Neighbours], values: Sequence[Tensor]) -> list[Tensor]:
    with ThreadPoolExecutor(COUNT) as threads:
        return list(threads.map(lambda one, own: one.stacked(own), joined, values))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_every_process_has_what_all_have_in_the_same_order(
    joined: list[Neighbours], shape: tuple[int, ...], kind: torch.dtype
) -> None:
    values = [
        (10 * torch.randn(shape, generator=torch.Generator().manual_seed(rank))).to(kind) for rank in range(COUNT)
    ]
    for table in exchanged(joined, values):
        assert table.dtype == kind
        assert torch.equal(table, torch.stack(values))


def test_the_largest_messages_one_after_the_other_stop_nobody(joined: list[Neighbours]) -> None:
    own = [torch.full((MOST_BYTES // 4,), float(rank)) for rank in range(COUNT)]
    assert all(one.takes(values) for one, values in zip(joined, own, strict=True))
    assert not joined[0].takes(torch.zeros(MOST_BYTES // 4 + 1))
    for _ in range(50):
        for table in exchanged(joined, own):
            assert torch.equal(table, torch.stack(own))


def test_what_lies_apart_in_memory_is_sent_as_it_reads(joined: list[Neighbours]) -> None:
    own = torch.arange(12.0).view(3, 4).T
    assert torch.equal(exchanged(joined, [own] * COUNT)[0], torch.stack([own] * COUNT))


def test_one_that_is_gone_is_a_lost_connection(joined: list[Neighbours]) -> None:
    joined[1].close()
    with pytest.raises(DistNetworkError, match="another process of this run is gone") as caught:
        for _ in range(2):  # the first may yet be sent
            joined[0].stacked(torch.zeros(3))
    assert is_lost_connection(caught.value)


def test_where_there_can_be_no_sockets_all_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)  # an address has 108 bytes
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert met(2) == [None, None]


def no_folder() -> str:
    raise FileNotFoundError(2, "No usable temporary directory found")


def no_sockets(*_arguments: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [(tempfile, "mkdtemp", lambda *_, **__: no_folder()), (neighbours.socket, "socket", no_sockets)],
    ids=["no folder", "refused sockets"],
)
def test_where_no_socket_can_be_made_all_do_without(
    module: object, name: str, instead: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, instead)
    assert met(2) == [None, None]


def test_on_a_system_without_such_sockets_all_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(neighbours.socket, "AF_UNIX")
    assert met(2) == [None, None]


def test_where_one_does_not_come_all_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "PATIENCE", 0.2)

    class Deaf(neighbours.socket.socket):
        def connect(self, address: str) -> None:
            raise ConnectionRefusedError("Connection refused")

    monkeypatch.setattr(neighbours.socket, "socket", Deaf)
    assert met(2) == [None, None]
