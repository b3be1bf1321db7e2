"""Resampling against torchaudio, and against the sum that defines it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd._torchaudio import functional
from edgekd.audio import read as audio
from edgekd.device.runner.resample import Resampler, reach, resample

FILTER: dict[str, Any] = {"width": audio.RESAMPLE_FILTER_WIDTH, "rolloff": audio.RESAMPLE_ROLLOFF}


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


def by_definition(waveform: NDArray[np.float32], source: int, target: int, outputs: NDArray[np.int64]) -> Any:
    """Some of the outputs as the sum over all inputs that defines them, in float64."""
    width, band = FILTER["width"], FILTER["rolloff"] * min(source, target)
    inputs = np.arange(len(waveform))
    crossings = (inputs * target - outputs[:, None] * source) / (source * target) * band
    window = np.where(np.abs(crossings) < width, np.cos(np.pi * crossings / (2 * width)) ** 2, 0)
    return (np.sinc(crossings) * window * band / source) @ waveform.astype(np.float64)


@pytest.mark.parametrize("source", [8_000, 11_025, 44_100, 44_101, 47_000, 52_734, 96_000, 192_000])
def test_resampling_is_the_sum_that_defines_it(source: int) -> None:
    """Also where torchaudio's matrix would be gigabytes."""
    waveform = np.random.default_rng(0).uniform(-1, 1, source // 4 + 11).astype(np.float32)
    resampled = resample(waveform, source, 32_000, **FILTER)
    assert len(resampled) == -(-len(waveform) * 32_000 // source)
    outputs = np.r_[0:40, len(resampled) // 2 : len(resampled) // 2 + 40, -40:0] % len(resampled)
    np.testing.assert_allclose(resampled[outputs], by_definition(waveform, source, 32_000, outputs), atol=2e-6)


@pytest.mark.parametrize("source", [8_000, 11_025, 44_100, 48_000, 52_734, 96_000])
def test_a_part_with_what_it_reaches_on_either_side_is_that_part_of_the_whole(source: int) -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, 3 * source).astype(np.float32)
    whole = resample(waveform, source, 32_000, **FILTER)
    margin = reach(source, 32_000, **FILTER)
    around = waveform[source - margin : source + source // 4 + margin]
    part = resample(around, source, 32_000, **FILTER, first=margin, outputs=8_000)
    np.testing.assert_allclose(part, whole[32_000:40_000], atol=1e-6)
    with_less = resample(around[margin // 2 :], source, 32_000, **FILTER, first=margin - margin // 2, outputs=8_000)
    assert np.abs(with_less[:100] - part[:100]).max() > 1e-4


def test_one_rate_to_itself_is_a_slice() -> None:
    waveform = np.arange(100, dtype=np.float32)
    np.testing.assert_array_equal(resample(waveform, 8_000, 8_000, **FILTER), waveform)
    np.testing.assert_array_equal(resample(waveform, 8_000, 8_000, **FILTER, first=7, outputs=5), waveform[7:12])
    assert reach(8_000, 8_000, **FILTER) == 0


@pytest.mark.parametrize("samples", [1, 2, 31, 32, 33])
def test_the_shortest_waveforms_can_be_resampled(samples: int) -> None:
    waveform = np.ones(samples, np.float32)
    assert len(resample(waveform, 44_100, 32_000, **FILTER)) == -(-samples * 320 // 441)
    assert len(resample(waveform, 32_000, 44_100, **FILTER)) == -(-samples * 441 // 320)


@pytest.mark.parametrize(("source", "target"), [(44_100, 32_000), (48_000, 32_000), (8_000, 32_000), (52_734, 32_000)])
@pytest.mark.parametrize("piece", [100, 4_096, 100_000])
def test_resampling_in_pieces_is_resampling_the_whole(source: int, target: int, piece: int) -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, 120_001).astype(np.float32)
    resampler = Resampler(source, target, width=32, rolloff=0.94)
    pieces = [resampler.push(waveform[i : i + piece]) for i in range(0, len(waveform), piece)]
    joined = np.concatenate([*pieces, resampler.finish()])
    whole = resample(waveform, source, target, width=32, rolloff=0.94)
    assert joined.shape == whole.shape
    np.testing.assert_allclose(joined, whole, atol=2e-6)
