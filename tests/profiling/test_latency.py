"""Planted delays show, subjects take turns, and the machine is described."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from edgekd.profiling import latency
from edgekd.profiling.latency import BLOCK, Latency, Machine, measure


def test_a_planted_delay_shows() -> None:
    latencies, _ = measure({"slow": lambda: time.sleep(0.005), "none": lambda: None}, repetitions=30)
    assert latencies["slow"].p50_ms >= 5  # a sleep is never shorter, however busy the machine
    assert latencies["slow"].p50_ms - latencies["none"].p50_ms > 4
    assert latencies["slow"].repetitions == 30


def test_percentiles_are_those_of_the_calls() -> None:
    figures = Latency.of([value / 1000 for value in range(1, 102)])  # 1 .. 101 ms
    assert (figures.mean_ms, figures.p50_ms, figures.p95_ms, figures.p99_ms) == (51, 51, 96, 100)
    assert figures.real_time_factor(clip_seconds=0.51) == pytest.approx(0.1)


def test_subjects_take_turns_in_blocks() -> None:
    calls: list[str] = []
    measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repetitions=10 * BLOCK, warmup_seconds=0)
    blocks = [calls[i : i + BLOCK + 1] for i in range(0, len(calls), BLOCK + 1)]
    assert all(len(set(block)) == 1 for block in blocks)
    firsts = [block[0] for block in blocks]
    rounds = {tuple(firsts[i : i + 2]) for i in range(0, len(firsts), 2)}
    assert rounds == {("a", "b"), ("b", "a")}  # each round has both, and neither is always first
    assert len(calls) == 2 * 10 * (BLOCK + 1)  # one untimed call a block


def test_a_drift_of_the_clock_hits_all_subjects_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine gets slower with every call; interleaved, two equal subjects still look equal."""
    calls, now = 0, 0.0

    def drifting() -> None:
        nonlocal calls, now
        calls += 1
        now += 2e-5 * calls

    monkeypatch.setattr(latency.time, "perf_counter", lambda: now)

    latencies, _ = measure({"a": drifting, "b": drifting}, repetitions=80, warmup_seconds=0)
    # One after the other, b would take 3 times as long as a.
    assert latencies["b"].mean_ms == pytest.approx(latencies["a"].mean_ms, rel=0.35)


def test_a_slow_subject_stops_at_its_time_budget() -> None:
    latencies, _ = measure({"slow": lambda: time.sleep(0.01)}, repetitions=1000, max_seconds=0.15, warmup_seconds=0)
    assert latencies["slow"].repetitions in (BLOCK, 2 * BLOCK)


def test_torch_has_one_thread_meanwhile_and_its_own_number_again_afterwards() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen: set[int] = set()
        measure({"a": lambda: seen.add(torch.get_num_threads())}, repetitions=5)
        assert seen == {1}
        assert torch.get_num_threads() == 2

        def broken() -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            measure({"a": broken}, repetitions=5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_progress_reaches_its_total() -> None:
    reported: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        reported.append((done, total))

    measure({"a": lambda: None, "b": lambda: None}, repetitions=25, progress=progress)
    assert reported[-1] == (50, 50)
    assert reported == sorted(reported)


def test_a_machine_whose_cpus_others_use_is_busy() -> None:
    idle = Machine("cpu", cpus=4, governor=None, load_average=3.9, cpus_used_by_others=0.2)
    assert not idle.busy  # the load average is our own training of a minute ago
    assert Machine("cpu", cpus=4, governor=None, load_average=0.0, cpus_used_by_others=1.5).busy
    assert Machine("cpu", cpus=4, governor=None, load_average=3.9, cpus_used_by_others=None).busy


def test_the_machine_is_described() -> None:
    _, machine = measure({"a": lambda: time.sleep(0.001)}, repetitions=20)
    assert machine.cpu
    assert machine.cpus >= 1
    assert machine.to_dict()["busy"] is machine.busy


def test_our_own_computing_does_not_count_as_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute() -> None:
        np.linalg.inv(np.random.default_rng(0).random((100, 100)))

    monkeypatch.setattr(latency, "_busy_cpu_seconds", time.process_time)
    _, alone = measure({"a": compute}, repetitions=50, warmup_seconds=0)
    assert alone.cpus_used_by_others == pytest.approx(0, abs=0.05)
    monkeypatch.setattr(latency, "_busy_cpu_seconds", lambda: time.process_time() + 2 * time.perf_counter())
    _, crowded = measure({"a": compute}, repetitions=50, warmup_seconds=0)
    assert crowded.cpus_used_by_others == pytest.approx(2, abs=0.05)
