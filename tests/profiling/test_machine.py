"""The state of a machine, read from a made-up `/proc` and `/sys`, and a busy machine for real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekd.device.runner import machine_state
from edgekd.errors import InputError
from edgekd.profiling import machine
from edgekd.profiling.machine import from_bench, watch

TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A board with two clocks, a governor, and heat."""
    cpufreq = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    thermal = tmp_path / "sys/class/thermal/thermal_zone0"
    cgroup = tmp_path / "sys/fs/cgroup/box"
    for folder in (cpufreq, thermal, cgroup, tmp_path / "proc/self"):
        folder.mkdir(parents=True)
    (cpufreq / "scaling_cur_freq").write_text("1190400\n")
    (cpufreq / "scaling_governor").write_text("schedutil\n")
    (cpufreq / "cpuinfo_max_freq").write_text("1510400\n")
    (thermal / "type").write_text("cpu-thermal\n")
    (thermal / "temp").write_text("48500\n")
    (tmp_path / "proc/cpuinfo").write_text("model name\t: A CPU of ours\n")
    (tmp_path / "proc/loadavg").write_text("0.52 0.40 0.30 1/100 4242\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/box/inner\n")
    used(tmp_path)
    return tmp_path


def used(root: Path, user: float = 0.0, guests: float = 0.0, stolen: float = 0.0) -> None:
    """CPU seconds in `/proc/stat`; `user` contains what guests used, as Linux counts it."""
    ticks = [(user + guests) * TICK, 0, 0, 10_000, 0, 0, 0, stolen * TICK, guests * TICK, 0]
    (root / "proc/stat").write_text(f"cpu  {' '.join(str(round(count)) for count in ticks)}\ncpu0 0\n")


def quota(root: Path, periods: int, throttled: int, group: str = "box") -> None:
    folder = root / "sys/fs/cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.stat").write_text(f"usage_usec 1\nnr_periods {periods}\nnr_throttled {throttled}\n")


def test_a_quiet_machine_is_described_and_not_busy(root: Path) -> None:
    found = watch(root).machine()
    assert found.cpu == "A CPU of ours"
    assert found.cpus == os.cpu_count()
    assert (found.governor, found.mhz, found.max_mhz) == ("schedutil", (1190,), 1510)
    assert found.temperatures == {"cpu-thermal": 48.5}
    assert found.load_average == 0.52
    assert found.cpus_used_by_others == 0
    assert not found.busy
    assert found.throttled == ()


@pytest.mark.parametrize("kind", ["user", "guests", "stolen"])
def test_what_others_guests_and_other_virtual_machines_use_counts(root: Path, kind: str) -> None:
    observed = watch(root)
    time.sleep(0.1)
    used(root, **{kind: 10.0 * (os.cpu_count() or 1)})
    found = observed.machine()
    assert found.cpus_used_by_others is not None
    assert found.cpus_used_by_others > 1
    assert found.busy


def test_our_own_computing_does_not_count_as_that_of_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now)
    monkeypatch.setattr(machine, "_own_seconds", lambda: 0.9 * now)
    observed = watch(root)
    now = 10.0
    used(root, user=9.0)
    assert observed.machine().cpus_used_by_others == 0
    observed = watch(root)
    now = 20.0
    used(root, user=9.0 + 9.0 + 15.0)
    assert observed.machine().cpus_used_by_others == 1.5


def test_a_child_that_we_waited_for_is_our_own() -> None:
    before = machine._own_seconds()
    subprocess.run([sys.executable, "-S", "-c", "sum(range(3_000_000))"], check=True)
    assert machine._own_seconds() - before > 0.02


def test_where_nobody_tells_what_others_use_the_load_average_decides(root: Path) -> None:
    (root / "proc/stat").unlink()
    quiet = watch(root).machine()
    assert quiet.cpus_used_by_others is None
    assert quiet.busy is (quiet.cpus * 0.25 < 0.52)
    (root / "proc/loadavg").write_text("999 9 9 1/100 4242\n")
    assert watch(root).machine().busy


def test_the_load_average_is_the_one_before_the_measurement(root: Path) -> None:
    observed = watch(root)
    (root / "proc/loadavg").write_text("7.00 0.40 0.30 1/100 4242\n")
    assert observed.machine().load_average == 0.52


@pytest.mark.parametrize("group", ["box/inner", "box", ""])
def test_a_quota_that_stopped_us_is_told(root: Path, group: str) -> None:
    """In our control group or in one above it."""
    quota(root, 1000, 400, group)
    observed = watch(root)
    assert observed.machine().throttled == ()
    quota(root, 1050, 406, group)
    assert observed.machine().throttled == ("CPU quota of the control group in 12% of its periods",)


def test_control_groups_of_the_first_version_are_read_too(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("5:memory:/box\n4:cpu,cpuacct:/box\n0::/\n")
    quota(root, 10, 0, "cpu,cpuacct/box")
    observed = watch(root)
    quota(root, 20, 10, "cpu,cpuacct/box")
    assert observed.machine().throttled == ("CPU quota of the control group in 100% of its periods",)


def test_a_machine_that_tells_nothing_is_still_described(tmp_path: Path) -> None:
    found = watch(tmp_path).machine()
    assert found.cpu  # Python's own word for it
    assert (found.load_average, found.cpus_used_by_others, found.busy) == (None, None, False)


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc/stat")
def test_a_busy_machine_raises_the_warning() -> None:
    with busy_loops(os.cpu_count() or 1):
        observed = watch()
        time.sleep(1.0)
        found = observed.machine()
    assert found.busy
    assert found.cpus_used_by_others is not None
    assert found.cpus_used_by_others > 0.25 * found.cpus


def bench(load: float = 0.1, **changes: object) -> dict[str, object]:
    """What the runner's bench prints, as far as the machine goes."""
    return {"p50_ms": 3.2, "load_average": load, "machine": {**machine_state(), **changes}}


def test_the_machine_of_a_bench_is_the_device_s() -> None:
    jetson = {
        "cpu": "NVIDIA Jetson Orin Nano Developer Kit",
        "cpus": 6,
        "governor": "schedutil",
        "mhz": [1510] * 6,
        "max_mhz": 1510,
        "devices": {"17000000.gpu": {"mhz": 306, "max_mhz": 624}},
        "temperatures": {"cpu-thermal": 49.5},
        "power_mode": "15W",
        "throttled": ["clock capped now"],
    }
    found = from_bench(bench(0.1, **jetson))
    assert {name: value for name, value in found.model_dump(mode="json").items() if name in jetson} == jetson
    assert not found.busy
    assert found.cpus_used_by_others is None
    assert from_bench(bench(1.6, **jetson)).busy  # more than a quarter of 6


def test_a_bench_on_this_machine_is_read() -> None:
    assert from_bench(bench(throttled=None)).throttled == ()


@pytest.mark.parametrize(
    "outcome", [{}, {"machine": None, "load_average": 0.1}, bench(mhz="fast"), {"machine": {}, "load_average": 1}]
)
def test_a_bench_without_a_machine_is_an_input_error(outcome: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Export the bundle again"):
        from_bench(outcome)
