"""What the machine says of itself, from stand-ins for the files and tools of boards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.device.runner.machine import machine_state


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


MEMORY = """
import numpy as np
from edgekd.device.runner.machine import process_memory
before = process_memory()[0]
block = np.ones(64 << 20, np.uint8)
now, most = process_memory()
del block
print(before, now, most, process_memory()[1])
"""


def test_memory_of_a_process_grows_with_what_it_holds() -> None:
    # In a process of its own: in this one, memory that others have freed may be taken again, and nothing grows.
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=60)
    before, now, most, after = map(int, done.stdout.split())
    assert before + (60 << 20) < now <= most
    assert after > most - (1 << 20)  # counted page by page now and then
