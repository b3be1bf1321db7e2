"""Meters on made-up `/sys` folders and clocks; what is modelled, stated and derived, by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import UsageError
from edgekd.profiling import energy as energy_module
from edgekd.profiling.energy import (
    EnergyCounter,
    PowerSensor,
    battery,
    measure_energy,
    modelled,
    open_meter,
    stated,
    why_no_meter,
)
from edgekd.report.results import Cost, Energy

COST = Cost(parameters=1000, macs=2_000_000, frontend_macs=500_000, file_bytes=5000, traffic_bytes=80_000)


def files(folder: Path, **contents: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def rapl(root: Path, number: str, name: str, microjoules: int, span: int = 1_000_000) -> Path:
    folder = root / f"sys/class/powercap/intel-rapl:{number}"
    return files(folder, name=name, energy_uj=microjoules, max_energy_range_uj=span)


def hwmon(root: Path, device: str, *rails: tuple[str, int, int]) -> Path:
    """An INA3221 as JetPack 5 and 6 show it; of each rail its name, mV and mA."""
    folder = root / f"sys/bus/i2c/drivers/ina3221/{device}/hwmon/hwmon3"
    for number, (name, millivolts, milliamperes) in enumerate(rails, 1):
        values = {f"in{number}_label": name, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
        files(folder, **values)
    return files(folder, in7_label="sum of shunt voltages", in7_input=40)


def test_a_cpu_s_counters_are_added_up_and_wrap_around(tmp_path: Path) -> None:
    first = rapl(tmp_path, "0", "package-0", 400_000)
    second = rapl(tmp_path, "1", "package-1", 900_000)
    rapl(tmp_path, "0:0", "core", 7)
    rapl(tmp_path, "2", "psys", 7)
    meter = open_meter(tmp_path)
    assert isinstance(meter, EnergyCounter)
    assert (meter.source, meter.covers) == ("rapl", "2 CPU packages (without memory)")

    def work() -> None:
        files(first, energy_uj=650_000)  # 0.25 J
        files(second, energy_uj=100_000)  # 0.2 J, over the end of its range

    joules, seconds = meter.measure(work)
    assert joules == pytest.approx(0.45)
    assert seconds > 0


def test_a_counter_for_root_alone_is_no_meter_and_says_so(tmp_path: Path) -> None:
    (rapl(tmp_path, "0", "package-0", 0) / "energy_uj").unlink()  # root, as whom this may run, could read any mode
    assert open_meter(tmp_path) is None
    assert "root alone" in why_no_meter(tmp_path)


def test_a_cpu_s_counter_is_no_meter_for_a_gpu(tmp_path: Path) -> None:
    rapl(tmp_path, "0", "package-0", 0)
    meter = open_meter(tmp_path, gpu=True)
    assert meter is None or meter.source == "nvml"


def test_a_machine_without_sensors_has_no_meter(tmp_path: Path) -> None:
    assert open_meter(tmp_path) is None
    assert "no energy counter" in why_no_meter(tmp_path)
    assert "NVML" in why_no_meter(tmp_path, gpu=True)


def test_a_jetson_is_measured_at_its_input(tmp_path: Path) -> None:
    hwmon(tmp_path, "1-0040", ("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300))
    for gpu in (False, True):  # the module's input feeds its GPU too
        meter = open_meter(tmp_path, gpu)
        assert isinstance(meter, PowerSensor)
        assert (meter.source, meter.covers) == ("jetson", "the Jetson module (VDD_IN)")
        assert meter.watts() == pytest.approx(6.0)


def test_a_jetson_without_a_sensor_at_its_input_is_the_sum_of_its_rails(tmp_path: Path) -> None:
    hwmon(tmp_path, "1-0040", ("VDD_GPU_SOC", 20000, 100), ("VDD_CPU_CV", 20000, 50), ("VIN_SYS_5V0", 5000, 600))
    hwmon(tmp_path, "1-0041", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 100), ("NC", 0, 0))
    meter = open_meter(tmp_path)
    assert isinstance(meter, PowerSensor)
    assert meter.watts() == pytest.approx(2 + 1 + 3)


def test_a_jetson_of_jetpack_4_is_read_too(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files(folder, rail_name_0="POM_5V_IN", in_power0_input=2345, rail_name_1="POM_5V_GPU", in_power1_input=40)
    meter = open_meter(tmp_path)
    assert isinstance(meter, PowerSensor)
    assert meter.watts() == pytest.approx(2.345)


def test_rails_that_may_feed_one_another_are_not_added(tmp_path: Path) -> None:
    hwmon(tmp_path, "1-0040", ("VDD_NEW", 5000, 100), ("VDD_OTHER", 5000, 50))
    assert open_meter(tmp_path) is None
    assert "VDD_NEW, VDD_OTHER" in why_no_meter(tmp_path)


class Nvml:
    """NVIDIA's library: a GPU at 300 W that has used 12 J; without `counts` an old one, which knows no energy."""

    def __init__(self, counts: bool) -> None:
        self.counts, self.asked = counts, ""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        self.asked, device._obj.value = str(index), 4242
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: Any) -> int:
        self.asked, device._obj.value = uuid.decode(), 4242
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, found: Any) -> int:
        assert device.value == 4242
        if self.counts:
            found._obj.value = 12_000
        return 0 if self.counts else 3

    def nvmlDeviceGetPowerUsage(self, device: Any, found: Any) -> int:
        assert device.value == 4242
        found._obj.value = 300_000
        return 0


