"""ONNX Runtime, and TensorRT by stand-ins for its Python module and for the CUDA runtime."""

from __future__ import annotations

import ctypes
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgekd.device.runner import engines
from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.commands import main
from edgekd.device.runner.cuda import cuda_runtimes
from edgekd.device.runner.engines import import_onnxruntime, oldest_onnxruntime
from edgekd.device.runner.errors import RunnerError

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import StandInRtx, StandInTensorRT


def test_a_model_that_onnxruntime_cannot_load_is_one_line(
    toy: Toy, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "model.onnx").write_bytes(b"not a model")
    toy.sign(bundle)
    assert main(["verify"], bundle) == 3
    shown = capsys.readouterr().err
    assert "model.onnx: onnxruntime" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("opset", "found", "numpy", "words"),
    [
        (20, "1.16.3", "1.26.4", r"1.16.3 is too old .* opset 20 and needs 1.17 .* 'onnxruntime>=1.17'"),
        (17, "1.14.1", "1.26.4", r"1.14.1 is too old .* opset 17 and needs 1.15 "),
        (13, "1.7.0", "1.26.4", r"1.7.0 is too old .* opset 13 and needs 1.8 "),
        (
            20,
            "1.18.1",
            "2.4.6",
            r"1.18.1 was built for numpy 1, and here is numpy 2.4.6. Next: .*>=1.19', or 'numpy<2'",
        ),
    ],
)
def test_an_onnxruntime_that_is_too_old_is_refused_before_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, opset: int, found: str, numpy: str, words: str
) -> None:
    monkeypatch.setattr(engines.metadata, "version", lambda _: found)
    monkeypatch.setattr(engines.np, "__version__", numpy)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # to import it would fail
    with pytest.raises(RunnerError, match=words) as refusal:
        import_onnxruntime(opset)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("opset", "found"), [(20, "1.17.0"), (17, "1.15.0"), (13, "1.8.1"), (20, "1.24.0.dev2025")])
def test_the_oldest_that_runs_a_model_is_taken(monkeypatch: pytest.MonkeyPatch, opset: int, found: str) -> None:
    monkeypatch.setattr(engines.metadata, "version", lambda _: found)
    monkeypatch.setattr(engines.np, "__version__", "1.26.4")
    assert import_onnxruntime(opset).InferenceSession


def test_an_old_onnxruntime_that_only_its_module_tells_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise engines.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(engines.metadata, "version", absent)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(__version__="1.16.0"))
    with pytest.raises(RunnerError, match=r"onnxruntime 1.16.0 is too old"):
        import_onnxruntime(20)


def test_every_operator_set_has_its_oldest_onnxruntime() -> None:
    versions = [oldest_onnxruntime(opset) for opset in range(13, 21)]
    assert versions == ["1.8", "1.15", "1.15", "1.15", "1.15", "1.15", "1.16", "1.17"]


