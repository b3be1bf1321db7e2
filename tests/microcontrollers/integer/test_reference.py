"""The integer network in numpy: every layer against PyTorch's, and whole students against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.exporting.budget import untrained
from edgekd.exporting.deployable import Deployable, deployable_of
from edgekd.exporting.export import verification_rows
from edgekd.exporting.graph import onnx_of
from edgekd.exporting.verify import in_onnxruntime
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.integer.fixed_point import factors
from edgekd.microcontrollers.integer.layers import Classifier, Convolution, IntegerNetwork, Map, MaxPool
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.reference import classifier_of, every_map, quantised
from edgekd.models.teachers.yamnet import OWN_FRONT_END, OWN_RATE
from edgekd.quantization.fake_quant import set_flavour
from edgekd.runs.run import Run

RATE, SAMPLES = 4_000, 4_000
FRONT_END = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


CUT = "yamnet-cut5"
CUT_FRONT_END = OWN_FRONT_END.model_copy(update={"hop_length": 320, "bins_per_step": 2})


def student(name: str) -> Deployable:
    if name == CUT:
        return untrained((name, 0.25), 5, CUT_FRONT_END, OWN_RATE, OWN_RATE // 2, "int8")
    return untrained((name, 1.0), 5, FRONT_END, RATE, SAMPLES, "int8")


def lowered(deployable: Deployable) -> IntegerNetwork:
    assert deployable.network is not None
    return lower(deployable.network, *deployable.student.frontend.config.shape(deployable.clip_samples))


def sounds(clips: int, samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_that_of_pytorch(depthwise: bool, stride: int) -> None:
    random = np.random.default_rng(stride)
    inputs, outputs = 6, 6 if depthwise else 9
    source = Map("in", 11, 7, inputs, 1.0, -128)
    rows, columns = (-(-size // stride) for size in (11, 7))
    weight = random.integers(-127, 128, (outputs, 3, 3, 1 if depthwise else inputs), dtype=np.int8)
    layer = Convolution(
        source=source,
        target=Map("out", rows, columns, outputs, 1.0, 3),
        weight=weight,
        bias=random.integers(-1000, 1000, outputs).astype(np.int32),
        factors=factors(random.uniform(0.001, 0.004, outputs)),
        stride=(stride, stride),
        padding=(1, 1, 1, 1),
        low=-100,
        high=120,
        depthwise=depthwise,
    )
    values = random.integers(-128, 128, (2, 11, 7, inputs), dtype=np.int8)
    found = _through(layer, values)
    padded = torch.nn.functional.pad(_channels_first(values), (1, 1, 1, 1), value=-128)
    kernel = torch.from_numpy(weight).double().permute(0, 3, 1, 2)
    groups = inputs if depthwise else 1
    sums = torch.nn.functional.conv2d(padded, kernel, torch.from_numpy(layer.bias).double(), stride, groups=groups)
    steps = torch.floor(sums * torch.from_numpy(layer.factors.real())[:, None, None] + 0.5) + 3
    assert torch.equal(_channels_first(found), steps.clamp(-100, 120))


def test_a_max_pool_is_that_of_pytorch() -> None:
    source = Map("in", 6, 9, 4, 1.0, 0)
    layer = MaxPool(source, Map("out", 6, 4, 4, 1.0, 0), (3, 2), (1, 2), (1, 1, 0, 0))
    values = np.random.default_rng(0).integers(-128, 128, (3, 6, 9, 4), dtype=np.int8)
    expected = torch.nn.functional.max_pool2d(_channels_first(values), (3, 2), (1, 2), (1, 0))
    assert torch.equal(_channels_first(_through(layer, values)), expected)


@pytest.mark.parametrize("name", ["hltdnn_micro", "hltdnn_ds", "hltdnn", CUT])
def test_the_maps_of_a_student_are_those_of_its_quantised_network(name: str) -> None:
    deployable = student(name)
    network, quantised_network = lowered(deployable), deployable.network
    assert quantised_network is not None
    set_flavour(quantised_network, "onnxruntime")
    seen: dict[str, torch.Tensor] = {}
    for quantiser, module in quantised_network.quantisers().items():
        module.register_forward_hook(lambda _module, _, out, name=quantiser: _keep(seen, name, out))
    log_mel = deployable.student.log_mel(sounds(2, deployable.clip_samples)).detach()
    quantised_network(log_mel)
    found = every_map(network, quantised(log_mel.numpy(), network.entry))
    for each in network.maps:
        if each.name not in seen:  # a pooled map, which the quantiser of its source rounds
            continue
        expected = torch.round(seen[each.name] / each.scale).reshape(2, each.channels, each.rows, each.columns)
        there = _channels_first(found[each.name]) - each.zero_point
        assert (there - expected).abs().max() <= 1, each.name
        assert (there == expected).double().mean() > 0.98, each.name


@pytest.mark.parametrize("name", ["hltdnn_micro", "hltdnn_ds", "hltdnn", CUT])
def test_a_student_scores_as_in_onnx_runtime(name: str) -> None:
    deployable = student(name)
    clips = sounds(8, deployable.clip_samples)
    scores = classifier_of(lowered(deployable), deployable.student.log_mel)(clips)
    expected = in_onnxruntime(onnx_of(deployable, "onnxruntime"))(clips)
    assert (scores - expected).abs().max() < 1e-3


def test_a_trained_student_gives_the_class_of_onnx_runtime_on_every_clip(tiny_run: Run) -> None:
    deployable = deployable_of(tiny_run, "int8")
    data = tiny_run.open_data()
    clips = data.waveforms(verification_rows(data.split))
    scores = classifier_of(lowered(deployable), deployable.student.log_mel)(clips)
    expected = in_onnxruntime(onnx_of(deployable, "onnxruntime"))(clips)
    assert torch.equal(scores.argmax(1), expected.argmax(1))
    assert (scores - expected).abs().max() < 0.01


def _through(layer: Convolution | MaxPool, values: NDArray[np.int8]) -> NDArray[np.int8]:
    classifier = Classifier(layer.target, np.zeros((1, 1), np.int8), np.zeros(1, np.int32), factors(1.0))
    return every_map(IntegerNetwork(layer.source, (layer,), classifier), values)[layer.target.name]


def _keep(seen: dict[str, torch.Tensor], name: str, found: torch.Tensor) -> None:
    """The first of what a quantiser gives: a pooled map is rounded by that of its source."""
    seen.setdefault(name, found.detach())


def _channels_first(values: NDArray[np.int8]) -> torch.Tensor:
    return torch.from_numpy(values).double().permute(0, 3, 1, 2)