@pytest.mark.parametrize("uuid", [None, "GPU-1234"])
def test_a_gpu_is_measured_by_its_counter_or_else_by_its_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uuid: str | None
) -> None:
    library = Nvml(counts=True)
    monkeypatch.setattr(energy_module.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(energy_module, "_torch_gpu", lambda: uuid)
    meter = open_meter(tmp_path, gpu=True)
    assert isinstance(meter, EnergyCounter)
    assert meter.source == "nvml"
    assert library.asked == (uuid or "0")
    assert meter.counters[0][0]() == pytest.approx(12.0)
    library.counts = False
    meter = open_meter(tmp_path, gpu=True)
    assert isinstance(meter, PowerSensor)
    assert meter.watts() == pytest.approx(300.0)


def test_power_is_added_up_over_time() -> None:
    """Power that rises evenly from 0: its energy is half its end times the time."""

    def error() -> float:
        started = time.perf_counter()
        sensor = PowerSensor("jetson", "", lambda: 10 * (time.perf_counter() - started))
        joules, seconds = sensor.measure(lambda: time.sleep(0.1))  # two or three samples: steps would be far off
        assert seconds >= 0.1
        return abs(joules / (10 * seconds**2 / 2) - 1)

    assert min(error() for _ in range(8)) < 0.15, "a busy machine takes samples late, and not each time"


def test_a_sensor_that_fails_in_between_keeps_its_last_power() -> None:
    readings = iter([4.0])
    joules, seconds = PowerSensor("jetson", "", lambda: next(readings, None)).measure(lambda: time.sleep(0.1))
    assert joules == pytest.approx(4.0 * seconds)


def test_work_that_fails_leaves_no_thread_behind() -> None:
    import threading

    def broken() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        PowerSensor("jetson", "", lambda: 1.0).measure(broken)
    assert not any(thread.name == "power" for thread in threading.enumerate())


def test_all_energy_is_shared_out_among_the_clips() -> None:
    """A device of 2 W idle, and 0.5 J more for each call of 4 clips."""
    started, calls = time.perf_counter(), 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.01)

    def joules() -> float:
        return 2.0 * (time.perf_counter() - started) + 0.5 * calls

    meter = EnergyCounter("rapl", "the CPU package", ((joules, 1e9),))
    found = measure_energy(meter, call, clips_per_call=4, seconds=0.3, idle_seconds=0.1)
    measured = calls - 1  # one wakes the clocks
    assert found.idle_watts == pytest.approx(2.0, abs=0.01)
    assert found.joules_per_clip >= (0.5 * measured + 2.0 * 0.3) / (4 * measured)
    assert found.joules_per_clip == pytest.approx((0.5 * measured + 2.0 * 0.3) / (4 * measured), rel=0.2)
    assert found.watts is not None
    assert found.watts > 2.0
    assert (found.source, found.measured) == ("rapl", True)
    assert f"the CPU package, its idle power included, over {4 * measured} clips" in found.how


