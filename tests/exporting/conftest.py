"""A small student with every kind of layer that export must handle, exported once for all tests of the room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.exporting.bundle import Findings, write_bundle
from edgekd.exporting.deployable import Deployable
from edgekd.exporting.golden import GoldenExamples
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.manifest import Bundle, Classifier, Manifest, Parity, Provenance
from edgekd.exporting.runtimes.onnx_bundle import model_files
from edgekd.exporting.targets import Precision, Target, load_target
from edgekd.models.histogram import HistogramLayer
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import FlavourName
from edgekd.quantization.prepare import QuantizedNetwork, prepare

SAMPLES = 2000


class SmallNetwork(nn.Module):
    """Padded and depthwise convolutions, batch norms, a max-pool between layers, a residual, sigmoid, histogram."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d((1, 2), stride=1)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU())
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU()
        self.squeeze = nn.Conv2d(8, 2, 1)
        self.expand = nn.Conv2d(8, 12, 1)
        self.norm = nn.BatchNorm1d(12)
        self.histogram = HistogramLayer(2, bins=4)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(12 + self.histogram.output_size, 5)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.pool(self.stem(log_mel))
        features = self.relu(self.pointwise(self.depthwise(tap)) + tap)
        averages = self.norm(torch.sigmoid(self.expand(features)).mean(dim=(2, 3)))
        both = torch.cat([averages, self.histogram(self.squeeze(features))], dim=1)
        return StudentOutput(self.classifier(self.dropout(both)), tap)


@dataclass(frozen=True)
class Exported:
    student: Student
    network: QuantizedNetwork
    waveforms: Tensor  # (64, SAMPLES)
    float32: bytes
    int8: dict[FlavourName, bytes]  # onnxruntime at opset 20, tensorrt at 19

    def deployable(self, precision: Precision) -> Deployable:
        """Graphs of it are built once, as these were."""
        return deployable(self.student, self.network, precision)


def deployable(student: Student, network: QuantizedNetwork, precision: Precision) -> Deployable:
    source = f"the small student on {student.frontend.config}"
    return Deployable(precision, SAMPLES, source, student, network if precision == "int8" else None)


@pytest.fixture(scope="session")
def exported() -> Exported:
    return small_student(FrontendConfig(n_fft=128, hop_length=64, n_mels=16, f_min=20, f_max=2000))


@pytest.fixture(scope="session")
def on_magnitudes() -> Exported:
    """The same on averaged magnitudes: 2 frames and 2 mel bins a step."""
    step = {"frames_per_step": 2, "bins_per_step": 2}
    return small_student(FrontendConfig(convention="yamnet", n_mels=33, f_min=20, **step).at(4_000))


def small_student(frontend: FrontendConfig) -> Exported:
    torch.manual_seed(0)
    student = Student("small", SmallNetwork(), 8, frontend, sample_rate=4000)
    student.gain.fill_(1.7)
    time = torch.arange(SAMPLES) / 4000
    tones = torch.sin(6.283 * torch.linspace(50, 1900, 64)[:, None] * time)
    waveforms = tones * torch.logspace(-3, -0.5, 64)[torch.randperm(64), None] + 0.01 * torch.randn(64, SAMPLES)
    student.train()
    with torch.no_grad():
        for _ in range(5):
            student(waveforms)
        student.network.classifier.weight.mul_(8)  # so that probabilities are not all alike
    student.eval()
    log_mel = student.log_mel(waveforms).detach()
    network = prepare(student.network, log_mel)
    calibrate(network, log_mel.split(16), CalibrationRecipe(observer="absmax"))
    return Exported(
        student=student,
        network=network,
        waveforms=waveforms,
        float32=onnx_of(deployable(student, network, "fp32"), "tensorrt"),
        int8={
            "onnxruntime": onnx_of(deployable(student, network, "int8"), "onnxruntime"),
            "tensorrt": onnx_of(deployable(student, network, "int8"), "tensorrt", Form(opset=19)),
        },
    )


class Toy:
    """A classifier that is one product, in bundles as `edgekd.exporting` writes them."""

    CLASSES = ("cargo", "tanker", "tug")
    SAMPLES = 400
    WEIGHTS = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
    PROVENANCE = Provenance(run="runs/toy", dataset="sonar_sim", fold=None, seed=0, test_accuracy=0.875)
    PARITY = Parity(clips=64, agreement=1.0, largest_difference=0.004)

    def model(self) -> bytes:
        """softmax(waveform @ self.WEIGHTS)."""
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["waveform", "weights"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            ],
            "toy",
            [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", self.SAMPLES])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(self.CLASSES)])],
            [numpy_helper.from_array(self.WEIGHTS, "weights")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def golden(self, clips: int = 5) -> GoldenExamples:
        random = np.random.default_rng(1)
        waveform = random.integers(-32767, 32768, (clips, self.SAMPLES), dtype=np.int16)
        scale = random.uniform(0.05, 0.2, clips).astype(np.float32)
        logits = (waveform * (scale / 32767)[:, None]) @ self.WEIGHTS
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return GoldenExamples(waveform, scale, probabilities.astype(np.float32), probabilities.argmax(axis=1))

    def classifier(self) -> Classifier:
        return Classifier(
            student="hltdnn_ds",
            classes=self.CLASSES,
            sample_rate=8_000,
            clip_samples=self.SAMPLES,
            padding="repeat",
            frontend=FrontendConfig.model_validate({"f_max": 4_000}),
            gain=1.5,
        )

    def manifest(self, target: str, models: dict[Precision, str]) -> Manifest:
        """What a bundle would say of itself."""
        main, *others = models
        return Manifest(
            classifier=self.classifier(),
            target=load_target(target),
            provenance=self.PROVENANCE,
            parity=self.PARITY,
            precision=main,
            alternatives={precision: models[precision] for precision in others},
            files={},
            sha256="0" * 64,
        )

    def write(self, out: Path, target: str | Target = "cpu", **changes: Any) -> Bundle:
        fields: dict[str, Any] = {
            "classifier": self.classifier(),
            "provenance": self.PROVENANCE,
            "findings": Findings(self.PARITY),
            "golden": self.golden(),
            "target": load_target(target) if isinstance(target, str) else target,
        }
        graphs = changes.pop("models", {"int8": self.model()})
        models = model_files(tuple(graphs))
        files = {models[precision]: graph for precision, graph in graphs.items()}
        return write_bundle(out, files, models, **(fields | changes))


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()
