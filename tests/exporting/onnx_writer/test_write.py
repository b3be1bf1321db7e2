"""The graphs that are written here against those of PyTorch's exporter, and against the networks themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.exporting import graph
from edgekd.exporting.graph import Form, float_onnx, quantized_onnx
from edgekd.exporting.onnx_writer.sheet import Unknown
from edgekd.exporting.verify import reference, session
from edgekd.models.blocks import SameConv2d
from edgekd.models.build import build_student
from edgekd.models.histogram import HistogramLayer
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.models.students.table import STUDENTS
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import FLAVOURS, FlavourName
from edgekd.quantization.prepare import prepare

RATE, SAMPLES = 4_000, 4_000
FRONTEND = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


def trained(student: Student, samples: int) -> Student:
    """With the batch norms and histogram widths of a student that has seen something."""
    student.train()
    with torch.no_grad():
        for _ in range(2):
            student(0.1 * torch.randn(4, samples))
        for module in student.modules():
            if isinstance(module, HistogramLayer):
                module.gamma.mul_(1 + 0.1 * torch.rand_like(module.gamma))
        student.norm.weight.mul_(1.1)  # students that are cut from a teacher leave it at 1
        student.norm.bias.add_(0.1)
    return student.eval()


def student_of(name: str) -> tuple[Student, int]:
    torch.manual_seed(0)
    if "-cut" in name:
        rate = 16_000 if name.startswith("yamnet") else 32_000  # what their teachers hear
        return trained(build_student(name, 4, rate, width=0.5, samples=rate // 2), rate // 2), rate // 2
    return trained(build_student(name, 4, RATE, FRONTEND), SAMPLES), SAMPLES


def own_student(network: nn.Module) -> Student:
    return trained(Student("own", network, 4, FRONTEND, RATE), SAMPLES)


def described(model_bytes: bytes) -> list[Any]:
    """All that a graph says but who wrote it, and the names of its constants, which are numbered."""
    model = onnx.load_from_string(model_bytes)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    numbers: dict[str, int] = {}

    def told(name: str) -> Any:
        if name not in constants:
            return name
        array = numpy_helper.to_array(constants[name])
        return numbers.setdefault(name, len(numbers)), array.dtype.name, array.shape, array.tobytes()

    lines: list[Any] = [(model.ir_version, [(each.domain, each.version) for each in model.opset_import])]
    lines.append(sorted((entry.key, entry.value) for entry in model.metadata_props if entry.key != "edgekd.unwritten"))
    lines += [(each.name, each.type.SerializeToString()) for each in (*model.graph.input, *model.graph.output)]
    for node in model.graph.node:
        attributes = sorted(each.SerializeToString(deterministic=True) for each in node.attribute)
        lines.append((node.op_type, node.name, [told(name) for name in node.input], list(node.output), attributes))
    return lines


def both(make: Callable[[], bytes], patch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """What is written, and what the exporter makes of the same."""
    with patch.context() as no_exporter:
        no_exporter.setattr(graph, "export_module", None)
        written = make()
    patch.setattr(graph, "write", unknown)
    return written, make()


def unknown(*_arguments: object) -> onnx.ModelProto:
    raise Unknown("nothing")


def made(name: str, kind: str, form: Form) -> Callable[[], bytes]:
    """`kind`: fp32, fp16, or a flavour, after `mixed-` with two layers in float."""
    student, samples = student_of(name)
    if kind in ("fp32", "fp16"):
        return lambda: float_onnx(student, samples, form, half=kind == "fp16")
    with torch.no_grad():
        log_mels = student.log_mel(0.1 * torch.randn(2, samples))
    layers = prepare(student.network, log_mels).layer_names() if kind.startswith("mixed") else []
    network = prepare(student.network, log_mels, [layers[2], layers[-1]] if layers else [])
    calibrate(network, [log_mels], CalibrationRecipe(observer="absmax"))
    flavour: FlavourName = "onnxruntime" if kind.endswith("onnxruntime") else "tensorrt"
    return lambda: quantized_onnx(student, network, samples, flavour, form)


FORMS = {
    "any batch": Form(),
    "batch 1, opset 13": Form(opset=13, batch=1),
    "opset 17": Form(opset=17),
    "opset 19, log-mel in": Form(opset=19, log_mel="external"),
}
KINDS = ("fp32", "fp16", *FLAVOURS, *(f"mixed-{flavour}" for flavour in FLAVOURS))
QUICK = {
    ("hltdnn", "fp32", "batch 1, opset 13"),
    ("hltdnn_ds", "onnxruntime", "any batch"),
    ("hltdnn_micro", "mixed-tensorrt", "opset 19, log-mel in"),
    ("yamnet-cut5", "fp16", "any batch"),
}


@pytest.mark.parametrize(
    ("name", "kind", "form"),
    [
        pytest.param(name, kind, form, marks=[] if (name, kind, form) in QUICK else [pytest.mark.slow])
        for name in (*STUDENTS, "yamnet-cut5", "mobilenetv1-cut5")
        for kind in KINDS
        for form in FORMS
        if not (kind == "fp16" and "13" in form)
    ],
)
def test_written_and_exported_graphs_are_the_same(
    name: str, kind: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators in their order, attributes, names, constants to the bit; so outputs are as well."""
    written, exported = both(made(name, kind, FORMS[form]), monkeypatch)
    assert described(written) == described(exported)
    assert len(written) < 1.002 * len(exported)