def test_a_stated_power_takes_the_measured_time() -> None:
    found = stated(7.0, latency_seconds=0.02)
    assert found.joules_per_clip == pytest.approx(0.14)
    assert (found.watts, found.idle_watts, found.source, found.measured) == (7.0, None, "stated", False)


def test_the_model_is_operations_and_bytes_at_their_prices() -> None:
    cache, front_end = 80_000 * 12.5, 500_000 * 4.6  # pJ
    for precision, macs, weights in (("float32", 4.6, 4), ("float16", 1.5, 2), ("int8", 0.3, 1)):
        found = modelled(COST, precision)
        assert found is not None
        assert found.joules_per_clip == pytest.approx(
            1e-12 * (2_000_000 * macs + front_end + cache + 1000 * weights * 162.5)
        )
        assert not found.measured
        assert "lower bound" in found.how
        assert found.watts is None


@pytest.mark.parametrize("unknown", ["macs", "parameters", "traffic_bytes"])
def test_the_model_needs_operations_and_bytes(unknown: str) -> None:
    assert modelled(COST.model_copy(update={unknown: None}), "int8") is None


def energy(**changes: Any) -> Energy:
    values = {"joules_per_clip": 0.5, "watts": 5.0, "idle_watts": 2.0, "source": "jetson", "measured": True, "how": "x"}
    return Energy(**{**values, **changes})


def lasting(found: Energy, duty_cycle: float = 1.0, idle_watts: float | None = None, latency: float = 0.1) -> float:
    """Mean watts; days are checked on the way."""
    result = battery(100.0, duty_cycle, found, clip_seconds=5.0, latency_seconds=latency, idle_watts=idle_watts)
    assert result.days == pytest.approx(100 / result.mean_watts / 24)
    assert "Awake for" in result.how
    return result.mean_watts


def test_a_battery_by_hand() -> None:
    awake = 0.02 * 5.0 + 0.98 * 2.0  # a clip of 5 s takes 0.1 s
    assert lasting(energy()) == pytest.approx(awake)
    assert lasting(energy(), 0.25) == pytest.approx(0.25 * awake + 0.75 * 2.0)
    assert lasting(energy(), 0.25, idle_watts=0.1) == pytest.approx(0.25 * awake + 0.75 * 0.1)


def test_a_device_that_cannot_keep_up_is_always_busy() -> None:
    assert lasting(energy(), latency=7.0) == pytest.approx(5.0)


def test_a_battery_with_a_stated_power() -> None:
    found = stated(4.0, 0.1)
    assert lasting(found, 0.5, idle_watts=1.0) == pytest.approx(0.5 * (0.02 * 4 + 0.98 * 1) + 0.5 * 1)
    assert lasting(found) == pytest.approx(4.0)  # nobody knows what it draws between clips: the most


def test_a_battery_with_modelled_energy_adds_it_to_the_stated_idle_power() -> None:
    found = modelled(COST, "int8")
    assert found is not None
    assert lasting(found, 0.5, idle_watts=1.0) == pytest.approx(1.0 + 0.5 * found.joules_per_clip / 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: lasting(energy(), 0.0), "duty-cycle 0"),
        (lambda: lasting(energy(), 1.01), "duty-cycle 1.01"),
        (lambda: lasting(energy(), float("nan")), "duty-cycle nan"),
        (lambda: battery(0.0, 1.0, energy(), clip_seconds=5.0, latency_seconds=0.1), "battery-wh 0"),
        (lambda: lasting(energy(source="model", watts=None, idle_watts=None)), "no power is known.*--active-watts"),
        (lambda: lasting(stated(4.0, 0.1), 0.5), "power of the idle device.*--idle-watts"),
    ],
)
def test_a_battery_that_cannot_be_sized_is_a_usage_error(change: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        change()


def test_what_a_meter_does_not_see_is_said_of_the_battery() -> None:
    how = battery(10.0, 1.0, energy(source="rapl"), clip_seconds=5.0, latency_seconds=0.1).how
    assert "Only the CPU" in how


def test_the_meter_of_this_machine_measures_something() -> None:
    meter = open_meter() or open_meter(gpu=True)
    if meter is None:
        pytest.skip(why_no_meter())
    found = measure_energy(meter, lambda: sum(range(10_000)), seconds=1.0, idle_seconds=0.5)
    assert found.joules_per_clip > 0
    assert found.watts is not None
    assert 0.01 < found.watts < 2000
