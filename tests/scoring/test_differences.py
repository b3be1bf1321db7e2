"""Tests of significance against scipy, intervals against what is known of simulated methods."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from edgekd.errors import InputError
from edgekd.runs.predictions import Predictions
from edgekd.scoring.differences import Trial, difference, mcnemar, sign_flip

CLASSES = 4
Said = dict[Trial, Predictions]


def said(right: np.ndarray, labels: np.ndarray, groups: list[str]) -> Predictions:
    """A subject that has the clips `right (N,)` right, and the class after the true one for the others."""
    predicted = np.where(right, labels, (labels + 1) % CLASSES)
    return Predictions(
        tuple(range(len(labels))), tuple(groups), labels, np.eye(CLASSES, dtype=np.float32)[predicted] * 0.9
    )


def one_run(first: list[int], second: list[int], clips: int = 1) -> tuple[Said, Said]:
    """One trial, each value whether a recording of `clips` clips is right."""
    labels = np.repeat(np.arange(len(first)) % CLASSES, clips)
    groups = [f"recording {number}" for number in range(len(first)) for _ in range(clips)]
    trials = [{("fold1", 0): said(np.repeat(right, clips) > 0, labels, groups)} for right in (first, second)]
    return trials[0], trials[1]


# Tests of significance


@pytest.mark.parametrize(("one", "two"), [(0, 0), (0, 5), (3, 1), (7, 7), (40, 22), (900, 1100), (30_000, 30_500)])
def test_mcnemar_is_the_exact_binomial_test(one: int, two: int) -> None:
    expected = stats.binomtest(one, one + two, 0.5).pvalue if one + two else 1.0
    assert mcnemar(one, two) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(two, one) == mcnemar(one, two)


def test_sign_flip_agrees_with_the_exact_permutation_test() -> None:
    surplus = np.array([3, 1, 0, -1, 2, 2, -3, 4, 1, 0])
    signs = np.array(list(itertools.product([-1, 1], repeat=len(surplus))))
    exact = float((np.abs(signs @ surplus) >= abs(surplus.sum())).mean())
    assert sign_flip(surplus, np.random.default_rng(0)) == pytest.approx(exact, abs=0.015)
    scipys = stats.permutation_test((surplus,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert exact == pytest.approx(scipys.pvalue)


def test_methods_that_say_the_same_do_not_differ() -> None:
    first, second = one_run([1, 0, 1, 1], [1, 0, 1, 1])
    found = difference(first, second, CLASSES)
    assert found is not None
    assert (found.accuracy, found.macro_f1) == (0, 0)
    assert (found.mcnemar, found.sign_flip) == (1, 1)


def test_methods_that_never_differed_might_on_other_recordings() -> None:
    found = difference(*one_run([1, 0] * 30, [1, 0] * 30), CLASSES)
    assert found is not None
    bound = stats.binomtest(0, 60).proportion_ci(method="exact").high
    assert found.accuracy_interval == pytest.approx((-bound, bound))
    assert (found.shown, found.least_told) == (False, pytest.approx(bound))


def test_windows_of_one_recording_deceive_mcnemar_and_not_the_other_test() -> None:
    first, second = one_run([1, 1, 1, 1, 0, 1], [0, 0, 0, 1, 0, 1], clips=20)
    found = difference(first, second, CLASSES)
    assert found is not None
    assert (found.only_first, found.only_second, found.recordings) == (60, 0, 6)
    assert found.mcnemar < 1e-15
    assert found.sign_flip == pytest.approx(0.25, abs=0.02), "three coins"


# The estimate


def test_the_estimate_is_the_mean_over_trials_of_both(rng: np.random.Generator) -> None:
    first, second = world(rng, folds=2, seeds=2)
    del second["fold1", 1]
    found = difference(first, second, CLASSES)
    assert found is not None
    assert found.trials == 3
    expected = [right(first[trial]) - right(second[trial]) for trial in second]
    assert found.accuracy == pytest.approx(float(np.mean(expected)))
    assert found.only_first - found.only_second == round(sum(expected) * 60)


def test_methods_without_a_trial_in_common_have_no_difference() -> None:
    first, second = one_run([1, 0], [0, 1])
    assert difference(first, {("fold2", 0): second["fold1", 0]}, CLASSES) is None


def test_other_clips_are_refused() -> None:
    first, _ = one_run([1, 0, 1, 0], [0, 0, 0, 0])
    _, second = one_run([1, 0, 1], [0, 0, 0])
    with pytest.raises(InputError, match=r"fold1, seed 0: two methods were not tested on the same clips"):
        difference(first, second, CLASSES)


# The interval


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def right(predictions: Predictions) -> float:
    return float((predictions.predicted == predictions.labels).mean())


def world(
    rng: np.random.Generator,
    folds: int = 1,
    recordings: int = 12,
    clips: int = 5,
    seeds: int = 3,
    better: float = 0.1,
    by_recording: float = 0.15,
    by_run: float = 0.0,
    together: float = 0.1,
) -> tuple[Said, Said]:
    """Two methods whose chances of a clip are 0.6 and 0.6 - `better`, moved by the recording, the run, and both."""

    def spread(width: float, *shape: int) -> np.ndarray:
        return width * rng.choice([-1.0, 1.0], shape)  # bounded, so that no chance leaves [0, 1]

    first: Said = {}
    second: Said = {}
    for fold in range(folds):
        labels = np.repeat(np.arange(recordings) % CLASSES, clips)
        groups = [f"{fold}/{number:03}" for number in range(recordings) for _ in range(clips)]
        own = spread(by_recording / 2, recordings), spread(by_recording / 2, recordings)
        for seed in range(seeds):
            for kind, (trials, chance) in enumerate(((first, 0.6), (second, 0.6 - better))):
                moved = own[kind] + spread(by_run / 2, 1) + spread(together / 2, recordings)
                hits = rng.random(recordings * clips) < np.repeat(chance + moved, clips)
                trials[f"fold{fold}", seed] = said(hits, labels, groups)
    return first, second


def interval(first: Mapping[Trial, Predictions], second: Mapping[Trial, Predictions], **settings: int) -> np.ndarray:
    found = difference(first, second, CLASSES, **settings)
    assert found is not None
    return np.array(found.accuracy_interval)


def test_one_run_of_single_clips_has_the_interval_of_a_mean(rng: np.random.Generator) -> None:
    first, second = (rng.random(400) < chance for chance in (0.7, 0.55))
    labels, groups = np.arange(400) % CLASSES, [str(number) for number in range(400)]
    low, high = interval(
        {("given", 0): said(first, labels, groups)}, {("given", 0): said(second, labels, groups)}, resamples=4000
    )
    each = first.astype(float) - second
    error = each.std(ddof=1) / np.sqrt(400)
    assert (low, high) == pytest.approx((each.mean() - 1.96 * error, each.mean() + 1.96 * error), abs=0.15 * error)


def test_what_belongs_to_the_recording_is_resampled_by_recording(rng: np.random.Generator) -> None:
    recordings = list((rng.random(40) < 0.7).astype(int)), list((rng.random(40) < 0.5).astype(int))
    alone, many = (interval(*one_run(*recordings, clips=clips)) for clips in (1, 20))
    assert many == pytest.approx(alone, abs=0.03), "twenty copies of a clip tell no more than one"


def test_luck_of_a_run_widens_the_interval(rng: np.random.Generator) -> None:
    steady = np.ptp(interval(*world(rng, recordings=200, by_run=0.0)))
    lucky = np.ptp(interval(*world(rng, recordings=200, by_run=0.4)))
    assert lucky > 3 * steady
    one = difference(*world(rng, recordings=200, seeds=1, by_run=0.4), CLASSES)
    assert one is not None
    assert not one.runs_resampled


def test_overlapping_test_sides_do_not_make_recordings_more(rng: np.random.Generator) -> None:
    """The same recordings tested in five splits, with the same result: the interval is that of one split."""
    first, second = world(rng, recordings=40, seeds=1)
    splits = [{(f"split{number}", 0): trials["fold0", 0] for number in range(5)} for trials in (first, second)]
    assert np.ptp(interval(*splits)) == pytest.approx(np.ptp(interval(first, second)), rel=0.1)


@pytest.mark.parametrize(
    "settings", [{"by_run": 0.1}, {"by_run": 0.3, "seeds": 4}], ids=["recordings and runs", "runs above all"]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(settings: dict[str, float]) -> None:
    rng, worlds = np.random.default_rng(3), 100
    held = 0
    for _ in range(worlds):
        low, high = interval(*world(rng, folds=2, recordings=16, clips=4, **settings), resamples=200, flips=9)
        held += low <= 0.1 <= high
    assert 0.89 <= held / worlds <= 0.995
