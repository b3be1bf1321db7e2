"""Odd recordings, by training's decoder and the device's: the samples that are there, or one line, the same of both."""

from __future__ import annotations

import importlib.util
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
