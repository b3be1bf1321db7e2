"""Students of the user's own, written as a user writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.config import DistillConfig, FrontendConfig
from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_student, check_models
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.own import build_own

SMALL = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
SHAPE = (25, 32)
PLAIN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, log_mel):
        tap = self.norm(self.conv(log_mel)).relu()
        return self.head(tap.mean((2, 3))), tap

def one_size(num_classes):
    return Net(num_classes, 8)

def with_width(num_classes, width):
    return Net(num_classes, round(8 * width))

def with_default(num_classes, width=1.0):
    return Net(num_classes, round(8 * width))

def factor(k, times, /):
    return Net(k, round(8 * times))

def with_option(num_classes, deep=False):
    assert deep is False
    return Net(num_classes, 8)
"""

Write = Callable[[str], str]


def returning(expression: str) -> str:
    """A module whose factory makes a network that returns `expression`."""
    return (
        "import torch\nfrom torch import nn\n"
        f"class Net(nn.Module):\n    def forward(self, x):\n        b = len(x)\n        return {expression}\n"
        "def make(num_classes):\n    return Net()\n"
    )


def test_a_plain_module_is_a_student_s_network(write: Write) -> None:
    name = f"{write(PLAIN)}:one_size"
    student = build_student(name, 5, 4_000, SMALL, samples=3_200).eval()
    output = student(torch.randn(3, 3_200))
    assert isinstance(output, StudentOutput)
    assert (output.logits.shape, output.tap.shape) == ((3, 5), (3, 8, 12, 15))
    assert (student.name, student.tap_channels) == (name, 8)
    assert type(student.network).__name__ == "Net"
    assert student.network.norm.num_batches_tracked == 0


def test_the_trial_hears_log_mels_as_long_as_the_clips(write: Write) -> None:
    """A network may be made for one length: a linear layer over time."""
    fixed = PLAIN.replace("nn.Linear(channels, classes)", "nn.Linear(channels * 12 * 15, classes)")
    name = f"{write(fixed.replace('tap.mean((2, 3))', 'tap.flatten(1)'))}:one_size"
    assert build_student(name, 5, 4_000, SMALL, samples=3_200).tap_channels == 8
    with pytest.raises(InputError, match=r"given log-mels of shape \(2, 1, 157, 32\), failed: RuntimeError: mat1"):
        build_student(name, 5, 4_000, SMALL)  # 5 s


@pytest.mark.parametrize("factory", ["with_width", "with_default", "factor"])
def test_a_factory_that_takes_a_width_gets_the_run_s(write: Write, factory: str) -> None:
    name = f"{write(PLAIN)}:{factory}"
    assert [build_own(name, 5, width, SHAPE)[1] for width in (1.0, 2.5)] == [8, 20]
    check_models(DistillConfig(student=name, width=2.5), taught=False)


@pytest.mark.parametrize("factory", ["one_size", "with_option"])
def test_a_factory_that_takes_none_has_one_size(write: Write, factory: str) -> None:
    name = f"{write(PLAIN)}:{factory}"
    assert build_own(name, 5, 1.0, SHAPE)[1] == 8
    words = rf"Student '{name}' has one size: leave --width out, or have its factory take \(num_classes, width\)\."
    with pytest.raises(UsageError, match=words):
        build_own(name, 5, 0.5, SHAPE)
    with pytest.raises(UsageError, match=words):
        check_models(DistillConfig(student=name, width=0.5), taught=False)


def test_a_class_is_a_factory_and_so_is_what_has_no_signature(write: Write) -> None:
    name = write("from edgekd.models.students.hltdnn_micro import HLTDNNMicro as Micro\nbuilt_in = print\n")
    assert build_own(f"{name}:Micro", 5, 0.5, (60, 64))[1] == 12
    with pytest.raises(InputError, match="the factory returned None"):
        build_own(f"{name}:built_in", 5, 1.0, SHAPE)


