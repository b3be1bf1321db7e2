"""The gate of the graphs for windows that overlap: what does not say what the bundle's own graph says is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.device.runner.classifier import Runner
from edgekd.exporting import steps
from edgekd.exporting.export import export
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.step_graphs import StepGraphs, step_graphs
from edgekd.runs.run import Run

BY = "overlapping windows in steps"


def test_graphs_that_agree_are_shipped_and_say_on_what(tiny_bundle: Path) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    (check,) = [check for check in manifest.checks if check.by == BY]
    assert manifest.steps is not None and check.figures is not None
    assert {*(part.file for part in manifest.steps.parts), manifest.steps.end} <= set(manifest.files)
    assert check.figures["agreement"] == 1.0
    assert check.figures["largest_difference"] <= manifest.target.tolerance.probability
    assert check.figures["hops_samples"] == "512, 1024, 2560"


def test_graphs_that_disagree_are_left_out_and_it_is_said_why(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others(*arguments: Any) -> StepGraphs:
        """What ends in the weights of other classes."""
        found = step_graphs(*arguments)
        end = onnx.load_from_string(found.end)
        (weight,) = [tensor for tensor in end.graph.initializer if tensor.name.endswith("classifier.weight.integers")]
        weight.raw_data = numpy_helper.to_array(weight)[::-1].tobytes()
        return replace(found, end=end.SerializeToString())

    monkeypatch.setattr(steps, "step_graphs", others)
    export(tiny_run, "cpu", tmp_path / "bundle")
    manifest = read_bundle(tmp_path / "bundle").manifest
    (check,) = [check for check in manifest.checks if check.by == BY]
    assert check.not_run is not None
    assert check.not_run.startswith("they are computed whole: ")
    assert check.figures is None
    assert manifest.steps is None
    assert not [name for name in manifest.files if name.startswith("step")]
    runner = Runner(tmp_path / "bundle")
    assert runner.step_graphs() is None
    assert np.isfinite(runner.answers(np.ones((1, runner.clip_samples), np.float32))).all()
