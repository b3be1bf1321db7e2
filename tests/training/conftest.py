"""A run that has only begun, and teachers to adapt in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from edgekd.config import DistillConfig
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import save_weights
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.training.adapt import adapted_teacher
from edgekd.training.validation import ValidationClips

CPU = torch.device("cpu")


class Desk(NamedTuple):
    """A run that has only begun, on the tiny run's data, and a file of teacher weights to adapt."""

    run: Run
    data: RunData
    weights: Path

    def adapt(self) -> Teacher:
        return adapted_teacher(self.run, self.data, CPU)

    def side(self, rows: Sequence[int]) -> ValidationClips:
        return ValidationClips(self.data.store, rows, torch.tensor(self.data.index.labels))


Begin = Callable[..., Desk]


@pytest.fixture
def begin(tiny_run: Run, tiny_config: Callable[..., DistillConfig], tmp_path: Path) -> Begin:
    """`begin(adaptation="head", ...)`: keys of the teacher's section; it starts from `weights` unless they are None."""

    def build(**teacher: object) -> Desk:
        weights = tmp_path / "donor.safetensors"
        finished = tiny_run.teacher()
        assert finished is not None
        save_weights(weights, finished.state_dict())
        config = tiny_config(tmp_path / "run", teacher={"weights": weights, **teacher})
        data = tiny_run.open_data()
        return Desk(Run.create(config, data.index.classes, "cpu"), data, weights)

    return build


OWN = """
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

class Headless(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.top = self._modules.pop("head")

    def forward(self, waveform):
        tap = self.norm(self.conv(waveform.unsqueeze(1))).relu()
        return self.top(tap.mean(2)), tap.unsqueeze(3)

def make(num_classes, sample_rate):
    assert sample_rate == 4_000
    return Net(num_classes)

def headless(num_classes, sample_rate):
    return Headless(num_classes)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_code_trusted: None) -> Path:
    """A folder with a teacher of the user's own, which is not the current one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_teacher_of_tests.py").write_text(OWN)
    return folder
