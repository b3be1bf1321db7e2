"""Responses: against the labels, and against the teacher's."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy  # type: ignore[import-untyped]

from edgekd.errors import UsageError
from edgekd.losses.response import Distillation, classification_loss, distillation_loss
from edgekd.losses.terms import Compared
from edgekd.task import MULTI


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


def test_classification_is_the_mean_over_the_clips_that_have_a_label() -> None:
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 0, 2, 1])
    assert torch.equal(classification_loss(logits, labels), F.cross_entropy(logits, labels))
    known = torch.tensor([True, False, True, True, False, True])
    expected = F.cross_entropy(logits[known], labels[known])
    torch.testing.assert_close(classification_loss(logits, labels, known * 6 / 4), expected)


def test_emd_is_the_squared_distance_of_cumulative_distributions() -> None:
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = 0.0
    for s, t in zip((student / 3).softmax(1).tolist(), (teacher / 3).softmax(1).tolist(), strict=True):
        steps = zip(itertools.accumulate(s), itertools.accumulate(t), strict=True)
        expected += sum((x - y) ** 2 for x, y in steps) / 4
    assert distillation_loss(student, teacher, "emd", 3.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("temperature", "value"), [(2.0, 0.4768), (1.0, 1.2857)])
def test_emd_softens_as_the_published_code_does(temperature: float, value: float) -> None:
    """Worked out by hand; docs/method.md names the same numbers."""
    student, teacher = torch.tensor([[2.0, 0, -1]]), torch.tensor([[0.0, 1, 3]])
    assert distillation_loss(student, teacher, "emd", temperature).item() == pytest.approx(value, abs=1e-4)
    loss = Distillation("emd", temperature)(Compared(student, torch.zeros(1), None, teacher, None, None))
    assert loss.item() == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kl_is_hintons(temperature: float) -> None:
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    divergence = entropy((teacher / temperature).softmax(1).T, (student / temperature).softmax(1).T).mean()
    ours = distillation_loss(student, teacher, "kl", temperature)
    assert ours.item() == pytest.approx(temperature**2 * divergence, rel=1e-12)


@pytest.mark.parametrize("kind", ["emd", "kl"])
def test_of_clips_without_a_label_only_those_count_that_the_teacher_is_sure_of(kind: str) -> None:
    teacher = torch.tensor([[9.0, 0, 0], [1, 0, 0], [0, 5, 0], [0, 1, 0], [0, 0, 3]])
    student = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labelled = torch.tensor([0.0, 0, 0, 5, 0])  # of the others the first, third and fifth exceed 0.8
    term = Distillation(kind, 2.0, 0.8)  # type: ignore[arg-type]
    compared = Compared(student, torch.zeros(5), labelled, teacher, None, None)
    counted = [0, 2, 3, 4]
    expected = distillation_loss(student[counted], teacher[counted], kind, 2.0) * 4 / 5  # type: ignore[arg-type]
    torch.testing.assert_close(term(compared), expected)
    everything = distillation_loss(student, teacher, kind, 2.0)  # type: ignore[arg-type]
    assert torch.equal(term(compared._replace(labelled=None)), everything)
    torch.testing.assert_close(Distillation(kind, 2.0, 0.0)(compared), everything)  # type: ignore[arg-type]


def test_order_of_classes_matters_to_emd_and_not_to_kl() -> None:
    student, teacher = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for kind, same in (("emd", False), ("kl", True)):
        straight = distillation_loss(student, teacher, kind).item()  # type: ignore[arg-type]
        shuffled = distillation_loss(student[:, order], teacher[:, order], kind).item()  # type: ignore[arg-type]
        assert (abs(straight - shuffled) < 1e-6) == same


@pytest.mark.parametrize("kind", ["emd", "kl"])
def test_distillation_is_zero_for_equal_logits_and_finite_for_extreme_ones(kind: str) -> None:
    logits = torch.randn(4, 6)
    assert distillation_loss(logits, logits, kind).item() == pytest.approx(0, abs=1e-7)  # type: ignore[arg-type]
    sure, wrong = (200.0 * F.one_hot(torch.tensor([k]), 6).float() for k in (0, 3))
    loss = distillation_loss(sure.requires_grad_(), wrong, kind)  # type: ignore[arg-type]
    loss.backward()
    assert torch.isfinite(loss)
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("kind", ["emd", "kl"])
def test_distillation_gradient_agrees_with_finite_differences(kind: str) -> None:
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, teacher, kind), student.requires_grad_())  # type: ignore[arg-type]


def test_unknown_distillation_names_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"Unknown distillation loss 'kd'.*emd, kl"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), "kd")  # type: ignore[arg-type]


def test_several_classes_are_taught_by_binary_cross_entropy(logits: torch.Tensor) -> None:
    truth = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    expected = -(truth * logits.sigmoid().log() + (1 - truth) * (-logits).sigmoid().log()).sum(1)
    torch.testing.assert_close(classification_loss(logits, truth, task=MULTI), expected.mean())
    counted = torch.rand(len(logits), generator=torch.Generator().manual_seed(2))
    found = classification_loss(logits, truth, counted, MULTI)
    torch.testing.assert_close(found, (expected * counted).mean())


def test_several_classes_are_distilled_answer_by_answer(logits: torch.Tensor) -> None:
    teacher, temperature = logits.flip(0) * 1.5, 3.0
    said, wanted = (torch.distributions.Bernoulli(logits=each / temperature) for each in (logits, teacher))
    each = torch.distributions.kl_divergence(wanted, said)
    found = distillation_loss(logits, teacher, "kl", temperature, task=MULTI)
    torch.testing.assert_close(found, temperature**2 * each.sum(1).mean())
    counted = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    found = distillation_loss(logits, teacher, "kl", temperature, counted, task=MULTI)
    torch.testing.assert_close(found, temperature**2 * (each * counted).sum(1).mean())
    assert distillation_loss(logits, logits, "kl", task=MULTI).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(UsageError, match=r"shares of one.*loss\.distillation=kl"):
        distillation_loss(logits, teacher, "emd", task=MULTI)


def test_of_an_unlabelled_clip_the_sure_answers_count_yes_or_no() -> None:
    teacher = torch.tensor([[4.0, 0.0, -4.0]])
    student = torch.tensor([[0.0, 3.0, 0.0]])
    compared = Compared(student, torch.zeros(1, 3), torch.zeros(1), teacher, None, None, task=MULTI)
    found = Distillation("kl", 1.0, confidence=0.9)(compared)
    sure = [0, 2]
    torch.testing.assert_close(found, distillation_loss(student[:, sure], teacher[:, sure], "kl", 1.0, task=MULTI))
