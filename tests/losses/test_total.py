"""The total: every term counts, the weights are learned and bounded, and ablations leave things out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from edgekd.config import LossConfig
from edgekd.losses.response import distillation_loss
from edgekd.losses.ssatkd.statistical import StatisticalTexture, statistical_loss
from edgekd.losses.ssatkd.structural import StructuralTexture, structural_loss
from edgekd.losses.total import LOG_VARIANCE_FLOOR, SSATKDLoss
from edgekd.models.outputs import StudentOutput, TeacherOutput

TERMS = LossConfig().terms  # SSATKD's: the table may have more
LABELS = torch.tensor([0, 2, 1])


def outputs(dtype: torch.dtype = torch.float32) -> tuple[StudentOutput, TeacherOutput]:
    generator = torch.Generator().manual_seed(0)
    student_logits, teacher_logits = torch.randn(2, 3, 5, generator=generator, dtype=dtype)
    student_tap = torch.rand(3, 4, 40, 30, generator=generator, dtype=dtype)
    teacher_tap = torch.rand(3, 6, 50, 26, generator=generator, dtype=dtype)
    return (
        StudentOutput(student_logits.requires_grad_(), student_tap.requires_grad_()),
        TeacherOutput(teacher_logits, teacher_tap),
    )


PAPER = {"weighting": "learned", "distillation": "emd", "bandwidth": "paper"}


def ssatkd_loss(**settings: Any) -> SSATKDLoss:
    torch.manual_seed(0)
    return SSATKDLoss(LossConfig(**{**PAPER, **settings}), student_channels=4, teacher_channels=6)


def test_terms_are_the_public_losses_of_the_matched_taps() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss()
    terms = loss(student, teacher, LABELS).terms
    assert loss.adapter is not None
    convolution = loss.adapter[0]
    assert isinstance(convolution, torch.nn.Conv2d)
    assert convolution.bias is not None
    brought = torch.relu(
        torch.einsum("oi,bihw->bohw", convolution.weight[:, :, 0, 0], teacher.tap) + convolution.bias[:, None, None]
    )
    ours, theirs = (
        F.interpolate(tap, (40, 26), mode="bilinear", align_corners=False) for tap in (student.tap, brought)
    )
    structural, statistical = StructuralTexture(), StatisticalTexture()
    expected = {
        "classification": F.cross_entropy(student.logits, LABELS),
        "statistical": statistical_loss(statistical(ours), statistical(theirs)),
        "structural": structural_loss(structural(ours), structural(theirs)),
        "distillation": distillation_loss(student.logits, teacher.logits),
    }
    assert list(terms) == list(TERMS)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)


def test_an_adapter_on_the_students_side_leaves_the_teachers_map_as_it_is() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss(adapter="student")
    assert loss.adapter is not None
    ours, theirs = (
        F.interpolate(tap, (40, 26), mode="bilinear", align_corners=False)
        for tap in (loss.adapter(student.tap), teacher.tap)
    )
    assert ours.shape[1] == theirs.shape[1] == 6
    structural = StructuralTexture()
    output = loss(student, teacher, LABELS)
    expected = structural_loss(structural(ours), structural(theirs))
    torch.testing.assert_close(output.terms["structural"], expected, rtol=1e-4, atol=1e-6)
    output.total.backward()
    assert student.tap.grad is not None
    assert student.tap.grad.abs().sum() > 0


def test_fixed_weights_make_a_plain_weighted_sum() -> None:
    student, teacher = outputs()
    weights = {"classification": 1.0, "statistical": 0.5, "structural": 3.0, "distillation": 0.25}
    loss = ssatkd_loss(weighting="fixed", weights=weights)
    output = loss(student, teacher, LABELS)
    assert output.total.item() == pytest.approx(sum(weights[name] * output.terms[name].item() for name in TERMS))
    assert {name: weight.item() for name, weight in output.weights.items()} == weights
    assert loss.log_variances is None
    alone = ssatkd_loss(terms=("classification",), weighting="fixed", weights={"classification": 7.0})
    assert alone(student, None, LABELS).total.item() == pytest.approx(F.cross_entropy(student.logits, LABELS).item())


@pytest.mark.parametrize("weighting", ["learned", "fixed"])
def test_textures_may_stop_counting_and_count_again(weighting: str) -> None:
    student, teacher = outputs()
    loss = ssatkd_loss(weighting=weighting)
    whole = loss(student, teacher, LABELS)
    loss.count_textures(False)
    assert loss.needs == {"logits"}
    rest = loss(student, TeacherOutput(teacher.logits, torch.empty(0)), LABELS)
    assert list(rest.terms) == ["classification", "distillation"]
    # All log-variances start at 0, so what is missing is just the two terms.
    missing = whole.terms["structural"] + whole.terms["statistical"]
    assert (whole.total - rest.total).item() == pytest.approx(missing.item(), rel=1e-5)
    rest.total.backward()
    assert student.tap.grad is None
    loss.count_textures(True)
    assert loss(student, teacher, LABELS).total.item() == pytest.approx(whole.total.item())


def test_labels_may_be_shares_of_the_classes() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss()
    shares = F.one_hot(LABELS, 5).float()
    hard, soft = loss(student, teacher, LABELS), loss(student, teacher, shares)
    assert soft.total.item() == pytest.approx(hard.total.item(), rel=1e-6)
    mixed = 0.7 * shares + 0.3 * shares[[1, 2, 0]]
    expected = -(mixed * student.logits.log_softmax(1)).sum(1).mean()
    assert loss(student, teacher, mixed).terms["classification"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_total_is_the_sum_weighted_by_uncertainty() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss()
    assert loss.log_variances is not None
    values = [0.5, -1.0, 2.0, 0.25]
    with torch.no_grad():
        loss.log_variances.copy_(torch.tensor(values))
    output = loss(student, teacher, LABELS)
    expected = sum(math.exp(-s) * output.terms[name].item() + s for name, s in zip(TERMS, values, strict=True))
    assert output.total.item() == pytest.approx(expected, rel=1e-5)
    assert output.weights["statistical"].item() == pytest.approx(math.e, rel=1e-6)


@pytest.mark.parametrize("statistical", ["sinkhorn", "published"])
@pytest.mark.parametrize("distillation", ["emd", "kl"])
@pytest.mark.parametrize("term", list(TERMS))
def test_each_term_moves_the_total_and_its_gradient(term: str, distillation: str, statistical: str) -> None:
    student, teacher = outputs()
    loss = ssatkd_loss(distillation=distillation, statistical=statistical)

    def total_and_gradient() -> tuple[float, torch.Tensor, torch.Tensor]:
        output = loss(student, teacher, LABELS)
        logits, tap = torch.autograd.grad(output.total, [student.logits, student.tap])
        return output.total.item(), logits, tap

    def of_term() -> tuple[torch.Tensor | None, torch.Tensor | None]:
        value = loss(student, teacher, LABELS).terms[term]
        return torch.autograd.grad(value, [student.logits, student.tap], allow_unused=True)  # type: ignore[return-value]

    total, logits, tap = total_and_gradient()
    term_value = loss(student, teacher, LABELS).terms[term].item()
    term_logits, term_tap = of_term()
    # Halving the variance of this one term must add exactly the term itself, to the total and to its gradient.
    assert loss.log_variances is not None
    with torch.no_grad():
        loss.log_variances[list(TERMS).index(term)] = -math.log(2)
    moved_total, moved_logits, moved_tap = total_and_gradient()
    assert moved_total - total == pytest.approx(term_value - math.log(2), rel=1e-3, abs=1e-5)
    reached = 0
    for before, after, own in ((logits, moved_logits, term_logits), (tap, moved_tap, term_tap)):
        if own is None:
            torch.testing.assert_close(after, before)
        else:
            reached += 1
            assert own.abs().max() > 0
            torch.testing.assert_close(after - before, own, rtol=1e-3, atol=1e-6)
    assert reached == 1  # textures act on the tap, answers on the logits


def test_perturbing_the_student_moves_the_terms_it_feeds() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss()
    before = loss(student, teacher, LABELS)
    tap = loss(StudentOutput(student.logits, student.tap**3), teacher, LABELS)
    logits = loss(StudentOutput(student.logits * 2, student.tap), teacher, LABELS)
    moved_by_tap = {name for name in TERMS if not torch.isclose(before.terms[name], tap.terms[name])}
    moved_by_logits = {name for name in TERMS if not torch.isclose(before.terms[name], logits.terms[name])}
    assert moved_by_tap == {"structural", "statistical"}
    assert moved_by_logits == {"classification", "distillation"}
    assert len({before.total.item(), tap.total.item(), logits.total.item()}) == 3


def test_adapter_and_log_variances_learn() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss()
    loss(student, teacher, LABELS).total.backward()
    assert {name for name, _ in loss.named_parameters()} == {"adapter.0.weight", "adapter.0.bias", "log_variances"}
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_a_vanishing_term_cannot_drive_the_total_to_minus_infinity() -> None:
    logits = torch.tensor([[40.0, -40.0]] * 3)  # right, and sure of it: cross-entropy and distillation are 0
    student, teacher = StudentOutput(logits, torch.zeros(3, 4, 8, 8)), TeacherOutput(logits, torch.zeros(3, 6, 8, 8))
    loss = ssatkd_loss(terms=("classification", "distillation"))
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    for _ in range(50):
        optimizer.zero_grad()
        output = loss(student, teacher, torch.zeros(3, dtype=torch.long))
        output.total.backward()
        optimizer.step()
    assert output.total.item() == pytest.approx(2 * LOG_VARIANCE_FLOOR, abs=1e-4)


def test_a_log_variance_on_the_floor_comes_back_as_soon_as_its_term_grows() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss(terms=("classification", "distillation"))
    assert loss.log_variances is not None
    with torch.no_grad():
        loss.log_variances.fill_(-1000.0)
    output = loss(student, teacher, LABELS)
    assert output.total.item() < math.exp(-LOG_VARIANCE_FLOOR) * sum(term.item() for term in output.terms.values())
    output.total.backward()
    torch.optim.SGD(loss.parameters(), lr=0.01).step()
    assert loss.log_variances.min() > LOG_VARIANCE_FLOOR


def test_classification_alone_is_plain_cross_entropy_and_needs_no_teacher() -> None:
    student, _ = outputs()
    loss = ssatkd_loss(terms=("classification",))
    output = loss(student, None, LABELS)
    torch.testing.assert_close(output.total, F.cross_entropy(student.logits, LABELS))
    assert output.weights["classification"].item() == 1
    assert list(loss.parameters()) == []


@pytest.mark.parametrize(
    "terms", [("classification", *rest) for n in range(4) for rest in itertools.combinations(list(TERMS)[1:], n)]
)
def test_ablation_leaves_out_exactly_the_other_terms(terms: tuple[str, ...]) -> None:
    student, teacher = outputs()
    everything = ssatkd_loss()(student, teacher, LABELS)
    loss = ssatkd_loss(terms=terms)
    output = loss(student, teacher, LABELS)
    assert tuple(output.terms) == tuple(output.weights) == terms
    assert (loss.adapter is not None) == bool({"structural", "statistical"} & set(terms))
    assert output.total.item() == pytest.approx(sum(everything.terms[term].item() for term in terms), rel=1e-5)


def test_a_missing_teacher_is_refused_where_one_is_needed() -> None:
    student, _ = outputs()
    with pytest.raises(ValueError, match="classification, distillation need a teacher"):
        ssatkd_loss(terms=("classification", "distillation"))(student, None, LABELS)


def test_total_gradient_agrees_with_finite_differences() -> None:
    student, teacher = outputs(torch.float64)
    loss = ssatkd_loss(statistical="published", distillation="kl", statistical_levels=3, structural_levels=2).double()
    small = student.tap.detach()[:1, :, :5, :4].clone().requires_grad_()
    one = TeacherOutput(teacher.logits[:1], teacher.tap[:1, :, :7, :3])

    def total(logits: torch.Tensor, tap: torch.Tensor) -> torch.Tensor:
        return loss(StudentOutput(logits, tap), one, LABELS[:1]).total

    assert torch.autograd.gradcheck(total, (student.logits.detach()[:1].clone().requires_grad_(), small))


def test_silence_and_equal_taps_give_finite_totals_and_gradients() -> None:
    for value in (0.0, 1.0):
        tap = torch.full((3, 4, 32, 16), value, requires_grad=True)
        logits = torch.zeros(3, 5, requires_grad=True)
        loss = ssatkd_loss()
        output = loss(StudentOutput(logits, tap), TeacherOutput(torch.zeros(3, 5), torch.zeros(3, 6, 32, 16)), LABELS)
        output.total.backward()
        assert torch.isfinite(output.total)
        for tensor in (tap, logits, *loss.parameters()):
            assert tensor.grad is not None
            assert torch.isfinite(tensor.grad).all()


def test_teachers_with_one_bin_a_frame_are_distilled_too() -> None:
    student, _ = outputs()
    waveform_teacher = TeacherOutput(torch.randn(3, 5), torch.rand(3, 6, 49, 1))
    output = ssatkd_loss()(student, waveform_teacher, LABELS)
    output.total.backward()
    assert all(torch.isfinite(term) for term in output.terms.values())


def test_bfloat16_autocast_changes_the_total_only_by_its_rounding() -> None:
    student, teacher = outputs()
    loss = ssatkd_loss()
    plain = loss(student, teacher, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(StudentOutput(student.logits.bfloat16(), student.tap.bfloat16()), teacher, LABELS)
    assert half.total.dtype == torch.float32
    for name in TERMS:
        assert half.terms[name].dtype == torch.float32
        assert half.terms[name].item() == pytest.approx(plain.terms[name].item(), rel=0.03, abs=1e-3)
