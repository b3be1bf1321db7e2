from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.data.clip_store import ClipStore
from edgekd.training import device_rows
from edgekd.training.device_rows import (
    DeviceClips,
    MappedRows,
    ResidentRows,
    Rows,
    StoredClips,
    StreamedRows,
    clips_on,
    copied_to,
    rows_on,
    to_device,
)

CPU = torch.device("cpu")  # stands in for a device that computes


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    """Twelve clips of 50 samples, memory-mapped; one is silent."""
    generator = np.random.default_rng(0)
    clips = generator.integers(-32_767, 32_768, (12, 50)).astype("<i2")
    clips.tofile(tmp_path / "clips.i16")
    peaks = generator.uniform(1e-4, 1.0, 12).astype(np.float32)
    peaks[4] = 0.0
    mapped = np.memmap(tmp_path / "clips.i16", "<i2", "r", shape=(12, 50))
    return ClipStore(tmp_path, 50, 50, peaks, mapped, {})


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes the device has free."""
    found = [1 << 40]
    monkeypatch.setattr(device_rows, "free_bytes", lambda _: found[0])
    yield found


def gathering() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgekd-gather")]


TRAIN = (1, 2, 4, 5, 8, 9, 11)
ROWS = torch.tensor([9, 1, 4, 11, 1])


@pytest.mark.parametrize("fits", [True, False], ids=["kept", "sent"])
def test_waveforms_are_those_of_the_store_to_the_last_bit(fits: bool, store: ClipStore, free: list[int]) -> None:
    size = len(TRAIN) * 100
    free[0] = size * 4 if fits else size * 4 - 1  # a quarter of what is free
    clips = DeviceClips(store, TRAIN, CPU)
    requested = clips.request(ROWS)
    expected = store.waveforms(ROWS.tolist())
    waveforms = requested()
    assert waveforms.dtype == torch.float32
    assert torch.equal(waveforms, expected)
    assert type(clips._levels) is (ResidentRows if fits else StreamedRows)


def test_only_the_training_side_is_copied_and_as_int16(store: ClipStore, free: list[int]) -> None:
    told: list[tuple[str, int, int]] = []
    clips = DeviceClips(store, TRAIN, CPU, lambda stage, done, total, /, **_: told.append((stage, done, total)))
    assert isinstance(clips._levels, ResidentRows)
    assert clips._levels.values.dtype == torch.int16
    assert clips._levels.values.shape == (7, 50)
    assert told == [("copy to cpu", 7, 7)]


def test_a_table_is_copied_in_chunks(store: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_rows, "CHUNK_BYTES", 250)
    done: list[int] = []
    table = copied_to(store.clips, CPU, progress=lambda _, now, total, /, **__: done.append(now))
    assert done == [2, 4, 6, 8, 10, 12]
    np.testing.assert_array_equal(table.numpy(), store.clips)


@pytest.mark.parametrize(
    "way", [MappedRows, StreamedRows, lambda values, device: ResidentRows(copied_to(values, device))]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16])
def test_every_way_gives_the_rows_asked_for(
    way: type[StreamedRows], dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(60).reshape(10, 2, 3).astype(dtype)
    rows: Rows = way(values) if way is MappedRows else way(values, CPU)  # type: ignore[call-arg]
    batches = [torch.tensor([3, 0, 9, 9]), torch.tensor([5]), torch.tensor([], dtype=torch.int64)]
    requested = [rows.request(numbers) for numbers in batches]  # ahead
    for numbers, pending in zip(batches, requested, strict=True):
        found = pending().numpy()
        np.testing.assert_array_equal(found, values[numbers.numpy()])
        assert found.dtype == dtype


def test_on_the_cpu_nothing_is_copied(store: ClipStore, free: list[int]) -> None:
    assert isinstance(clips_on(store, TRAIN, CPU), StoredClips)
    rows = rows_on(store.clips, CPU)
    assert isinstance(rows, MappedRows)
    assert rows.values is store.clips
    assert to_device(ROWS, CPU) is ROWS
    assert torch.equal(clips_on(store, TRAIN, CPU).request(ROWS)(), store.waveforms(ROWS.tolist()))


def test_what_is_sent_is_gathered_meanwhile_and_no_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    gather, may_go = device_rows._gather, threading.Event()

    def slow(*arguments: object) -> None:
        may_go.wait(10)
        gather(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(device_rows, "_gather", slow)
    values = np.random.default_rng(0).random((20, 4), np.float32)
    rows = StreamedRows(values, CPU)
    requested = [
        rows.request(torch.tensor([number, 0])) for number in range(3)
    ]  # returns at once, though nothing is there
    assert len(gathering()) == 3
    may_go.set()
    for number, pending in enumerate(requested):
        np.testing.assert_array_equal(pending().numpy(), values[[number, 0]])
    deadline = time.monotonic() + 10
    while gathering() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not gathering()
    rows.request(torch.tensor([1]))
    assert len(rows._under_way) == 1, "what has arrived is let go"


def test_what_goes_wrong_in_the_thread_is_raised_where_the_rows_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    rows = StreamedRows(np.zeros((4, 2), np.float32), CPU)
    with monkeypatch.context() as patch:
        patch.setattr(device_rows, "_gather", fail)
        broken = rows.request(torch.tensor([1]))
    time.sleep(0.05)
    whole = rows.request(torch.tensor([2]))  # is not what has failed
    assert whole().shape == (1, 2)
    for _ in range(2):
        with pytest.raises(MemoryError, match="no room"):
            broken()


def test_ctrl_c_while_rows_are_waited_for_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go = threading.Event()
    monkeypatch.setattr(device_rows, "_gather", lambda *_: may_go.wait(10))
    pending = StreamedRows(np.zeros((4, 2), np.float32), CPU).request(torch.tensor([1]))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pending._gathering, "result", interrupt)  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        pending()
    may_go.set()
    deadline = time.monotonic() + 10
    while gathering() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not gathering()
