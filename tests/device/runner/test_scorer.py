"""Windows of a signal in steps and whole: the same rows, whatever comes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.device import runner as device
from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.detection import hop_of
from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.scorer import Row
from edgekd.device.runner.scores import WindowScores
from edgekd.device.runner.steps import Steps
from edgekd.device.runner.stream import Stream

RATE, CLIP, UNIT, PERIOD = 4_000, 4_000, 128, 2_048  # of the tiny run; samples a frame, and a column of the last map

Change = Callable[[dict[str, Any]], object]


def changed(bundle: Path, folder: Path, change: Change) -> Path:
    """A copy of a bundle whose manifest says something else."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest["sha256"] = device.manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def whole(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The bundle as older ones are: without graphs for windows that overlap."""
    return changed(tiny_bundle, tmp_path / "whole", lambda manifest: manifest.pop("steps"))


@pytest.fixture
def signal() -> Any:
    """A minute of tones in noise, with digital silence, a constant, and samples that are none."""
    random, time = np.random.default_rng(0), np.arange(60 * RATE) / RATE
    sound = 0.2 * np.sin(6.283 * time * (300 + 200 * np.sin(time))) + 0.02 * random.standard_normal(len(time))
    sound[40_000:47_000] = 0
    sound[90_000:99_000] = 0.25
    sound[150_000] = np.nan
    return sound.astype(np.float32)


def rows(bundle: Path, sound: Any, hop: int, piece: int) -> list[Row]:
    scores = WindowScores(Runner(bundle), RATE, hop)
    found = [row for start in range(0, len(sound), piece) for row in scores.push(sound[start : start + piece])]
    return [*found, *scores.finish()]


@pytest.mark.parametrize(("hop", "piece"), [(PERIOD, 700), (4 * UNIT, 16_000), (1_000, 9_000)])
@pytest.mark.parametrize("trimmed", [False, True])
def test_steps_change_no_row(
    tiny_bundle: Path, whole: Path, signal: Any, tmp_path: Path, hop: int, piece: int, trimmed: bool
) -> None:
    bundles = [tiny_bundle, whole]
    if trimmed:
        bundles = [
            changed(bundle, tmp_path / f"trimmed{number}", lambda m: m["classifier"].update(trim_silence=True))
            for number, bundle in enumerate(bundles)
        ]
    found, expected = (rows(bundle, signal, hop, piece) for bundle in bundles)
    assert sum(row.error is not None for row in found) == pytest.approx(CLIP / hop, abs=1)
    assert sum(row.silent for row in found) > 0
    for one, other in zip(found, expected, strict=True):
        assert one._replace(scores=None) == other._replace(scores=None)
        if other.scores is not None:
            np.testing.assert_allclose(one.scores, other.scores, atol=0.02)
    spread = np.array([row.scores for row in expected if row.scores is not None]).std(axis=0)
    assert spread.max() > 0.05


def test_a_stream_says_the_same_in_steps(tiny_bundle: Path, whole: Path, signal: Any) -> None:
    data = (np.nan_to_num(signal) * 32_767).astype("<i2").tobytes()
    told = []
    for bundle in (tiny_bundle, whole):
        stream = Stream(Runner(bundle), rate=RATE, hop_samples=PERIOD, smooth=2)
        pieces = (data[start : start + 9_001] for start in range(0, len(data), 9_001))
        told.append([row for piece in pieces for row in stream.push(piece, 0.0)])
    for one, other in zip(*told, strict=True):
        assert (one["start_s"], one["silent"], one["class"]) == (other["start_s"], other["silent"], other["class"])
        assert one["scores"] == pytest.approx(other["scores"], abs=0.02)


def test_each_window_is_asked_for_in_steps(tiny_bundle: Path, signal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = Steps.ask
    monkeypatch.setattr(Steps, "ask", lambda steps, start, clip: (asked.append(start), ask(steps, start, clip)))
    found = rows(tiny_bundle, signal[:40_000], PERIOD, 5_000)
    assert asked == [row.start for row in found if row.stop - row.start == CLIP]
    assert len(asked) > 15


def test_a_hop_is_moved_to_where_windows_share_most(tiny_bundle: Path, whole: Path) -> None:
    manifest = Runner(tiny_bundle).manifest
    asked = {2_000: 2_048, 2_100: 2_048, 1_000: 1_024, 512: 512, 130: 128, 60: 60, 4_000: 3_968, 9_000: 9_000}
    for told in (manifest, Runner(whole).manifest):  # what computes them does not decide where windows lie
        assert {hop: hop_of(told, hop / RATE) for hop in asked} == asked
        assert hop_of(told, None) == 1_024
    older = manifest | {"detection": manifest["detection"] | {"shared_samples": []}}
    assert hop_of(older, 0.5) == 2_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda steps: steps.update(end="absent.onnx"), "steps names a file that the bundle does not have"),
        (lambda steps: steps.update(end="../model.onnx"), "steps.end = '../model.onnx': not the name of a file"),
        (lambda steps: steps["parts"][0].update(lead=-1), "steps.parts = "),
        (lambda steps: steps["parts"][0]["maps"][0].pop("reach"), "steps.parts = "),
        (lambda steps: steps.update(end="model.onnx"), None),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    tiny_bundle: Path, tmp_path: Path, change: Change, told: str | None
) -> None:
    folder = changed(tiny_bundle, tmp_path / "changed", lambda manifest: change(manifest["steps"]))
    if told is None:  # a graph of another kind is found out when it is run
        with pytest.raises(RunnerError, match=r"onnxruntime .* cannot run it"):
            rows(folder, np.full(5_000, 0.1, np.float32) + np.arange(5_000, dtype=np.float32) / 1e5, PERIOD, 5_000)
        return
    with pytest.raises(RunnerError, match=told):
        Runner(folder)
