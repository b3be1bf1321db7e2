from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edgekd.models.outputs import StudentOutput
from edgekd.training.validation import ValidationClips, validate

POINTS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(9) % 3


class Points:
    def waveforms(self, rows: Sequence[int], /) -> Tensor:
        return POINTS[list(rows)]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))

    def forward(self, points: Tensor) -> StudentOutput:
        return StudentOutput(self.layers(points), points)


def test_validation_is_cross_entropy_and_accuracy_of_the_rows_in_eval_mode() -> None:
    model, rows = Model().train(), [8, 1, 4, 3, 0]
    found = validate(model, ValidationClips(Points(), rows, LABELS), torch.device("cpu"))
    assert not model.training
    with torch.no_grad():
        logits = model(POINTS[rows]).logits
    assert found.loss == pytest.approx(float(cross_entropy(logits, LABELS[rows])), rel=1e-5)
    assert found.measure == pytest.approx(float((logits.argmax(1) == LABELS[rows]).float().mean()))
