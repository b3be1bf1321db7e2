"""Choosing an engine: the fastest of those that agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.commands import main

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import Calls, StandInTensorRT


def test_the_fastest_engine_that_agrees_is_chosen_and_then_used(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build_with_bias(jetson, int8=0.001, fp16=toy.FLOAT_BIAS, fp32=toy.FLOAT_BIAS + 0.001)
    tensorrt.slow_down(jetson, int8=0.005, fp32=0.01)
    assert main(["choose", "--json", "--runs", "10"], jetson) == 0
    choice = json.loads(capsys.readouterr().out)
    assert choice["precision"] == "fp16"
    assert choice == json.loads((jetson / "engine.json").read_text())
    assert [figures["agrees"] for figures in choice["candidates"].values()] == [True] * 3
    assert choice["candidates"]["fp32"]["p50_ms"] > choice["candidates"]["int8"]["p50_ms"] > 5
    assert Runner(jetson).precision == "fp16"
    assert Runner(jetson, precision="int8").precision == "int8"
    assert main(["verify"], jetson) == 0
    assert "run by tensorrt in fp16" in capsys.readouterr().out


def test_a_fast_engine_that_disagrees_is_not_chosen(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build_with_bias(jetson, int8=20, fp16=toy.FLOAT_BIAS)
    (jetson / "model-fp32.engine").write_bytes(b"from elsewhere")
    tensorrt.slow_down(jetson, fp16=0.005)
    assert main(["choose", "--runs", "10"], jetson) == 0
    int8, fp16, fp32 = capsys.readouterr().out.splitlines()
    assert int8.startswith("int8  p50 ")
    assert int8.endswith("disagrees")
    assert fp16.endswith("chosen")
    assert "made by another TensorRT" in fp32
    candidates = json.loads((jetson / "engine.json").read_text())["candidates"]
    assert [candidates[name]["agrees"] for name in ("int8", "fp16", "fp32")] == [False, True, False]


def test_no_engine_that_agrees_exits_with_4_and_leaves_no_choice(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build(jetson, "int8")
    assert main(["choose", "--runs", "5"], jetson) == 0
    toy.build_with_bias(jetson, int8=20)
    assert main(["choose", "--runs", "5"], jetson) == 4
    assert "no engine agrees with the golden examples" in capsys.readouterr().err
    assert not (jetson / "engine.json").exists()


def test_engines_of_which_none_runs_are_no_disagreement(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    (jetson / "model-int8.engine").write_bytes(b"from elsewhere")
    assert main(["choose"], jetson) == 3
    assert "model-int8.engine: made by another TensorRT" in capsys.readouterr().err


def test_choosing_in_a_damaged_bundle_is_refused(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build(jetson, "int8")
    (jetson / "model-fp16.onnx").write_bytes(b"edited")
    assert main(["choose"], jetson) == 3
    assert "model-fp16.onnx: changed since the bundle was written" in capsys.readouterr().err


def test_choosing_without_engines_says_how_to_build_them(jetson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose"], jetson) == 3
    assert "no engine has been built here. Next: sh build_engine.sh" in capsys.readouterr().err


def test_choosing_means_nothing_where_onnxruntime_runs_it(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose"], written) == 2
    assert "nothing to choose from" in capsys.readouterr().err


def test_trtexec_times_the_candidates_too(
    toy: Toy, jetson: Path, trtexec: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build(jetson, "int8", "fp32")
    assert main(["choose", "--runs", "10"], jetson) == 0
    assert json.loads((jetson / "engine.json").read_text())["precision"] in ("int8", "fp32")
    assert sum("exportTimes" in call for call in trtexec()) == 2 * 2  # in two rounds


def test_a_choice_that_cannot_be_written_leaves_the_one_before(
    toy: Toy,
    jetson: Path,
    tensorrt: StandInTensorRT,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy.build(jetson, "int8")
    (jetson / "engine.json").write_text("before")

    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["choose", "--runs", "5"], jetson) == 3
    assert "engine.json: cannot be written: No space left on device" in capsys.readouterr().err
    assert (jetson / "engine.json").read_text() == "before"
