from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.runs.run import Run
from edgekd.runs.thresholds import read_thresholds, write_thresholds


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).standard_normal(6_000)
    soundfile.write(tmp_path / "clip.wav", 0.1 * noise, 4_000)
    return tmp_path / "clip.wav"


def test_run_and_bundle_say_the_same_of_a_file(edgekd: Callable, tiny_run: Run, tiny_bundle: Path, clip: Path) -> None:
    scores = []
    for model in (tiny_run.folder, tiny_bundle):
        found = edgekd("predict", model, clip, "--json").json()
        assert found["model"] == str(model)
        assert [entry["file"] for entry in found["files"]] == [str(clip)]
        scores.append(found["files"][0]["scores"])
    assert set(scores[0]) == set(tiny_run.classes)
    assert sum(scores[0].values()) == pytest.approx(1, abs=1e-4)
    # The bundle for onnxruntime keeps activations that training clips, so this is nearly the same network.
    assert scores[1] == pytest.approx(scores[0], abs=0.1)


def test_the_best_classes_are_shown_in_order(edgekd: Callable, tiny_bundle: Path, clip: Path) -> None:
    shown = edgekd("predict", tiny_bundle, clip, clip, "--top", "2")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{clip}: ")
    told = lines[0].removeprefix(f"{clip}: ").removesuffix(" (none reaches its threshold)")
    shares = [float(part.split()[-1].rstrip("%")) for part in told.split(", ")]
    assert len(shares) == 2
    assert shares == sorted(shares, reverse=True)


def test_classes_that_reach_their_thresholds_are_named(edgekd: Callable, tiny_copy: Run, clip: Path) -> None:
    kept = read_thresholds(tiny_copy, "int8")
    assert kept is not None
    for threshold, heard in ((0.0, sorted({*tiny_copy.classes} - {"background"})), (1.0, [])):
        chosen = {name: each.model_copy(update={"open": threshold}) for name, each in kept.classes.items()}
        write_thresholds(tiny_copy, "int8", kept.model_copy(update={"classes": chosen}))
        (entry,) = edgekd("predict", tiny_copy.folder, clip, "--json").json()["files"]
        assert sorted(entry["classes"]) == heard
        shown = edgekd("predict", tiny_copy.folder, clip).out.rstrip()
        assert shown.endswith(" (none reaches its threshold)") == (heard == [])
    (tiny_copy.folder / "int8" / "thresholds.json").unlink()
    (entry,) = edgekd("predict", tiny_copy.folder, clip, "--json").json()["files"]
    assert "classes" not in entry


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_files_that_cannot_be_read_are_named_and_the_others_classified(
    edgekd: Callable, tiny_run: Run, tiny_bundle: Path, clip: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "page.wav").write_text("<html>404 Not Found</html>" * 100)
    (tmp_path / "cut.wav").write_bytes(clip.read_bytes()[:5000])
    soundfile.write(tmp_path / "nan.wav", np.full(4000, np.nan), 4_000, subtype="FLOAT")
    reasons = {
        "gone.wav": "no such file",
        "empty.wav": "the file is empty (0 bytes)",
        "page.wav": "not an audio file that can be read",
        "cut.wav": "truncated: the header promises 12000 bytes of samples, 4956 follow",
        "nan.wav": "sample 0 is NaN or infinite",
    }
    model = tiny_run.folder if kind == "run" else tiny_bundle
    done = edgekd("predict", model, *(tmp_path / name for name in reasons), clip)
    assert done.code == 3
    said = done.err.splitlines()
    assert len(said) == len(reasons)
    for line, (name, reason) in zip(said, reasons.items(), strict=True):
        assert line.startswith(f"edgekd: error: {tmp_path / name}: {reason}")
    assert done.out.startswith(f"{clip}: ")
    assert len(done.out.splitlines()) == 1


def test_what_is_neither_run_nor_bundle_is_refused(edgekd: Callable, tmp_path: Path, clip: Path) -> None:
    line = edgekd("predict", tmp_path / "nowhere", clip).refusal(3)
    assert line.startswith(f"{tmp_path / 'nowhere'}: no such folder. Name a run ('edgekd distill') or a bundle")
    assert edgekd("predict", clip, clip).refusal(3).startswith(f"{clip}: a file. Name a run")
    line = edgekd("predict", tmp_path, clip).refusal(3)
    assert line == f"{tmp_path}: neither a run folder (config.toml) nor a bundle (manifest.json)."


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "edgekd_runner.py", "README.md", "manifest.json"])
@pytest.mark.parametrize("command", ["predict", "profile"])
def test_a_bundle_that_was_changed_is_refused(
    edgekd: Callable, tiny_bundle: Path, tmp_path: Path, clip: Path, name: str, command: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    line = edgekd(command, bundle, *([clip] if command == "predict" else [])).refusal(3)
    assert line.startswith(f"{bundle / name}: ")
    assert "changed since the bundle was written" in line or name == "manifest.json"
    assert not (bundle / "report.json").exists()
    (bundle / name).unlink()
    line = edgekd(command, bundle, *([clip] if command == "predict" else [])).refusal(3)
    assert name in line


def test_a_bundle_whose_runtime_is_missing_here_is_no_bug(
    edgekd: Callable, tiny_bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert edgekd("predict", tiny_bundle, clip).refusal(3).startswith("onnxruntime is not installed. Next: ")
