"""Intervals of scores against scipy and against simulation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from edgekd.scoring.scores import score

CLASSES = ("cargo", "tanker", "tug")


def one_hot(predicted: Sequence[int], classes: int = len(CLASSES)) -> npt.NDArray[np.float32]:
    return np.eye(classes, dtype=np.float32)[list(predicted)]


def test_intervals_agree_with_scipy_when_every_clip_is_its_own_group() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 120)
    predicted = np.where(generator.random(120) < 0.75, labels, (labels + 1) % 3)
    scores = score(one_hot(predicted.tolist()), labels.tolist(), [f"{i}" for i in range(120)], CLASSES)
    oracle = scipy.stats.bootstrap(
        ((predicted == labels).astype(float),), np.mean, method="BCa", n_resamples=20_000, rng=generator
    ).confidence_interval
    assert scores.accuracy_interval == pytest.approx((oracle.low, oracle.high), abs=0.012)


def test_windows_of_one_recording_do_not_count_as_independent() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(0, 3, 30), 20)
    right = np.repeat(generator.random(30) < 0.7, 20)  # a recording is right or wrong as a whole
    predicted = np.where(right, labels, (labels + 1) % 3).tolist()
    recordings = [f"{i // 20}" for i in range(600)]
    grouped = score(one_hot(predicted), labels.tolist(), recordings, CLASSES)
    naive = score(one_hot(predicted), labels.tolist(), [f"{i}" for i in range(600)], CLASSES)
    assert grouped.groups == 30
    assert np.ptp(grouped.accuracy_interval) > 3 * np.ptp(naive.accuracy_interval)


def test_a_flawless_score_is_not_claimed_to_be_certain() -> None:
    labels = [i % 3 for i in range(30)]
    scores = score(one_hot(labels), labels, [str(i) for i in range(30)], CLASSES)
    exact = scipy.stats.binomtest(30, 30).proportion_ci(method="exact").low
    assert scores.accuracy_interval == pytest.approx((exact, 1.0))
    assert scores.macro_f1_interval == pytest.approx((exact, 1.0))


def test_one_recording_gives_no_confidence_at_all() -> None:
    assert score(one_hot([0, 1]), [0, 0], ["a", "a"], CLASSES).accuracy_interval == (0.0, 1.0)


def test_intervals_are_reproducible_and_change_with_the_seed() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 90).tolist()
    probabilities = generator.dirichlet(np.ones(3), 90).astype(np.float32)
    groups = [str(i // 3) for i in range(90)]
    first, again, other = (score(probabilities, labels, groups, CLASSES, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.macro_f1_interval != other.macro_f1_interval


@pytest.mark.parametrize("recordings_per_class", [6, 15])
def test_intervals_cover_the_truth_at_about_the_nominal_rate_for_grouped_windows(recordings_per_class: int) -> None:
    """Recordings differ in difficulty (beta-binomial, intraclass correlation 0.3) and give 5 to 10 windows each."""
    generator = np.random.default_rng(7)

    def recordings(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[str]]:
        truth = np.tile(np.arange(4), count)
        chance = generator.beta(0.75 * 7 / 3, 0.25 * 7 / 3, len(truth))
        windows = generator.integers(5, 11, len(truth))
        labels, right = np.repeat(truth, windows), generator.random(windows.sum()) < np.repeat(chance, windows)
        # Half of the errors go to the next class, so that the classes' F1 are not all alike.
        wrong = (labels + 1 + (labels % 2) * generator.integers(0, 3, len(labels))) % 4
        group = np.repeat(np.arange(len(truth)), windows)
        return labels, np.where(right, labels, wrong), [str(member) for member in group]

    labels, predicted, groups = recordings(6000)
    classes = ("a", "b", "c", "d")
    truth = score(one_hot(predicted.tolist(), 4), labels.tolist(), ["one"] * len(groups), classes)

    trials, hits = 150, np.zeros(2)
    for trial in range(trials):
        labels, predicted, groups = recordings(recordings_per_class)
        scores = score(one_hot(predicted.tolist(), 4), labels.tolist(), groups, classes, seed=trial)
        hits += [
            scores.accuracy_interval[0] <= truth.accuracy <= scores.accuracy_interval[1],
            scores.macro_f1_interval[0] <= truth.macro_f1 <= scores.macro_f1_interval[1],
        ]
    # Nominal 0.95 with a standard error of 0.018 over the trials; windows taken as independent would cover about 0.75.
    assert (hits / trials >= 0.90).all(), hits / trials
    assert (hits / trials <= 0.995).all(), hits / trials
