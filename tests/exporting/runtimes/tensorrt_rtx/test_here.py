"""Engines for RTX on this machine, by a stand-in for the GPU: run where it is one of theirs, else why not."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd.errors import GateError, InputError
from edgekd.exporting.runtimes.tensorrt_rtx import TensorRTForRTX
from edgekd.exporting.runtimes.tensorrt_rtx.here import check_by_running, gpu_capability, not_here
from edgekd.exporting.targets import load_target
from edgekd.progress import silent

if TYPE_CHECKING:
    from edgekd.exporting.manifest import Check
    from tests.exporting.conftest import Exported
    from tests.exporting.runtimes.tensorrt_rtx.conftest import BuilderRtx

    Install = Callable[..., BuilderRtx]

RUNTIME = TensorRTForRTX()


def run(exported: Exported, plan: bytes) -> Check:
    target = load_target("rtx").model_copy(update={"batch": "dynamic"})
    deployable = exported.deployable("int8")
    trained = deployable.trained(RUNTIME.flavour)
    files = {"model-int8.engine": plan}
    return check_by_running(files, deployable, trained, exported.waveforms, target, silent)


def test_where_the_gpu_is_the_engine_is_compared_with_the_student(exported: Exported, rtx: Install) -> None:
    module = rtx("8.9")
    check = run(exported, b"plan" + exported.int8["tensorrt"])
    assert check.by == "the engine itself, in tensorrt-rtx 1.7.1.116"
    assert check.figures is not None
    assert (check.figures["clips"], check.not_run) == (64, None)
    assert sum(module.engines[0].batches) >= 64


def test_an_engine_that_answers_otherwise_is_refused(exported: Exported, rtx: Install) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(exported.int8["tensorrt"])
    names = [node.input[1] for node in model.graph.node if node.op_type == "Mul" and node.name.startswith("frontend")]
    (scale,) = [stored for stored in model.graph.initializer if stored.name == names[-1]]
    scale.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(scale), scale.name))
    rtx("8.9")
    with pytest.raises(GateError):
        run(exported, b"plan" + model.SerializeToString())


def test_where_it_is_not_the_reason_is_kept(exported: Exported, rtx: Install) -> None:
    rtx(None)
    assert run(exported, b"never opened").not_run == "no NVIDIA GPU here"
    rtx("9.0")
    reason = "the GPU here is of compute capability 9.0, and the engine for 8.6, 8.9 or 12.0"
    assert run(exported, b"never opened").not_run == reason


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert gpu_capability() is None
    assert not_here(load_target("rtx")) == "no NVIDIA GPU here"


def test_an_engine_that_cannot_be_opened_where_the_gpu_is_stops_the_export(exported: Exported, rtx: Install) -> None:
    rtx("8.9")
    with pytest.raises(InputError, match=r"made by another TensorRT than 1\.7\.1\.116, or for another GPU"):
        run(exported, b"damaged")


def test_engines_are_compared_on_a_gpu_alone(rtx: Install, tmp_path: Path) -> None:
    rtx(None)
    with pytest.raises(InputError, match=r"--build-engine: there is no NVIDIA GPU here .* built without one"):
        RUNTIME.engine_builder()
