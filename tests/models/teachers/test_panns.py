"""PANNs: names, shapes and counts as published, and files in the published form."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.errors import InputError
from edgekd.models.teachers import panns
from edgekd.models.teachers.panns import Cnn14, MobileNetV1, Panns, ResNet38

AUDIOSET_CLASSES = 527


@pytest.fixture(autouse=True)
def cheap_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty million random numbers take seconds; constant small weights do for names, shapes and counts."""
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, **_: tensor.data.fill_(1e-3))


def librosa_mel_filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    """Slaney's auditory-toolbox filters written out: linear to 1 kHz, 27 log steps per factor 6.4 above, unit area."""

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    edges = to_hz(np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    columns = [
        np.interp(bins, edges[k : k + 3], [0, 1, 0], left=0, right=0) * 2 / (edges[k + 2] - edges[k])
        for k in range(n_mels)
    ]
    return np.stack(columns, axis=1)


def published_checkpoint(teacher: Panns) -> dict[str, object]:
    """A checkpoint as PANNs' training wrote them, with the weights of `teacher`."""
    model = {name: tensor for name, tensor in teacher.state_dict().items() if not name.startswith("head.")}
    model |= {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": torch.from_numpy(librosa_mel_filters(32_000, 1024, 64, 50, 14_000)).float(),
        "fc_audioset.weight": torch.zeros(AUDIOSET_CLASSES, teacher.embedding_size),
        "fc_audioset.bias": torch.zeros(AUDIOSET_CLASSES),
    }
    sampler = {"indexes_per_class": [np.arange(3)], "queue": [4, 5], "pointers_of_classes": [0, 1]}
    return {"iteration": 600_000, "model": model, "sampler": sampler}


def batch_norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def conv_pair(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.conv1.weight", (outputs, inputs, 3, 3)
    yield f"{name}.conv2.weight", (outputs, outputs, 3, 3)
    yield from batch_norm(f"{name}.bn1", outputs)
    yield from batch_norm(f"{name}.bn2", outputs)


def dense(name: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (size, size)
    yield f"{name}.bias", (size,)


def published_cnn14() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from batch_norm("bn0", 64)
    for block, (inputs, outputs) in enumerate(
        [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)], start=1
    ):
        yield from conv_pair(f"conv_block{block}", inputs, outputs)
    yield from dense("fc1", 2048)


def published_resnet38() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from batch_norm("bn0", 64)
    yield from conv_pair("conv_block1", 1, 64)
    for layer, inputs, outputs, blocks in ((1, 64, 64, 3), (2, 64, 128, 4), (3, 128, 256, 6), (4, 256, 512, 3)):
        for block in range(blocks):
            yield from conv_pair(f"resnet.layer{layer}.{block}", outputs if block else inputs, outputs)
        if layer > 1:
            yield f"resnet.layer{layer}.0.downsample.1.weight", (outputs, inputs, 1, 1)
            yield from batch_norm(f"resnet.layer{layer}.0.downsample.2", outputs)
    yield from conv_pair("conv_block_after1", 512, 2048)
    yield from dense("fc1", 2048)


def published_mobilenetv1() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from batch_norm("bn0", 64)
    yield "features.0.0.weight", (32, 1, 3, 3)
    yield from batch_norm("features.0.2", 32)
    channels = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    for block, (inputs, outputs) in enumerate(pairwise(channels), start=1):
        yield f"features.{block}.0.weight", (inputs, 1, 3, 3)
        yield from batch_norm(f"features.{block}.2", inputs)
        yield f"features.{block}.4.weight", (outputs, inputs, 1, 1)
        yield from batch_norm(f"features.{block}.5", outputs)
    yield from dense("fc1", 1024)


@pytest.mark.parametrize(
    ("architecture", "published", "parameters", "tap"),
    [
        (Cnn14, published_cnn14, 80_753_615, (64, 250, 32)),
        (ResNet38, published_resnet38, 73_783_247, (64, 250, 32)),
        (MobileNetV1, published_mobilenetv1, 4_796_303, (32, 250, 32)),
    ],
)
def test_names_shapes_counts_and_tap_are_as_published(architecture, published, parameters: int, tap: tuple) -> None:
    teacher = architecture(AUDIOSET_CLASSES, 32_000).eval()
    state = {name: tuple(tensor.shape) for name, tensor in teacher.state_dict().items() if not name.startswith("head.")}
    assert state == dict(published())
    assert sum(weight.numel() for weight in teacher.parameters()) == parameters  # table XII of the paper
    with torch.no_grad():
        assert teacher.tap(torch.randn(1, 160_000)).shape == (1, *tap)
        output = teacher(torch.randn(1, 8_000))
    assert output.logits.shape == (1, AUDIOSET_CLASSES) and output.logits.isfinite().all()
    assert teacher.tap_channels == tap[0]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_published_checkpoint_loads_as_it_is(tmp_path: Path, zipped: bool) -> None:
    source, target = MobileNetV1(4, 32_000).eval(), MobileNetV1(4, 32_000).eval()
    with torch.no_grad():
        for index, weight in enumerate(source.parameters()):
            weight.add_(0.01 * index)
    head = target.head.weight.clone()
    path = tmp_path / "MobileNetV1_mAP=0.389.pth"
    torch.save(published_checkpoint(source), path, _use_new_zipfile_serialization=zipped)
    target.load_pretrained(path)
    waveform = torch.randn(2, 16_000)
    with torch.no_grad():
        assert torch.equal(target.embed(waveform)[0], source.embed(waveform)[0])
    assert torch.equal(target.head.weight, head)


def test_a_checkpoint_of_another_architecture_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    torch.save(published_checkpoint(MobileNetV1(4, 32_000)), path)
    with pytest.raises(InputError) as caught:
        ResNet38(4, 32_000).load_pretrained(path)
    message = str(caught.value)
    assert "teacher.pth: not weights of ResNet38: 5 of its" in message  # the batch norm over mel bins alone agrees
    assert "missing: conv_block1.conv1.weight" in message and "unexpected: features.0.0.weight" in message
    assert "fc1.weight is (1024, 1024), not (2048, 2048)" in message


def test_a_checkpoint_of_another_front_end_is_refused(tmp_path: Path) -> None:
    checkpoint = published_checkpoint(MobileNetV1(4, 32_000))
    filters = librosa_mel_filters(16_000, 1024, 64, 50, 8_000)
    checkpoint["model"] |= {"logmel_extractor.melW": torch.from_numpy(filters).float()}  # type: ignore[operator]
    torch.save(checkpoint, tmp_path / "16k.pth")
    with pytest.raises(InputError, match=r"16k\.pth: trained on another log-mel"):
        MobileNetV1(4, 32_000).load_pretrained(tmp_path / "16k.pth")


def test_the_front_end_is_that_of_panns() -> None:
    """Against numpy: reflected borders, periodic Hann, power spectrum, Slaney mel, dB."""
    waveform = 0.1 * torch.randn(1, 6_400, generator=torch.Generator().manual_seed(0))
    padded = np.pad(waveform[0].double().numpy(), 512, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[start : start + 1024] for start in range(0, 6_400 + 1, 320)])
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    expected = 10 * np.log10(np.maximum(power @ librosa_mel_filters(32_000, 1024, 64, 50, 14_000), 1e-10))
    log_mel = MobileNetV1(2, 32_000).log_mel(waveform)
    assert log_mel.shape == (1, 1, 21, 64)
    np.testing.assert_allclose(log_mel[0, 0].numpy(), expected, atol=2e-3)


def test_the_norm_is_one_for_each_mel_bin() -> None:
    teacher = MobileNetV1(2, 32_000).eval()
    assert teacher.bn0.num_features == panns.OWN_FRONT_END.n_mels
    seen: list[Tensor] = []
    teacher.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    waveform = torch.randn(1, 8_000)
    with torch.no_grad():
        teacher.bn0.running_mean.copy_(torch.arange(64.0))
        teacher.tap(waveform)
        expected = (teacher.log_mel(waveform) - torch.arange(64.0)) / (1 + teacher.bn0.eps) ** 0.5
    torch.testing.assert_close(seen[0], expected)


def test_dropout_is_active_in_training_only() -> None:
    teacher, waveform = MobileNetV1(2, 32_000), torch.randn(2, 16_000)
    with torch.no_grad():
        teacher.train()
        assert not torch.equal(teacher.embed(waveform)[0], teacher.embed(waveform)[0])
        teacher.eval()
        assert torch.equal(teacher.embed(waveform)[0], teacher.embed(waveform)[0])
