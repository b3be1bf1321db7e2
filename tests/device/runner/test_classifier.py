"""A bundle's classifier: waveforms of any rate and length, precisions, and what runs them."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edgekd.audio import read as audio
from edgekd.config import DataConfig
from edgekd.device.runner.classifier import Runner, windows
from edgekd.device.runner.commands import main
from edgekd.device.runner.errors import RunnerError, WrongUsage
from edgekd.device.runner.wav import open_wav

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import Calls, StandInTensorRT

CLASSES = ("low", "middle", "high")  # of the toy classifier
RATE, CLIP, HOP = 8_000, 800, 300


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_a_tone_is_recognised_at_any_rate(toy: Toy, written: Path, name: str, rate: int) -> None:
    scores = Runner(written).predict(toy.tone(name, 0.37, rate), rate)
    assert CLASSES[int(scores.argmax())] == name


@pytest.mark.parametrize("padding", ["repeat", "zeros"])
def test_a_short_waveform_is_padded_as_in_training(toy: Toy, tmp_path: Path, padding: Any) -> None:
    waveform = toy.tone("low", 0.03, amplitude=0.05)
    scores = Runner(toy.write(tmp_path / "bundle", padding=padding)).predict(waveform, RATE)
    padded = np.pad(waveform, (0, CLIP - len(waveform)), mode="wrap" if padding == "repeat" else "constant")
    np.testing.assert_allclose(scores, toy.scores(padded[None])[0], atol=1e-6)


@pytest.mark.parametrize("samples", [CLIP, CLIP + 1, CLIP + HOP, CLIP + HOP + 1, CLIP + 20 * HOP + 7])
def test_a_long_waveform_is_the_mean_over_its_windows(toy: Toy, written: Path, samples: int) -> None:
    random = np.random.default_rng(0)
    waveform = (0.1 * random.standard_normal(samples)).astype(np.float32)
    starts = {start for start in range(0, samples, HOP) if start + CLIP <= samples} | {samples - CLIP}
    windows = np.stack([waveform[start : start + CLIP] for start in sorted(starts)])
    np.testing.assert_allclose(Runner(written).predict(waveform, RATE), toy.scores(windows).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
@pytest.mark.parametrize("piece", [1, 700, 100_000])
def test_pieces_give_the_numbers_of_the_whole(toy: Toy, written: Path, rate: int, piece: int) -> None:
    waveform, runner = toy.noise(rate if piece > 1 else 2_500), Runner(written)
    pieces = [waveform[start : start + piece] for start in range(0, len(waveform), piece)]
    np.testing.assert_array_equal(runner.predict_pieces(pieces, rate), runner.predict(waveform, rate))


def test_windows_that_do_not_touch_are_cut_from_pieces(toy: Toy) -> None:
    waveform = toy.noise(5_003)
    starts = [0, 2_000, 4_000, 5_003 - CLIP]
    for piece in (100, 999, 5_003):
        pieces = [waveform[start : start + piece] for start in range(0, len(waveform), piece)]
        found = np.concatenate(list(windows(pieces, CLIP, 2_000, "zeros")))
        np.testing.assert_array_equal(found, [waveform[start : start + CLIP] for start in starts])


def test_a_long_file_takes_little_memory(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.device.runner.wav.BLOCK_BYTES", 1 << 16)
    path, size = tmp_path / "long.wav", 1 << 22
    header = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, 96_000, 192_000, 2, 16, b"data", size
    )
    path.write_bytes(header)
    with open(path, "r+b") as file:
        file.truncate(44 + size)
    runner = Runner(written)
    tracemalloc.start()
    with open_wav(path) as wav:
        assert wav.frames == size // 2
        assert runner.predict_pieces(wav.blocks(), wav.rate).shape == (3,)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < size // 2


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.zeros((2, 800), np.float32)])
def test_predict_takes_one_mono_waveform(written: Path, waveform: NDArray[np.float32]) -> None:
    with pytest.raises(RunnerError, match="expected a mono waveform"):
        Runner(written).predict(waveform, RATE)


def test_a_model_of_fixed_shape_takes_one_clip_at_a_time(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.write(tmp_path / "bundle", batch=1)
    assert Runner(bundle).verify()["agrees"]
    waveform = toy.noise(5_000)
    dynamic = Runner(toy.write(tmp_path / "dynamic"))
    np.testing.assert_allclose(Runner(bundle).predict(waveform, 8_000), dynamic.predict(waveform, 8_000), atol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
@pytest.mark.parametrize("cpu", [False, True])
def test_each_precision_is_held_to_its_own_reference(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str], precision: str, cpu: bool
) -> None:
    toy.build(jetson, "int8", "fp16", "fp32")
    assert main(["verify", "--json", "--precision", precision, *(["--cpu"] if cpu else [])], jetson) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["largest_difference"] < 1e-5  # the two references are 0.07 apart
    assert (outcome["precision"], outcome["engine"]) == (precision, "onnxruntime" if cpu else "tensorrt")


def test_a_precision_the_bundle_lacks_is_wrong_usage(jetson: Path, written: Path) -> None:
    with pytest.raises(WrongUsage, match="--precision fp8: this bundle has int8, fp16, fp32"):
        Runner(jetson, precision="fp8")
    assert main(["verify", "--precision", "fp16"], written) == 2


def test_a_precision_that_is_not_built_says_how_to(toy: Toy, jetson: Path, tensorrt: StandInTensorRT) -> None:
    toy.build(jetson, "int8")
    with pytest.raises(RunnerError, match=r"model-fp16\.engine: not built\. Next: sh build_engine\.sh"):
        Runner(jetson, precision="fp16")


def test_without_an_engine_a_jetson_bundle_runs_on_onnxruntime_and_says_so(
    jetson: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"], jetson) == 0
    shown = capsys.readouterr()
    assert "no engine here, so onnxruntime runs the int8 model on the CPU. Next: sh build_engine.sh" in shown.err
    assert "run by onnxruntime in int8" in shown.out


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        (
            "v100300",
            "is not installed, so trtexec runs the engine, seconds a call. Next: sudo apt install python3-libnv",
        ),
        (
            "v8201",
            "TensorRT 8.2.1 has no module for this Python, so trtexec runs the engine, seconds a call. Next: --cpu",
        ),
    ],
)
def test_verify_and_predict_say_once_that_trtexec_is_slow(
    toy: Toy,
    jetson: Path,
    trtexec: Calls,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    prints: str,
    said: str,
) -> None:
    monkeypatch.setenv("TRTEXEC_PRINTS", prints)
    toy.build(jetson, "int8")
    soundfile.write(tmp_path / "low.wav", toy.tone("low", 0.1), 8_000)
    assert main(["verify"], jetson) == 0
    shown = capsys.readouterr()
    assert "run by trtexec in int8" in shown.out
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert main(["predict", str(tmp_path / "low.wav"), str(tmp_path / "low.wav")], jetson) == 0
    shown = capsys.readouterr()
    assert shown.out.split()[1] == "low"
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("padding", ["repeat", "zeros"])
def test_silence_is_left_out_as_in_training(toy: Toy, tmp_path: Path, rate: int, padding: Any) -> None:
    tone = toy.tone("low", 0.05, rate, amplitude=0.05)
    sound = np.concatenate([np.zeros(rate // 40), tone, np.zeros(rate // 40)]).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, rate, subtype="FLOAT")
    hearing = DataConfig(padding=padding, trim_silence=True)
    trained = audio.read_clip(path, 0, len(sound), sample_rate=RATE, samples=CLIP, hearing=hearing).waveform
    bundle = toy.write(tmp_path / "bundle", padding=padding, trim_silence=True)
    np.testing.assert_allclose(Runner(bundle).predict(sound, rate), toy.scores(trained[None])[0], atol=1e-5)
    if padding == "repeat":
        plain = Runner(toy.write(tmp_path / "plain")).predict(sound, rate)
        assert np.abs(plain - toy.scores(trained[None])[0]).max() > 0.01


def test_every_window_of_a_long_waveform_is_trimmed(toy: Toy, tmp_path: Path) -> None:
    sound = toy.tone("low", 0.25, amplitude=0.05)
    sound[700:900] = 0  # the end of the first window, inside the second, the start of none
    windows = [sound[start : start + CLIP] for start in (0, 300, 600, 900, 1_200)]
    windows[0] = np.resize(windows[0][:700], CLIP)
    bundle = Runner(toy.write(tmp_path / "bundle", trim_silence=True))
    expected = toy.scores(np.stack(windows)).mean(axis=0)
    np.testing.assert_allclose(bundle.predict(sound, RATE), expected, atol=1e-6)
    pieces = (sound[start : start + 130] for start in range(0, len(sound), 130))
    np.testing.assert_allclose(bundle.predict_pieces(pieces, RATE), expected, atol=1e-6)


def test_samples_of_another_unit_are_refused(toy: Toy, written: Path) -> None:
    with pytest.raises(RunnerError, match=r"samples reach 1\.638e\+04 times full scale: floats of another unit"):
        Runner(written).predict(32_768 * toy.tone("low", 0.1), RATE)
