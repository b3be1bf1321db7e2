"""The front end against a transform and filters computed here, in float64, and against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import scipy.signal
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.config import FrontendConfig
from edgekd.log_mel import ExportLogMel, LogMel, mel_filterbank

Floats = NDArray[np.float64]

# (n_fft, hop, n_mels, rate, samples)
SETTINGS = [
    pytest.param(1024, 320, 64, 32_000, 160_000, id="default"),
    pytest.param(512, 160, 64, 16_000, 15_600, id="512/160"),
    pytest.param(400, 160, 80, 16_000, 16_000, id="400/160"),
    pytest.param(512, 256, 64, 22_050, 22_050, id="512/256"),
    pytest.param(256, 128, 32, 4_000, 4_000, id="256/128"),
    pytest.param(1024, 320, 64, 32_000, 32_017, id="hop-does-not-divide-the-samples"),
    pytest.param(512, 160, 40, 16_000, 7_999, id="hop-does-not-divide-odd-samples"),
    pytest.param(512, 101, 40, 16_000, 8_000, id="coprime-hop"),
    pytest.param(1022, 365, 64, 32_000, 20_000, id="2-times-511"),
    pytest.param(2048, 512, 128, 44_100, 30_000, id="2048/512"),
    pytest.param(64, 16, 8, 2_000, 1_000, id="smallest"),
    pytest.param(64, 64, 100, 2_000, 1_000, id="filters-narrower-than-a-bin"),
    pytest.param(1024, 1024, 64, 32_000, 513, id="one-frame"),
]


def config_of(n_fft: int, hop: int, n_mels: int, rate: int) -> FrontendConfig:
    return FrontendConfig(n_fft=n_fft, hop_length=hop, n_mels=n_mels, f_min=50, f_max=0.45 * rate)


def noise(batch: int, samples: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.logspace(-3, 0, batch)[:, None]
    return loudness * torch.randn(batch, samples, generator=generator).clamp(-1, 1)


def mel_of_hz(frequency: float) -> float:
    """Slaney's scale: 200/3 Hz a mel below 1 kHz, 27 mel a factor of 6.4 above."""
    if frequency < 1000:
        return frequency / (200 / 3)
    return 15 + 27 * np.log(frequency / 1000) / np.log(6.4)


