"""What runtimes of Linux boards share: names of files, gates on graphs, the on-device runner."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgekd.device import edgekd_runner
from edgekd.errors import GateError, InputError
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.onnx_bundle import check_graphs, emit_graphs, model_files, open_runner, runner_files
from edgekd.exporting.targets import load_target

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported, Toy


def test_the_first_precision_is_in_model_onnx_and_others_beside_it() -> None:
    assert model_files(("fp16", "fp32")) == {"fp16": "model.onnx", "fp32": "model-fp32.onnx"}


def test_graphs_are_counted_as_they_are_built(exported: Exported) -> None:
    target = load_target("jetson").model_copy(update={"batch": "dynamic", "opset": 19})
    deployables = {"int8": exported.deployable("int8")}
    steps: list[tuple[object, ...]] = []
    files = emit_graphs(
        RUNTIMES["tensorrt"], deployables, target, lambda *step, **figures: steps.append((*step, figures))
    )
    assert files == {"model.onnx": exported.int8["tensorrt"]}
    assert steps == [("graphs", 0, 1, {"precision": "int8"}), ("graphs", 1, 1, {})]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"operators": ("Conv",)},
            r"Operator \w+ \(node '.*'\) is not among those that target 'cpu' names for onnxrun",
        ),
        ({"opset": 19}, r"written in opset 20; target 'cpu' reads up to 19"),
        ({}, r"takes uint8 with zero point 0 or uint8 with zero point 128"),
    ],
)
def test_a_graph_that_the_board_cannot_run_is_refused(
    exported: Exported, change: dict[str, object], message: str
) -> None:
    graph = exported.int8["onnxruntime" if change else "tensorrt"]  # the other flavour is refused by its structure
    int8 = exported.deployable("int8")
    target = load_target("cpu").model_copy(update=change)
    with pytest.raises(GateError, match=message):
        check_graphs(RUNTIMES["onnxruntime"], {"model.onnx": graph}, {"int8": int8}, target)


def test_the_runner_that_ships_is_this_one() -> None:
    (name,) = runner_files()
    assert runner_files()[name] == Path(edgekd_runner.__file__).read_bytes()


def test_a_bundle_is_opened_with_its_runner(toy: Toy, tmp_path: Path) -> None:
    folder = toy.write(tmp_path / "bundle").folder
    golden = toy.golden()
    np.testing.assert_allclose(open_runner(folder, 1)(golden.clips()), golden.probabilities, atol=1e-5)


def test_what_keeps_a_bundle_from_being_run_here_is_an_input_error(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy.write(tmp_path / "bundle").folder
    with pytest.raises(InputError, match="the model's output is not finite"):
        open_runner(folder, 1)(np.full((1, toy.SAMPLES), np.nan, np.float32))
    changed = Path(shutil.copytree(folder, tmp_path / "changed"))
    onnx.save(onnx.ModelProto(), changed / "model.onnx")
    with pytest.raises(InputError, match=r"model\.onnx: changed since"):
        open_runner(changed, 1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="onnxruntime is not installed"):
        open_runner(folder, 1)
