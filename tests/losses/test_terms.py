"""The table of terms, and a new row in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import DistillConfig, LossConfig
from edgekd.errors import UsageError
from edgekd.losses.terms import TERMS, Compared, Term, check_terms, needs_of, needs_teacher
from edgekd.losses.total import SSATKDLoss
from edgekd.models.outputs import StudentOutput, TeacherOutput
from edgekd.runs.metrics_log import MetricsLog, columns


def test_a_term_needs_a_teacher_unless_it_is_classification() -> None:
    assert not needs_teacher(("classification",))
    assert all(needs_teacher(("classification", term)) for term in TERMS if term != "classification")
    assert needs_of(("classification", "distillation")) == {"logits"}
    assert needs_of(TERMS) == {"logits", "embedding", "tap"}


def test_the_terms_of_the_configuration_are_in_the_table() -> None:
    assert set(LossConfig().terms) <= set(TERMS)


def test_a_term_that_is_in_no_table_is_named_with_the_nearest() -> None:
    for ask in (check_terms, needs_of, needs_teacher):
        with pytest.raises(UsageError, match=r"Unknown loss term 'structral'.*Did you mean 'structural'"):
            ask(("classification", "structral"))


class Margin(nn.Module):
    """How far the student's logits are from the teacher's."""

    def forward(self, compared: Compared) -> Tensor:
        assert compared.teacher_logits is not None
        assert compared.student_tap is None
        return (compared.student_logits - compared.teacher_logits).square().mean()


def test_a_new_term_is_one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TERMS, "margin", Term(lambda _: Margin(), frozenset({"logits"})))
    config = DistillConfig.model_validate({"loss": {"terms": ["classification", "margin"], "weights": {"margin": 0.5}}})
    loss = SSATKDLoss(config.loss, 4, 6)
    student, teacher = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    output = loss(StudentOutput(student, torch.empty(0)), TeacherOutput(teacher, torch.empty(0)), torch.arange(3))
    torch.testing.assert_close(output.terms["margin"], (student - teacher).square().mean())
    torch.testing.assert_close(output.total, output.terms["classification"] + 0.5 * output.terms["margin"])
    assert loss.adapter is None
    assert {"margin", "weight_margin"} <= set(columns())
    log = MetricsLog(tmp_path / "metrics.csv")
    log.append("student", 1, total=1.5, margin=0.25, weight_margin=0.5)
    assert MetricsLog(tmp_path / "metrics.csv").rows[0]["margin"] == "0.25"


def test_a_term_may_learn_and_is_resumed_with_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.ones(()))

        def forward(self, compared: Compared) -> Tensor:
            return self.bias * compared.student_logits.mean()

    monkeypatch.setitem(TERMS, "learned", Term(lambda _: Learned()))
    loss = SSATKDLoss(LossConfig(terms=("classification", "learned")), 4, 6)
    assert "terms.learned.bias" in loss.state_dict()
    assert [name for name, _ in loss.named_parameters()] == ["terms.learned.bias"]


def test_weights_of_one_say_nothing() -> None:
    plain = LossConfig(weights={"structural": 1.0, "distillation": 2.0})
    assert plain.weights == {"distillation": 2.0}
