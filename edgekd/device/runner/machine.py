"""What decides how fast this machine is just now, and the memory of this process."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from pathlib import Path
from typing import Any


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """What decides how fast this machine is just now; None or nothing where it does not tell.

    CPU clocks and governor, GPU and memory clocks (`/sys/class/devfreq`), temperatures in degrees C, a Jetson's power
    mode (nvpmodel), and what a Raspberry Pi's firmware has throttled (vcgencmd).
    """
    cores = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    first = cores[0] if cores else root / "absent"
    mhz = [round(clock / 1e3) for core in cores if (clock := _number(core / "scaling_cur_freq"))]
    devices = {}
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        now, most = _number(folder / "cur_freq"), _number(folder / "max_freq")
        if now is not None and most is not None:
            devices[folder.name] = {"mhz": round(now / 1e6), "max_mhz": round(most / 1e6)}
    heat = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        millidegrees = _number(zone / "temp")
        if millidegrees is not None:
            heat[_text(zone / "type") or zone.name] = round(millidegrees / 1e3, 1)
    return {
        "cpu": _cpu_name(root),
        "cpus": os.cpu_count(),
        "governor": _text(first / "scaling_governor"),
        "mhz": mhz,
        "max_mhz": round((_number(first / "cpuinfo_max_freq") or 0) / 1e3) or None,
        "devices": devices,
        "temperatures": heat,
        "power_mode": _power_mode(root),
        "throttled": _throttled(),
    }


def process_memory() -> tuple[int, int]:
    """Bytes of memory that this process holds now, and the most it has held."""
    now = int((_text(Path("/proc/self/statm")) or "0 0").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return now, max(now, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # it is in KiB


def _cpu_name(root: Path) -> str | None:
    model = _text(root / "proc/device-tree/model")  # a board's own name; its CPU has none in cpuinfo
    names = re.findall(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return model.strip("\0") if model else next(iter(names), None)


def _power_mode(root: Path) -> str | None:
    mode_name = re.search(r"^NV Power Mode:\s*(\S+)", _output_of("nvpmodel", "-q"), re.MULTILINE)
    if mode_name:
        return mode_name.group(1)
    number = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if not number:
        return None
    mode = int(number.group(1))
    table = _text(root / "etc/nvpmodel.conf") or ""
    name = re.search(rf"POWER_MODEL\s+ID={mode}\s+NAME=(\S+)", table)
    return name.group(1) if name else f"mode {mode}"


def _throttled() -> list[str] | None:
    # Bits 0 to 3: now; 16 to 19: since the board was started.
    flags = re.search(r"throttled=(0x[0-9a-fA-F]+)", _output_of("vcgencmd", "get_throttled"))
    if not flags:
        return None
    bits = int(flags.group(1), 16)
    causes = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
    now = [f"{cause} now" for bit, cause in enumerate(causes) if bits >> bit & 1]
    return now + [f"{cause} earlier" for bit, cause in enumerate(causes) if bits >> bit & 0x10001 == 0x10000]


def _output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # also a sensor that is switched off
        return None


def _number(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None
