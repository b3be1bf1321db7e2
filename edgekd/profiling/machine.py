"""The machine that times were taken on, and its state: what it is, how fast it was just then, and who else used it.

What decides its speed (clocks, governor, power mode, heat) is read after the measurement, while it is warm, by the
runner's own `machine_state`, so that a board and this machine are described in the same words. What others took of it
is measured over the whole time: all CPU time of the machine (`/proc/stat`, which a container shares with its host; time
stolen for other virtual machines counts) less that of this process and of the children it has waited for. The CPU quota
of a control group stops a process although the machine is idle, which spoils the tails: in how many of its periods it
did so is given under `throttled`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgekd.device.runner import machine_state
from edgekd.errors import InputError
from edgekd.report.results import Machine

BUSY_SHARE = 0.25  # of all CPUs, used by others


class Watch:
    """What happens on the machine from now on. Made before a measurement; `machine` is called after it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._load_average = _load_average(root)  # before there is any of our own
        self._started = time.perf_counter()
        self._busy, self._own = _busy_seconds(root), _own_seconds()
        self._periods = _quota_periods(root)

    def machine(self) -> Machine:
        """The machine, and what others used of it since."""
        seconds = time.perf_counter() - self._started
        busy, others = _busy_seconds(self._root), None
        if busy is not None and self._busy is not None:
            others = round(max(0.0, busy - self._busy - (_own_seconds() - self._own)) / seconds, 2)
        state = machine_state(self._root)
        return _machine(
            {**state, "cpu": state["cpu"] or platform.processor() or platform.machine() or None},
            load_average=self._load_average,
            others=others,
            gpu=_gpu_name(),
            throttled=[*(state["throttled"] or ()), *self._stopped_by_quota()],
        )

    def _stopped_by_quota(self) -> Iterator[str]:
        before, now = self._periods, _quota_periods(self._root)
        shares = [
            (now[group][1] - before[group][1]) / (now[group][0] - before[group][0])
            for group in before.keys() & now.keys()
            if now[group][0] > before[group][0]
        ]
        if max(shares, default=0.0) > 0:
            yield f"CPU quota of the control group in {max(shares):.0%} of its periods"


def watch(root: Path = Path("/")) -> Watch:
    """Begin to watch the machine whose `/proc` and `/sys` are under `root`."""
    return Watch(root)


def from_bench(outcome: Mapping[str, Any]) -> Machine:
    """The machine of the JSON that a bundle's `edgekd_runner.py bench --json` prints.

    It does not measure what others use: their load average before the measurement says whether it was busy. Raises
    `InputError` where `outcome` does not describe a machine.
    """
    try:
        state = outcome["machine"]
        return _machine(
            state,
            load_average=outcome["load_average"],
            others=None,
            gpu=None,
            throttled=state.get("throttled") or (),
        )
    except (AttributeError, KeyError, TypeError, ValidationError):
        raise InputError(
            "bench: its JSON does not describe the machine as this edgekd expects. Export the bundle again."
        ) from None


def _machine(
    state: Mapping[str, Any],
    load_average: float | None,
    others: float | None,
    gpu: str | None,
    throttled: Iterable[str],
) -> Machine:
    cpus = state["cpus"] or 1
    used = load_average if others is None else others
    return Machine(
        cpu=state["cpu"],
        cpus=cpus,
        gpu=gpu,
        governor=state["governor"],
        mhz=tuple(state["mhz"]),
        max_mhz=state["max_mhz"],
        devices=state["devices"],
        temperatures=state["temperatures"],
        power_mode=state["power_mode"],
        throttled=tuple(throttled),
        load_average=load_average,
        cpus_used_by_others=others,
        busy=used is not None and used > BUSY_SHARE * cpus,
    )


def _load_average(root: Path) -> float | None:
    text = text_of(root / "proc/loadavg")
    if text is not None:
        return float(text.split()[0])
    return round(os.getloadavg()[0], 2) if root == Path("/") and hasattr(os, "getloadavg") else None


def _busy_seconds(root: Path) -> float | None:
    """CPU time all processes and guests have used since the machine started; None without Linux's `/proc/stat`."""
    text = text_of(root / "proc/stat")
    if text is None:
        return None
    user, nice, system, _idle, _wait, interrupt, soft, steal = (int(field) for field in text.split()[1:9])
    return (user + nice + system + interrupt + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _quota_periods(root: Path) -> dict[Path, tuple[int, int]]:
    """Periods of its CPU quota and those in which it was stopped, of this process's control group and those above."""
    found = {}
    for line in (text_of(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers  # version 2 has no controllers here, and one tree
        group = mount / name.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            counts = dict(entry.split()[:2] for entry in (text_of(folder / "cpu.stat") or "").splitlines())
            if "nr_periods" in counts and "nr_throttled" in counts:
                found[folder] = int(counts["nr_periods"]), int(counts["nr_throttled"])
    return found


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def text_of(path: Path) -> str | None:
    """What the kernel says in a file of its own; None where it says nothing."""
    try:
        return path.read_text().strip()
    except OSError:  # also a sensor that is switched off, or a counter for root alone
        return None
