"""Windows of an endless signal, through the classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.errors import RunnerError, WrongUsage
from edgekd.device.runner.stream import STREAM_FORMATS, Cutter, Stream

if TYPE_CHECKING:
    from tests.device.conftest import Toy

RATE, CLIP, HOP = 8_000, 800, 300  # of the toy classifier


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("u8", lambda x: np.round(x * 127 + 128).astype(np.uint8).tobytes()),
        ("s16", lambda x: np.round(x * 32_767).astype("<i2").tobytes()),
        ("s24", lambda x: np.round(x * (2**23 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()),
        ("s32", lambda x: np.round(x * (2**31 - 1)).astype("<i4").tobytes()),
        ("f32", lambda x: np.asarray(x).astype("<f4").tobytes()),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_sample_format_and_number_of_channels(
    toy: Toy, written: Path, name: str, encode: Any, channels: int
) -> None:
    waveform = 0.3 * toy.tone("low", 0.2) + 0.1 * toy.tone("high", 0.2)
    others = np.stack([waveform, waveform + toy.noise(len(waveform)), waveform - toy.noise(len(waveform))], axis=1)
    stream = Stream(Runner(written), rate=RATE, encoding=STREAM_FORMATS[name], channels=channels)
    rows = list(stream.push(encode(others[:, :channels].astype(np.float64).reshape(-1)), 0.0))
    expected = toy.scores(np.stack([waveform[s : s + CLIP] for s in toy.positions(len(waveform))]))
    found = [[row["scores"][name] for name in toy.TONES] for row in rows]
    np.testing.assert_allclose(found, expected, atol=0.02 if name == "u8" else 1e-3)


def test_smoothing_is_the_mean_of_the_last_windows(toy: Toy, written: Path) -> None:
    sound = toy.s16(toy.noise(3_000))
    plain = [row["scores"] for row in Stream(Runner(written), rate=RATE).push(sound, 0.0)]
    smooth = [row["scores"] for row in Stream(Runner(written), rate=RATE, smooth=3).push(sound, 0.0)]
    for i, scores in enumerate(smooth):
        for name in toy.TONES:
            mean = np.mean([row[name] for row in plain[max(0, i - 2) : i + 1]])
            assert scores[name] == pytest.approx(mean, abs=2e-6)


def test_resampling_does_not_spread_what_is_not_finite(toy: Toy, written: Path) -> None:
    waveform = toy.tone("low", 1.0, 44_100)
    waveform[20_000] = np.nan
    stream = Stream(Runner(written), rate=44_100, encoding=(3, 32), hop_samples=CLIP)
    rows = list(stream.push(waveform.astype("<f4").tobytes(), 0.0))
    assert ["error" in row for row in rows] == [i == 4 for i in range(len(rows))]


def test_pieces_that_split_samples_are_put_together(toy: Toy, written: Path) -> None:
    sound = toy.s16(toy.noise(2_000))
    whole = [row["scores"] for row in Stream(Runner(written), rate=RATE).push(sound, 0.0)]
    stream = Stream(Runner(written), rate=RATE)
    pieces = [sound[i : i + 333] for i in range(0, len(sound), 333)]
    assert [row["scores"] for piece in pieces for row in stream.push(piece, 0.0)] == whole


@pytest.mark.parametrize(("clip", "hop"), [(10, 3), (10, 10), (10, 27), (10, 1), (1, 1)])
@pytest.mark.parametrize("piece", [1, 7, 64, 1_000])
def test_windows_are_cut_where_they_should_be(clip: int, hop: int, piece: int) -> None:
    signal_ = np.arange(500, dtype=np.float32)
    cutter = Cutter(clip, hop)
    found = []
    for start in range(0, 500, piece):
        samples = signal_[start : start + piece]
        promised = cutter.completed_by(len(samples))
        cut = [(position, window.copy()) for position, window in cutter.push(samples)]
        assert len(cut) == promised
        found += cut
    assert [position for position, _ in found] == list(range(0, 500 - clip + 1, hop))
    for position, window in found:
        np.testing.assert_array_equal(window, signal_[position : position + clip])


def test_times_are_exact_after_a_year(toy: Toy, written: Path) -> None:
    stream = Stream(Runner(written), rate=RATE)
    year = 365 * 86_400 * RATE // HOP * HOP
    stream._cutter.position = year
    (row,) = stream.push(toy.s16(toy.tone("low", 0.1)), 0.0)
    assert row["start_s"] * RATE == pytest.approx(year, abs=0.01)
    assert row["end_s"] - row["start_s"] == pytest.approx(0.1, abs=1e-6)


def test_a_runner_error_that_is_not_about_samples_ends_the_stream(
    written: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(runner: Runner, clips: Any) -> Any:
        raise RunnerError("cudaMemcpy failed with CUDA error 700")

    monkeypatch.setattr(Runner, "answers", broken)
    with pytest.raises(RunnerError, match="CUDA error 700"):
        list(Stream(Runner(written), rate=RATE).push(bytes(2 * CLIP), 0.0))


def test_a_stream_is_heard_as_the_bundle_says(toy: Toy, tmp_path: Path) -> None:
    sound = np.stack([toy.tone("low", 0.2), 100 * toy.tone("high", 0.2)], 1).astype("<f4").tobytes()
    runner = Runner(toy.write(tmp_path / "bundle", channel=1, full_scale=100.0))
    rows = list(Stream(runner, rate=RATE, encoding=(3, 32), channels=2).push(sound, 0.0))
    assert {row["class"] for row in rows} == {"high"}
    with pytest.raises(WrongUsage, match="--channels 1: the bundle hears channel 1, counted from 0"):
        Stream(runner, rate=RATE)


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_a_converter_that_is_stuck_is_silent(toy: Toy, written: Path, rate: int) -> None:
    sound = np.concatenate([np.full(rate // 4, 0.25), toy.tone("low", 0.2, rate)])
    stream = Stream(Runner(written), rate=rate, hop_samples=CLIP)
    data = toy.s16(sound)
    rows = [row for start in range(0, len(data), 1_000) for row in stream.push(data[start : start + 1_000], 0.0)]
    assert [row["silent"] for row in rows[:4]] == [True, True, False, False]


def test_windows_of_a_stream_are_trimmed(toy: Toy, tmp_path: Path) -> None:
    sound = toy.tone("low", 0.1, amplitude=0.05)
    sound[500:] = 0
    (row,) = Stream(Runner(toy.write(tmp_path / "bundle", trim_silence=True)), rate=RATE).push(toy.s16(sound), 0.0)
    heard = np.round(sound[:500] * 32_767) / 32_768
    expected = toy.scores(np.resize(heard, CLIP)[None].astype(np.float32))[0]
    np.testing.assert_allclose([row["scores"][name] for name in toy.TONES], expected, atol=1e-4)
