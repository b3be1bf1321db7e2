"""Energy of one classification, measured, stated or modelled, and how long a battery lasts with it.

*Measured*: by the counter of an Intel or AMD CPU (RAPL, `/sys/class/powercap`), the power sensors of a Jetson (INA3221:
`hwmon` from JetPack 5 on, `iio` before), or an NVIDIA GPU (NVML). Clips are classified one after another, and all
energy of the device in that time is shared out among them, what it draws idle included: that is what a battery feels.
*Stated*: power at the plug or from a data sheet, times the measured time. *Modelled*, where there is neither:
operations and bytes at the prices of M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC
2014, for 45 nm. Every result says which it is.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from edgekd.errors import UsageError
from edgekd.number_formats import power, setting
from edgekd.profiling.machine import text_of
from edgekd.report.results import Battery, Cost, Energy, PrecisionName

SAMPLES_PER_SECOND = 25  # of a power sensor; an INA3221 converts about as often
IDLE_SECONDS = 2.0

PICOJOULES_A_MAC: dict[PrecisionName, float] = {
    "float32": 3.7 + 0.9,  # multiplication and addition
    "float16": 1.1 + 0.4,
    "int8": 0.2 + 0.1,  # products of 8 bits are added up in 32
}
PICOJOULES_A_BYTE_OF_CACHE = 100 / 8  # of 1 MB, the smallest in the table that holds activations; for 64 bits
PICOJOULES_A_BYTE_OF_DRAM = 1300 / 8  # the lower of the two figures, for 64 bits
_WEIGHT_BYTES: dict[PrecisionName, int] = {"float32": 4, "float16": 2, "int8": 1}

# What a board's whole module draws: one sensor at its input, else rails that do not feed one another.
JETSON_RAILS = (
    ("VDD_IN",),  # Orin NX and Nano, Xavier NX, TX2
    ("POM_5V_IN",),  # Nano
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; its memory rail is fed by the last
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)


@dataclass(frozen=True)
class EnergyCounter:
    """Counters that add energy up, each in joules and back at 0 when it reaches its range, its second number."""

    source: Literal["rapl", "nvml"]
    covers: str
    counters: tuple[tuple[Callable[[], float], float], ...]

    def measure(self, work: Callable[[], None]) -> tuple[float, float]:
        """Joules and seconds of `work`, which must be shorter than a counter takes for its range."""
        start, before = time.perf_counter(), [read() for read, _ in self.counters]
        work()
        after, seconds = [read() for read, _ in self.counters], time.perf_counter() - start
        joules = sum(
            now - then + (span if now < then else 0.0)
            for then, now, (_, span) in zip(before, after, self.counters, strict=True)
        )
        return joules, seconds


@dataclass(frozen=True)
class PowerSensor:
    """A sensor of power in watts, None where it cannot be read just now. Between samples power changes evenly."""

    source: Literal["jetson", "nvml"]
    covers: str
    watts: Callable[[], float | None]

    def measure(self, work: Callable[[], None]) -> tuple[float, float]:
        """Joules and seconds of `work`, while which a thread reads the sensor."""
        over, samples = threading.Event(), [(time.perf_counter(), self.watts() or 0.0)]

        def sample() -> None:
            watts = self.watts()
            samples.append((time.perf_counter(), samples[-1][1] if watts is None else watts))

        def watch() -> None:
            while not over.wait(1 / SAMPLES_PER_SECOND):
                sample()

        thread = threading.Thread(target=watch, name="power")
        thread.start()
        start = time.perf_counter()
        try:
            work()
        finally:
            seconds = time.perf_counter() - start
            over.set()
            thread.join()
        sample()
        sampled = samples[-1][0] - samples[0][0]
        joules = sum((end - begin) * (first + last) / 2 for (begin, first), (end, last) in pairwise(samples))
        return joules * seconds / sampled, seconds


Meter = EnergyCounter | PowerSensor
"""Measures energy; `covers` says of what, in words."""


def open_meter(root: Path = Path("/"), gpu: bool = False) -> Meter | None:
    """The energy meter of this machine; with `gpu` one that sees the GPU. None where there is none that can be read.

    `why_no_meter` says why. `root`: where `/sys` is.
    """
    jetson = _jetson(root)
    if jetson is not None:
        return jetson
    return _nvml() if gpu else _rapl(root)


def why_no_meter(root: Path = Path("/"), gpu: bool = False) -> str:
    """Why `open_meter` found none, and what can be done."""
    if gpu:
        return "NVML, the GPU's driver library, gives no energy here"
    if _rapl_packages(root):
        files = "/sys/class/powercap/intel-rapl:*/energy_uj"
        return f"the CPU's energy counter (RAPL) is for root alone: sudo chmod a+r {files}"
    rails = ", ".join(_rails(root))
    if rails:
        return f"which of this board's power rails ({rails}) contain the others is not known"
    return "this machine shows no energy counter (RAPL) and no power sensor (INA3221)"


def measure_energy(
    meter: Meter,
    call: Callable[[], object],
    clips_per_call: int = 1,
    seconds: float = 5.0,
    idle_seconds: float = IDLE_SECONDS,
) -> Energy:
    """Energy of a clip: all that `meter` sees while `call` is repeated for `seconds`, after idling."""
    idle_joules, idle_time = meter.measure(lambda: time.sleep(idle_seconds))
    call()  # wakes the clocks
    calls = 0

    def classify() -> None:
        nonlocal calls
        end = time.perf_counter() + seconds
        while calls == 0 or time.perf_counter() < end:
            call()
            calls += 1

    joules, spent = meter.measure(classify)
    clips = calls * clips_per_call
    return Energy(
        joules_per_clip=joules / clips,
        watts=round(joules / spent, 4),
        idle_watts=round(idle_joules / idle_time, 4),
        source=meter.source,
        measured=True,
        how=f"Measured: all energy of {meter.covers}, its idle power included, over {clips} clips in {spent:.1f} s.",
    )


def stated(active_watts: float, latency_seconds: float) -> Energy:
    """Energy of a clip by a power that the user states and the median time of a clip."""
    return Energy(
        joules_per_clip=active_watts * latency_seconds,
        watts=active_watts,
        source="stated",
        measured=False,
        how=f"Not measured: a stated power of {power(active_watts)} times the median time of a clip.",
    )


def modelled(cost: Cost, precision: PrecisionName) -> Energy | None:
    """Energy of a clip by operations and bytes; None where one of them is not known.

    The front end counts as float32. All reads and writes are at the price of a 1 MB cache, and each weight comes once
    from DRAM.
    """
    if cost.macs is None or cost.parameters is None or cost.traffic_bytes is None:
        return None
    picojoules = (
        cost.macs * PICOJOULES_A_MAC[precision]
        + (cost.frontend_macs or 0) * PICOJOULES_A_MAC["float32"]
        + cost.traffic_bytes * PICOJOULES_A_BYTE_OF_CACHE
        + cost.parameters * _WEIGHT_BYTES[precision] * PICOJOULES_A_BYTE_OF_DRAM
    )
    return Energy(
        joules_per_clip=picojoules * 1e-12,
        source="model",
        measured=False,
        how=(
            "Not measured: a lower bound by a model, arithmetic and memory traffic at the prices of Horowitz (ISSCC "
            "2014, 45 nm). Instructions, leakage and idling, most of what a processor draws, are not in it: it ranks "
            "models, it sizes no battery."
        ),
    )


def battery(
    watt_hours: float,
    duty_cycle: float,
    energy: Energy,
    *,
    clip_seconds: float,
    latency_seconds: float,
    idle_watts: float | None = None,
) -> Battery:
    """How long a battery lasts if the device listens and classifies for a share of the time, and sleeps for the rest.

    Awake, it classifies each clip once, without overlap, and draws idle power until the next is complete:

        power = duty x (busy x watts + (1 - busy) x idle) + (1 - duty) x asleep,   busy = latency / clip length

    `idle_watts` is stated for the sleeping device; without it, it sleeps at the idle power that was measured. Raises
    `UsageError` for a duty cycle outside (0, 1], an empty battery, and where the idle power is not known.
    """
    if not 0 < duty_cycle <= 1:
        raise UsageError(f"--duty-cycle {duty_cycle:g}: a share of the time, above 0 and up to 1, is wanted.")
    if not watt_hours > 0:
        raise UsageError(f"--battery-wh {watt_hours:g}: watt-hours above 0 are wanted.")
    asleep = energy.idle_watts if idle_watts is None else idle_watts
    if asleep is None and (energy.watts is None or duty_cycle < 1):
        what = "no power is" if energy.watts is None else "the power of the idle device is not"
        raise UsageError(
            f"--battery-wh: {what} known here, so no battery can be sized. Add --idle-watts W"
            f"{' and --active-watts W' if energy.watts is None else ''}, measured at the device's plug."
        )
    busy = min(1.0, latency_seconds / clip_seconds)
    waiting = energy.idle_watts if energy.idle_watts is not None else asleep
    if energy.watts is None:
        assert waiting is not None
        awake = waiting + energy.joules_per_clip / max(clip_seconds, latency_seconds)
        busily = f"{power(waiting)} and the modelled energy of its clips, which is a lower bound"
    elif waiting is None:
        awake, busily = energy.watts, f"{power(energy.watts)} all the time, as its idle power is not known"
    else:
        awake = busy * energy.watts + (1 - busy) * waiting
        busily = f"{power(energy.watts)} for {busy:.2%} of it, while it classifies, and {power(waiting)} between clips"
    mean = duty_cycle * awake + (1 - duty_cycle) * (asleep or 0.0)
    sleeping = "" if duty_cycle == 1 else f" Asleep for the rest it draws {power(asleep or 0.0)}."
    seen = {
        "rapl": " Only the CPU is in it: the rest of the device draws more.",
        "nvml": " Only the GPU is in it: the rest of the device draws more.",
    }
    awake_for = f"{setting(100 * duty_cycle)}% of the time, each clip of {setting(clip_seconds)} s classified once"
    return Battery(
        watt_hours=watt_hours,
        duty_cycle=duty_cycle,
        mean_watts=mean,
        days=watt_hours / mean / 24,
        how=(
            f"Awake for {awake_for}, it draws {busily}.{sleeping}{seen.get(energy.source, '')} Losses and the ageing "
            "of the battery are not in it."
        ),
    )


# --- Meters -----------------------------------------------------------------------------------------------------------


def _rapl_packages(root: Path) -> list[Path]:
    """Folders of the CPU packages' counters; cores and memory, which are parts of them or apart, left out."""
    folders = sorted(root.glob("sys/class/powercap/intel-rapl:*"))  # AMD's too
    return [folder for folder in folders if (text_of(folder / "name") or "").startswith("package")]


