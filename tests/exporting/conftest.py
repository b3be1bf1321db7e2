"""A small student with every kind of layer that export must handle, exported once for all tests of the room."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.exporting.graph import Form, float_onnx, quantized_onnx
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


@pytest.fixture(scope="session")
def exported() -> Exported:
    torch.manual_seed(0)
    frontend = FrontendConfig(n_fft=128, hop_length=64, n_mels=16, f_min=20, f_max=2000)
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
        float32=float_onnx(student, SAMPLES),
        int8={
            "onnxruntime": quantized_onnx(student, network, SAMPLES, "onnxruntime"),
            "tensorrt": quantized_onnx(student, network, SAMPLES, "tensorrt", Form(opset=19)),
        },
    )
