"""Graphs in parts: windows computed in steps score what the whole graph does, to the bit, wherever they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.device.runner.log_mel import LogMel
from edgekd.device.runner.steps import Map, Part, Steps
from edgekd.exporting.graph import Form, float_onnx, quantized_onnx
from edgekd.exporting.step_graphs import StepGraphs, step_graphs
from edgekd.exporting.verify import session
from edgekd.models.build import build_student
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.prepare import prepare

RATE, SAMPLES = 4_000, 10_000
PANNS = FrontendConfig(n_fft=256, hop_length=40, n_mels=32, f_max=1_900)
MAGNITUDES = FrontendConfig(convention="yamnet", n_mels=32, f_min=20, frames_per_step=2).at(RATE)
EXTERNAL = Form(log_mel="external")


class Excited(nn.Module):
    """A convolution, and one whose channels are weighed by the mean over the whole window (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5, stride=2)
        self.relu = nn.ReLU()
        self.weigh = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 8, 3, stride=(2, 1), padding=1)
        self.classifier = nn.Linear(8, 3)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.relu(self.first(log_mel))
        weight = torch.sigmoid(self.weigh(tap.mean(dim=(2, 3), keepdim=True)))
        return StudentOutput(self.classifier(self.second(tap * weight).mean(dim=(2, 3))), tap)


class Averaged(nn.Module):
    """Nothing but a mean over time."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(bins, 3)
        nn.init.normal_(self.classifier.weight, std=1e-3)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        return StudentOutput(self.classifier(log_mel.mean(dim=(1, 2))), log_mel)


def sound(seconds: float, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Tones of 0.1 s to 0.5 s at any level, in noise."""
    random, parts = np.random.default_rng(seed), []
    while sum(map(len, parts)) < seconds * RATE:
        length = random.integers(400, 2_000)
        tone = np.sin(np.arange(length) * random.uniform(0.1, 2.9)) * 10 ** random.uniform(-4, -0.5)
        parts.append(tone + 10 ** random.uniform(-5, -1) * random.standard_normal(length))
    return np.concatenate(parts)[: round(seconds * RATE)].astype(np.float32)


def front_end(config: FrontendConfig, gain: float = 1.0) -> LogMel:
    return LogMel(**config.given().model_dump(), sample_rate=RATE, gain=gain)


def trained(student: Student, louder: float = 20) -> Student:
    student.train()
    with torch.no_grad():
        for seed in range(2):
            student(torch.from_numpy(np.stack([sound(SAMPLES / RATE, 2 * seed + clip) for clip in range(2)])))
        student.network.classifier.weight.mul_(louder)  # type: ignore[union-attr, operator]
    return student.eval()


def run_of(graph: bytes) -> Any:
    opened = session(graph)
    names = [each.name for each in opened.get_inputs()]
    return lambda inputs: opened.run(None, dict(zip(names, inputs, strict=True)))


def steps_of(graphs: StepGraphs, log_mel: LogMel) -> Steps:
    parts, unit = [], log_mel.step_samples
    for part in graphs.parts:
        maps = [Map(each.columns, each.stride, each.left, each.right, each.reach) for each in part.maps]
        parts.append(Part(run_of(part.graph), maps, part.lead, unit, SAMPLES))
        unit *= maps[0].stride
    return Steps(log_mel, SAMPLES, parts, run_of(graphs.end))


def difference(graph: bytes, log_mel: LogMel, starts: list[int], together: int = 1) -> float:
    """Of the scores of windows in steps, so many taken together, from those of the whole graph."""
    graphs, whole, signal = step_graphs(graph, log_mel, SAMPLES), run_of(graph), sound(8)
    steps, found = steps_of(graphs, log_mel), []
    for number, start in enumerate(starts):
        steps.ask(start, signal[start : start + SAMPLES])
        if number % together == together - 1 or number == len(starts) - 1:
            found += list(steps.take())
    windows = np.stack([signal[start : start + SAMPLES] for start in starts])
    expected = np.concatenate([whole([log_mel(window[None])])[0] for window in windows])
    assert expected.std(axis=0).max() > 1e-4  # windows differ, so a window in the wrong place shows
    return float(np.abs(np.stack(found) - expected).max())