def test_the_engine_itself_is_verified_once_it_is_built(
    toy: Toy, tensorrt: StandInTensorRT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = toy.write(tmp_path / "dynamic", "jetson")
    toy.build(bundle, "int8")
    assert main(["verify"], bundle) == 0
    shown = capsys.readouterr()
    assert "run by tensorrt in int8" in shown.out
    assert not shown.err
    assert tensorrt.engines[0].batches == [8, 4]  # never more than the engine's profile allows


@pytest.mark.parametrize("source", ["waveform", "log_mel"])
@pytest.mark.parametrize("batch", ["dynamic", 1])
def test_the_engine_gives_onnxruntimes_scores(
    toy: Toy, tensorrt: StandInTensorRT, tmp_path: Path, source: str, batch: str | int
) -> None:
    bundle = toy.write(tmp_path / "bundle", "jetson", source=source, batch=batch)
    toy.build(bundle, "int8")
    waveform = toy.noise(5_000)
    scores = Runner(bundle).predict(waveform, 11_025)
    on_cpu = Runner(bundle, cpu=True)
    assert (on_cpu.engine, on_cpu.precision) == ("onnxruntime", "int8")
    np.testing.assert_allclose(scores, on_cpu.predict(waveform, 11_025), atol=1e-6)
    assert set(tensorrt.engines[0].batches) == ({1} if batch == 1 else {8, 3})


def test_an_engine_of_another_device_is_refused(toy: Toy, jetson: Path, tensorrt: StandInTensorRT) -> None:
    (jetson / "model-int8.engine").write_bytes(b"from elsewhere")
    with pytest.raises(
        RunnerError, match=r"made by another TensorRT than [\d.]+, or for another GPU\. Next: sh build_engine\.sh"
    ):
        Runner(jetson)


def test_an_engine_of_another_model_is_refused(
    toy: Toy, jetson: Path, written_log_mel: Path, tensorrt: StandInTensorRT
) -> None:
    (jetson / "model-int8.engine").write_bytes(b"plan" + (written_log_mel / "model.onnx").read_bytes())
    with pytest.raises(RunnerError, match="made from another model"):
        Runner(jetson)
    toy.build(jetson, "int8")
    toy.classifier(jetson, clip_samples=900)
    with pytest.raises(RunnerError, match="made from another model"):
        Runner(jetson)


def test_an_engine_may_call_its_tensors_what_it_likes(toy: Toy, jetson: Path, tensorrt: StandInTensorRT) -> None:
    model = onnx.load(jetson / "model.onnx")
    renamed = {"waveform": "sound", "probabilities": "output0"}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for value in (*model.graph.input, *model.graph.output):
        value.name = renamed[value.name]
    (jetson / "model-int8.engine").write_bytes(b"plan" + model.SerializeToString())
    assert Runner(jetson).verify()["agrees"]


def test_an_engine_without_anything_to_run_it_says_what_to_install(
    toy: Toy, jetson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.build(jetson, "int8")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunnerError, match=r"sudo apt install python3-libnvinfer, or add --cpu"):
        Runner(jetson)
    assert Runner(jetson, cpu=True).verify()["agrees"]


def test_an_engine_without_cuda_says_what_to_install(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    toy.build(jetson, "int8")
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(RunnerError, match=r"libcudart\.so not found"):
        Runner(jetson)


def test_without_a_driver_the_engine_is_not_blamed(toy: Toy, jetson: Path, tensorrt: StandInTensorRT) -> None:
    toy.build(jetson, "int8")
    tensorrt.cuda.cudaStreamCreate = lambda *_: 35  # type: ignore[method-assign]
    with pytest.raises(RunnerError, match=r"the NVIDIA driver is missing here, or too old\. Next: add --cpu"):
        Runner(jetson)


def test_a_failing_cuda_call_is_named(toy: Toy, jetson: Path, tensorrt: StandInTensorRT) -> None:
    toy.build(jetson, "int8")
    tensorrt.cuda.cudaMalloc = lambda *_: 2  # type: ignore[method-assign]
    with pytest.raises(RunnerError, match="cudaMalloc failed with CUDA error 2"):
        Runner(jetson)


def test_an_engine_for_an_accelerator_is_asked_for_by_name_and_run_there(
    toy: Toy, tmp_path: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = toy.write(tmp_path / "orin", "jetson-agx-orin", batch=1, alternatives=("fp16", "fp32"))
    assert main(["verify", "--precision", "fp16-dla"], bundle) == 3
    assert "model-fp16-dla.engine: not built. Next: sh build_engine.sh --dla" in capsys.readouterr().err
    toy.build(bundle, "fp16-dla", "int8")
    assert Runner(bundle).precision == "int8"
    assert not hasattr(tensorrt, "DLA_core")
    on_dla = Runner(bundle, precision="fp16-dla")
    assert (on_dla.engine, tensorrt.DLA_core) == ("tensorrt", 0)
    assert on_dla.verify()["agrees"]
    assert main(["choose", "--runs", "20"], bundle) == 0
    assert "fp16-dla  p50 " in capsys.readouterr().out
    assert main(["verify", "--precision", "fp16-dla", "--cpu"], bundle) == 2
    assert "this bundle has int8, fp16, fp32\n" in capsys.readouterr().err


def test_a_board_without_an_accelerator_has_no_such_engine(toy: Toy, tmp_path: Path, tensorrt: StandInTensorRT) -> None:
    bundle = toy.write(tmp_path / "thor", "jetson-thor", batch=1, alternatives=("fp16", "fp32"))
    toy.build(bundle, "fp16-dla")
    assert Runner(bundle).engine == "onnxruntime"


def test_a_bundle_of_any_batch_is_not_for_an_accelerator(
    toy: Toy, tmp_path: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    """`build_engine.sh` builds none for it: shapes are fixed there."""
    bundle = toy.write(tmp_path / "orin", "jetson-agx-orin", batch="dynamic", alternatives=("fp16", "fp32"))
    assert main(["verify", "--precision", "fp16-dla"], bundle) == 2
    assert "this bundle has int8, fp16, fp32\n" in capsys.readouterr().err


@pytest.fixture
def workstation(toy: Toy, tmp_path: Path) -> Path:
    """A bundle for an RTX GPU, with its int8 engine."""
    bundle = toy.write(tmp_path / "bundle", "rtx", batch=1)
    toy.build(bundle, "int8")
    return bundle


def test_an_engine_for_rtx_is_run_by_tensorrt_for_rtx_and_its_kernels_are_kept(
    workstation: Path, rtx: StandInRtx
) -> None:
    runner = Runner(workstation)
    assert (runner.engine, runner.engine_version, runner.precision) == ("tensorrt-rtx", "1.7.1.116", "int8")
    assert not (workstation / "model-int8.kernels").exists(), "none is compiled yet"
    assert runner.verify()["agrees"]
    assert rtx.engines[0].kernels.compiled == "anew"
    assert (workstation / "model-int8.kernels").read_bytes() == b"kernels of this GPU"
    assert Runner(workstation).verify()["agrees"]
    assert rtx.engines[1].kernels.compiled == "before"
    assert runner._engine._kernels is rtx.engines[0].kernels, "held as long as the context that uses them"
    assert not list(workstation.glob(".*")), "nothing is left half written"


def test_kernels_of_another_gpu_are_compiled_again(workstation: Path, rtx: StandInRtx) -> None:
    (workstation / "model-int8.kernels").write_bytes(b"kernels of another")
    assert Runner(workstation).verify()["agrees"]
    assert rtx.engines[0].kernels.compiled == "anew"
    assert (workstation / "model-int8.kernels").read_bytes() == b"kernels of this GPU"


def test_where_kernels_cannot_be_kept_the_answers_are_the_same(workstation: Path, rtx: StandInRtx) -> None:
    (workstation / ".model-int8.kernels.part").mkdir()  # a file cannot be written there
    assert Runner(workstation).verify()["agrees"]
    assert not (workstation / "model-int8.kernels").exists()


def test_an_engine_for_another_rtx_gpu_says_so_and_what_to_do(workstation: Path, rtx: StandInRtx) -> None:
    (workstation / "model-int8.engine").write_bytes(b"of another GPU")
    with pytest.raises(
        RunnerError, match=r"for another GPU \(UNSUPPORTED_CC\)\. Next: export the bundle again, .* or add --cpu"
    ):
        Runner(workstation)
    assert Runner(workstation, cpu=True).verify()["agrees"]


def test_an_engine_for_rtx_without_its_library_says_what_to_install(
    workstation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RunnerError, match=r"TensorRT for RTX is not installed\. Next: python3 -m pip install"):
        Runner(workstation)
    assert Runner(workstation, cpu=True).engine == "onnxruntime"


def test_the_cuda_runtime_is_found_where_pip_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert str(library) in list(cuda_runtimes())


def layer(name: str, kind: str, node: str = "") -> dict[str, object]:
    metadata = f"[ONNX Layer: {node}]" if node else ""
    return {"Name": name, "LayerType": "conv", "Inputs": [{"Format/Datatype": kind}], "Metadata": metadata}


@pytest.mark.parametrize("board", ["jetson", "rtx"])
def test_layers_of_an_int8_engine_that_compute_in_float_are_named(
    toy: Toy, tmp_path: Path, board: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    module = request.getfixturevalue("rtx" if board == "rtx" else "tensorrt")
    bundle = toy.write(tmp_path / "bundle", board, batch=1)
    toy.build(bundle, "int8")
    assert "layers_in_float" not in Runner(bundle).verify(), "an older bundle does not name its int8 layers"
    toy.sign(bundle, float_operators={"on_integers": ["stem/conv", "late/conv", "gone/conv"]})
    module.layers = ["as names alone"]
    assert "layers_in_float" not in Runner(bundle).verify(), "the engine was not built to tell"
    module.layers = [layer("stem/conv + stem/relu", "Int8"), layer("late/conv_U104_myl0_11", "Float")]
    assert Runner(bundle).verify()["layers_in_float"] == ["late/conv"]
    assert main(["verify"], bundle) == 0
    assert "not in int8         late/conv\n" in capsys.readouterr().out
    assert main(["choose", "--runs", "5"], bundle) == 0
    assert "int8  computes in float what is to be int8: late/conv\n" in capsys.readouterr().out
    module.layers = [layer("stem/conv", "Int8")]
    assert main(["verify"], bundle) == 0
    assert "not in int8         no layer that is to be\n" in capsys.readouterr().out


def test_ctrl_c_while_onnxruntime_is_loaded_is_no_broken_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('initialization failed') from KeyboardInterrupt()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(KeyboardInterrupt):
        import_onnxruntime(17)