def test_a_module_in_the_configured_folder_is_found_there(write: Write, tmp_path: Path) -> None:
    name = write(PLAIN)
    (tmp_path / "code").mkdir()
    (tmp_path / f"{name}.py").rename(tmp_path / "code" / f"{name}.py")
    config = DistillConfig(student=f"{name}:one_size", student_folder=tmp_path / "code")
    with pytest.raises(UsageError, match=f"Student '{name}:one_size': Unknown module '{name}'"):
        check_models(config.model_copy(update={"student_folder": None}), taught=False)
    check_models(config, taught=False)
    built = build_student(config.student, 5, 4_000, SMALL, samples=3_200, folder=config.student_folder)
    assert isinstance(built.network, nn.Module)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def make():\n    return None", r"make\(4\) failed: TypeError: make\(\) takes 0"),
        ("def make(k):\n    raise OSError('no file')", r"failed: OSError: no file \(.*line 2; EDGEKD_DEBUG"),
        ("def make(k):\n    return k", "the factory returned an int, not a torch.nn.Module"),
        (returning("x[:, :3].undefined"), r"given log-mels of shape \(2, 1, 25, 32\), failed: AttributeError"),
        (returning("x"), r"must return a pair of tensors, logits \(2, 4\) and a tap \(2, C, T, F\), not a Tensor"),
        (returning("(x[:, 0, 0, :7], x)"), "it has 7 classes and the data has 4"),
        (returning("(x[:, 0, 0, :4], x[:, 0])"), r"a tap of shape \(2, 25, 32\) for two clips: it must be"),
        (returning("(x[:, 0, 0, :4], x.log())"), "its tap are not finite"),
    ],
)
def test_a_factory_that_fails_is_told_in_one_line(write: Write, text: str, reason: str) -> None:
    name = write(text)
    with pytest.raises(InputError, match=reason) as caught:
        build_own(f"{name}:make", 4, 1.0, SHAPE)
    assert "\n" not in str(caught.value)
    assert f"Student '{name}:make'" in str(caught.value)


RESIDUAL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, stride=2), nn.BatchNorm2d(channels), nn.ReLU())
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(channels, classes)

    def forward(self, log_mel):
        tap = self.stem(log_mel)
        features = (tap + self.conv(tap)).relu()
        return self.head(self.pool(features).mean((2, 3))), tap

def make(num_classes, width):
    return Net(num_classes, round(8 * width))
"""


def test_a_student_of_the_user_s_is_distilled_resumed_quantised_and_exported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: Callable[..., DistillConfig]
) -> None:
    from edgekd.exporting.export import export
    from edgekd.quantization.int8_student import load_int8
    from edgekd.quantization.qat import quantize
    from edgekd.runs.run import Run
    from edgekd.training.distill import distill
    from edgekd.training.new_teacher import settled

    name = f"{write(RESIDUAL)}:make"
    config = settled(
        tiny_config(
            tmp_path / "run",
            student=name,
            width=1.5,
            teacher={"epochs": 1},
            training={"epochs": 1},
            quantize={"epochs": 1, "frozen_epochs": 0},
        )
    )
    assert config.student_folder == tmp_path
    run = distill(config, quantized=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = Run.open(run.folder)
    assert (run.config.student, run.config.student_folder) == (name, tmp_path)
    distill(run.config, resume=True, quantized=True)
    network = load_int8(quantize(run)).network
    assert network.layer_names() == ["stem.0", "conv", "head"]
    bundle = export(run, "cpu", tmp_path / "bundle")  # checked by its own runner, or it would raise
    assert (bundle.manifest.classifier.student, bundle.manifest.classifier.width) == (name, 1.5)
    assert bundle.manifest.parity.agreement == 1.0
    assert bundle.manifest.unwritten is None


@pytest.mark.parametrize("quantized", [True, False])
def test_a_student_that_int8_cannot_do_is_refused_before_any_work(
    write: Write, tmp_path: Path, tiny_config: Callable[..., DistillConfig], quantized: bool
) -> None:
    from edgekd.training.distill import distill

    shared = RESIDUAL.replace("self.conv(tap))", "self.conv(self.conv(tap)))")
    name = f"{write(shared)}:make"
    config = tiny_config(tmp_path / "run", student=name, teacher={"epochs": 1}, training={"epochs": 1})
    if quantized:
        words = rf"^Student '{name}' cannot be made int8: its layer 'conv' is called 2 times.*--no-quantize"
        with pytest.raises(InputError, match=words):
            distill(config, quantized=True)
        assert not (tmp_path / "run").exists()
    else:
        assert "student" in distill(config).report()["test"]


def test_a_student_that_is_no_graph_is_refused(write: Write) -> None:
    name = f"{write(PLAIN.replace('tap = self', 'tap = log_mel if log_mel.mean() > 9 else self'))}:one_size"
    words = rf"^Student '{name}': tracing its forward failed.*must not branch on its data"
    with pytest.raises(InputError, match=words):
        build_own(name, 5, 1.0, SHAPE)
