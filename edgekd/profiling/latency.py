"""How long one classification takes, how sure that is, and how many times faster one subject is than another.

Six things spoil such figures, and each is met here. *Cold starts*: a subject runs untimed until its time has settled.
*Drift* of clocks and neighbours: subjects take turns, in a new random order each round, so that a slow minute hits all
of them, and a ratio is formed within a round, where both met the same machine. *Each other's caches*: a turn begins
with an untimed call, which pays for the subject before. *Outliers*: medians, of calls and over rounds. *Calls that
resemble their neighbours*: intervals come from whole rounds, not from single calls. *Python's own pauses*: the garbage
collector waits.

All subjects have the same rounds, or there would be no pairs: a subject that is slow makes few calls a turn, not few
turns. With 200 repetitions and 10 s a subject, one of 5 ms makes 20 turns of 10 calls, one of 100 ms 20 of 5, one of
0.5 s 20 of 1. Slower ones mean fewer rounds for all, but no fewer than `MIN_ROUNDS`, even beyond their 10 s: an
interval over fewer would say little. Where a turn is one call there is no untimed one: to fill caches takes
milliseconds.

The interval of a median time is the percentiles of a bootstrap of whole rounds (Davison and Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8); of R rounds R - 1 are drawn, which undoes the too small variance of few (Rao
and Wu, JASA 83, 1988). A ratio has one value a round, and the interval of their median is exact whatever their
distribution: the order statistics that a sign test does not reject (Conover, Practical Nonparametric Statistics, 1999,
section 3.2), where a bootstrap of ten rounds claims too much.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edgekd.progress import Progress, silent
from edgekd.report import results
from edgekd.scoring.intervals import CONFIDENCE, Interval

Floats = npt.NDArray[np.float64]

Timer = Callable[[], float]
"""Does one classification, to its end, and returns the seconds it took."""

ROUNDS, MIN_ROUNDS = 20, 10
WARMUP_CALLS, WARMUP_CHANGE = 5, 0.05  # settled: two windows of calls whose medians differ by less than 5 %
RESAMPLES = 1000


def wall(call: Callable[[], object]) -> Timer:
    """`call`, which is finished when it returns, by the wall clock."""

    def timer() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timer


def cuda_events(call: Callable[[], object], device: torch.device | str) -> Timer:
    """What the stream of a CUDA `device` spends on `call`, from event to event; waits for it."""

    def timer() -> float:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return timer


@dataclass(frozen=True)
class Timings:
    """Seconds of every timed call, `(R, B)`: R rounds, the same for all subjects, of B calls, each subject's own B."""

    rounds: Mapping[str, Floats]
    settled: Mapping[str, bool]

    def latency(
        self,
        name: str,
        clip_seconds: float | None,
        *,
        frontend: str | None = None,
        network: str | None = None,
        device: str | None = None,
    ) -> results.Latency:
        """The figures of one subject; `frontend`, `network` and `device` name the timers of its parts.

        Where only the network's is missing it is what the front end leaves of the whole. `clip_seconds` None: the
        length of a clip, and with it the real-time factor, is not known.
        """
        seconds = self.rounds[name]
        quantiles = 1e3 * np.quantile(seconds, np.linspace(0, 1, 101))
        low, high = _resampled(seconds)
        p50_ms, frontend_ms, network_ms = _rounded(quantiles[50]), self._median_ms(frontend), self._median_ms(network)
        if frontend_ms is not None and network_ms is None:
            network_ms = _rounded(max(0.0, p50_ms - frontend_ms))
        return results.Latency(
            mean_ms=_ms(float(seconds.mean())),
            p50_ms=p50_ms,
            p50_interval_ms=(_ms(low), _ms(high)),
            p95_ms=_rounded(quantiles[95]),
            p99_ms=_rounded(quantiles[99]),
            spread_ms=_rounded(quantiles[75] - quantiles[25]),
            repetitions=seconds.size,
            settled=self.settled[name],
            quantiles_ms=tuple(_rounded(value) for value in quantiles),
            frontend_ms=frontend_ms,
            network_ms=network_ms,
            device_ms=self._median_ms(device),
            real_time_factor=None if clip_seconds is None else round(p50_ms / 1e3 / clip_seconds, 6),
        )

    def ratio(self, slow: str, fast: str) -> results.Estimate:
        """How many times as long as `fast` the subject `slow` takes: the median over rounds of their medians' ratio."""
        ratios = _block_medians(self.rounds[slow]) / _block_medians(self.rounds[fast])
        low, high = _order_statistics(ratios)
        return results.Estimate(value=float(np.median(ratios)), low=low, high=high)

    def _median_ms(self, name: str | None) -> float | None:
        return None if name is None else _ms(float(np.median(self.rounds[name])))