def _rapl(root: Path) -> Meter | None:
    packages = _rapl_packages(root)
    if not packages or any(_number(folder / "energy_uj") is None for folder in packages):
        return None
    return EnergyCounter(
        source="rapl",
        covers=f"{f'{len(packages)} CPU packages' if len(packages) > 1 else 'the CPU package'} (without memory)",
        counters=tuple(
            (_scaled(folder / "energy_uj", 1e-6), (_number(folder / "max_energy_range_uj") or 0.0) * 1e-6)
            for folder in packages
        ),
    )


def _jetson(root: Path) -> Meter | None:
    rails = _rails(root)
    for names in JETSON_RAILS:
        if all(name in rails and rails[name]() is not None for name in names):
            return PowerSensor("jetson", f"the Jetson module ({' + '.join(names)})", _sum([rails[n] for n in names]))
    return None


def _rails(root: Path) -> dict[str, Callable[[], float | None]]:
    """Power in watts of each rail that an INA3221 measures, by the board's name for it."""
    found: dict[str, Callable[[], float | None]] = {}
    drivers = root / "sys/bus/i2c/drivers"
    for label in sorted(drivers.glob("ina3221*/*/hwmon/hwmon*/in[123]_label")):
        number = label.name[2]
        volts, amperes = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        found[text_of(label) or label.name] = _product(volts, amperes)
    for label in sorted(drivers.glob("ina3221*/*/iio:device*/rail_name_*")):
        power = label.with_name(f"in_power{label.name.removeprefix('rail_name_')}_input")
        found[text_of(label) or label.name] = _milli(power)
    return found


