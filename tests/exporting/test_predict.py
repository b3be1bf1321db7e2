from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.audio.read import resample
from edgekd.device.runner import Runner
from edgekd.errors import InputError
from edgekd.exporting.predict import BundlePredictor, Predictor, RunPredictor, open_predictor, predict_files
from edgekd.runs.run import Run

RATE = 4_000  # of the run, whose clips last one second


@pytest.fixture(scope="module")
def run_predictor(tiny_run: Run) -> Predictor:
    return open_predictor(tiny_run.folder)


@pytest.fixture(scope="module")
def bundle_predictor(tiny_bundle: Path) -> Predictor:
    return open_predictor(tiny_bundle)


@pytest.fixture(params=["run", "bundle"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return request.getfixturevalue(f"{request.param}_predictor")


@pytest.fixture(scope="module")
def sound(tiny_run: Run) -> np.ndarray:
    """Two and a half seconds of a simulated tug."""
    path = next(clip.path for clip in tiny_run.open_data().index if clip.label == 4)
    return soundfile.read(path, dtype="float32")[0][: 5 * RATE // 2]


def test_each_folder_gets_its_predictor(run_predictor: Predictor, bundle_predictor: Predictor, tiny_run: Run) -> None:
    assert isinstance(run_predictor, RunPredictor)
    assert isinstance(bundle_predictor, BundlePredictor)
    assert run_predictor.classes == bundle_predictor.classes == tiny_run.classes


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.2, 2.5])
@pytest.mark.parametrize("rate", [RATE, 11_025, 96_000])
def test_run_and_bundle_agree_at_any_length_and_rate(
    run_predictor: Predictor,
    bundle_predictor: Predictor,
    sound: np.ndarray,
    tmp_path: Path,
    seconds: float,
    rate: int,
) -> None:
    samples = resample(sound[: int(seconds * RATE)], RATE, rate)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    shipped = bundle_predictor.predict_file(tmp_path / "a.wav")[0]
    ours = run_predictor.predict_file(tmp_path / "a.wav")[0]
    assert ours.shape == shipped.shape == (5,)
    assert ours.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(shipped, ours, atol=0.05)


def test_run_and_bundle_agree_far_from_what_the_run_has_learned(
    run_predictor: Predictor, bundle_predictor: Predictor
) -> None:
    """Where activations leave the range that they were calibrated on, and runtimes differ in what they do there."""
    loud = np.random.default_rng(0).uniform(-1, 1, (8, RATE)).astype(np.float32)
    loud[4:, : RATE // 2] = 0
    np.testing.assert_allclose(bundle_predictor.answers(loud), run_predictor.answers(loud), atol=0.05)


def test_scores_are_the_mean_over_windows_half_a_clip_apart(
    run_predictor: Predictor, tiny_run: Run, sound: np.ndarray, tmp_path: Path
) -> None:
    assert isinstance(run_predictor, RunPredictor)
    samples = sound[: int(1.7 * RATE)]
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    windows = np.stack([samples[start : start + RATE] for start in (0, RATE // 2, len(samples) - RATE)])
    expected = run_predictor.answers(windows).mean(axis=0)
    np.testing.assert_allclose(run_predictor.predict_file(tmp_path / "a.wav")[0], expected, atol=1e-5)


def test_a_short_file_is_filled_up_by_the_rule_of_the_run(
    predictor: Predictor, sound: np.ndarray, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "short.wav", sound[: RATE // 2], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "twice.wav", np.tile(sound[: RATE // 2], 2), RATE, subtype="FLOAT")
    short, twice = (predictor.predict_file(tmp_path / name)[0] for name in ("short.wav", "twice.wav"))
    np.testing.assert_allclose(short, twice, atol=1e-6)


def test_a_stereo_file_counts_as_the_mean_of_its_channels(
    predictor: Predictor, sound: np.ndarray, tmp_path: Path
) -> None:
    left = sound[:RATE]
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, 0.5 * left], axis=1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", 0.75 * left, RATE, subtype="FLOAT")
    stereo, mono = (predictor.predict_file(tmp_path / name)[0] for name in ("stereo.wav", "mono.wav"))
    np.testing.assert_allclose(stereo, mono, atol=1e-4)


@pytest.mark.parametrize("name", ["a.flac", "a8.wav", "a.ogg"])
def test_files_of_other_formats_just_work(predictor: Predictor, sound: np.ndarray, tmp_path: Path, name: str) -> None:
    rate = 8_000
    soundfile.write(tmp_path / name, resample(sound, RATE, rate), rate, subtype="PCM_U8" if "8" in name else None)
    assert np.isfinite(predictor.predict_file(tmp_path / name)[0]).all()


def test_a_file_that_cannot_be_read_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "page.wav").write_text("<html>404 Not Found</html>" * 100)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    for name, words in (
        ("gone.wav", "no such file"),
        ("empty.wav", "is empty"),
        ("page.wav", "not an audio file"),
        ("nan.wav", "NaN"),
    ):
        with pytest.raises(InputError, match=rf"{name}: .*{words}"):
            predictor.predict_file(tmp_path / name)


def test_without_an_int8_student_the_float_one_answers(tiny_run: Run, sound: np.ndarray, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    report = json.loads((folder / "report.json").read_text())
    del report["test"]["int8"]
    (folder / "report.json").write_text(json.dumps(report))
    soundfile.write(tmp_path / "a.wav", sound[:RATE], RATE, subtype="FLOAT")
    with torch.no_grad():
        expected = tiny_run.student()(torch.from_numpy(sound[None, :RATE])).logits.softmax(1)[0].numpy()
    np.testing.assert_allclose(open_predictor(folder).predict_file(tmp_path / "a.wav")[0], expected, atol=1e-5)


def test_a_bundle_that_cannot_be_run_here_is_bad_input(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="onnxruntime is not installed"):
        open_predictor(tiny_bundle)


def test_a_bundle_that_was_changed_is_bad_input(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (bundle / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README\.md: changed since"):
        open_predictor(bundle)


def test_files_are_classified_in_turn_and_one_that_cannot_be_read_says_why(
    tiny_run: Run, sound: np.ndarray, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", sound[:RATE], RATE, subtype="FLOAT")
    bad, good = predict_files(tiny_run.folder, [tmp_path / "gone.wav", tmp_path / "a.wav"])
    assert bad.to_dict() == {"file": str(tmp_path / "gone.wav"), "error": bad.error}
    assert bad.error is not None
    assert "no such file" in bad.error
    scores = open_predictor(tiny_run.folder).predict_file(tmp_path / "a.wav")[0]
    assert good.error is None
    assert dict(good.ranked) == dict(zip(tiny_run.classes, scores.tolist(), strict=True))
    assert [share for _, share in good.ranked] == sorted(scores.tolist(), reverse=True)
    assert list(good.to_dict()["scores"].values()) == [round(share, 6) for _, share in good.ranked]


def test_a_bundle_is_heard_as_its_own_runner_hears_it(tiny_bundle: Path, sound: np.ndarray, tmp_path: Path) -> None:
    rate = 11_025
    soundfile.write(tmp_path / "a.wav", resample(sound, RATE, rate), rate, subtype="FLOAT")
    waveform, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    expected = Runner(tiny_bundle).predict(waveform, rate)
    np.testing.assert_allclose(open_predictor(tiny_bundle).predict_file(tmp_path / "a.wav")[0], expected, atol=1e-6)
