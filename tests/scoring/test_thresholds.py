"""Thresholds of one class, beside what a search over all of them finds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgekd.runs.thresholds import Aim, ClassThreshold
from edgekd.scoring.thresholds import (
    CLOSE,
    choose_threshold,
    choose_thresholds,
    counts_at,
    hours_to_promise,
    rate_interval,
)

HOUR = 0.01  # of a window
Scores = npt.NDArray[np.float32]
Truth = npt.NDArray[np.bool_]


def at_most(an_hour: float) -> Aim:
    return Aim(by="max-false-alarms", an_hour=an_hour)


def drawn(seed: int) -> tuple[Scores, Truth]:
    """5 to 60 windows, half of whose scores are tied with others."""
    rng = np.random.default_rng(seed)
    truth = rng.random(int(rng.integers(5, 60))) < rng.uniform(0.1, 0.6)
    scores = np.clip(rng.normal(np.where(truth, 0.6, 0.4), 0.2), 0, 1)
    return np.where(rng.random(len(truth)) < 0.5, scores.round(1), scores).astype(np.float32), truth


def f1(scores: Scores, truth: Truth, threshold: float) -> float:
    heard = scores >= threshold
    return 2 * float((heard & truth).sum()) / float(heard.sum() + truth.sum())


@pytest.mark.parametrize("seed", range(30))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    scores, truth = drawn(seed)
    if not truth.any():
        return
    chosen = choose_threshold(scores, truth, HOUR)
    assert chosen.open is not None
    best = max(f1(scores, truth, float(threshold)) for threshold in scores)
    assert f1(scores, truth, chosen.open) == pytest.approx(best)
    assert chosen.validation == counts_at(scores, truth, chosen.open, HOUR)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("an_hour", [0.1, 5, 30])
def test_no_threshold_within_the_rate_finds_more(seed: int, an_hour: float) -> None:
    scores, truth = drawn(seed)
    chosen = choose_threshold(scores, truth, HOUR, at_most(an_hour))
    allowed = an_hour * (~truth).sum() * HOUR
    assert chosen.open is not None
    assert chosen.validation.false_alarms <= allowed or scores[~truth].max() == 1
    within = [t for t in np.unique(scores) if (scores[~truth] >= t).sum() <= allowed]
    assert chosen.validation.found == max([int((scores[truth] >= t).sum()) for t in within], default=0)


def test_the_threshold_lies_between_two_scores_and_the_event_ends_below_it() -> None:
    chosen = choose_threshold(np.array([0.9, 0.7, 0.2]), np.array([True, True, False]), HOUR)
    assert chosen.open == pytest.approx(0.45)
    assert chosen.close == pytest.approx(CLOSE * 0.45)


def test_windows_of_one_score_are_not_parted() -> None:
    scores, truth = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, True, False, False])
    strict = choose_threshold(scores, truth, HOUR, at_most(1))
    assert (strict.validation.found, strict.validation.false_alarms) == (1, 0)
    assert strict.open == pytest.approx(0.7)
    assert choose_threshold(scores, truth, HOUR).open == pytest.approx(0.7), "f1 of 2/3 either way: the higher one"


def test_scores_that_are_neighbours_in_float32_are_told_apart() -> None:
    high = np.float32(0.123456789)
    scores = np.array([high, np.nextafter(high, np.float32(0))])
    chosen = choose_threshold(scores, np.array([True, False]), HOUR)
    assert (chosen.validation.found, chosen.validation.false_alarms) == (1, 0)


def test_alarms_that_find_nothing_more_are_not_allowed_for_their_own_sake() -> None:
    scores, truth = np.array([0.9, 0.4, 0.3, 0.2, 0.1]), np.array([True, False, False, False, False])
    chosen = choose_threshold(scores, truth, HOUR, at_most(75))  # three of four
    assert (chosen.open, chosen.validation.false_alarms) == (pytest.approx(0.65), 0)


def test_a_class_that_the_windows_do_not_hold_is_told() -> None:
    scores, nothing = np.array([0.3, 0.2, 0.1]), np.zeros(3, dtype=bool)
    unknown = choose_threshold(scores, nothing, HOUR)
    assert (unknown.open, unknown.close, unknown.note) == (None, None, "no window of this class to choose on")
    kept_low = choose_threshold(scores, nothing, HOUR, at_most(40))  # one of three
    assert kept_low.open == pytest.approx(0.25)
    assert kept_low.note == "no window of this class: what it misses is not known"


def test_windows_of_one_class_alone_are_told() -> None:
    scores, everything = np.array([0.9, 0.6]), np.ones(2, dtype=bool)
    assert choose_threshold(scores, everything, HOUR).open == pytest.approx(0.3)
    chosen = choose_threshold(scores, everything, HOUR, at_most(1))
    assert (chosen.validation.found, chosen.note) == (2, "no window of anything else")


def test_something_else_with_a_score_of_1_cannot_be_kept_out() -> None:
    scores, truth = np.array([1.0, 1.0, 0.5]), np.array([True, False, False])
    chosen = choose_threshold(scores, truth, HOUR, at_most(1))
    assert (chosen.open, chosen.validation.false_alarms) == (1.0, 1)
    assert chosen.note == "something else has a score of 1, which no threshold keeps out"


def test_no_windows_choose_nothing() -> None:
    none = np.zeros(0)
    for aim in (Aim(), at_most(1)):
        chosen = choose_threshold(none, none.astype(bool), HOUR, aim)
        assert (chosen.open, chosen.note) == (None, "no window to choose on")


def test_classes_that_are_there_together_are_chosen_alike() -> None:
    scores = np.array([[0.9, 0.8], [0.2, 0.7], [0.1, 0.3]])
    truth = np.array([[True, True], [False, True], [False, False]])
    chosen = choose_thresholds(scores, truth, ("tug", "whale"), HOUR)
    assert [each.open for each in chosen.values()] == [pytest.approx(0.55), pytest.approx(0.5)]
    assert all(isinstance(each, ClassThreshold) for each in chosen.values())


def test_the_background_is_no_event_but_its_windows_may_be_false_alarms() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    truth = np.array([[True, False], [False, True], [False, True]])
    chosen = choose_thresholds(scores, truth, ("tug", "background"), HOUR, at_most(1), "background")
    assert (chosen["background"].open, chosen["background"].note) == (None, "the background, which is no event")
    assert chosen["tug"].open == pytest.approx(0.75)
    assert chosen["tug"].validation.other_hours == pytest.approx(2 * HOUR)


@pytest.mark.parametrize(  # by scipy.stats.chi2.ppf([0.025, 0.975], [2 n, 2 n + 2]) / 2
    ("events", "low", "high"),
    [(0, 0, 3.688879), (1, 0.0253178, 5.5716434), (5, 1.6234864, 11.6683321), (1000, 938.973024, 1063.952064)],
)
def test_a_rate_has_the_exact_interval_of_a_poisson_process(events: int, low: float, high: float) -> None:
    found = rate_interval(events, 2.0)
    assert found == pytest.approx((low / 2, high / 2), rel=1e-6)
    assert rate_interval(events, 0) is None


def test_hours_to_promise_are_those_after_which_none_is_enough() -> None:
    interval = rate_interval(0, hours_to_promise(0.5))
    assert interval is not None
    assert interval[1] == pytest.approx(0.5)
