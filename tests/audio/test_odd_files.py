"""Odd recordings, by training's decoder and the device's: the samples that are there, or one line, the same of both."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.audio.read import probe, read
from edgekd.audio.recording import opened
from edgekd.device.runner import RunnerError
from edgekd.device.runner.wav import mix_down, open_wav
from edgekd.errors import InputError


def _odd_files() -> object:
    spec = importlib.util.spec_from_file_location("odd_files", Path(__file__).with_name("odd_files.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["odd_files"] = module
    spec.loader.exec_module(module)
    return module


odd_files = _odd_files()
ODD = odd_files.all_odd_files()


def heard(path: Path) -> tuple[NDArray[np.float32], int] | str:
    """What training hears, or why it does not."""
    try:
        info = probe(path)
        samples = read(path, info.rate)
        assert len(samples) == info.frames
        return samples, info.rate
    except InputError as failure:
        message = str(failure)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")


def heard_on_device(path: Path) -> tuple[NDArray[np.float32], int] | str:
    try:
        with open_wav(path) as wav:
            pieces = list(wav.blocks())
            samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
            assert len(samples) == wav.frames
            return samples, wav.rate
    except RunnerError as failure:
        return str(failure)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_both_decoders_hear_what_is_there_or_say_why_not(
    odd, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / odd.name
    odd.write(path)
    capfd.readouterr()
    here, there = heard(path), heard_on_device(path)
    assert capfd.readouterr() == ("", "")
    if odd.words:
        assert isinstance(here, str)
        assert all(word in here for word in odd.words), here
    else:
        assert not isinstance(here, str), here
        samples, rate = here
        assert rate == odd.rate
        expected = odd.samples
        if expected is not None:
            assert len(samples) == len(expected)
            assert np.abs(samples - expected).max() < odd.within
        elif odd.frames is not None:
            assert len(samples) == odd.frames
        if not odd.device:
            assert not isinstance(there, str), there
            np.testing.assert_array_equal(there[0], samples)
            assert there[1] == rate
    if odd.device:
        assert isinstance(there, str)
        assert odd.device in there
    elif odd.words and "NaN" not in odd.words[0] and odd.words != ("not a",):
        assert isinstance(there, str)
        assert there in here  # the same words, and numbers


@pytest.mark.parametrize("odd", [odd for odd in ODD if not odd.words], ids=lambda odd: odd.name)
def test_windows_of_an_odd_file_are_those_of_the_whole(odd, tmp_path: Path) -> None:
    path = tmp_path / odd.name
    odd.write(path)
    with opened(path) as recording:
        frames = recording.info.frames
        whole = mix_down(recording.read(0, frames))
    for start in (frames // 2, frames // 3, frames - 300):
        window = read(path, odd.rate, start, 300)
        assert np.abs(window - whole[start : start + 300]).max() < 1e-6
    with opened(path) as recording:
        again = np.concatenate([mix_down(recording.read(number * (frames // 4), frames // 4)) for number in range(3)])
    assert np.abs(again - whole[: len(again)]).max() < 1e-6


# The shared tool's files: of those not named here every one holds the signal.
LOSSY = {"mp3": 0.2, "opus": 0.2, "ogg": 0.1, "ulaw": 0.02, "alaw": 0.02, "ima": 0.3, "ms_adpcm": 0.3, "gsm": 0.4}
ANOTHER_SIGNAL = re.compile(r"4[1-4]_|80_|9\d_|a2_|69_|b[1-6]")
REFUSED = {
    r"08_.*": ("128000", "64000"),
    r"13_.*": ("57600000", "64000"),
    r"4[124]_.*": ("samples reach", "where full scale is 1", "data.full_scale"),
    r"45_.*": ("sample 99 is NaN",),
    r"71_.*": ("truncated: 15552 samples of the 33408",),
    r"74_.*|a6_.*|99_(html|lfs).wav": ("not an audio file",),
    r"80_rate_(000000.|1000000|2000000|4000000000).wav": ("Hz",),
    r"99_header_only.wav": ("holds no samples",),
    r"99_zero_bytes.wav": ("the file is empty",),
}


def test_the_odd_recordings_of_the_shared_tool(shared: Path, tmp_path: Path) -> None:
    tool = shared / "tools" / "odd_recordings.py"
    if not tool.is_file():
        pytest.skip("needs ../shared/tools/odd_recordings.py")
    subprocess.run([sys.executable, tool, tmp_path], check=True, capture_output=True, timeout=120)
    time = np.arange(32_000) / 8_000
    noise = 0.05 * np.random.default_rng(0).standard_normal(32_000)
    signal = 0.2 * np.sin(2 * np.pi * 310 * time) * (1 + 0.5 * np.sin(2 * np.pi * 7 * time)) + noise
    for path in sorted(tmp_path.iterdir()):
        here, there = heard(path), heard_on_device(path)
        words = next((words for name, words in REFUSED.items() if re.fullmatch(name, path.name)), None)
        assert isinstance(here, str) == (words is not None), f"{path.name}: {here}"
        if isinstance(here, str):
            assert all(word in here for word in words or ()), f"{path.name}: {here}"
            continue
        if isinstance(there, str):
            assert "convert it first" in there, f"{path.name}: {there}"
        else:
            assert there[1] == here[1]
            np.testing.assert_array_equal(there[0], here[0], path.name)
        if not ANOTHER_SIGNAL.match(path.name):
            within = next((value for kind, value in LOSSY.items() if kind in path.name), 0.01)
            samples = here[0][:32_000]
            assert len(here[0]) in (31_999, 32_000, 32_320, 64_000), path.name  # a byte less; a block more; twice
            assert np.abs(samples - signal[: len(samples)]).max() < within, path.name
