"""From a run to a bundle with engines for RTX in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd.device import runner
from edgekd.errors import GateError
from edgekd.exporting.export import export
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.runtimes.tensorrt_rtx import TensorRTForRTX
from edgekd.exporting.targets import load_target
from edgekd.runs.run import Run

if TYPE_CHECKING:
    from tests.exporting.runtimes.tensorrt_rtx.conftest import BuilderRtx

    Install = Callable[..., BuilderRtx]


@pytest.mark.parametrize("capability", [None, "8.9"])
def test_a_bundle_holds_its_engine_and_says_what_was_checked(
    tiny_run: Run, tmp_path: Path, rtx: Install, capability: str | None
) -> None:
    module = rtx(capability)
    target = load_target("rtx").adapted(precision="int8")
    export(tiny_run, target, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    manifest = bundle.manifest
    assert {"model.onnx", "model-int8.engine", "edgekd_runner.py"} < set(manifest.files)
    *_, builder, engine = manifest.checks
    assert set(builder.layers) == set(manifest.float_operators.on_integers) != set()
    assert len(module.configs) == 1, "it is built once"
    readme = (bundle.folder / "README.md").read_text()
    assert "Made for TensorRT for RTX 1.7.1 on a GPU of compute capability 8.6, 8.9 or 12.0." in readme
    assert "'tensorrt-rtx-cu13-libs==1.7.1.*'" in readme
    on_cpu = runner.Runner(bundle.folder, cpu=True)
    clips, _ = on_cpu.golden_clips()
    here = TensorRTForRTX().open(bundle.folder)(clips)
    np.testing.assert_allclose(here, on_cpu.probabilities(clips), atol=1e-5)
    if capability is None:
        assert engine.not_run == "no NVIDIA GPU here"
        assert module.engines == [], "the graph answers here"
    else:
        assert engine.figures is not None
        assert len(module.engines) >= 3, "to be compared, for the golden examples, to predict"


def test_a_layer_in_float_leaves_no_bundle(tiny_run: Run, tmp_path: Path, rtx: Install) -> None:
    rtx().in_float = ("network.stem.0/conv",)
    with pytest.raises(GateError, match=r"what is to be int8, .*: network\.stem\.0/conv \(1 of"):
        export(tiny_run, load_target("rtx").adapted(precision="int8"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
