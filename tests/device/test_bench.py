"""What `bench` says of the machine, from stand-ins for the files and tools of boards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device import edgekd_runner
from edgekd.device.edgekd_runner import machine_state, main


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system without anything, and no tools."""
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    (tmp_path / "tools").mkdir()
    return tmp_path


def put(root: Path, **files: str | int) -> None:
    """`a__b="text"` is the file `a/b`."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def tool(root: Path, name: str, output: str, exit_code: int = 0) -> None:
    path = root / "tools" / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{output}'\nexit {exit_code}\n")
    path.chmod(0o755)


def test_a_system_that_tells_nothing_is_no_error(root: Path) -> None:
    state = machine_state(root)
    assert state.pop("cpus") == os.cpu_count()
    assert state == {
        "cpu": None,
        "governor": None,
        "mhz": [],
        "max_mhz": None,
        "devices": {},
        "temperatures": {},
        "power_mode": None,
        "throttled": None,
    }


def test_a_jetson_tells_its_power_mode_clocks_and_heat(root: Path) -> None:
    put(root, **{"proc__device-tree__model": "NVIDIA Jetson Orin Nano Developer Kit\0"})
    for core, khz in enumerate((1_510_400, 729_600)):
        folder = f"sys__devices__system__cpu__cpu{core}__cpufreq__"
        put(root, **{f"{folder}scaling_cur_freq": khz, f"{folder}scaling_governor": "schedutil"})
        put(root, **{f"{folder}cpuinfo_max_freq": 1_728_000})
    put(root, **{"sys__class__devfreq__17000000.gpu__cur_freq": 624_750_000})
    put(root, **{"sys__class__devfreq__17000000.gpu__max_freq": 1_020_000_000})
    put(root, sys__class__thermal__thermal_zone0__type="cpu-thermal", sys__class__thermal__thermal_zone0__temp=48_562)
    put(root, sys__class__thermal__thermal_zone1__type="cv0-thermal", sys__class__thermal__thermal_zone1__temp="N/A")
    tool(root, "nvpmodel", "NV Power Mode: 25W\n1")
    state = machine_state(root)
    assert state["cpu"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (state["mhz"], state["max_mhz"], state["governor"]) == ([1_510, 730], 1_728, "schedutil")
    assert state["devices"] == {"17000000.gpu": {"mhz": 625, "max_mhz": 1_020}}
    assert state["temperatures"] == {"cpu-thermal": 48.6}
    assert state["power_mode"] == "25W"


def test_the_power_mode_is_read_from_files_where_the_tool_needs_root(root: Path) -> None:
    tool(root, "nvpmodel", "NVPM ERROR: Error opening /dev/x: Permission denied", exit_code=1)
    put(root, var__lib__nvpmodel__status="pmode:0002 fmode:quiet")
    assert machine_state(root)["power_mode"] == "mode 2"
    table = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_15W >"
    put(root, **{"etc__nvpmodel.conf": table})
    assert machine_state(root)["power_mode"] == "MODE_15W"


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ("0x0", []),
        ("0x50005", ["under-voltage now", "throttled now"]),
        ("0xa0002", ["clock capped now", "soft temperature limit earlier"]),
    ],
)
def test_a_raspberry_pi_tells_what_it_has_throttled(root: Path, bits: str, words: list[str]) -> None:
    tool(root, "vcgencmd", f"throttled={bits}")
    assert machine_state(root)["throttled"] == words


def test_bench_gives_percentiles_memory_and_the_machine(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "--runs", "35", "--warmup", "2", "--threads", "2"], written) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert 0 < outcome["p50_ms"] <= outcome["p95_ms"] <= outcome["p99_ms"]
    quantiles = outcome["quantiles_ms"]
    assert (len(quantiles), quantiles) == (101, sorted(quantiles))
    assert [quantiles[share] for share in (50, 95, 99)] == [outcome[f"p{share}_ms"] for share in (50, 95, 99)]
    assert outcome["spread_ms"] == pytest.approx(quantiles[75] - quantiles[25], abs=1e-3)
    low, high = outcome["p50_interval_ms"]
    assert quantiles[0] <= low <= outcome["p50_ms"] <= high <= quantiles[100]
    assert (outcome["runs"], outcome["threads"], outcome["engine"]) == (35, 2, "onnxruntime")
    assert outcome["precision"] == "int8"
    assert outcome["real_time_factor"] == pytest.approx(outcome["p50_ms"] / 100, abs=1e-5)
    assert 0 < outcome["memory_bytes"] <= outcome["peak_memory_bytes"]
    assert outcome["front_end_ms"] is None
    assert set(outcome["machine"]) == set(machine_state())


def test_the_interval_of_the_median_covers_it_where_blocks_differ() -> None:
    """Blocks of 10 runs that share a mood, as on a real machine; without blocks about half of the intervals miss."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        times = 1 + 0.1 * np.repeat(random.standard_normal(20), 10) + 0.01 * random.standard_normal(200)
        low, high = edgekd_runner._median_interval(times)
        covered += low <= 1 <= high
    assert covered >= 34
    assert edgekd_runner._median_interval(np.array([2.0])) == (2, 2)


def test_bench_ends_after_the_time_it_is_given(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--json", "--runs", "100000000", "--seconds", "0.2"], written) == 0
    assert 0 < json.loads(capsys.readouterr().out)["runs"] < 100_000_000


def test_bench_shows_what_it_found(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[str, Any] = machine_state() | {
        "cpu": "Raspberry Pi 5 Model B Rev 1.0",
        "mhz": [2400, 1500],
        "devices": {"17000000.gpu": {"mhz": 625, "max_mhz": 1020}},
        "temperatures": {"cpu-thermal": 61.5},
        "power_mode": None,
        "throttled": ["under-voltage earlier"],
    }
    monkeypatch.setattr(edgekd_runner, "machine_state", lambda: state)
    monkeypatch.setattr(edgekd_runner, "_warm_up", lambda *_: False)
    assert main(["bench", "--runs", "10"], written) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mhz: 2400, 1500" in lines
    assert "devices: 17000000.gpu mhz: 625, max_mhz: 1020" in lines
    assert "temperatures: cpu-thermal 61.5" in lines
    assert "throttled: under-voltage earlier" in lines
    assert not any(line.startswith("power mode") for line in lines)
    assert lines[-1].startswith("the time had not settled")
