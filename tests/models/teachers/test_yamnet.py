"""YAMNet: front end, padding and patches against plain computations; with real weights, real sounds."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.nn import functional as F

from edgekd.errors import InputError
from edgekd.models.teachers.yamnet import SEPARABLE, SameConv2d, YamNet, cut_patches
from edgekd.models.weights import read_weights


@pytest.fixture(scope="module")
def teacher() -> YamNet:
    torch.manual_seed(0)
    teacher = YamNet(3, 16_000).eval()
    for layer in teacher.conv:  # so that what goes in is still seen 27 layers up
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return teacher


def published(teacher: YamNet) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` as YAMNet's are converted, with the weights of `teacher`."""
    arrays: dict[str, np.ndarray] = {}
    for number, layer in enumerate(teacher.conv):
        arrays[f"conv{number}.weight"] = layer.weight.detach().numpy()
        arrays[f"conv{number}.bias"] = layer.bias.detach().numpy()
        arrays[f"conv{number}.stride"] = np.asarray(layer.stride[0])
        arrays[f"conv{number}.groups"] = np.asarray(layer.groups)
    classifier = {"fc.weight": np.zeros((521, 1024), np.float32), "fc.bias": np.zeros(521, np.float32)}
    return arrays | classifier | {"class_names": np.asarray(["Speech"] * 521)}


def test_the_network_is_mobilenet_with_a_published_parameter_count(teacher: YamNet) -> None:
    strides = [layer.stride[0] for layer in teacher.conv]
    assert len(strides) == 27 and [number for number, stride in enumerate(strides) if stride == 2] == [0, 3, 7, 11, 23]
    below_head = sum(weight.numel() for name, weight in teacher.named_parameters() if not name.startswith("head."))
    assert below_head + 521 * 1025 == 3_729_481


def test_a_converted_file_loads_and_leaves_the_head(teacher: YamNet, tmp_path: Path) -> None:
    np.savez(tmp_path / "yamnet.npz", **published(teacher))
    other = YamNet(3, 16_000).eval()
    head = other.head.weight.clone()
    other.load_pretrained(tmp_path / "yamnet.npz")
    waveform = torch.randn(1, 16_000)
    with torch.no_grad():
        assert torch.equal(other.embed(waveform)[0], teacher.embed(waveform)[0])
    assert torch.equal(other.head.weight, head)


def test_a_file_with_other_strides_or_layers_is_refused(teacher: YamNet, tmp_path: Path) -> None:
    path = tmp_path / "yamnet.npz"
    np.savez(path, **(published(teacher) | {"conv3.stride": np.asarray(1)}))
    with pytest.raises(InputError, match=r"yamnet\.npz: not weights of YamNet: conv3\.stride is 1, not 2"):
        YamNet(3, 16_000).load_pretrained(path)
    np.savez(path, **{name: array for name, array in published(teacher).items() if not name.startswith("conv26.")})
    with pytest.raises(InputError, match=r"52 of its 54 tensors are there; missing: conv\.26\.weight, conv\.26\.bias"):
        YamNet(3, 16_000).load_pretrained(path)