def hz_of_mel(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def slaney_filters(config: FrontendConfig, rate: int) -> Floats:
    """Triangles of unit area, `(n_fft/2+1, n_mels)`, one filter at a time."""
    frequencies = np.arange(config.n_fft // 2 + 1) * rate / config.n_fft
    mels = np.linspace(mel_of_hz(config.f_min), mel_of_hz(config.f_max), config.n_mels + 2)
    edges = [hz_of_mel(mel) for mel in mels]
    filters = np.zeros((len(frequencies), config.n_mels))
    for mel, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
        filters[:, mel] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def reference_power(waveform: Floats, config: FrontendConfig, rate: int) -> Floats:
    """Mel power `(T, F)` of `(S,)`, frame by frame in float64."""
    padded = np.pad(waveform, config.n_fft // 2, mode="reflect")
    window = scipy.signal.get_window("hann", config.n_fft, fftbins=True)
    starts = range(0, len(padded) - config.n_fft + 1, config.hop_length)
    frames = np.stack([padded[start : start + config.n_fft] * window for start in starts])
    return np.abs(np.fft.rfft(frames)) ** 2 @ slaney_filters(config, rate)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(("n_fft", "hop", "n_mels", "rate", "samples"), SETTINGS)
def test_log_mel_is_the_transform_computed_in_float64(
    n_fft: int, hop: int, n_mels: int, rate: int, samples: int
) -> None:
    config, waveform = config_of(n_fft, hop, n_mels, rate), noise(2, samples)
    computed = LogMel(config, rate)(waveform)
    expected = np.stack([reference_power(clip, config, rate) for clip in waveform.double().numpy()])
    assert computed.shape == (2, 1, samples // hop + 1, n_mels)
    # Filters are float32, so a bin at a filter's foot may hold a little more or less than nothing: powers, not dB.
    powers = 10 ** (computed[:, 0].double().numpy() / 10)
    np.testing.assert_allclose(powers, np.maximum(expected, 1e-10), rtol=2e-3, atol=1e-6 * expected.max())
    audible = expected > 1e-4 * expected.max()
    np.testing.assert_allclose(computed[:, 0].numpy()[audible], 10 * np.log10(expected[audible]), atol=2e-3)


def test_filters_are_slaneys() -> None:
    config = FrontendConfig()
    np.testing.assert_allclose(mel_filterbank(config, 32_000).numpy(), slaney_filters(config, 32_000), atol=1e-7)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize(("n_fft", "hop", "n_mels", "rate", "samples"), SETTINGS)
def test_export_form_has_the_numbers_of_the_training_form(
    n_fft: int, hop: int, n_mels: int, rate: int, samples: int
) -> None:
    config, waveform = config_of(n_fft, hop, n_mels, rate), noise(3, samples, seed=1)
    torch.testing.assert_close(ExportLogMel(config, rate)(waveform), LogMel(config, rate)(waveform), rtol=0, atol=1e-4)


def test_gain_scale_and_shift_fold_in() -> None:
    config, waveform = config_of(512, 160, 40, 16_000), noise(3, 16_000)
    generator = torch.Generator().manual_seed(2)
    scale, shift = torch.rand(40, generator=generator) + 0.1, torch.randn(40, generator=generator)
    folded = ExportLogMel(config, 16_000, gain=1.7, scale=scale, shift=shift)(waveform)
    apart = LogMel(config, 16_000)(1.7 * waveform) * scale + shift
    torch.testing.assert_close(folded, apart, rtol=0, atol=2e-4)


def test_folding_does_not_tie_the_export_form_to_the_tensors_given() -> None:
    config, scale, shift = config_of(512, 160, 40, 16_000), torch.ones(40), torch.zeros(40)
    exported = ExportLogMel(config, 16_000, scale=scale, shift=shift)
    before = exported(noise(1, 4_000))
    scale.fill_(7)
    shift.fill_(7)
    torch.testing.assert_close(exported(noise(1, 4_000)), before, rtol=0, atol=0)


@pytest.mark.parametrize("form", [LogMel, ExportLogMel])
def test_silence_is_minus_100_db(form: type[LogMel] | type[ExportLogMel]) -> None:
    log_mel = form(FrontendConfig(), 32_000)(torch.zeros(1, 32_000))
    torch.testing.assert_close(log_mel, torch.full((1, 1, 101, 64), -100.0), rtol=0, atol=1e-4)


def test_a_tone_is_loudest_in_the_filter_around_it() -> None:
    config, time = FrontendConfig(), torch.arange(32_000) / 32_000
    for frequency in (440.0, 3_000.0, 9_000.0):
        log_mel = LogMel(config, 32_000)(torch.sin(2 * torch.pi * frequency * time)[None])
        nearest = mel_filterbank(config, 32_000)[round(frequency * 1024 / 32_000)].argmax()
        assert abs(int(log_mel[0, 0, 50].argmax()) - int(nearest)) <= 1


def test_autocast_does_not_cost_precision() -> None:
    front_end, waveform = LogMel(FrontendConfig(), 32_000), noise(1, 16_000)
    expected = front_end(waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(front_end(waveform), expected, rtol=0, atol=0)


def test_a_checkpoint_holds_nothing_of_the_front_end() -> None:
    assert not LogMel(FrontendConfig(), 32_000).state_dict()


@pytest.mark.parametrize(
    ("n_fft", "hop", "n_mels", "rate", "samples"),
    [SETTINGS[0], SETTINGS[5], SETTINGS[7]],
)
def test_onnx_runtime_computes_the_same(n_fft: int, hop: int, n_mels: int, rate: int, samples: int) -> None:
    config, waveform = config_of(n_fft, hop, n_mels, rate), noise(2, samples, seed=3)
    module = ExportLogMel(config, rate, gain=2.0).eval()
    program = torch.onnx.export(module, (waveform,), dynamo=True, verbose=False, opset_version=18)
    assert program is not None
    operators = {node.op_type for node in program.model_proto.graph.node}
    assert not operators & {"STFT", "DFT", "Loop", "GatherND", "If"}, "some runtimes have none of these"
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (computed,) = session.run(None, {session.get_inputs()[0].name: waveform.numpy()})
    np.testing.assert_allclose(computed, LogMel(config, rate)(2 * waveform).numpy(), atol=1e-4)
