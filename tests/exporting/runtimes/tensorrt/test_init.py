"""TensorRT as a runtime: every precision of a board, a script that builds them there, a builder for this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd.errors import InputError
from edgekd.exporting.runtimes.tensorrt import BUILD_SCRIPT, TensorRT
from edgekd.exporting.targets import load_target
from edgekd.progress import silent

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported, Toy

RUNTIME = TensorRT()


def test_a_bundle_holds_every_precision_of_the_board() -> None:
    assert RUNTIME.models(load_target("jetson")) == {
        "int8": "model.onnx",
        "fp16": "model-fp16.onnx",
        "fp32": "model-fp32.onnx",
    }
    assert RUNTIME.models(load_target("jetson-nano")) == {"fp16": "model.onnx", "fp32": "model-fp32.onnx"}
    assert RUNTIME.describe(load_target("jetson")) == "TensorRT 10.3"


def test_nvidias_parser_has_its_word_beside_the_reference(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    target = load_target("gpu").model_copy(update={"opset": 19, "batch": "dynamic"})
    int8 = exported.deployable("int8")
    files = {"model.onnx": exported.int8["tensorrt"]}
    trained = int8.trained(RUNTIME.flavour)
    checks = list(RUNTIME.checks(files, int8, trained, exported.waveforms, target, silent))
    assert [check.by.split()[0] for check in checks] == ["onnx.reference", "NVIDIA's"]
    assert checks[1].not_run == "the extra 'rtx' is not installed"


def test_the_script_builds_what_the_bundle_holds_and_pins_the_log_mel(exported: Exported, toy: Toy) -> None:
    manifest = toy.manifest("jetson-xavier-nx", {"int8": "model.onnx", "fp16": "model-fp16.onnx"})
    files = RUNTIME.device_files(manifest, {"model.onnx": exported.int8["tensorrt"]}, toy.golden())
    assert set(files) == {"edgekd_runner.py", BUILD_SCRIPT}
    script = files[BUILD_SCRIPT].decode()
    assert "--onnx=model.onnx" in script
    assert "--onnx=model-fp16.onnx" in script
    assert "model-fp32" not in script
    assert "frontend/log:fp32" in script, "TensorRT 8.5 is told to keep the log-mel in float32"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jetson", ("Made for JetPack 6.2, TensorRT 10.3.", "sudo apt install nvidia-jetpack", "sh build_engine.sh")),
        (
            "gpu",
            ("Made for TensorRT 11.4.", "Linux x86-64 from https", "python3 -m pip install 'tensorrt==11.4.*' numpy"),
        ),
        ("jetson-agx-orin", ("JetPack 7.2.2, TensorRT 11.4.1.", "Linux SBSA from https", "sudo apt install tensorrt ")),
        ("jetson-nano", ("JetPack 4.6.1, TensorRT 8.2.", "python3.8 -m venv env", ". env/bin/activate")),
    ],
)
def test_the_usage_says_which_release_it_is_for(toy: Toy, name: str, words: tuple[str, ...]) -> None:
    usage = RUNTIME.usage(toy.manifest(name, {"int8": "model.onnx"}))
    assert usage.startswith("## Prepare\n")
    assert all(word in usage for word in words)


def test_without_tensorrt_there_is_no_builder_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match="TensorRT's Python module cannot be imported"):
        RUNTIME.engine_builder()


def test_a_bundle_without_an_engine_is_opened_in_onnxruntime(toy: Toy, tmp_path: Path) -> None:
    golden, folder = toy.golden(), toy.write(tmp_path / "bundle", "jetson").folder
    assert abs(RUNTIME.open(folder)(golden.clips()) - golden.probabilities).max() < 1e-5
