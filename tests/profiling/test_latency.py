"""Planted delays show, equal subjects look equal whatever the machine does, and intervals cover the truth."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgekd.profiling.latency import (
    MIN_ROUNDS,
    ROUNDS,
    Floats,
    Timer,
    Timings,
    cuda_events,
    take_turns,
    throughput,
    wall,
)
from edgekd.report.results import Latency


def steady(seconds: float, calls: list[str] | None = None, name: str = "") -> Timer:
    """A subject that takes no time and says that it took `seconds`."""

    def timer() -> float:
        if calls is not None:
            calls.append(name)
        return seconds

    return timer


def timings(**rounds: list[list[float]] | Floats) -> Timings:
    return Timings({name: np.array(seconds) for name, seconds in rounds.items()}, dict.fromkeys(rounds, True))


def test_a_planted_delay_shows() -> None:
    measured = take_turns(
        {"slow": wall(lambda: time.sleep(0.005)), "none": wall(lambda: None)}, repetitions=40, warmup_seconds=0.1
    )
    slow, none = (measured.latency(name, 1.0) for name in ("slow", "none"))
    assert slow.p50_ms >= 5  # a sleep is never shorter, however busy the machine
    assert slow.p50_ms - none.p50_ms > 4
    assert slow.p50_interval_ms[0] >= 5
    assert slow.repetitions == 40
    assert measured.ratio("slow", "none").low > 10


def test_a_planted_delay_of_5_ms_beside_real_work_is_in_the_ratio() -> None:
    numbers = torch.randn(64, 64)

    def work() -> None:
        _ = numbers @ numbers

    def delayed() -> None:
        work()
        time.sleep(0.005)

    measured = take_turns({"work": wall(work), "delayed": wall(delayed)}, repetitions=40, warmup_seconds=0.1)
    assert measured.latency("delayed", None).p50_ms - measured.latency("work", None).p50_ms > 4
    assert measured.ratio("delayed", "work").low > 1


def test_figures_are_those_of_the_calls() -> None:
    calls = np.arange(1, 102).reshape(1, 101) / 1000  # 1 .. 101 ms
    figures = timings(a=calls).latency("a", clip_seconds=0.51)
    assert (figures.mean_ms, figures.p50_ms, figures.p95_ms, figures.p99_ms) == (51, 51, 96, 100)
    assert figures.spread_ms == 50
    assert figures.quantiles_ms == tuple(range(1, 102))
    assert figures.real_time_factor == pytest.approx(0.1)
    assert timings(a=calls).latency("a", None).real_time_factor is None


def test_parts_are_medians_of_their_own_timers_and_the_network_is_else_the_rest() -> None:
    measured = timings(
        whole=[[0.010, 0.010], [0.012, 0.012]], front=[[0.004], [0.004]], net=[[0.007], [0.007]], gpu=[[0.001], [0.001]]
    )
    parts = measured.latency("whole", 1.0, frontend="front", network="net", device="gpu")
    assert (parts.frontend_ms, parts.network_ms, parts.device_ms) == (4, 7, 1)
    assert measured.latency("whole", 1.0, frontend="front").network_ms == 7  # 11 ms less 4 ms
    assert measured.latency("front", 1.0, frontend="whole").network_ms == 0
    alone = measured.latency("whole", 1.0)
    assert (alone.frontend_ms, alone.network_ms, alone.device_ms) == (None, None, None)


def test_subjects_take_turns_in_blocks() -> None:
    calls: list[str] = []
    take_turns({name: steady(0.001, calls, name) for name in "ab"}, repetitions=10 * ROUNDS, warmup_seconds=0)
    turns = calls[-2 * ROUNDS * 11 :]  # what is before is warm-up; a turn is 10 calls and an untimed one
    blocks = [turns[i : i + 11] for i in range(0, len(turns), 11)]
    assert all(len(set(block)) == 1 for block in blocks)
    firsts = [block[0] for block in blocks]
    rounds = {tuple(firsts[i : i + 2]) for i in range(0, len(firsts), 2)}
    assert rounds == {("a", "b"), ("b", "a")}  # each round has both, and neither is always first


def test_a_call_that_pays_for_the_subject_before_is_not_timed() -> None:
    calls: list[str] = []

    def cold_after_the_other(name: str) -> Timer:
        def timer() -> float:
            cold = calls[-1:] != [name]
            calls.append(name)
            return 0.1 if cold else 0.001

        return timer

    measured = take_turns({name: cold_after_the_other(name) for name in "ab"}, repetitions=100, warmup_seconds=0)
    assert measured.latency("a", None).quantiles_ms[100] == 1


@pytest.mark.parametrize(
    ("seconds", "rounds", "calls"),
    [(0.005, ROUNDS, 200), (0.1, ROUNDS, 100), (0.5, ROUNDS, ROUNDS), (0.7, 14, 14), (4.0, MIN_ROUNDS, MIN_ROUNDS)],
)
def test_fast_and_slow_subjects_share_their_rounds(seconds: float, rounds: int, calls: int) -> None:
    measured = take_turns({"slow": steady(seconds), "fast": steady(0.001)}, warmup_seconds=0)
    assert len(measured.rounds["slow"]) == len(measured.rounds["fast"]) == rounds
    assert measured.rounds["slow"].size == calls
    assert 190 <= measured.rounds["fast"].size <= 210
    assert measured.ratio("slow", "fast").value == pytest.approx(1000 * seconds)


def test_few_repetitions_are_as_many_rounds() -> None:
    measured = take_turns({"a": steady(0.001)}, repetitions=5, warmup_seconds=0)
    assert measured.rounds["a"].shape == (5, 1)


def test_warming_up_goes_on_until_the_time_has_settled() -> None:
    calls = 0

    def slow_at_first() -> float:
        nonlocal calls
        calls += 1
        return 0.010 if calls <= 12 else 0.001

    measured = take_turns({"a": slow_at_first}, repetitions=20, warmup_seconds=60)
    assert measured.settled == {"a": True}
    assert measured.latency("a", None).quantiles_ms[100] == 10  # two windows of it agreed at first

    calls = 0

    def ever_slower() -> float:
        nonlocal calls
        calls += 1
        return 0.001 * 1.1**calls

    assert take_turns({"a": ever_slower}, repetitions=20, warmup_seconds=0).settled == {"a": False}


def test_a_drift_of_the_machine_hits_all_subjects_alike() -> None:
    """The machine gets slower with every call, 7 times over; two equal subjects still look equal."""
    calls = 0

    def drifting() -> float:
        nonlocal calls
        calls += 1
        return 2e-5 * (70 + calls)

    measured = take_turns({"a": drifting, "b": drifting}, repetitions=200, warmup_seconds=0)
    assert measured.rounds["a"].max() > 5 * measured.rounds["a"].min()
    ratio = measured.ratio("a", "b")
    assert ratio.low <= 1 <= ratio.high
    assert ratio.high - ratio.low < 0.3


def test_a_subject_beside_its_twin_shows_no_difference() -> None:
    def subject(seed: int) -> Callable[[], float]:
        rng = np.random.default_rng(seed)
        return lambda: 0.003 * rng.lognormal(sigma=0.2)

    ratio = take_turns({"a": subject(1), "b": subject(2)}, warmup_seconds=0).ratio("a", "b")
    assert 0.9 < ratio.low < 1 < ratio.high < 1.1


def on_a_restless_machine(rng: np.random.Generator, level: Floats, seconds: float, block: int) -> Floats:
    """Times `(R, block)` of one subject: the machine's `level (R,)`, noise that lasts, and a tenth of outliers.

    Noise of neighbouring calls is correlated (0.7), and a subject's turn has a level of its own; outliers have the
    heavy tail of a Pareto distribution without a variance.
    """
    rounds = len(level)
    noise = 0.05 * rng.standard_normal((rounds, block))
    for call in range(1, block):
        noise[:, call] = 0.7 * noise[:, call - 1] + math.sqrt(1 - 0.7**2) * noise[:, call]
    turn = 0.03 * rng.standard_normal((rounds, 1))
    outliers = np.where(rng.random((rounds, block)) < 0.1, rng.pareto(1.5, (rounds, block)), 0.0)
    return seconds * level[:, None] * np.exp(turn + noise) * (1 + outliers)


def levels(rng: np.random.Generator, rounds: int, drift: float) -> Floats:
    """How slow the machine is in each round: a slow wave, and another neighbour each round."""
    place = rng.uniform() + rng.uniform(0.5, 3) * np.arange(rounds) / rounds
    return np.exp(0.1 * rng.standard_normal(rounds)) * (1 + drift * np.sin(2 * np.pi * place))


@pytest.mark.parametrize(("rounds", "slow_block"), [(20, 10), (20, 1), (10, 1)])
def test_the_interval_of_a_ratio_covers_the_truth_at_its_nominal_rate(rounds: int, slow_block: int) -> None:
    rng = np.random.default_rng(rounds + slow_block)
    covered, truth, measurements = 0, 8.0, 400
    for _ in range(measurements):
        level = levels(rng, rounds, drift=0.3)
        ratio = timings(
            slow=on_a_restless_machine(rng, level, truth, slow_block),
            fast=on_a_restless_machine(rng, level, 1.0, 200 // rounds),
        ).ratio("slow", "fast")
        covered += ratio.low <= truth <= ratio.high
        assert ratio.low <= ratio.value <= ratio.high
    assert 0.92 <= covered / measurements <= 0.995  # 0.96 for 20 rounds and 0.98 for 10 by theory


@pytest.mark.parametrize("rounds", [20, 10])
def test_the_interval_of_a_median_covers_the_truth_at_its_nominal_rate(rounds: int) -> None:
    rng = np.random.default_rng(rounds)

    def measurement() -> Floats:
        return on_a_restless_machine(rng, levels(rng, rounds, drift=0.05), 1.0, 200 // rounds)

    truth = 1e3 * float(np.median([measurement() for _ in range(4000)]))
    intervals = [timings(a=measurement()).latency("a", 1.0).p50_interval_ms for _ in range(300)]
    covered = float(np.mean([low <= truth <= high for low, high in intervals]))
    assert 0.90 <= covered <= 0.99


def test_intervals_over_single_calls_would_claim_too_much() -> None:
    """Why rounds are resampled: the interval of independent calls is far too short on such a machine."""
    rng = np.random.default_rng(0)
    seconds = on_a_restless_machine(rng, levels(rng, 20, drift=0.05), 1.0, 10)
    by_rounds = timings(a=seconds).latency("a", 1.0).p50_interval_ms
    by_calls = timings(a=rng.permutation(seconds.ravel())[:, None]).latency("a", 1.0).p50_interval_ms
    assert by_rounds[1] - by_rounds[0] > 1.5 * (by_calls[1] - by_calls[0])


def test_the_interval_of_a_ratio_is_the_sign_test_s() -> None:
    """Against the textbook's ranks: of 10 rounds the 2nd and 9th, of 20 the 6th and 15th, of 25 the 8th and 18th."""
    for rounds, ranks in {5: (1, 5), 6: (1, 6), 10: (2, 9), 20: (6, 15), 25: (8, 18)}.items():
        slow = np.random.default_rng(0).permutation(np.arange(1.0, rounds + 1))[:, None]
        ratio = timings(slow=slow, fast=np.ones((rounds, 1))).ratio("slow", "fast")
        assert (ratio.low, ratio.high) == ranks


