"""Noise has the power and the colour it is said to have, pieces lie where they should, and curves fall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from torch import Tensor

from edgekd.errors import InputError
from edgekd.profiling import robustness as module
from edgekd.profiling.accuracy import ScoredClips
from edgekd.profiling.robustness import SHARES, SNRS_DB, noise_of, noisy, robustness, shortened

RATE, SAMPLES = 8_000, 8_000


class Tones:
    """Even clips hold a tone of 400 Hz, odd ones of 1600 Hz, at a level of their own."""

    def waveforms(self, rows: object, /) -> Tensor:
        time = torch.arange(SAMPLES) / RATE
        return torch.stack([0.01 * (row + 1) * torch.sin(2 * torch.pi * 400 * 4 ** (row % 2) * time) for row in rows])


def tones(count: int) -> ScoredClips:
    return ScoredClips(
        description="tones",
        dataset="tones",
        store=Tones(),
        rows=range(count),
        names=[(f"{row}", 0) for row in range(count)],
        labels=[row % 2 for row in range(count)],
        groups=[str(row) for row in range(count)],
        classes=("low", "high"),
        sample_rate=RATE,
        clip_seconds=SAMPLES / RATE,
        padding="repeat",
        seed=0,
    )


def by_zero_crossings(waveforms: Tensor) -> Tensor:
    """Low below 2000 crossings a second, high above: right on clean tones, and lost in noise."""
    crossings = (waveforms[:, 1:] * waveforms[:, :-1] < 0).sum(dim=1)
    high = (crossings > 2000).float()
    return torch.stack([1 - high, high], dim=1)


@pytest.mark.parametrize("snr_db", [20.0, 0.0, -5.0])
def test_the_ratio_of_powers_is_the_one_asked_for(snr_db: float) -> None:
    clips = tones(3)
    waveforms = clips.store.waveforms([0, 1, 2])
    make, _ = noise_of("pink", RATE, SAMPLES)
    noise = torch.from_numpy(np.stack([make(place, SAMPLES) for place in range(3)]))
    added = noisy(waveforms, noise, snr_db) - waveforms
    found = 10 * torch.log10(waveforms.square().mean(dim=1) / added.square().mean(dim=1))
    torch.testing.assert_close(found, torch.full((3,), snr_db), atol=1e-3, rtol=0)


def test_a_silent_clip_stays_silent() -> None:
    assert not noisy(torch.zeros(1, 100), torch.ones(1, 100), 0.0).any()


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -1.0)])
def test_noise_has_its_colour(kind: str, slope: float) -> None:
    make, words = noise_of(kind, RATE, SAMPLES)
    assert words.startswith(kind)
    frequency, power = scipy.signal.welch(make(7, 60 * RATE), RATE, nperseg=4096)
    band = (frequency > 20) & (frequency < 3500)
    fitted = np.polyfit(np.log10(frequency[band]), np.log10(power[band]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.05)


def test_noise_is_the_same_for_every_subject_and_another_for_every_clip() -> None:
    make, _ = noise_of("white", RATE, SAMPLES)
    assert np.array_equal(make(3, SAMPLES), make(3, SAMPLES))
    assert not np.array_equal(make(3, SAMPLES), make(4, SAMPLES))


def test_a_recording_is_noise_too(tmp_path: Path) -> None:
    path = tmp_path / "site.wav"
    sound = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32) * 0.1
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    make, words = noise_of(str(path), RATE, SAMPLES)
    piece = make(1, SAMPLES)
    assert words == "the recording site.wav"
    windows = np.lib.stride_tricks.sliding_window_view(sound, SAMPLES)
    assert (windows[:, :8] == piece[:8]).all(axis=1).any(), "a piece of it as it is"


def test_a_recording_that_is_no_noise_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.ones(10), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(2 * SAMPLES), RATE)
    for name, words in (("absent.wav", "no such recording"), ("short.wav", "longer"), ("silent.wav", "is silent")):
        with pytest.raises(InputError, match=words):
            noise_of(str(tmp_path / name), RATE, SAMPLES)


def test_shorter_pieces_lie_in_longer_ones_and_are_padded_as_the_runner_pads() -> None:
    waveforms = torch.arange(800.0).repeat(2, 1)
    halves = shortened(waveforms, [0, 5], 400, "zeros")
    quarters = shortened(waveforms, [0, 5], 200, "repeat")
    for half, quarter in zip(halves, quarters, strict=True):
        assert torch.equal(half[1:400] - half[:399], torch.ones(399))
        assert not half[400:].any()
        assert half[0] <= quarter[0]
        assert quarter[199] <= half[399]
        assert torch.equal(quarter[:200], quarter[200:400])


def test_accuracy_falls_with_noise_and_every_condition_is_tried() -> None:
    make, _ = noise_of("white", RATE, SAMPLES)
    heard: list[tuple[int, int]] = []
    found = robustness(tones(12), by_zero_crossings, make, lambda _, done, total: heard.append((done, total)))
    assert tuple(point.value for point in found.noise) == SNRS_DB
    assert tuple(point.value for point in found.length) == SHARES  # of one second
    assert found.noise[0].accuracy == 1.0
    assert found.noise[-1].accuracy == 0.5, "in noise all crossings look high"
    assert all(point.accuracy == 1.0 for point in found.length)
    assert all(point.accuracy_interval[0] <= point.accuracy <= point.accuracy_interval[1] for point in found.noise)
    assert heard[-1] == (12, 12)


def test_a_large_test_side_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CLIPS", 5)
    heard: list[int] = []
    make, _ = noise_of("white", RATE, SAMPLES)
    robustness(tones(41), by_zero_crossings, make, lambda _, done, total: heard.append(total))
    assert heard[-1] == 5