class Own(nn.Module):
    """Layers and functions that students of the house do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, (3, 5), stride=(1, 2), padding=(1, 2), dilation=(1, 1), bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.same = SameConv2d(8, 8, 3, stride=2, groups=4)
        self.pool = nn.AvgPool2d(2, stride=1, padding=1)
        self.narrow, self.wide = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.after = nn.BatchNorm2d(8, affine=False)
        self.squeeze = nn.AdaptiveAvgPool2d((1, 1))
        self.flat = nn.Flatten()
        self.dropout = nn.Dropout2d(0.5)
        self.over_time = nn.Conv1d(8, 4, 3, padding=1)
        self.hidden = nn.Linear(8 + 4 + 8, 6)
        self.hidden_norm = nn.BatchNorm1d(6)
        self.classifier = nn.Linear(6, 5)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.relu(self.norm(self.first(log_mel)))
        features = nn.functional.max_pool2d(tap, (2, 3), stride=2, padding=(1, 1))
        features = nn.functional.avg_pool2d(self.same(features), 2)
        weights = torch.sigmoid(self.wide(nn.functional.relu(self.narrow(self.squeeze(features)))))
        features = self.pool(features * weights)
        features = torch.relu(self.after(features)) + features
        features += features.mean(dim=(-1, -2), keepdim=True)
        pooled = nn.functional.adaptive_avg_pool2d(self.dropout(features), 1)
        line = self.over_time(features.amax(3))
        spread = (line - line.mean(2).unsqueeze(2)).clamp(min=0.01).sqrt().amax(dim=-1)
        both = torch.cat([self.flat(pooled), spread, features.mean(dim=(2, 3))], dim=1)
        return StudentOutput(self.classifier(self.hidden_norm(self.hidden(both)).relu()), tap)


def scores_of(model_bytes: bytes, waveforms: Tensor) -> np.ndarray:
    return session(model_bytes).run(None, {"waveform": waveforms.numpy()})[0]


def test_layers_of_the_users_own_are_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    student, waveforms = own_student(Own()), 0.1 * torch.randn(6, SAMPLES)
    written, exported = both(lambda: float_onnx(student, SAMPLES), monkeypatch)
    expected = reference(student)(waveforms).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(scores_of(written, waveforms), expected, atol=1e-5)
    np.testing.assert_allclose(scores_of(exported, waveforms), expected, atol=1e-5)
    sizes = [len(onnx.load_from_string(each).graph.node) for each in (written, exported)]
    assert sizes[0] <= sizes[1] + 1  # a mean and the dimension that is put back after it are two operators here


class Head(nn.Module):
    """A tap and a classifier; `between` comes between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.between = between
        self.classifier = nn.Linear(4, 5)

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        tap = self.first(log_mel)
        return self.classifier(self.between(tap).mean(dim=(2, 3))), tap


def changed_in_place(tap: Tensor) -> Tensor:
    negative = tap.relu_()
    return negative + tap


def changed_and_dropped(tap: Tensor) -> Tensor:
    twice = tap + tap
    twice.mul_(0.1)
    return twice


def part_changed(tap: Tensor) -> Tensor:
    twice = tap + tap
    twice[:, :2].relu_()
    return twice


class Gated(nn.Module):
    """Features weighted by tensors of its own, which no layer gives."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.weight = gate, nn.Parameter(torch.randn(1, 4))

    def forward(self, tap: Tensor) -> Tensor:
        return tap * self.gate(self.weight)[:, :, None, None]


class Scaled(nn.Module):
    """A forward with a setting, which nobody changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.classifier = nn.Linear(4, 5)

    def forward(self, log_mel: Tensor, gain: float = 0.5) -> tuple[Tensor, Tensor]:
        tap = self.first(log_mel * gain)
        return self.classifier(tap.mean(dim=(2, 3))), tap


def changed_under_another_name(tap: Tensor) -> Tensor:
    features = same = tap + tap
    same -= tap.mean(dim=1, keepdim=True)
    return features


class Hooked(nn.Conv2d):
    """A convolution that a hook gives another weight each time."""


def hooked() -> nn.Module:
    layer = nn.Conv2d(4, 4, 1)
    layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return layer


