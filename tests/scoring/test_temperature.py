"""Temperatures: found again where they were put in, and used only where they help clips that were not asked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgekd.scoring.temperature import FEWEST, cross_entropy, fit_temperature, tempered

Floats = npt.NDArray[np.float64]


def said(temperature: float, clips: int = 4000, classes: int = 4) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Probabilities of logits that are `temperature` times too large, and labels drawn from the right ones."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((clips, classes))
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(classes, p=shares) for shares in right])
    return tempered(right, 1 / temperature), np.eye(classes, dtype=bool)[labels]


@pytest.mark.parametrize("temperature", [0.5, 1.6, 3.0])
def test_a_temperature_that_was_put_in_is_found(temperature: float) -> None:
    probabilities, truth = said(temperature)
    fitted = fit_temperature(probabilities.astype(np.float32), truth, [str(row) for row in range(len(truth))])
    assert fitted.value == pytest.approx(temperature, rel=0.06)
    assert fitted.loss is not None and fitted.loss_before is not None and fitted.loss < fitted.loss_before


def test_no_other_temperature_has_a_lower_cross_entropy() -> None:
    probabilities, truth = said(1.6, clips=300)
    value = fit_temperature(probabilities, truth, [str(row) for row in range(300)]).value
    least = cross_entropy(probabilities, truth, value).mean()
    assert all(cross_entropy(probabilities, truth, value * other).mean() >= least for other in (0.98, 1.02, 0.5, 2))


def test_temperatures_of_sigmoids_are_found_alike() -> None:
    rng = np.random.default_rng(1)
    logits = 2 * rng.standard_normal((3000, 5))
    truth = rng.random((3000, 5)) < 1 / (1 + np.exp(-logits))
    said = 1 / (1 + np.exp(-2 * logits))
    fitted = fit_temperature(said.astype(np.float32), truth, [str(row) for row in range(3000)], "sigmoid")
    assert fitted.value == pytest.approx(2, rel=0.06)
    np.testing.assert_allclose(tempered(said, 2.0, "sigmoid"), 1 / (1 + np.exp(-logits)), atol=1e-9)


def test_cross_entropy_is_that_of_torch() -> None:
    probabilities, truth = said(1.3, clips=50)
    logits = torch.from_numpy(np.log(probabilities)) / 1.7
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(truth.argmax(1)), reduction="none")
    np.testing.assert_allclose(cross_entropy(probabilities, truth, 1.7), expected.numpy(), atol=1e-9)
    binary = torch.nn.functional.binary_cross_entropy_with_logits(
        (torch.from_numpy(probabilities) / (1 - torch.from_numpy(probabilities))).log() / 1.7,
        torch.from_numpy(truth).double(),
        reduction="none",
    ).mean(1)
    np.testing.assert_allclose(cross_entropy(probabilities, truth, 1.7, "sigmoid"), binary.numpy(), atol=1e-6)


def test_probabilities_come_back_by_the_inverse_and_no_winner_changes() -> None:
    probabilities, _ = said(1.0, clips=200)
    warm = tempered(probabilities, 2.5)
    assert (warm.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    np.testing.assert_allclose(tempered(warm, 1 / 2.5), probabilities, atol=1e-12)


def test_what_does_not_help_other_recordings_is_not_used() -> None:
    """Each recording asks for a temperature of its own, so that of the others makes it worse."""
    rng = np.random.default_rng(5)
    found = []
    for seed in range(40):
        probabilities = rng.dirichlet(np.full(3, 0.7), 40)
        labels = np.array([rng.choice(3, p=shares) for shares in probabilities])
        fitted = fit_temperature(probabilities, np.eye(3, dtype=bool)[labels], [str(row // 8) for row in range(40)])
        found.append(fitted)
        assert (fitted.value == 1) == (fitted.loss >= fitted.loss_before), seed  # type: ignore[operator]
    assert sum(fitted.value == 1 for fitted in found) > 20, "they were right before"


def test_too_few_clips_or_one_recording_have_no_temperature() -> None:
    probabilities, truth = said(3.0, clips=100)
    few = FEWEST - 1
    for clips, groups in ((few, [str(row) for row in range(few)]), (100, ["a"] * 100)):
        fitted = fit_temperature(probabilities[:clips], truth[:clips], groups)
        assert (fitted.value, fitted.loss, fitted.loss_before) == (1.0, None, None)


@pytest.mark.parametrize("right", [True, False])
def test_a_classifier_that_is_always_right_or_wrong_stays_within_bounds(right: bool) -> None:
    probabilities = np.tile([0.9, 0.1], (40, 1)).astype(np.float32)
    truth = np.tile([right, not right], (40, 1))
    fitted = fit_temperature(probabilities, truth, [str(row) for row in range(40)])
    assert 0.1 <= fitted.value <= 10
    assert np.isfinite(cross_entropy(probabilities, truth, fitted.value)).all()


def test_probabilities_of_0_and_1_have_finite_logits() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0]] * 20, dtype=np.float32)
    truth = np.array([[True, False], [True, False]] * 20)
    for kind in ("softmax", "sigmoid"):
        fitted = fit_temperature(probabilities, truth, [str(row) for row in range(40)], kind)  # type: ignore[arg-type]
        assert fitted.value == 10, "half of what is certain is wrong"
        assert np.isfinite(tempered(probabilities, fitted.value, kind)).all()  # type: ignore[arg-type]