def test_the_front_end_equals_a_plain_computation(teacher: YamNet) -> None:
    waveform = 0.1 * torch.randn(1, 2_000, generator=torch.Generator().manual_seed(0))
    signal = waveform[0].double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([signal[start : start + 400] * window for start in range(0, 2_000 - 400 + 1, 160)])
    magnitude = np.abs(np.fft.rfft(frames, n=512, axis=1))
    edges = np.linspace(*(1127 * np.log(1 + np.array([125, 7500]) / 700)), 66)
    bins = 1127 * np.log(1 + np.arange(257) * 16_000 / 512 / 700)
    filters = np.stack([np.interp(bins, edges[k : k + 3], [0, 1, 0], left=0, right=0) for k in range(64)], axis=1)
    np.testing.assert_allclose(teacher.log_mel.mel_weights.numpy(), filters, atol=1e-6)
    log_mel = teacher.log_mel(waveform)
    assert log_mel.shape == (1, 1, 11, 64)
    np.testing.assert_allclose(log_mel[0, 0].numpy(), np.log(magnitude @ filters + 0.001), atol=1e-5)


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 5), (7, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_tensorflows_same(size: tuple[int, int], stride: int) -> None:
    layer, image = SameConv2d(1, 2, 3, stride=stride), torch.randn(1, 1, *size)
    # Padded by one on every side, output (i, j) looks at rows from i - 1; "same" looks from i when the odd pixel of an
    # even size goes last.
    first = [1 if stride == 2 and extent % 2 == 0 else 0 for extent in size]
    expected = F.conv2d(F.pad(image, (1, 1, 1, 1)), layer.weight, layer.bias)
    expected = expected[:, :, first[0] :: stride, first[1] :: stride]
    torch.testing.assert_close(layer(image), expected)
    assert layer(image).shape[2:] == tuple(-(-extent // stride) for extent in size)


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(96, [0]), (97, [0, 1]), (144, [0, 48]), (498, [*range(0, 402, 48), 402]), (480, [*range(0, 385, 48)])],
)
def test_patches_start_every_48_frames_and_reach_the_end(frames: int, starts: list[int]) -> None:
    patches = cut_patches(torch.arange(float(frames)).reshape(1, 1, frames, 1))
    assert patches.shape == (1, len(starts), 1, 96, 1)
    assert patches[0, :, 0, 0, 0].tolist() == starts


def test_a_short_clip_is_repeated_to_one_patch() -> None:
    patches = cut_patches(torch.arange(40.0).reshape(1, 1, 40, 1))
    assert patches.flatten().tolist() == [frame % 40 for frame in range(96)]


def test_the_embedding_is_the_mean_over_patches_of_each_clip(teacher: YamNet) -> None:
    waveform = 0.1 * torch.randn(2, 400 + 160 * 191)  # 192 frames: patches at 0, 48 and 96
    waveform[1] *= 0.1
    patch = 400 + 160 * 95
    with torch.no_grad():
        parts = torch.stack([teacher.embed(waveform[:, start : start + patch])[0] for start in (0, 7_680, 15_360)])
        embedding = teacher.embed(waveform)[0]
    torch.testing.assert_close(embedding, parts.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert (embedding[0] - embedding[1]).abs().max() > 0.01


def test_the_tap_has_no_seams_between_patches(teacher: YamNet) -> None:
    """A tone gives the same columns in the tap all along the clip, away from its ends."""
    waveform = torch.sin(2 * torch.pi * torch.arange(16) / 16).repeat(1, (400 + 160 * 199) // 16)
    with torch.no_grad():
        tap = teacher.tap(waveform)
    assert tap.shape == (1, 128, 50, 16)
    torch.testing.assert_close(tap[:, :, 3:-3], tap[:, :, 3:4].expand(-1, -1, 44, -1), rtol=1e-3, atol=1e-3)


def test_real_weights_hear_dogs_in_real_clips_of_dogs(esc10: Path) -> None:
    path = os.environ.get("EDGEKD_TEST_YAMNET")
    if not path:
        pytest.skip("needs YAMNet's weights: set EDGEKD_TEST_YAMNET to the .npz")
    with np.load(path, allow_pickle=False) as file:
        names = file["class_names"].tolist()
    state = read_weights(Path(path))
    with open(esc10 / "meta" / "esc50.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    dogs = [row["filename"] for row in rows if row["category"] == "dog"][:8]
    rains = [row["filename"] for row in rows if row["category"] == "rain"][:4]
    clips = [soundfile.read(esc10 / "audio" / name, dtype="float32")[0] for name in (*dogs, *rains)]
    teacher = YamNet(10, 48_000).eval()
    teacher.load_pretrained(Path(path))
    with torch.no_grad():
        embedding = torch.cat([teacher.embed(torch.from_numpy(clip).unsqueeze(0))[0] for clip in clips])
    scores = torch.sigmoid(F.linear(embedding, state["fc.weight"], state["fc.bias"]))
    dog = scores[:, [names.index(name) for name in ("Dog", "Animal", "Bark")]]
    assert dog[:8].mean(dim=0).min() > 0.25 and dog[8:].max() < 0.1
    assert scores[8:, names.index("Rain")].mean() > 0.2


NORM = ("moving_mean", "moving_variance", "beta")


def keras_file(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A file with the arrays of `yamnet.h5`, at random, and the arrays by their paths."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}

    def add(layer: str, kernel: str, shape: tuple[int, ...], outputs: int) -> None:
        arrays[f"{layer}/{layer}/{kernel}:0"] = 0.1 * rng.standard_normal(shape)
        for name, low in (("beta", -1.0), ("moving_mean", -1.0), ("moving_variance", 0.1)):
            arrays[f"{layer}/bn/{layer}/bn/{name}:0"] = rng.uniform(low, 1.0, outputs)

    add("layer1/conv", "kernel", (3, 3, 1, 32), 32)
    for number, (inputs, outputs, _) in enumerate(SEPARABLE, start=2):
        add(f"layer{number}/depthwise_conv", "depthwise_kernel", (3, 3, inputs, 1), inputs)
        add(f"layer{number}/pointwise_conv", "kernel", (1, 1, inputs, outputs), outputs)
    arrays["logits/logits/kernel:0"], arrays["logits/logits/bias:0"] = np.zeros((1024, 521)), np.zeros(521)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype(np.float32)
    return arrays


def test_the_published_keras_file_loads_with_its_batch_norms_folded(tmp_path: Path) -> None:
    """The first separable layer computes what convolution and batch norm, one after the other, do."""
    arrays = keras_file(tmp_path / "yamnet.h5")
    teacher = YamNet(3, 16_000)
    teacher.load_pretrained(tmp_path / "yamnet.h5")
    features = torch.randn(2, 32, 9, 8)
    layer = "layer2/depthwise_conv"
    kernel = torch.from_numpy(arrays[f"{layer}/{layer}/depthwise_kernel:0"]).float().permute(2, 3, 0, 1)
    norm = {name: torch.from_numpy(arrays[f"{layer}/bn/{layer}/bn/{name}:0"]).float() for name in NORM}
    mean, variance, beta = (norm[name] for name in NORM)
    expected = F.batch_norm(F.conv2d(features, kernel, padding=1, groups=32), mean, variance, bias=beta, eps=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(teacher.conv[1](features), expected, rtol=1e-4, atol=1e-4)
    assert teacher.conv[26].weight.shape == (1024, 1024, 1, 1)


def test_a_keras_file_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    keras_file(tmp_path / "yamnet.h5")
    with h5py.File(tmp_path / "yamnet.h5", "r+") as file:
        del file["layer9/pointwise_conv"]
    with pytest.raises(InputError, match=r"yamnet\.h5: not the published yamnet\.h5 .*layer9/pointwise_conv"):
        YamNet(3, 16_000).load_pretrained(tmp_path / "yamnet.h5")
