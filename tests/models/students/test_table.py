"""What the table says of the students is what they are; and a new one is a module and a row."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgekd.config import FrontendConfig
from edgekd.models.build import build_student
from edgekd.models.students.table import STUDENTS, StudentSpec
from edgekd.quantization.prepare import prepare

DUMMY = """
from torch import nn

from edgekd.models.blocks import convolution, scaled
from edgekd.models.outputs import StudentOutput


class Dummy(nn.Module):
    def __init__(self, num_classes, width=1.0):
        super().__init__()
        self.tap_channels = scaled(8, width)
        self.stem = convolution(1, self.tap_channels, 3, stride=2)
        self.classifier = nn.Linear(self.tap_channels, num_classes)

    def forward(self, log_mel):
        tap = self.stem(log_mel)
        return StudentOutput(self.classifier(tap.mean(dim=(2, 3))), tap)
"""
SMALL = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


@pytest.mark.parametrize("name", STUDENTS)
def test_figures_are_those_of_the_built_student(name: str) -> None:
    spec = STUDENTS[name]
    network = spec.network(10, 1.0).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == spec.parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = network(torch.randn(1, 1, 501, 64))
    assert counter.get_total_flops() == 2 * spec.macs
    assert output.tap.shape == (1, *spec.tap)
    assert network.tap_channels == spec.tap[0]


def test_a_student_is_one_module_and_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dummy.py").write_text(DUMMY)
    module = importlib.util.spec_from_file_location("edgekd.models.students.dummy", tmp_path / "dummy.py")
    assert module is not None and module.loader is not None
    dummy = importlib.util.module_from_spec(module)
    module.loader.exec_module(dummy)
    row = StudentSpec("a test's", dummy.Dummy, parameters=178, macs=0, tap=(8, 251, 32))
    monkeypatch.setitem(STUDENTS, "dummy", row)
    student = build_student("dummy", 5, 4_000, SMALL, width=2.0).eval()
    logits, tap, _ = student(torch.randn(2, 4_000))
    assert (logits.shape, tap.shape[:2], student.name, student.tap_channels) == ((2, 5), (2, 16), "dummy", 16)
    assert len(prepare(student.network, torch.randn(1, 1, 32, 32)).layers()) == 2


def test_the_table_alone_loads_nothing_heavy() -> None:
    check = (
        "import sys; from edgekd.models.students.table import STUDENTS; assert STUDENTS and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
