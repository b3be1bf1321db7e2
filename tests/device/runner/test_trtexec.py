"""TensorRT's engines by a stand-in for trtexec that runs the graph in them."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.errors import RunnerError

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import Calls


@pytest.mark.parametrize("source", ["waveform", "log_mel"])
@pytest.mark.parametrize("batch", ["dynamic", 1])
def test_trtexec_runs_the_engine_where_there_is_no_module(
    toy: Toy, trtexec: Calls, tmp_path: Path, source: str, batch: str | int
) -> None:
    bundle = toy.write(tmp_path / "a bundle: the first, and only", "jetson-orin-nano", source=source, batch=batch)
    toy.build(bundle, "int8")
    runner = Runner(bundle)
    assert (runner.engine, runner.precision) == ("trtexec", "int8")
    waveform = toy.noise(1_400)  # three windows
    np.testing.assert_allclose(
        runner.predict(waveform, 8_000), Runner(bundle, cpu=True).predict(waveform, 8_000), atol=1e-5
    )
    assert len(trtexec()) == (3 if batch == 1 else 1)
    once = {"iterations": "1", "avgRuns": "1", "warmUp": "0", "duration": "0"}
    assert all(call.items() >= once.items() for call in trtexec())


def test_an_older_module_is_as_good_as_none(
    toy: Toy, jetson: Path, trtexec: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.build(jetson, "int8")
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="8.2.1.8"))
    assert Runner(jetson).engine == "trtexec"


@pytest.mark.parametrize(
    ("prints", "version", "told"),
    [
        ("v8201", "8.2.1", set()),
        ("v100300", "10.3.0", set()),
        ("v110401", "11.4.1", {"includeDataTransfers", "noCudaGraph"}),
        ("", None, set()),
    ],
)
def test_trtexec_times_copies_and_no_cuda_graph_whatever_its_release_does_unless_told(
    toy: Toy, jetson: Path, trtexec: Calls, monkeypatch: pytest.MonkeyPatch, prints: str, version: str, told: set[str]
) -> None:
    monkeypatch.setenv("TRTEXEC_PRINTS", prints)
    toy.build(jetson, "int8")
    runner = Runner(jetson)
    assert runner.engine_version == version
    runner.time(runner.golden_clips()[0][:1], 3)
    (*_, timed) = trtexec()
    assert {"includeDataTransfers", "noCudaGraph", "exportTimes"} & set(timed) == {"exportTimes", *told}


def test_trtexec_is_told_of_the_accelerator(toy: Toy, tmp_path: Path, trtexec: Calls) -> None:
    bundle = toy.write(tmp_path / "orin", "jetson-agx-orin", batch=1, alternatives=("fp16", "fp32"))
    toy.build(bundle, "fp16-dla")
    assert Runner(bundle).verify()["precision"] == "fp16-dla"
    assert {call.get("useDLACore") for call in trtexec()} == {"0"}


def test_trtexecs_own_error_is_told(toy: Toy, jetson: Path, trtexec: Calls) -> None:
    (jetson / "model-int8.engine").write_bytes(b"from elsewhere")
    with pytest.raises(RunnerError, match=r"trtexec cannot run it: Error\[1\]: .*tag does not match\. Next: sh"):
        Runner(jetson).verify()


def test_trtexecs_nan_is_one_line(toy: Toy, jetson: Path, trtexec: Calls) -> None:
    toy.build(jetson, "int8")
    with pytest.raises(RunnerError, match="wrote no result that can be read"):
        Runner(jetson).probabilities(np.full((1, toy.CLIP), np.nan, np.float32))