HOPS = {
    "all shared": list(range(0, 20_000, 640)),
    "some shared": list(range(0, 20_000, 400)),
    "frames in eight phases": list(range(0, 20_000, 200)),
    "no frame twice": list(range(0, 12_000, 777)),
    "half": list(range(0, 20_000, SAMPLES // 2)),
    "a gap, and on": [0, 640, 1280, 3_840, 18_000, 18_640, 19_280],
    "one sample on": [0, 640, 641, 1_280, 1_281, 1_920],
}


@pytest.mark.parametrize("starts", HOPS.values(), ids=HOPS)
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_windows_score_what_they_do_alone(starts: list[int], precision: str, models: dict[str, bytes]) -> None:
    least = 0.0 if precision == "int8" else 1e-5  # sums of another length in float32 end in other bits
    assert difference(models[precision], front_end(PANNS), starts) <= least
    assert difference(models[precision], front_end(PANNS), starts, together=3) <= least


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    """HLTDNN-DS in both precisions, taking log-mels."""
    torch.manual_seed(0)
    student = trained(build_student("hltdnn_ds", 4, RATE, PANNS))
    log_mels = torch.cat([student.log_mel(torch.from_numpy(sound(SAMPLES / RATE, s)[None])) for s in range(4)])
    network = prepare(student.network, log_mels.detach())
    calibrate(network, log_mels.detach().split(2), CalibrationRecipe(observer="absmax"))
    return {
        "int8": quantized_onnx(student, network, SAMPLES, "onnxruntime", EXTERNAL),
        "fp32": float_onnx(student, SAMPLES, EXTERNAL),
    }


@pytest.mark.parametrize(
    ("name", "config", "parts"),
    [("hltdnn", PANNS, 1), ("hltdnn_micro", PANNS, 2), ("hltdnn_ds", MAGNITUDES, 2)],
)
def test_every_student_and_front_end(name: str, config: FrontendConfig, parts: int) -> None:
    torch.manual_seed(1)
    graph = float_onnx(trained(build_student(name, 4, RATE, config)), SAMPLES, EXTERNAL)
    log_mel = front_end(config)
    assert len(step_graphs(graph, log_mel, SAMPLES).parts) in (1, parts)
    unit = log_mel.step_samples
    for hop in (16 * unit, 6 * unit):
        assert difference(graph, log_mel, list(range(0, 20_000, hop))[:8]) < 1e-5


@pytest.mark.parametrize(("network", "parts"), [(Excited(), 1), (Averaged(32), 0)])
def test_what_is_made_of_the_whole_window_is_computed_whole(network: nn.Module, parts: int) -> None:
    torch.manual_seed(2)
    graph = float_onnx(trained(Student("own", network, 8, PANNS, RATE), 1), SAMPLES, EXTERNAL)
    assert len(step_graphs(graph, front_end(PANNS), SAMPLES).parts) == parts
    assert difference(graph, front_end(PANNS), list(range(0, 20_000, 400))) < 1e-5


def test_the_weights_are_there_once(models: dict[str, bytes]) -> None:
    graphs = step_graphs(models["int8"], front_end(PANNS), SAMPLES)
    sizes = [sum(len(t.raw_data) for t in onnx.load_from_string(g).graph.initializer) for g in _all(graphs)]
    whole = sum(len(tensor.raw_data) for tensor in onnx.load_from_string(models["int8"]).graph.initializer)
    assert sum(sizes) <= 1.02 * whole


def _all(graphs: StepGraphs) -> list[bytes]:
    return [*(part.graph for part in graphs.parts), graphs.end]
