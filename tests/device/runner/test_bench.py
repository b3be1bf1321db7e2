"""The command `bench`: its figures, and when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd.device.runner.bench import median_interval, show_bench
from edgekd.device.runner.commands import main
from edgekd.device.runner.machine import machine_state

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import Calls


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
        low, high = median_interval(times)
        covered += low <= 1 <= high
    assert covered >= 34
    assert median_interval(np.array([2.0])) == (2, 2)


def test_bench_ends_after_the_time_it_is_given(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--json", "--runs", "1000000", "--seconds", "0.2"], written) == 0
    assert 0 < json.loads(capsys.readouterr().out)["runs"] < 1_000_000


def test_bench_shows_what_it_measured(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "--runs", "10"], written) == 0
    outcome = json.loads(capsys.readouterr().out)
    outcome["settled"] = False
    outcome["machine"] |= {
        "cpu": "Raspberry Pi 5 Model B Rev 1.0",
        "mhz": [2400, 1500],
        "devices": {"17000000.gpu": {"mhz": 625, "max_mhz": 1020}},
        "temperatures": {"cpu-thermal": 61.5},
        "power_mode": None,
        "throttled": ["under-voltage earlier"],
    }
    show_bench(outcome, clip_ms=100.0)
    lines = capsys.readouterr().out.splitlines()
    assert "one clip of 0.1 s" in lines[0]
    assert lines[1].startswith(f"p50 {outcome['p50_ms']:.2f} ms   p95 {outcome['p95_ms']:.2f} ms")
    assert "mhz: 2400, 1500" in lines
    assert "devices: 17000000.gpu mhz: 625, max_mhz: 1020" in lines
    assert "temperatures: cpu-thermal 61.5" in lines
    assert "throttled: under-voltage earlier" in lines
    assert not any(line.startswith("power mode") for line in lines)
    assert lines[-1].startswith("the time had not settled")


def test_bench_without_json_is_for_people(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--runs", "10"], written) == 0
    assert "one clip of 0.1 s, waveform to scores" in capsys.readouterr().out


def test_bench_takes_trtexecs_own_times(
    toy: Toy, jetson: Path, trtexec: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build(jetson, "int8")
    assert main(["bench", "--json", "--runs", "50"], jetson) == 0
    outcome = json.loads(capsys.readouterr().out)
    expected = 0.2 + 1e-3 * (jetson / "model-int8.engine").stat().st_size
    assert (outcome["engine"], outcome["runs"]) == ("trtexec", 50)
    assert outcome["p50_ms"] == pytest.approx(expected, abs=0.05)  # and the little that handing a clip over takes
    assert len(trtexec()) == 1
