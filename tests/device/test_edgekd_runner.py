"""The on-device runner: run as a device runs it (its own process, numpy and onnxruntime only), and against oracles."""

from __future__ import annotations

import ast
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from edgekd._torchaudio import functional
from edgekd.data import audio
from edgekd.device import edgekd_runner
from edgekd.device.edgekd_runner import Runner, RunnerError, main, read_wav, resample

if TYPE_CHECKING:
    from tests.runtime.conftest import Toy

CLASSES = ("low", "middle", "high")  # of the toy classifier
RATE, CLIP, HOP = 8_000, 800, 300
FILTER: dict[str, Any] = {"width": audio.RESAMPLE_FILTER_WIDTH, "rolloff": audio.RESAMPLE_ROLLOFF}


@pytest.fixture
def recording(toy: Toy, tmp_path: Path) -> Path:
    """A tenth of a second more than a clip of the middle tone, 16-bit mono at the bundle's rate."""
    path = tmp_path / "middle.wav"
    soundfile.write(path, toy.tone("middle", 0.2), toy.RATE)
    return path


# As a device runs it


def on_device(
    bundle: Path, *arguments: str | Path, packages: tuple[str, ...] = ("numpy", "onnxruntime"), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the bundle's own runner where nothing but the standard library and `packages` can be imported."""
    code = f"""
import runpy, sys
allowed = sys.stdlib_module_names | {set(packages)!r}
class OnlyAllowed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, OnlyAllowed())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = [sys.executable, "-I", "-c", code, str(bundle / "edgekd_runner.py"), *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, check=False)


def test_verify_needs_only_numpy_and_onnxruntime(written: Path) -> None:
    outcome = on_device(written, "verify")
    assert outcome.returncode == 0, outcome.stderr
    assert "5 unchanged" in outcome.stdout
    assert "100.0%" in outcome.stdout


def test_predict_needs_only_numpy_and_onnxruntime(written: Path, recording: Path) -> None:
    outcome = on_device(written, "predict", recording)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split()[:2] == [str(recording), "middle"]
    assert not (written / "__pycache__").exists()


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (("numpy",), "onnxruntime is not installed. Next: python3 -m pip install onnxruntime"),
        ((), "numpy is not installed. Next: python3 -m pip install numpy onnxruntime"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    written: Path, packages: tuple[str, ...], message: str
) -> None:
    outcome = on_device(written, "verify", packages=packages)
    assert outcome.returncode == 3
    assert outcome.stderr == f"edgekd_runner: {message}\n"


def test_an_unforeseen_failure_is_one_line_and_a_traceback_only_on_demand(toy: Toy, bundle: Path) -> None:
    toy.sign(bundle, classifier={})
    outcome = on_device(bundle, "verify")
    assert outcome.returncode == 1
    assert outcome.stderr == "edgekd_runner: unforeseen failure: KeyError: 'classes'. EDGEKD_DEBUG=1 shows where.\n"
    outcome = on_device(bundle, "verify", EDGEKD_DEBUG="1")
    assert outcome.returncode == 1
    assert "Traceback" in outcome.stderr


def test_the_runner_imports_nothing_but_what_a_device_has() -> None:
    tree = ast.parse(Path(edgekd_runner.__file__).read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime", "tensorrt"}


# Commands


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


@pytest.mark.parametrize(
    "edit",
    [
        ('"precision": "int8"', '"precision": "fp32"'),
        ('"input": "waveform"', '"input": "log_mel"'),
        ('"gain": 0.7', '"gain": 0.8'),
        ('"probability": 0.05', '"probability": 0.5'),
        ('"hop_samples": 300', '"hop_samples": 400'),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(bundle: Path, edit: tuple[str, str]) -> None:
    path = bundle / "manifest.json"
    text = path.read_text()
    assert edit[0] in text
    path.write_text(text.replace(*edit))
    with pytest.raises(RunnerError, match=r"manifest\.json: changed since the bundle was written"):
        Runner(bundle)


def test_a_class_renamed_by_hand_is_noticed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"middle"', '"medium"'))
    assert main(["verify"], bundle) == 3
    assert "manifest.json: changed since the bundle was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "not the manifest"),
        (b"{}", "not the man"),
    ],
)
def test_a_manifest_that_is_something_else_is_refused(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(RunnerError, match=message):
        Runner(bundle)


def test_a_manifest_of_another_format_points_to_its_own_runner(toy: Toy, bundle: Path) -> None:
    toy.sign(bundle, format=2)
    with pytest.raises(RunnerError, match="format 2, this runner reads 1"):
        Runner(bundle)


def test_a_model_that_onnxruntime_cannot_load_is_one_line(
    toy: Toy, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "model.onnx").write_bytes(b"not a model")
    toy.sign(bundle)
    assert main(["verify"], bundle) == 3
    shown = capsys.readouterr().err
    assert "model.onnx: onnxruntime" in shown
    assert shown.count("\n") == 1


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


def test_debugging_shows_where_an_error_came_from(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKD_DEBUG", "1")
    assert main(["predict", "missing.wav"], written) == 3
    assert "Traceback" in capsys.readouterr().err


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


# Audio


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_kind_of_wav_is_read_as_libsndfile_reads_it(
    tmp_path: Path, container: str, subtype: str, channels: int
) -> None:
    path = tmp_path / "sound.wav"
    samples = np.random.default_rng(0).uniform(-1, 1, (701, channels))
    soundfile.write(path, samples, 11_025, format=container, subtype=subtype)
    waveform, rate = read_wav(path)
    reference, reference_rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == reference_rate
    np.testing.assert_allclose(waveform, reference.mean(axis=1), atol=1e-7)


def wav(data: bytes, *, size: int | None = None, encoding: int = 1, channels: int = 1, rate: int = RATE) -> bytes:
    """A 16-bit WAV file by hand, with an unknown chunk of odd length before the samples."""
    layout = struct.pack("<HHIIHH", encoding, channels, rate, rate * 2 * channels, 2 * channels, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + layout + b"LIST" + struct.pack("<I", 3) + b"odd\0"
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("size", [0x7FFFF000, 0xFFFFFFFF])
def test_a_recording_from_a_pipe_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav(struct.pack("<4h", 0, 16384, -16384, -32768), size=size))
    np.testing.assert_array_equal(read_wav(path)[0], [0, 0.5, -0.5, -1])


@pytest.mark.parametrize(("channels", "extra"), [(1, b"1"), (2, b"1"), (2, b"12"), (2, b"123")])
@pytest.mark.parametrize("size", [None, 0xFFFFFFFF])
def test_a_recording_that_ends_inside_a_sample_is_read_without_it(
    tmp_path: Path, channels: int, extra: bytes, size: int | None
) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav(struct.pack("<4h", 8192, 8192, -16384, -16384) + extra, channels=channels, size=size))
    waveform, _ = read_wav(path)
    np.testing.assert_array_equal(waveform, [0.25, 0.25, -0.5, -0.5] if channels == 1 else [0.25, -0.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"dear diary", "not a WAV file"),
        (wav(b"\0\0" * 10)[:30], "truncated: the header is there, the samples are not"),
        (wav(b"\0\0" * 10)[:-5], "truncated: the header promises 20 bytes of samples, 15 follow"),
        (wav(b""), "no samples in it"),
        (wav(b"\0\0", rate=0), "damaged WAV: 1 channels at 0 Hz"),
        (wav(b"\0\0", channels=0), "damaged WAV: 0 channels"),
        (wav(b"\0\0", encoding=7), "WAV encoding 0x0007 of 16 bits is not supported"),
        (b"RIFF\4\0\0\0WAVEdata\2\0\0\0\0\0", "damaged WAV: no format before the samples"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_its_name(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    assert main(["predict", str(path)], written) == 3
    shown = capsys.readouterr().err
    assert shown.startswith(f"edgekd_runner: {path}: {message}")
    assert shown.count("\n") == 1


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


@pytest.mark.parametrize("source", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("parameters", [{"width": 6, "rolloff": 0.99}, FILTER])
def test_resampling_has_torchaudios_numbers(source: int, parameters: dict[str, Any]) -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, 3_001).astype(np.float32)
    # In float64: torchaudio's float32 kernel rounds its phases, and is itself 2e-5 off.
    oracle = functional.resample(
        torch.from_numpy(waveform).double(),
        source,
        32_000,
        lowpass_filter_width=parameters["width"],
        rolloff=parameters["rolloff"],
    )
    resampled = resample(waveform, source, 32_000, **parameters)
    assert resampled.shape == oracle.shape
    np.testing.assert_allclose(resampled, oracle.numpy(), atol=1e-5)


@pytest.mark.parametrize("source", [8_000, 44_100, 52_734, 96_000])
def test_resampling_has_the_numbers_of_the_training_data(source: int) -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    resampled = resample(waveform, source, 32_000, **FILTER)
    np.testing.assert_allclose(resampled, audio.resample(waveform, source, 32_000), atol=2e-6)


@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33])
def test_the_shortest_waveforms_can_be_resampled(samples: int) -> None:
    waveform = np.ones(samples, np.float32)
    assert len(resample(waveform, 44_100, 32_000, **FILTER)) == -(-samples * 320 // 441)
    assert len(resample(waveform, 32_000, 44_100, **FILTER)) == -(-samples * 441 // 320)


# Prediction


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_a_tone_is_recognised_at_any_rate(toy: Toy, written: Path, name: str, rate: int) -> None:
    scores = Runner(written).predict(toy.tone(name, 0.37, rate), rate)
    assert CLASSES[int(scores.argmax())] == name


@pytest.mark.parametrize("padding", ["repeat", "zeros"])
def test_a_short_waveform_is_padded_as_in_training(toy: Toy, tmp_path: Path, padding: Any) -> None:
    waveform = toy.tone("low", 0.03, amplitude=0.05)
    scores = Runner(toy.write(tmp_path / "bundle", padding=padding)).predict(waveform, RATE)
    padded = audio.fit(waveform, CLIP, padding)
    np.testing.assert_allclose(scores, toy.scores(padded[None])[0], atol=1e-6)


@pytest.mark.parametrize("samples", [CLIP, CLIP + 1, CLIP + HOP, CLIP + HOP + 1, CLIP + 20 * HOP + 7])
def test_a_long_waveform_is_the_mean_over_its_windows(toy: Toy, written: Path, samples: int) -> None:
    random = np.random.default_rng(0)
    waveform = (0.1 * random.standard_normal(samples)).astype(np.float32)
    starts = {start for start in range(0, samples, HOP) if start + CLIP <= samples} | {samples - CLIP}
    windows = np.stack([waveform[start : start + CLIP] for start in sorted(starts)])
    np.testing.assert_allclose(Runner(written).predict(waveform, RATE), toy.scores(windows).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.zeros((2, 800), np.float32)])
def test_predict_takes_one_mono_waveform(written: Path, waveform: NDArray[np.float32]) -> None:
    with pytest.raises(RunnerError, match="expected a mono waveform"):
        Runner(written).predict(waveform, RATE)