def _sum(rails: Sequence[Callable[[], float | None]]) -> Callable[[], float | None]:
    def watts() -> float | None:
        powers = [read() for read in rails]
        known = [power for power in powers if power is not None]
        return sum(known) if len(known) == len(powers) else None

    return watts


def _product(millivolts: Path, milliamperes: Path) -> Callable[[], float | None]:
    def watts() -> float | None:
        volts, amperes = _number(millivolts), _number(milliamperes)
        return None if volts is None or amperes is None else volts * amperes * 1e-6

    return watts


def _milli(path: Path) -> Callable[[], float | None]:
    def watts() -> float | None:
        value = _number(path)
        return None if value is None else value * 1e-3

    return watts


def _scaled(path: Path, factor: float) -> Callable[[], float]:
    return lambda: (_number(path) or 0.0) * factor


def _nvml() -> Meter | None:
    """The GPU that torch computes on, the first where it has none; its energy counter (Volta and later), else power."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device = ctypes.c_void_p()
    if library.nvmlInit_v2() != 0:
        return None
    uuid = _torch_gpu()
    by_uuid, by_index = library.nvmlDeviceGetHandleByUUID, library.nvmlDeviceGetHandleByIndex_v2
    failed = by_uuid(uuid.encode(), ctypes.byref(device)) if uuid else by_index(0, ctypes.byref(device))
    if failed:
        return None
    millijoules, milliwatts = ctypes.c_ulonglong(), ctypes.c_uint()

    def joules() -> float:
        library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
        return millijoules.value * 1e-3

    def watts() -> float:
        library.nvmlDeviceGetPowerUsage(device, ctypes.byref(milliwatts))
        return milliwatts.value * 1e-3

    if joules() > 0:
        return EnergyCounter("nvml", "the GPU's board (without the CPU)", ((joules, 0.0),))
    return PowerSensor("nvml", "the GPU's board (without the CPU)", watts) if watts() else None


def _torch_gpu() -> str | None:
    import torch

    return f"GPU-{torch.cuda.get_device_properties().uuid}" if torch.cuda.is_available() else None


def _number(path: Path) -> float | None:
    try:
        return float(text_of(path) or "")
    except ValueError:
        return None
