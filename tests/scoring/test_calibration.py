"""Calibration with intervals, and what a temperature took away."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from edgekd.scoring.calibration import before_temperature, calibration
from edgekd.scoring.label_scores import score_labels
from edgekd.scoring.scores import score
from edgekd.scoring.temperature import tempered


def said(seed: int, clips: int = 200) -> tuple[np.ndarray, list[int], list[str]]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(4, 0.5), clips)
    labels = [int(rng.choice(4, p=shares)) for shares in probabilities]
    return tempered(probabilities, 0.4).astype(np.float32), labels, [f"recording {row // 3}" for row in range(clips)]


def test_the_error_is_that_of_scores_and_the_cross_entropy_that_of_scikit_learn() -> None:
    probabilities, labels, groups = said(0)
    found = calibration(probabilities, labels, groups)
    shares = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert found.error == pytest.approx(score(probabilities, labels, groups, list("abcd")).calibration_error, abs=1e-6)
    assert found.cross_entropy == pytest.approx(log_loss(labels, shares), rel=1e-4)
    low, high = found.interval
    assert 0 <= low < found.error < high <= 1


def test_the_interval_is_over_groups() -> None:
    """Ten copies of each clip in its group tell no more than one."""
    probabilities, labels, groups = said(1, clips=60)
    once = calibration(probabilities, labels, groups).interval
    copies = np.repeat(probabilities, 10, axis=0), [each for each in labels for _ in range(10)]
    again = calibration(*copies, [each for each in groups for _ in range(10)]).interval
    assert again == pytest.approx(once, abs=1e-9)
    apart = calibration(*copies, [str(row) for row in range(600)]).interval
    assert apart[1] - apart[0] < 0.6 * (once[1] - once[0])


def test_an_interval_holds_its_figure() -> None:
    """Of few clips that are as sure as they are right, all of the error is chance, and corrected away."""
    for seed in (12, 25, 28):
        rng = np.random.default_rng(seed)
        shares = rng.beta(0.6, 0.6, (42, 3)).astype(np.float32)
        truth = (rng.random((42, 3)) < shares).astype(np.int64)
        found = calibration(shares, truth, [str(row // 2) for row in range(42)])
        assert found.interval[0] <= found.error <= found.interval[1]


def test_every_yes_or_no_counts_where_clips_may_be_of_several_classes() -> None:
    rng = np.random.default_rng(4)
    shares = rng.random((300, 3))
    truth = (rng.random((300, 3)) < shares).astype(np.int64)
    groups = [str(row // 2) for row in range(300)]
    sure = tempered(shares, 0.3, "sigmoid").astype(np.float32)
    mended = calibration(before_temperature(sure, 0.3, "sigmoid"), truth, groups)
    found = calibration(sure, truth, groups)
    assert found.error == pytest.approx(score_labels(sure, truth, groups, list("abc")).calibration_error, abs=1e-6)
    assert found.interval[0] < found.error < found.interval[1]
    assert mended.error < 0.05 < found.error
    assert mended.cross_entropy < found.cross_entropy


def test_one_recording_says_nothing_of_the_next() -> None:
    probabilities, labels, _ = said(2)
    assert calibration(probabilities, labels, ["a"] * len(labels)).interval == (0.0, 1.0)


def test_a_temperature_is_taken_back() -> None:
    probabilities, labels, groups = said(3)
    cooled = tempered(probabilities, 1.9).astype(np.float32)
    np.testing.assert_allclose(before_temperature(cooled, 1.9), probabilities, atol=1e-5)
    assert calibration(cooled, labels, groups).error < calibration(probabilities, labels, groups).error
