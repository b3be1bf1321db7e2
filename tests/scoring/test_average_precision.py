"""Average precision: against scikit-learn, with ties and weights; samples of groups; scores of several classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from edgekd.runs.predictions import Predictions
from edgekd.scoring.average_precision import LabelCounts, average_precision, mean_average_precision
from edgekd.scoring.differences import LabelDifference, difference
from edgekd.scoring.label_scores import LabelScores, score_labels
from edgekd.scoring.scored import read_scores, score_clips

CLASSES = ("a", "b", "c", "d")


@pytest.fixture
def heard() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities with many ties, memberships, and the recording of each of 90 clips, 3 of each."""
    rng = np.random.default_rng(1)
    truth = (rng.random((90, 4)) < (0.5, 0.2, 0.1, 0.3)).astype(np.int64)
    said = np.round(np.clip(0.35 + 0.3 * truth + rng.normal(0, 0.25, truth.shape), 0, 1), 1)
    return said.astype(np.float32), truth, [f"r{clip // 3}" for clip in range(90)]


def test_it_is_scikit_learns(heard: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    said, truth, _ = heard
    expected = [metrics.average_precision_score(truth[:, k], said[:, k]) for k in range(4)]
    np.testing.assert_allclose(average_precision(said, truth), expected, rtol=1e-12)
    assert mean_average_precision(said, truth) == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_class_that_no_clip_has_is_left_out(heard: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    said, truth, _ = heard
    truth[:, 2] = 0
    found = average_precision(said, truth)
    assert np.isnan(found[2])
    assert mean_average_precision(said, truth) == pytest.approx(np.nanmean(found))


def test_a_sample_of_groups_is_what_its_clips_come_to(heard: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    said, truth, groups = heard
    counts = LabelCounts.of(said, said >= 0.5, truth, groups)
    drawn = np.random.default_rng(2).multinomial(30, np.full(30, 1 / 30), size=5).astype(float)
    rows = [np.repeat(np.arange(90), weights[counts.member].astype(int)) for weights in drawn]
    expected = [
        [
            np.mean([metrics.average_precision_score(truth[row][:, k], said[row][:, k]) for k in range(4)]),
            metrics.f1_score(truth[row], said[row] >= 0.5, average="macro", zero_division=0),
        ]
        for row in rows
    ]
    np.testing.assert_allclose(counts.statistics(drawn).T, expected, rtol=1e-9)
    without = counts.left_out()
    rest = np.flatnonzero(counts.member != 4)
    one = [metrics.average_precision_score(truth[rest][:, k], said[rest][:, k]) for k in range(4)]
    assert without[0, 4] == pytest.approx(np.mean(one))


def test_scores_are_those_of_scikit_learn_and_come_back_from_json(
    heard: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    said, truth, groups = heard
    scores = score_clips(said, truth, groups, CLASSES)
    assert isinstance(scores, LabelScores)
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(truth, said >= 0.5, average="macro"), abs=1e-6)
    assert scores.recall == pytest.approx(metrics.recall_score(truth, said >= 0.5, average=None), abs=1e-6)
    assert scores.precision == pytest.approx(metrics.precision_score(truth, said >= 0.5, average=None), abs=1e-6)
    assert scores.clips_of == tuple(truth.sum(axis=0))
    low, high = scores.measure_interval
    assert low < scores.measure == scores.mean_average_precision < high
    assert high - low < 0.4
    assert read_scores(json.loads(json.dumps(scores.to_dict()))) == scores


def test_thresholds_change_what_is_answered_and_not_how_it_is_ranked(
    heard: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    said, truth, groups = heard
    usual = score_labels(said, truth, groups, CLASSES)
    other = score_labels(said, truth, groups, CLASSES, thresholds=(0.2, 0.5, 0.8, 0.5))
    assert other.average_precision == usual.average_precision
    assert other.recall[0] > usual.recall[0]  # type: ignore[operator]
    assert other.recall[2] < usual.recall[2]  # type: ignore[operator]


def test_flawless_clips_of_few_recordings_leave_doubt() -> None:
    truth = np.tile([[1, 0], [0, 1], [1, 1], [0, 0]], (3, 1))
    scores = score_labels(truth.astype(np.float32), truth, [f"r{clip}" for clip in range(12)], ("a", "b"))
    assert scores.mean_average_precision == 1
    assert scores.mean_average_precision_interval == pytest.approx((0.025 ** (1 / 12), 1))


def test_two_methods_are_compared_by_map_and_no_test_of_right_clips(
    heard: tuple[np.ndarray, np.ndarray, list[str]],
) -> None:
    said, truth, groups = heard
    rng = np.random.default_rng(5)
    better = np.clip(said + 0.25 * (truth - 0.5), 0, 1).astype(np.float32)
    ours, theirs = (
        Predictions(tuple(range(90)), tuple(groups), truth, shares)
        for shares in (better, (said + rng.normal(0, 0.1, said.shape)).clip(0, 1).astype(np.float32))
    )
    found = difference({("test", 0): ours}, {("test", 0): theirs}, 4)
    assert isinstance(found, LabelDifference)
    expected = mean_average_precision(better, truth) - mean_average_precision(theirs.probabilities, truth)
    assert found.measure == found.mean_average_precision == pytest.approx(expected)
    low, high = found.measure_interval
    assert 0 < low < found.measure < high
    assert found.shown
    assert "mcnemar" not in found.to_dict()