def take_turns(
    timers: Mapping[str, Timer],
    *,
    repetitions: int = 200,
    seconds: float = 10.0,
    threads: int = 1,
    warmup_seconds: float = 2.0,
    progress: Progress = silent,
) -> Timings:
    """Time all subjects in turns: of each `repetitions` calls, or as many as `seconds` of its own time hold.

    Torch is held to `threads` threads meanwhile. A subject whose time has not settled after `warmup_seconds` is timed
    all the same, and marked.
    """
    order = random.Random(0)
    names = list(timers)
    with _undisturbed(threads):
        warm: dict[str, tuple[float, bool]] = {}
        for done, (name, timer) in enumerate(timers.items()):
            progress("warm-up", done, len(timers))
            warm[name] = _warm_up(timer, warmup_seconds)
        progress("warm-up", len(timers), len(timers))
        calls = {name: min(repetitions, seconds // one) if one else repetitions for name, (one, _) in warm.items()}
        rounds = int(max(min(ROUNDS, *calls.values()), min(MIN_ROUNDS, repetitions)))
        blocks = {name: max(1, round(calls[name] / rounds)) for name in names}
        taken: dict[str, list[list[float]]] = {name: [] for name in names}
        for number in range(rounds):
            order.shuffle(names)
            for name in names:
                timer = timers[name]
                if blocks[name] > 1:
                    timer()  # brings code and weights back into the caches
                taken[name].append([timer() for _ in range(blocks[name])])
            progress("latency", number + 1, rounds)
    return Timings(
        rounds={name: np.array(taken[name]) for name in timers},
        settled={name: settled for name, (_, settled) in warm.items()},
    )


def throughput(
    call: Callable[[], object], batch: int, threads: int, seconds: float = 1.0, most_seconds: float = 3.0
) -> results.Throughput:
    """Clips a second of `call`, which classifies `batch` of them, by its median time.

    Called for `seconds`, and 5 times at least unless that takes more than `most_seconds`. One subject at a time: what
    several threads leave spinning would disturb another. Torch is held to `threads` threads meanwhile; a runtime with
    threads of its own has them already.
    """
    timer = wall(call)
    with _undisturbed(threads):
        _warm_up(timer, seconds / 2)
        times: list[float] = []
        while not times or sum(times) < (seconds if len(times) >= 5 else most_seconds):
            times.append(timer())
    return results.Throughput(batch=batch, threads=threads, clips_per_second=round(batch / statistics.median(times), 2))


def _warm_up(timer: Timer, at_most_seconds: float) -> tuple[float, bool]:
    """Call until two windows of calls in a row take the same time, or `at_most_seconds` are over.

    Returns the seconds of a call and whether they had settled. Two windows there are in any case; those of a slow
    subject have less than `WARMUP_CALLS` calls.
    """
    end = time.perf_counter() + at_most_seconds
    timer()
    before = timer()
    calls = max(1, min(WARMUP_CALLS, int(at_most_seconds / 4 / before))) if before else WARMUP_CALLS
    while True:
        now = statistics.median(timer() for _ in range(calls))
        if abs(now - before) <= WARMUP_CHANGE * before:
            return now, True
        if time.perf_counter() >= end:
            return now, False
        before = now


@contextmanager
def _undisturbed(threads: int) -> Iterator[None]:
    torch_threads, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        if collecting:
            gc.enable()


def _block_medians(seconds: Floats) -> Floats:
    """`(R, B)` -> `(R,)`."""
    return np.median(seconds, axis=1)


def _order_statistics(values: Floats) -> Interval:
    """The interval of the median of `values (R,)`; of fewer than 6, from the least to the greatest."""
    rounds = len(values)
    left_out, tail = 0, 0.5**rounds  # tail: chance that no more than `left_out` of them are below the true median
    while tail <= (1 - CONFIDENCE) / 2:
        left_out += 1
        tail += math.comb(rounds, left_out) * 0.5**rounds
    ordered, out = np.sort(values), max(0, left_out - 1)
    return float(ordered[out]), float(ordered[rounds - 1 - out])


def _resampled(values: Floats) -> Interval:
    """The interval of the median of `values (R, B)`, of which whole rows are drawn."""
    rounds = len(values)
    draws = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, max(1, rounds - 1)))
    medians = np.median(values[draws].reshape(RESAMPLES, -1), axis=1)
    estimate = float(np.median(values))
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return min(float(low), estimate), max(float(high), estimate)


def _ms(seconds: float) -> float:
    return _rounded(1e3 * seconds)


def _rounded(ms: float) -> float:
    return round(float(ms), 4)
