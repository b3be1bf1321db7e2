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


@pytest.mark.parametrize(("first", "count"), [(4, 1), (4, 7), (30, 20)])
def test_without_borders_a_stretch_has_the_frames_that_lie_in_it(first: int, count: int) -> None:
    config, waveform = config_of(512, 160, 40, 16_000), noise(2, 16_000)
    whole = ExportLogMel(config, 16_000)(waveform)
    start = first * 160 - 256  # of the first frame's window
    stretch = waveform[:, start : start + 512 + (count - 1) * 160 + 159]
    frames = ExportLogMel(config, 16_000, borders=False)(stretch)
    assert frames.shape == (2, 1, count, 40)
    torch.testing.assert_close(frames, whole[:, :, first : first + count], rtol=0, atol=2e-5)


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


# Convention "yamnet", and averages

YAMNET = FrontendConfig(convention="yamnet", window_length=400, n_fft=512, hop_length=160)
OTHERS = [
    pytest.param(YAMNET, 16_000, 80_000, id="yamnets"),
    pytest.param(YAMNET.model_copy(update={"hop_length": 320}), 16_000, 15_600, id="20-ms-hop"),
    pytest.param(YAMNET.model_copy(update={"hop_length": 640}), 16_000, 16_001, id="hop-longer-than-the-dft"),
    pytest.param(YAMNET.model_copy(update={"window_length": 399}), 16_000, 8_000, id="window-ends-within-a-tap"),
    pytest.param(YAMNET.model_copy(update={"window_length": 512}), 16_000, 8_003, id="no-zeros"),
    pytest.param(YAMNET, 16_000, 400, id="one-frame-no-more"),
    pytest.param(YAMNET.model_copy(update={"hop_length": 147}), 16_000, 8_000, id="coprime-hop-of-magnitudes"),
    pytest.param(YAMNET.model_copy(update={"frames_per_step": 4, "bins_per_step": 2}), 16_000, 16_000, id="averages"),
    pytest.param(FrontendConfig(frames_per_step=2), 32_000, 32_017, id="frames-averaged"),
    pytest.param(FrontendConfig(bins_per_step=5), 32_000, 32_000, id="bins-averaged-with-a-rest"),
    pytest.param(FrontendConfig(hop_length=1280), 32_000, 32_017, id="hop-longer-than-the-window"),
    pytest.param(FrontendConfig(frames_per_step=3, bins_per_step=2), 32_000, 32_000, id="both"),
]


def magnitude_log_mel(config: FrontendConfig, rate: int, waveform: Floats) -> Floats:
    """Convention "yamnet" without averages, a frame and a filter at a time: `(T, n_mels)`."""
    window = scipy.signal.get_window("hann", config.window_length, fftbins=True)
    mels = 1127 * np.log(1 + np.arange(config.n_fft // 2 + 1) * rate / config.n_fft / 700)
    edges = np.linspace(*(1127 * np.log(1 + np.array([config.f_min, config.f_max]) / 700)), config.n_mels + 2)
    filters = [np.interp(mels, edges[k : k + 3], [0, 1, 0], left=0, right=0) for k in range(config.n_mels)]
    starts = range(0, len(waveform) - config.window_length + 1, config.hop_length)
    frames = [waveform[start : start + config.window_length] * window for start in starts]
    zeros = np.zeros(config.n_fft - config.window_length)
    magnitudes = [np.abs(np.fft.rfft(np.concatenate([frame, zeros]))) for frame in frames]
    return np.log(np.stack(magnitudes) @ np.stack(filters, axis=1) + 0.001)


@pytest.mark.parametrize(("config", "rate", "samples"), OTHERS)
def test_magnitudes_and_averages_are_those_computed_in_float64(config: FrontendConfig, rate: int, samples: int) -> None:
    waveform = noise(2, samples)
    computed = LogMel(config, rate)(waveform)
    assert computed.shape == (2, 1, *config.shape(samples))
    frames, bins = config.shape(samples)
    for clip, found in zip(waveform.numpy().astype(np.float64), computed[:, 0].numpy(), strict=True):
        if config.convention == "yamnet":
            whole = magnitude_log_mel(config, rate, clip)
        else:
            whole = 10 * np.log10(np.maximum(reference_power(clip, config, rate), 1e-10))
        times, steps = config.frames_per_step, config.bins_per_step
        means = [
            [whole[times * t : times * (t + 1), steps * f : steps * (f + 1)].mean() for f in range(bins)]
            for t in range(frames)
        ]
        np.testing.assert_allclose(found, means, atol=1e-3 if config.convention == "panns" else 2e-5)


@pytest.mark.parametrize(("config", "rate", "samples"), OTHERS)
def test_their_export_form_has_the_same_numbers(config: FrontendConfig, rate: int, samples: int) -> None:
    bins = config.shape(samples)[1]
    generator = torch.Generator().manual_seed(2)
    scale, shift = torch.rand(bins, generator=generator) + 0.1, torch.randn(bins, generator=generator)
    waveform = noise(3, samples, seed=1)
    folded = ExportLogMel(config, rate, gain=1.7, scale=scale, shift=shift)(waveform)
    torch.testing.assert_close(folded, LogMel(config, rate)(1.7 * waveform) * scale + shift, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("config", "rate", "samples"), [OTHERS[0], OTHERS[2], OTHERS[7], OTHERS[11]])
def test_onnx_runtime_computes_them_too(config: FrontendConfig, rate: int, samples: int) -> None:
    waveform, module = noise(2, samples, seed=3), ExportLogMel(config, rate, gain=2.0).eval()
    program = torch.onnx.export(module, (waveform,), dynamo=True, verbose=False, opset_version=18)
    assert program is not None
    operators = {node.op_type for node in program.model_proto.graph.node}
    assert not operators & {"STFT", "DFT", "Loop", "GatherND", "If", "ReduceMean"}
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (computed,) = session.run(None, {session.get_inputs()[0].name: waveform.numpy()})
    np.testing.assert_allclose(computed, LogMel(config, rate)(2 * waveform).numpy(), atol=1e-4)


@pytest.mark.parametrize("form", [LogMel, ExportLogMel])
def test_silence_is_the_logarithm_of_the_offset(form: type[LogMel] | type[ExportLogMel]) -> None:
    log_mel = form(YAMNET, 16_000)(torch.zeros(1, 16_000))
    torch.testing.assert_close(log_mel, torch.full((1, 1, 98, 64), -6.9077554), rtol=0, atol=1e-5)
