"""A temperature in the graph: the logits divided, the integers as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.exporting.deployable import Deployable, deployable_of
from edgekd.exporting.graph import Form, float_onnx, onnx_of, quantized_onnx
from edgekd.exporting.temperature import with_temperature
from edgekd.exporting.verify import in_onnxruntime
from edgekd.models.students.student import Student
from edgekd.quantization.fake_quant import FLAVOURS
from edgekd.quantization.int8_student import quantized_network
from edgekd.quantization.prepare import QuantizedNetwork, prepare
from edgekd.runs.run import Run
from edgekd.runs.thresholds import read_thresholds, write_thresholds

if TYPE_CHECKING:
    from edgekd.runs.run import Stage

T = 1.7


class Averaged(nn.Module):
    """Logits that no one layer makes: the mean of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        tap = torch.relu(self.first(log_mel))
        return self.last(tap).mean(dim=(2, 3)), tap


class Pooled(nn.Module):
    """A convolution for a classifier, its one place flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        tap = torch.relu(self.first(log_mel))
        return torch.flatten(self.last(tap.mean(dim=(2, 3), keepdim=True)), 1), tap


def student_of(network: nn.Module) -> Student:
    frontend = FrontendConfig(n_fft=256, hop_length=128, n_mels=16, f_max=1_900.0)
    torch.manual_seed(0)
    return Student("own", network, 4, frontend, 4_000).eval()


def rounded(student: Student, waveforms: Tensor) -> Student:
    """The same student in int8, its scales those of its own activations."""
    made = student_of(Averaged())
    made.load_state_dict(student.state_dict(), strict=False)
    network = prepare(student.network, student.log_mel(waveforms[:1]))
    from edgekd.quantization.calibration import calibrate, load_recipe

    calibrate(network, iter([student.log_mel(waveforms)]), load_recipe("default"))
    made.network = network
    return made.eval()


@pytest.fixture
def waveforms() -> Tensor:
    return 0.3 * torch.randn(4, 4_000, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(student: Student, waveforms: Tensor) -> Tensor:
    return student(waveforms).logits


@pytest.mark.parametrize("network", [Pooled, Averaged])
@pytest.mark.parametrize("int8", [False, True])
def test_logits_are_divided_whatever_makes_them(network: type[nn.Module], int8: bool, waveforms: Tensor) -> None:
    student = student_of(network())
    student = rounded(student, waveforms) if int8 else student
    before = logits(student, waveforms)
    cooled = with_temperature(student, T)
    torch.testing.assert_close(logits(cooled, waveforms), before / T)
    assert torch.equal(logits(student, waveforms), before), "a copy was taken"
    assert isinstance(cooled.network, QuantizedNetwork) == int8
    if int8:
        graph = quantized_onnx(cooled, quantized_network(cooled), 4_000, "onnxruntime")
    else:
        graph = float_onnx(cooled, 4_000, Form())
    found = in_onnxruntime(graph)(waveforms)
    torch.testing.assert_close(found, (before / T).softmax(1), atol=2e-3 if int8 else 1e-5, rtol=0)


def with_temperature_of(run: Run, stage: Stage, value: float) -> None:
    kept = read_thresholds(run, stage)
    assert kept is not None
    temperature = kept.temperature.model_copy(update={"value": value, "loss": 1.0, "loss_before": 1.1})
    write_thresholds(run, stage, kept.model_copy(update={"temperature": temperature}))


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_an_int8_graph_keeps_its_integers_and_operators(tiny_copy: Run, flavour: str) -> None:
    with_temperature_of(tiny_copy, "int8", 1.0)
    before = stored(deployable_of(tiny_copy, "int8"), flavour)
    with_temperature_of(tiny_copy, "int8", T)
    after = stored(deployable_of(tiny_copy, "int8"), flavour)
    assert [name for name, _ in before] == [name for name, _ in after]
    changed = [name for (name, was), (_, now) in zip(before, after, strict=True) if not np.array_equal(was, now)]
    scales = ["network.classifier.bias.scale", "network.classifier.weight.scale"]
    floats = ["network.classifier.bias", "network.classifier.weight.scale"]
    assert sorted(changed) == (scales if FLAVOURS[flavour].bias == "int32" else floats)  # type: ignore[index]
    for (_, was), (name, now) in zip(before, after, strict=True):
        if name in changed:
            np.testing.assert_allclose(now, was / T, rtol=1e-6)


def stored(deployable: Deployable, flavour: str) -> list[tuple[str, np.ndarray]]:
    """Operators and constants of the graph."""
    graph = onnx.load_from_string(onnx_of(deployable, flavour)).graph  # type: ignore[arg-type]
    operators = [(node.name, np.array([node.op_type])) for node in graph.node]
    return [*operators, *((tensor.name, numpy_helper.to_array(tensor)) for tensor in graph.initializer)]


def test_each_precision_has_the_temperature_of_its_student(tiny_copy: Run) -> None:
    with_temperature_of(tiny_copy, "int8", T)
    with_temperature_of(tiny_copy, "student", 0.8)
    found = [deployable_of(tiny_copy, precision).temperature for precision in ("int8", "fp16", "fp32")]
    assert found == [T, 0.8, 0.8]
    data = tiny_copy.open_data()
    clips = data.waveforms(data.split.test)
    whole = deployable_of(tiny_copy, "fp32")
    expected = (logits(tiny_copy.student(), clips) / 0.8).softmax(1)
    torch.testing.assert_close(in_onnxruntime(onnx_of(whole, "onnxruntime"))(clips), expected, atol=1e-4, rtol=0)


def test_another_temperature_is_another_student_and_a_run_without_has_none(tiny_copy: Run) -> None:
    with_temperature_of(tiny_copy, "int8", T)
    warm = deployable_of(tiny_copy, "int8")
    (tiny_copy.folder / "int8" / "thresholds.json").unlink()
    plain = deployable_of(tiny_copy, "int8")
    assert (plain.temperature, warm == plain) == (1.0, False)
