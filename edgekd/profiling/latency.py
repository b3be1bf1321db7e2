"""How long one classification takes: batch 1, one thread, waveform to scores.

Four things spoil such figures, and each is met here. *Cold starts*: a subject runs untimed until its time has settled.
*Drift* of clocks and neighbours: subjects take turns in short blocks, in a new random order each round, so that a slow
minute hits all of them. *Each other's caches*: the first call of a block is not timed, for it pays for the subject
before. *A busy machine*: what other processes used meanwhile is measured and reported with the figures.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.console import Progress, silent

BLOCK = 10  # timed calls in a row
WARMUP_WINDOW, WARMUP_CHANGE = 5, 0.05  # settled: two windows of calls whose medians differ by less than 5 %
BUSY_SHARE = 0.25  # of all CPUs, used by others


@dataclass(frozen=True)
class Latency:
    """Wall time of one call in ms, over `repetitions` calls."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    repetitions: int

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        p50, p95, p99 = (round(1e3 * float(value), 4) for value in np.percentile(seconds, (50, 95, 99)))
        return cls(round(1e3 * statistics.fmean(seconds), 4), p50, p95, p99, repetitions=len(seconds))

    def real_time_factor(self, clip_seconds: float) -> float:
        """Median processing time over the clip's own length: below 1 keeps up with the microphone."""
        return round(self.p50_ms / 1e3 / clip_seconds, 6)

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """Where latencies were taken. `cpus_used_by_others` is a mean over the measurement; None where it is unknown."""

    cpu: str
    cpus: int
    governor: str | None
    load_average: float | None
    cpus_used_by_others: float | None

    @property
    def busy(self) -> bool:
        """Whether others took enough of the machine to distrust the latencies."""
        others = self.load_average if self.cpus_used_by_others is None else self.cpus_used_by_others
        return others is not None and others > BUSY_SHARE * self.cpus

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "busy": self.busy}


def measure(
    subjects: Mapping[str, Callable[[], object]],
    repetitions: int = 200,
    max_seconds: float = 10.0,
    *,
    warmup_seconds: float = 2.0,
    progress: Progress = silent,
) -> tuple[dict[str, Latency], Machine]:
    """Time each subject: `repetitions` calls, or one block at least and as many as `max_seconds` of its time allow.

    A subject is a call without arguments that does one classification; torch is held to one thread meanwhile. Warming
    up ends after `warmup_seconds` a subject even if its time has not settled.
    """
    timings: dict[str, list[float]] = {name: [] for name in subjects}
    order = random.Random(0)
    with _one_torch_thread():
        for call in subjects.values():
            _warm_up(call, warmup_seconds)
        watch = _Neighbours()
        waiting = list(subjects)
        while waiting:
            order.shuffle(waiting)
            for name in waiting:
                timings[name] += _block(subjects[name], min(BLOCK, repetitions - len(timings[name])))
            waiting = [
                name for name in waiting if len(timings[name]) < repetitions and sum(timings[name]) < max_seconds
            ]
            finished = len(subjects) - len(waiting)
            slowest = min((len(timings[name]) for name in waiting), default=0)
            progress("latency", finished * repetitions + slowest * len(waiting), len(subjects) * repetitions)
        machine = watch.machine()
    return {name: Latency.of(seconds) for name, seconds in timings.items()}, machine


def _block(call: Callable[[], object], count: int) -> list[float]:
    call()  # brings code and weights back into the caches
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _warm_up(call: Callable[[], object], at_most_seconds: float) -> None:
    """Call until two windows in a row take the same time, or `at_most_seconds` are over."""
    end = time.perf_counter() + at_most_seconds
    before: float | None = None
    while time.perf_counter() < end:
        now = statistics.median(_block(call, WARMUP_WINDOW))
        if before is not None and abs(now - before) < WARMUP_CHANGE * before:
            return
        before = now


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Neighbours:
    """What other processes use of the CPUs, from when this is made: all CPU time (`/proc/stat`) less our own."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._busy, self._own = _busy_cpu_seconds(), time.process_time()

    def machine(self) -> Machine:
        busy, others = _busy_cpu_seconds(), None
        if busy is not None and self._busy is not None:
            spent = busy - self._busy - (time.process_time() - self._own)
            others = round(max(0.0, spent / (time.perf_counter() - self._started)), 2)
        return Machine(
            cpu=_cpu_name(),
            cpus=os.cpu_count() or 1,
            governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            cpus_used_by_others=others,
        )


def _busy_cpu_seconds() -> float | None:
    """CPU time all processes and guests have used since the machine started; None without Linux's `/proc/stat`."""
    text = _read(Path("/proc/stat"))
    if text is None:
        return None
    user, nice, system, _idle, _wait, interrupt, soft, steal = (int(field) for field in text.split()[1:9])
    return (user + nice + system + interrupt + soft + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_name() -> str:
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        # Arm kernels give no model name here; boards give theirs as "Model".
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