def test_torch_has_the_given_threads_meanwhile_and_its_own_number_again_afterwards() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen: set[tuple[int, bool]] = set()

        def look() -> float:
            seen.add((torch.get_num_threads(), gc.isenabled()))
            return 0.001

        take_turns({"a": look}, repetitions=5, warmup_seconds=0)
        assert seen == {(1, False)}
        assert (torch.get_num_threads(), gc.isenabled()) == (2, True)

        def broken() -> float:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            take_turns({"a": broken}, threads=1)
        assert (torch.get_num_threads(), gc.isenabled()) == (2, True)
        threads = set()
        throughput(lambda: threads.add(torch.get_num_threads()), batch=1, threads=1, seconds=0.001)
        assert threads == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_events_wait_for_the_gpu() -> None:
    numbers = torch.randn(4096, 4096, device="cuda")

    def multiply(times: int) -> None:
        for _ in range(times):
            numbers @ numbers

    multiply(1)
    few, many = (cuda_events(lambda times=times: multiply(times), "cuda") for times in (2, 40))
    assert many() > 5 * few() > 0  # asking takes the same few microseconds a call


def test_throughput_is_the_clips_of_a_call_over_its_time() -> None:
    found = throughput(lambda: time.sleep(0.004), batch=8, threads=2, seconds=0.05)
    assert (found.batch, found.threads) == (8, 2)
    assert 8 / 0.1 < found.clips_per_second <= 8 / 0.004


