"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from edgekd.device.runner.commands import main

if TYPE_CHECKING:
    from tests.device.conftest import Toy

RATE = 8_000  # of the toy classifier


@pytest.fixture
def recording(toy: Toy, tmp_path: Path) -> Path:
    """A tenth of a second more than a clip of the middle tone, 16-bit mono at the bundle's rate."""
    path = tmp_path / "middle.wav"
    soundfile.write(path, toy.tone("middle", 0.2), toy.RATE)
    return path


def test_verify_reports_its_figures_as_json(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json"], written) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["agrees"]
    assert outcome["clips"] == 12
    assert outcome["agreement"] == 1.0
    assert outcome["largest_difference"] < 1e-5


@pytest.mark.parametrize(
    ("tolerance", "fails"),
    [({"probability": 0.5, "agreement": 1.0}, True), ({"probability": 1.0, "agreement": 0.1}, False)],
)
def test_a_device_that_disagrees_exits_with_4(
    toy: Toy, bundle: Path, capsys: pytest.CaptureFixture[str], tolerance: dict[str, float], fails: bool
) -> None:
    with np.load(bundle / "golden.npz") as golden:
        contents = dict(golden)
    contents["probabilities"][:2] = np.roll(contents["probabilities"][:2], 1, axis=1)
    np.savez(bundle / "golden.npz", **contents)
    target = json.loads((bundle / "manifest.json").read_text())["target"]
    toy.sign(bundle, target=target | {"tolerance": tolerance})
    assert main(["verify", "--json"], bundle) == (4 if fails else 0)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["agreement"] == pytest.approx(10 / 12)
    assert ("does not agree" in shown.err) == fails


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "edgekd_runner.py", "README.md", "manifest.json"])
@pytest.mark.parametrize("command", ["verify", "predict", "stream", "bench"])
def test_every_command_refuses_a_bundle_with_a_changed_file(
    bundle: Path,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    command: str,
) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    arguments = [command, str(recording)] if command == "predict" else [command]
    assert main(arguments, bundle) == 3
    shown = capsys.readouterr()
    assert f"{name}: " in shown.err
    assert shown.err.count("\n") == 1
    assert not shown.out


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
def test_a_missing_file_is_named(bundle: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (bundle / name).unlink()
    assert main(["verify"], bundle) == 3
    assert f"{name}: No such file or directory" in capsys.readouterr().err


def test_a_class_renamed_by_hand_is_noticed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"middle"', '"medium"'))
    assert main(["verify"], bundle) == 3
    assert "manifest.json: changed since the bundle was written" in capsys.readouterr().err


def test_predict_shows_the_best_classes_in_order(
    toy: Toy, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "both.wav"
    both = toy.tone("high", 0.1, amplitude=0.12) + toy.tone("low", 0.1, amplitude=0.1)
    soundfile.write(path, both, RATE, subtype="FLOAT")
    assert main(["predict", "--json", "--top", "2", str(path)], written) == 0
    (row,) = json.loads(capsys.readouterr().out)["files"]
    scores = toy.scores(both[None])[0]
    assert [entry["class"] for entry in row["top"]] == ["high", "low"]
    assert [entry["score"] for entry in row["top"]] == pytest.approx([scores[2], scores[0]], abs=1e-5)
    assert row["seconds"] == 0.1


def test_one_bad_file_does_not_stop_the_others(
    written: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.wav"
    assert main(["predict", str(missing), str(recording), "--json"], written) == 3
    shown = capsys.readouterr()
    bad, good = json.loads(shown.out)["files"]
    assert bad == {"file": str(missing), "error": "no such file or directory"}
    assert good["top"][0]["class"] == "middle"
    assert shown.err == f"edgekd_runner: {missing}: no such file or directory\n"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.filterwarnings("error")
def test_samples_that_are_not_finite_are_refused(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    samples = np.zeros(1000)
    samples[500] = value
    path = tmp_path / "sound.wav"
    soundfile.write(path, samples, RATE, subtype="DOUBLE")
    assert main(["predict", str(path)], written) == 3
    assert "some samples are NaN or infinite" in capsys.readouterr().err


def test_a_folder_is_no_recording(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path)], written) == 3
    assert "is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["predict"],
        ["predict", "a.wav", "--top", "0"],
        ["bench", "--seconds", "inf"],
        ["choose", "--cpu"],
        ["stream", "--json"],
        ["stream", "--rate", "1"],
        ["stream", "--format", "s12"],
        ["stream", "--channels", "0"],
        ["stream", "--hop", "0"],
        ["stream", "--hop", "nan"],
        ["stream", "--smooth", "none"],
        ["stream", "--threshold", "1.5"],
        ["stream", "--behind", "panic"],
    ],
)
def test_wrong_usage_exits_with_2(written: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments, written)
    assert stopped.value.code == 2


@pytest.mark.parametrize(("channel", "name"), [("mean", None), (0, "low"), (1, "high")])
def test_predict_hears_the_channel_of_the_bundle(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], channel: Any, name: str | None
) -> None:
    bundle, path = toy.write(tmp_path / "bundle", channel=channel, full_scale=100.0), tmp_path / "stereo.wav"
    soundfile.write(path, 100 * np.stack([toy.tone("low", 0.3), toy.tone("high", 0.3)], 1), 8_000, subtype="FLOAT")
    assert main(["predict", "--json", str(path)], bundle) == 0
    (top,) = json.loads(capsys.readouterr().out)["files"][0]["top"]
    assert (top["class"] == name and top["score"] > 0.9) if name else top["score"] < 0.9
    soundfile.write(path, toy.tone("low", 0.3), 8_000)
    assert main(["predict", str(path)], bundle) == (3 if channel == 1 else 0)
    if channel == 1:
        assert "stereo.wav: has 1 channel(s), counted from 0, and the bundle hears number 1" in capsys.readouterr().err


def test_predict_says_of_a_file_that_it_is_silent(
    toy: Toy, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, sound in (("zeros", np.zeros(900)), ("stuck", np.full(900, 0.3)), ("tone", toy.tone("low", 0.2))):
        soundfile.write(tmp_path / f"{name}.wav", sound, 8_000)
    paths = [str(tmp_path / f"{name}.wav") for name in ("zeros", "stuck", "tone")]
    assert main(["predict", "--json", *paths], written) == 0
    assert [row["silent"] for row in json.loads(capsys.readouterr().out)["files"]] == [True, True, False]
    assert main(["predict", *paths], written) == 0
    assert [line.endswith("(silent)") for line in capsys.readouterr().out.splitlines()] == [True, True, False]
