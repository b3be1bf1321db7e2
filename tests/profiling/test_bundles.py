"""What runs a bundle: its engine where one was built, its graph, or whatever its runtime opens it as."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgekd.config import ProfileConfig
from edgekd.device import runner
from edgekd.errors import InputError
from edgekd.exporting.export import export
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.targets import load_target
from edgekd.exporting.verify import session
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.backends import OnnxGraph
from edgekd.profiling.bundles import models_of
from edgekd.profiling.subjects import Candidate, candidates
from edgekd.runs.run import Run

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled


def find(folder: Path, **settings: object) -> list[Candidate]:
    return candidates([folder], ProfileConfig.model_validate(settings))


class RunByOnnxRuntime:
    """Stands in for the TensorRT engine of a graph."""

    name, version = "tensorrt", "10.3.0"

    def __init__(self, graph: bytes) -> None:
        self._session = session(graph)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(None, {"waveform": batch})[0]


def test_an_engine_is_what_a_bundle_is_profiled_by_where_one_was_built(
    profiled: Profiled, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, runner.Contract]] = []

    def open_engine(file: Path, contract: runner.Contract, runtime: str, on_dla: bool) -> RunByOnnxRuntime:
        opened.append((file.name, contract))
        assert (runtime, on_dla) == ("tensorrt", False)
        return RunByOnnxRuntime(profiled.graphs["int8"])

    monkeypatch.setattr(runner, "open_engine", open_engine)
    built = Path(shutil.copytree(bundle.folder, tmp_path / "built"))
    (built / "model-int8.engine").write_bytes(b"plan")
    (found,) = find(built)
    clips = clips_of_run(profiled.run)
    assert (found.model.backend, found.model.runtime, found.model.threads) == ("tensorrt", "tensorrt 10.3.0", None)
    assert opened == [("model-int8.engine", runner.Contract("waveform", (clips.samples,), 3, 8))]
    assert set(found.model.timers(clips.first())) == {"whole"}
    cost = found.model.cost(clips.first())
    assert (cost.file_bytes, cost.macs) == (4, profiled.profile.subject("int8").cost.macs)
    waveforms = clips.store.waveforms(clips.rows[:3])
    by_graph = OnnxGraph(profiled.graphs["int8"], "int8").classify(waveforms)
    torch.testing.assert_close(found.model.classify(waveforms), by_graph)
    assert [one.model.backend for one in find(built, backends=("onnxruntime",))] == ["onnxruntime"]
    assert [one.name for one in find(built, backends=("onnxruntime", "tensorrt"))] == [
        "built, tensorrt",
        "built, onnxruntime",
    ]


def test_an_engine_for_an_accelerator_is_a_float16_one(
    profiled: Profiled, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, bool]] = []

    def open_engine(file: Path, contract: runner.Contract, runtime: str, on_dla: bool) -> RunByOnnxRuntime:
        opened.append((file.name, on_dla))
        return RunByOnnxRuntime(profiled.graphs["int8"])

    monkeypatch.setattr(runner, "open_engine", open_engine)
    built = Path(shutil.copytree(bundle.folder, tmp_path / "built"))
    contents = json.loads((built / "manifest.json").read_text())
    contents["target"] = load_target("jetson-agx-orin").model_dump(mode="json")
    contents["classifier"]["batch"] = 1  # shapes are fixed there
    contents["alternatives"] = {"fp16": "model-fp16.onnx"}
    contents["sha256"] = runner.manifest_digest(contents)
    (built / "manifest.json").write_text(json.dumps(contents))
    (built / "model-fp16-dla.engine").write_bytes(b"plan")
    (built / "engine.json").write_text(json.dumps({"precision": "fp16-dla", "candidates": {}}))
    for subjects in ([built], [built, built / "model-fp16-dla.engine"]):
        opened.clear()
        found = candidates(subjects, ProfileConfig())
        assert [(one.model.backend, one.model.precision) for one in found] == [("tensorrt", "float16")] * len(subjects)
        assert opened == [("model-fp16-dla.engine", True)] * len(subjects)


def test_an_engine_for_rtx_is_run_by_its_own_runtime(
    profiled: Profiled, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    class RunByRtx(RunByOnnxRuntime):
        name, version = "tensorrt-rtx", "1.7.1.116"

    def open_engine(file: Path, contract: runner.Contract, runtime: str, on_dla: bool) -> RunByRtx:
        opened.append((file.name, runtime))
        return RunByRtx(profiled.graphs["int8"])

    monkeypatch.setattr(runner, "open_engine", open_engine)
    built = Path(shutil.copytree(bundle.folder, tmp_path / "built"))
    contents = json.loads((built / "manifest.json").read_text())
    contents["target"] = load_target("rtx").model_dump(mode="json")
    contents["sha256"] = runner.manifest_digest(contents)
    (built / "manifest.json").write_text(json.dumps(contents))
    (built / "model-int8.engine").write_bytes(b"plan")
    (found,) = find(built)
    assert (found.model.backend, found.model.runtime) == ("tensorrt-rtx", "tensorrt-rtx 1.7.1.116")
    assert opened == [("model-int8.engine", "tensorrt-rtx")]
    with pytest.raises(InputError, match=r"but not of one for RTX\. Leave --layers out"):
        found.model.layers(clips_of_run(profiled.run).first())


def test_an_engine_that_cannot_run_here_leaves_the_graph_and_says_so(bundle: Bundle, tmp_path: Path) -> None:
    if shutil.which("trtexec") is not None:
        pytest.skip("trtexec is here")
    built = Path(shutil.copytree(bundle.folder, tmp_path / "built"))
    (built / "model-int8.engine").write_bytes(b"plan")
    (found,) = find(built)
    assert found.model.backend == "onnxruntime"
    assert any("TensorRT" in note and "timed in ONNX Runtime here" in note for note in found.notes)


def test_a_bundle_of_any_other_runtime_is_run_as_that_opens_it(bare_metal: Path, tiny_run: Run, tmp_path: Path) -> None:
    exported = export(tiny_run, str(bare_metal), tmp_path / "bundle")
    (model,), notes = models_of(exported, ProfileConfig(threads=1))
    assert (model.backend, model.runtime, model.precision, model.threads) == ("bare-metal", "Bare Metal", "int8", 1)
    assert notes == []
    with np.load(exported.folder / "golden.npz") as golden:
        clips = torch.from_numpy(golden["waveform"] * golden["scale"][:, None] / np.float32(32767))
        expected = torch.from_numpy(golden["probabilities"])
    torch.testing.assert_close(model.classify(clips), expected, atol=0.05, rtol=0)
    with model.batches(clips, 2) as call:
        torch.testing.assert_close(call(), model.classify(clips))
    assert set(model.timers(clips[:1])) == {"whole"}
    assert model.timers(clips[:1])["whole"]() > 0
    assert model.cost(clips[:1]).file_bytes == (exported.folder / "model.bin").stat().st_size
    assert model.memory(clips[:1]).figures() == dict.fromkeys(model.memory(clips[:1]).figures())
    assert model.layers(clips[:1]) == ()