def counted(call: Callable[[], object]) -> tuple[Callable[[], None], list[int]]:
    calls: list[int] = []

    def once() -> None:
        calls.append(len(calls))
        call()

    return once, calls


def test_a_slow_batch_is_called_a_few_times_only() -> None:
    call, calls = counted(lambda: time.sleep(0.02))
    throughput(call, batch=4, threads=1, seconds=0.001, most_seconds=0.03)
    assert 3 + 1 <= len(calls) <= 3 + 2  # three of warm-up
    call, calls = counted(lambda: time.sleep(0.002))
    throughput(call, batch=4, threads=1, seconds=0.001, most_seconds=10)
    assert len(calls) >= 3 + 5


def test_progress_reaches_its_total() -> None:
    reported: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        reported.append((stage, done, total))

    take_turns({"a": steady(0.001), "b": steady(0.001)}, repetitions=25, warmup_seconds=0, progress=progress)
    for stage, total in (("warm-up", 2), ("latency", 20)):
        assert [entry for entry in reported if entry[0] == stage][-1] == (stage, total, total)


def test_figures_go_into_the_report_as_they_are() -> None:
    figures = timings(a=np.full((20, 10), 0.0123456789)).latency("a", 5.0)
    assert Latency.model_validate_json(figures.model_dump_json()) == figures
    assert figures.p50_ms == 12.3457
