"""Scores against scikit-learn and counts by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics

from edgekd.scoring.scores import Scores, calibration_error, score

CLASSES = ("cargo", "tanker", "tug")


def one_hot(predicted: Sequence[int], classes: int = len(CLASSES)) -> npt.NDArray[np.float32]:
    return np.eye(classes, dtype=np.float32)[list(predicted)]


def test_figures_match_a_count_by_hand() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    predicted = [0, 0, 1, 1, 2, 2]
    scores = score(one_hot(predicted), labels, list("abcdef"), CLASSES)
    assert scores.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 1))
    assert scores.accuracy == pytest.approx(4 / 6, abs=1e-6)
    assert scores.recall == pytest.approx((2 / 3, 1 / 2, 1), abs=1e-6)
    # F1 of a class is 2 tp / (predicted + actual): 4/5, 2/4, 2/3.
    assert scores.macro_f1 == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3, abs=1e-6)
    assert (scores.clips, scores.groups) == (6, 6)


def test_a_class_without_clips_has_no_recall_and_leaves_macro_f1_alone() -> None:
    scores = score(one_hot([0, 1, 1]), [0, 0, 1], list("abc"), CLASSES)
    assert scores.recall == (0.5, 1.0, None)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2, abs=1e-6)


def test_calibration_error_is_confidence_minus_accuracy_for_one_bin() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0]] * 10, dtype=np.float32)
    scores = score(probabilities, [0] * 6 + [1] * 4, [str(i) for i in range(10)], CLASSES)
    assert scores.calibration_error == pytest.approx(0.3, abs=1e-6)


def test_scores_survive_json() -> None:
    scores = score(one_hot([0, 1, 1, 2]), [0, 0, 1, 1], list("abcd"), CLASSES)
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores


def drawn(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Probabilities and labels of 3 to 400 clips of 2 to 9 classes, of which some never occur, and some are sure."""
    rng = np.random.default_rng(seed)
    classes, clips = int(rng.integers(2, 10)), int(rng.integers(3, 400))
    probabilities = rng.dirichlet(np.full(classes, rng.choice([0.05, 0.5, 2.0])), clips).astype(np.float32)
    truth = np.where(rng.random(clips) < 0.6, probabilities.argmax(axis=1), rng.integers(0, classes, clips))
    unheard = rng.integers(0, classes)
    return probabilities, np.where(truth == unheard, (truth + 1) % classes, truth)


@pytest.mark.parametrize("seed", range(40))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, truth = drawn(seed)
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    groups, names = [str(clip) for clip in range(len(truth))], [str(name) for name in range(classes)]
    scores = score(probabilities, truth.tolist(), groups, names)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted), abs=5.1e-7)
    # Without `labels` it takes the classes that are present or predicted.
    assert scores.macro_f1 == pytest.approx(metrics.f1_score(truth, predicted, average="macro"), abs=5.1e-7)
    confusion = metrics.confusion_matrix(truth, predicted, labels=range(classes))
    assert scores.confusion == tuple(map(tuple, confusion.tolist()))
    present = np.unique(truth)
    recall = metrics.recall_score(truth, predicted, labels=present, average=None)
    assert [scores.recall[name] for name in present] == pytest.approx(recall.tolist(), abs=5.1e-7)
    assert [scores.recall[name] for name in range(classes) if name not in present] == [None] * (classes - len(present))


@pytest.mark.parametrize("seed", range(40))
def test_the_calibration_error_is_the_mean_gap_of_the_bins(seed: int) -> None:
    probabilities, truth = drawn(seed)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    expected = 0.0
    for lower in range(15 + 1):  # the last has nothing above its edge but 1 itself
        inside = [clip for clip, share in enumerate(confidence) if lower <= 15 * float(share) < lower + 1]
        if inside:
            gap = np.mean(right[inside]) - np.mean(confidence[inside], dtype=np.float64)
            expected += abs(gap) * len(inside) / len(confidence)
    assert calibration_error(confidence, right) == pytest.approx(expected, abs=1e-9)
    groups, names = [str(clip) for clip in range(len(truth))], [str(name) for name in range(probabilities.shape[1])]
    assert score(probabilities, truth.tolist(), groups, names).calibration_error == pytest.approx(expected, abs=5.1e-7)


def test_a_sure_prediction_is_not_averaged_with_a_nearly_sure_one() -> None:
    confidence = np.array([1.0, 0.95], dtype=np.float32)
    assert calibration_error(confidence, np.array([False, True])) == pytest.approx((1 + 0.05) / 2)