UNKNOWN: dict[str, Callable[[Tensor], Tensor] | nn.Module] = {
    "function": torch.nn.functional.gelu,
    "method": lambda tap: tap.tanh(),
    "layer": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "subclass": Hooked(4, 4, 1),
    "hook": hooked(),
    "batch statistics": nn.BatchNorm2d(4, track_running_stats=False),
    "rounding up": nn.MaxPool2d(2, ceil_mode=True),
    "number": lambda tap: tap + 1,
    "over the batch": lambda tap: tap - tap.mean(dim=0, keepdim=True),
    "in place": changed_in_place,
    "in place under another name": changed_under_another_name,
    "in place, what it gives unused": changed_and_dropped,
    "a part in place": part_changed,
    "one size of two": lambda tap: nn.functional.max_pool2d(tap, 2, stride=(2,)),
    "function of a parameter": Gated(torch.sigmoid),
    "layer of a parameter": Gated(nn.Linear(4, 4)),
    "parameters in a row": Gated(lambda weight: torch.cat([weight[:, :2], weight.relu()[:, 2:]], 1)),
    "argument": lambda tap: tap.mean(dim=(2, 3), keepdim=True, dtype=torch.float32),
}


@pytest.mark.parametrize("network", [*map(Head, UNKNOWN.values()), Scaled()], ids=[*UNKNOWN, "setting"])
def test_what_is_not_known_is_left_to_the_exporter(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    student = Student("own", network, 4, FRONTEND, RATE).eval()
    asked: list[nn.Module] = []

    def exporter(module: nn.Module, *_asked: object) -> onnx.ModelProto:
        asked.append(module)
        raise LookupError

    monkeypatch.setattr(graph, "export_module", exporter)
    with pytest.raises(LookupError):
        float_onnx(student, SAMPLES)
    assert asked


def test_what_the_exporter_writes_instead_is_right() -> None:
    torch.manual_seed(0)
    student, waveforms = own_student(Head(changed_in_place)), 0.1 * torch.randn(4, SAMPLES)
    expected = reference(student)(waveforms).numpy()
    exported = float_onnx(student, SAMPLES)
    np.testing.assert_allclose(scores_of(exported, waveforms), expected, atol=1e-5)
    assert graph.unwritten(exported) == "a change in place of a value that others may see"
    assert graph.unwritten(float_onnx(own_student(Head(nn.Identity())), SAMPLES)) is None


def test_what_does_nothing_is_left_out_and_keeps_no_norm_from_its_layer() -> None:
    torch.manual_seed(0)
    between = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Dropout(0.5), nn.Identity(), nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU(inplace=True)
    )
    student, waveforms = own_student(Head(between)), 0.1 * torch.randn(4, SAMPLES)
    written = float_onnx(student, SAMPLES)
    operators = [node.op_type for node in onnx.load_from_string(written).graph.node if "between" in node.name]
    assert operators == ["Conv", "Relu"]
    np.testing.assert_allclose(scores_of(written, waveforms), reference(student)(waveforms).numpy(), atol=1e-5)


def test_a_norm_behind_the_tap_is_folded_too() -> None:
    torch.manual_seed(0)
    student, waveforms = own_student(Head(nn.BatchNorm2d(4))), 0.1 * torch.randn(4, SAMPLES)
    written = float_onnx(student, SAMPLES)
    assert "BatchNormalization" not in [node.op_type for node in onnx.load_from_string(written).graph.node]
    np.testing.assert_allclose(scores_of(written, waveforms), reference(student)(waveforms).numpy(), atol=1e-5)


def test_one_layer_folded_with_two_norms_is_stored_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.shared = nn.Conv2d(4, 4, 3, padding=1)
            self.one, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.classifier = nn.Linear(4, 5)

        def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
            tap = self.first(log_mel)
            features = self.one(self.shared(tap)) + self.other(self.shared(tap))
            return self.classifier(features.mean(dim=(2, 3))), tap

    torch.manual_seed(0)
    network = Twice()
    nn.init.normal_(network.other.weight)
    student, waveforms = own_student(network), 0.1 * torch.randn(4, SAMPLES)
    expected = reference(student)(waveforms).numpy()
    np.testing.assert_allclose(scores_of(float_onnx(student, SAMPLES), waveforms), expected, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_histograms_of_small_maps(side: int) -> None:
    class Histograms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 2, (3, 32), stride=(-(-30 // side), 1))
            self.histogram = HistogramLayer(2, bins=4)
            self.classifier = nn.Linear(self.histogram.output_size, 5)

        def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
            tap = self.first(log_mel)
            return self.classifier(self.histogram(tap)), tap

    torch.manual_seed(0)
    student, waveforms = own_student(Histograms()), 0.1 * torch.randn(4, SAMPLES)
    expected = reference(student)(waveforms).numpy()
    np.testing.assert_allclose(scores_of(float_onnx(student, SAMPLES), waveforms), expected, atol=1e-5)


def test_nothing_of_the_exporter_is_imported() -> None:
    code = (
        "import sys, torch\n"
        "from edgekd.models.build import build_student\n"
        "from edgekd.exporting.graph import float_onnx\n"
        "float_onnx(build_student('hltdnn_micro', 4).eval(), 160_000)\n"
        "slow = ('onnxscript', 'onnxsim', 'sympy', 'torch._dynamo', 'torch.onnx._internal.exporter')\n"
        "print([name for name in slow if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
