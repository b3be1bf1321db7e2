"""The distance of embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.config import LossConfig
from edgekd.errors import UsageError
from edgekd.losses.embedding import Distance, embedding_loss
from edgekd.losses.total import SSATKDLoss
from edgekd.models.outputs import StudentOutput, TeacherOutput

LABELS = torch.tensor([0, 2, 1])


def embeddings() -> tuple[Tensor, Tensor]:
    """Of a student `(3, 4)` and a teacher `(3, 6)`."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, generator=generator).requires_grad_(), torch.rand(3, 6, generator=generator)


def test_the_cosine_asks_for_the_direction_alone() -> None:
    _, teacher = embeddings()
    assert embedding_loss(7 * teacher, teacher) == pytest.approx(0, abs=1e-6)
    assert embedding_loss(-teacher, teacher) == pytest.approx(2, abs=1e-6)
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert embedding_loss(student, torch.tensor([[1.0, 0.0], [0.0, 5.0]])) == pytest.approx((0.4 + 1) / 2)


def test_the_mean_square_is_that_to_the_teachers_embedding_at_mean_0_and_variance_1() -> None:
    _, teacher = embeddings()
    mean, deviation = teacher.mean(1, keepdim=True), teacher.std(1, keepdim=True, correction=0)
    assert embedding_loss((teacher - mean) / deviation, teacher, "mse") == pytest.approx(0, abs=1e-6)
    assert embedding_loss(torch.zeros(3, 6), teacher, "mse") == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_neither_depends_on_the_size_of_the_teachers(kind: Distance) -> None:
    student, teacher = torch.randn(2, 5, 8).unbind(0)
    torch.testing.assert_close(
        embedding_loss(student, 1000 * teacher, kind), embedding_loss(student, teacher, kind), rtol=1e-4, atol=1e-5
    )


def test_another_distance_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown embedding loss 'cosin'.*'cosine'"):
        embedding_loss(torch.ones(1, 2), torch.ones(1, 2), "cosin")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_the_students_embedding_is_compared_through_a_projection_that_is_learned(kind: Distance) -> None:
    config = LossConfig(terms=("classification", "embedding"), embedding=kind, weights={"embedding": 3.0})
    loss = SSATKDLoss(config, 5, 7, student_embedding=4, teacher_embedding=6)
    assert loss.adapter is None and loss.projection is not None
    student, teacher = embeddings()
    logits = torch.randn(3, 5)
    empty = torch.empty(0)
    output = loss(StudentOutput(logits, empty, student), TeacherOutput(empty, empty, teacher), LABELS)
    weight, bias = loss.projection.weight, loss.projection.bias
    expected = embedding_loss(student @ weight.T + bias, teacher, kind)
    torch.testing.assert_close(output.terms["embedding"], expected)
    torch.testing.assert_close(output.total, output.terms["classification"] + 3 * expected)
    output.total.backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_there_is_no_projection_where_no_term_compares_embeddings() -> None:
    loss = SSATKDLoss(LossConfig(terms=("classification", "distillation")), 5, 7)
    assert loss.projection is None
    assert loss.needs == {"logits"}


def test_the_projection_is_resumed_with_the_loss() -> None:
    config = LossConfig(terms=("classification", "embedding"))
    loss, other = (SSATKDLoss(config, 5, 7, student_embedding=4, teacher_embedding=6) for _ in range(2))
    other.load_state_dict(loss.state_dict())
    assert loss.projection is not None and other.projection is not None
    assert torch.equal(loss.projection.weight, other.projection.weight)
