"""Teachers of the user's own, written as a user writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekd.config import DistillConfig
from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_teacher, check_models
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.convnet import ConvNet
from edgekd.models.teachers.own import OwnTeacher, build_own, check_own
from edgekd.models.weights import save_weights

SAMPLES = 800
PLAIN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 9, stride=4)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, classes)

    def forward(self, waveform):
        tap = self.norm(self.conv(waveform.unsqueeze(1))).relu()
        return self.head(tap.mean(2)), tap.unsqueeze(3)

def teacher(num_classes, sample_rate):
    return Net(num_classes)

class shelf:
    teacher = staticmethod(teacher)

number = 3
"""

Write = Callable[[str], str]


def returning(expression: str) -> str:
    """A module whose factory makes a network that returns `expression`."""
    return (
        "import torch\nfrom torch import nn\n"
        f"class Net(nn.Module):\n    def forward(self, x):\n        b = len(x)\n        return {expression}\n"
        "def make(num_classes, sample_rate):\n    return Net()\n"
    )


def test_a_plain_module_is_a_teacher(write: Write) -> None:
    teacher = build_teacher(f"{write(PLAIN)}:teacher", 5, None, 8_000, samples=SAMPLES).eval()
    assert isinstance(teacher, OwnTeacher)
    waveforms = torch.randn(3, SAMPLES)
    with torch.no_grad():
        output = teacher(waveforms)
        embedding, tap = teacher.embed(waveforms)
    assert isinstance(output, TeacherOutput)
    assert (output.logits.shape, output.tap.shape, teacher.tap_channels) == ((3, 5), (3, 6, 198, 1), 6)
    head = teacher.classifier()
    assert head is not None
    torch.testing.assert_close(head(embedding), output.logits)
    assert output.embedding is not None
    assert torch.equal(output.embedding, embedding) and teacher.embedding_size == 6
    assert torch.equal(tap, output.tap) and torch.equal(teacher.tap(waveforms), output.tap)
    assert teacher.front_end() is None


def test_a_module_without_a_head_gives_no_embedding(write: Write) -> None:
    teacher = build_own(f"{write(returning('(x.new_ones(b, 5), x.new_ones(b, 2, 3, 1))'))}:make", 5, 8_000, SAMPLES)
    assert teacher.embedding_size == 0
    assert teacher(torch.randn(2, SAMPLES)).embedding is None


def test_what_the_trial_sees_leaves_no_trace(write: Write) -> None:
    teacher = build_own(f"{write(PLAIN)}:teacher", 5, 8_000, SAMPLES)
    assert teacher.training
    state = teacher.state_dict()
    assert state["network.norm.num_batches_tracked"] == 0
    assert not state["network.norm.running_mean"].any()


def test_a_factory_may_be_an_attribute_of_something(write: Write) -> None:
    assert build_own(f"{write(PLAIN)}:shelf.teacher", 2, 8_000, SAMPLES).tap_channels == 6


def test_a_teacher_of_the_package_s_kind_is_used_as_it_is(write: Write) -> None:
    module = write(
        "from edgekd.config import FrontendConfig\nfrom edgekd.models.teachers.convnet import ConvNet\n"
        "def make(num_classes, sample_rate):\n"
        "    return ConvNet(num_classes, sample_rate, FrontendConfig(n_fft=256, hop_length=128, f_max=1900.0))\n"
    )
    assert type(build_own(f"{module}:make", 3, 4_000, 4_000)) is ConvNet


