"""Pairs of detections and true events against the assignment that scipy finds."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from edgekd.events.matching import Criterion, Overlap, Tolerance, right

CRITERIA = [Overlap(0.3), Overlap(0.5), Overlap(0.001), Tolerance(0.5, 0.0), Tolerance(0.25, 0.5)]


def may_pair(start: float, end: float, true_start: float, true_end: float, criterion: Criterion) -> bool:
    """Both definitions, one pair at a time."""
    if isinstance(criterion, Overlap):
        shared = min(end, true_end) - max(start, true_start)
        return shared > 0 and shared / (max(end, true_end) - min(start, true_start)) >= criterion.share
    late = max(criterion.seconds, criterion.share * (true_end - true_start))
    return abs(start - true_start) <= criterion.seconds and abs(end - true_end) <= late


def most_pairs(fits: np.ndarray) -> int:
    """As many as scipy's assignment makes of what may be paired, `(D, T)`."""
    return int(fits[linear_sum_assignment(fits, maximize=True)].sum()) if fits.size else 0


def crowd(generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Detections and true events so close that many could be paired with several."""
    count, true_count = generator.integers(0, 25, 2)
    true_start = generator.uniform(0, 8, true_count)
    true_end = true_start + generator.uniform(0.2, 3, true_count)
    start = generator.uniform(0, 8, count)
    return start, start + generator.uniform(0.2, 3, count), true_start, true_end


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_of_the_first_n_detections_as_many_are_right_as_any_assignment_can_make(criterion: Criterion) -> None:
    generator = np.random.default_rng(3)
    seen = 0
    for _ in range(60):
        start, end, true_start, true_end = crowd(generator)
        found = right(start, end, true_start, true_end, criterion)
        fits = np.array(
            [[may_pair(*one, *other, criterion) for other in np.c_[true_start, true_end]] for one in np.c_[start, end]]
        ).reshape(len(start), len(true_start))
        for first in range(len(start) + 1):
            assert found[:first].sum() == most_pairs(fits[:first].astype(int))
        seen += int(found.sum())
    assert seen > 100


def test_a_pairing_that_takes_the_first_that_fits_would_find_fewer() -> None:
    # The better detection fits both events, the other one only the first: the former has to give way.
    found = right(np.array([1.0, 0.0]), np.array([3.0, 2.0]), np.array([0.5, 1.5]), np.array([2.5, 3.5]), Overlap(0.45))
    assert found.tolist() == [True, True]


def test_a_detection_with_a_lower_score_does_not_take_the_event_of_a_better_one() -> None:
    found = right(np.array([1.0, 1.0]), np.array([2.2, 2.0]), np.array([1.0]), np.array([2.0]), Overlap(0.3))
    assert found.tolist() == [True, False]


def test_times_that_differ_by_rounding_alone_are_equal() -> None:
    assert 5.2 - 5.0 > 0.2
    found = right(np.array([5.2]), np.array([7.0]), np.array([5.0]), np.array([7.0]), Tolerance(0.2, 0.0))
    assert found.tolist() == [True]


def test_points_are_right_by_tolerance_and_never_by_overlap() -> None:
    point = np.array([1.0])
    assert right(point, point, point, point, Tolerance(0.1)).tolist() == [True]
    assert right(point, point, point, point, Overlap()).tolist() == [False]


def test_the_order_of_true_events_does_not_matter() -> None:
    generator = np.random.default_rng(5)
    start, end, true_start, true_end = (values[:5] for values in crowd(generator))
    counts = {
        int(right(start, end, true_start[list(order)], true_end[list(order)], Overlap(0.2)).sum())
        for order in permutations(range(len(true_start)))
    }
    assert len(counts) == 1


def test_a_long_chain_of_events_takes_no_recursion() -> None:
    # Each detection fits two events, and the last one makes all before it move on.
    count = 3_000
    true_start = np.arange(count, dtype=float)
    start = np.append(true_start[:-1] + 0.5, 0.0)
    found = right(start, start + 1, true_start, true_start + 1, Overlap(0.3))
    assert found.all()