def test_a_module_in_another_folder_is_found_there(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    name = write(PLAIN)
    (tmp_path / f"{name}.py").rename(tmp_path / "code" / f"{name}.py")
    with pytest.raises(UsageError, match=f"Unknown module '{name}'"):
        check_own(f"{name}:teacher")
    check_own(f"{name}:teacher", tmp_path / "code")
    check_models(DistillConfig(teacher={"name": f"{name}:teacher", "folder": tmp_path / "code"}), taught=True)


def test_all_wrong_names_are_told_at_once(write: Write) -> None:
    with pytest.raises(UsageError, match=r"Unknown student 'x'.*Unknown name in .* 'techer'"):
        check_models(DistillConfig(student="x", teacher={"name": f"{write(PLAIN)}:techer"}), taught=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def make():\n    return None", r"make\(4, 8000\) failed: TypeError: make\(\) takes 0"),
        ("def make(k, rate):\n    raise OSError('no file')", r"failed: OSError: no file \(.*line 2; EDGEKD_DEBUG"),
        ("def make(k, rate):\n    return k", "the factory returned an int, not a torch.nn.Module"),
        (returning("x[:, :3].undefined"), r"given waveforms of shape \(2, 800\), failed: AttributeError"),
        (returning("x"), r"must return a pair of tensors, logits \(2, 4\) and a tap \(2, C, T, F\), not a Tensor"),
        (returning("(x, x, x)"), "pair of tensors.*not a tuple"),
        (returning("(x[:, :7], x)"), "it has 7 classes and the data has 4.*told the number of classes"),
        (returning("(x[0, :4], x)"), r"logits of shape \(4,\) for two clips"),
        (returning("(x[:, :4], x[:, :6])"), r"a tap of shape \(2, 6\) for two clips: it must be \(2, C, T, F\)"),
        (returning("(x[:, :4], x[:1, :4, None, None])"), r"a tap of shape \(1, 4, 1, 1\)"),
        (returning("(x[:, :4] / 0, x[:, :4, None, None])"), "its logits are not finite"),
        (returning("(x[:, :4], x[:, :4, None, None].log())"), "its tap are not finite"),
        (returning("(x[:, :4].long(), x[:, :4, None, None])"), "its logits are torch.int64, not floating point"),
    ],
)
def test_a_factory_that_fails_is_told_in_one_line(write: Write, text: str, reason: str) -> None:
    name = write(text)
    with pytest.raises(InputError, match=reason) as caught:
        build_own(f"{name}:make", 4, 8_000, SAMPLES)
    assert "\n" not in str(caught.value)
    assert f"Teacher '{name}:make'" in str(caught.value)


def test_weights_load_under_the_names_of_the_user_s_module(write: Write, tmp_path: Path) -> None:
    name = f"{write(PLAIN)}:teacher"
    donor, path = build_own(name, 5, 8_000, SAMPLES), tmp_path / "w.safetensors"
    assert isinstance(donor, OwnTeacher)
    save_weights(path, donor.network.state_dict())
    same = build_teacher(name, 5, path, 8_000, samples=SAMPLES).state_dict()
    assert all(torch.equal(tensor, same[key]) for key, tensor in donor.state_dict().items())
    other = build_teacher(name, 3, path, 8_000, samples=SAMPLES).state_dict()
    assert torch.equal(other["network.conv.weight"], donor.state_dict()["network.conv.weight"])
    assert other["network.head.weight"].shape == (3, 6)
    with pytest.raises(InputError, match=r"head\.weight is \(5, 6\), not \(3, 6\)"):
        build_teacher(name, 3, path, 8_000, samples=SAMPLES, whole=True)
    with pytest.raises(InputError, match=r"not weights of Net: 0 of its"):
        save_weights(path, {"x": torch.ones(1)})
        build_teacher(name, 3, path, 8_000, samples=SAMPLES)


@pytest.mark.parametrize("change", [("self.head", "self.top"), ("self.head(tap.mean(2))", "self.head(tap.mT)[:, 0]")])
def test_a_module_without_a_head_on_an_embedding_has_none_to_train(write: Write, change: tuple[str, str]) -> None:
    teacher = build_own(f"{write(PLAIN.replace(*change))}:teacher", 5, 8_000, SAMPLES)
    with pytest.raises(InputError, match=r"has no head to train.*full or none"):
        teacher.embed(torch.randn(2, SAMPLES))
