from __future__ import annotations

import numpy as np
import pytest

from edgekd.events.event import Event
from edgekd.events.matching import Overlap
from edgekd.scoring.event_counts import count_events, covered_seconds

TRUTH = [
    Event("a", 10, 20, "tug"),
    Event("a", 15, 30, "whale"),
    Event("a", 30, 31, "tug"),
    Event("b", 50, 60, "cargo"),
]
SECONDS = {"a": 3600.0, "b": 55.0, "c": 1800.0}


def test_events_are_counted_by_recording_and_class_and_others_are_no_background() -> None:
    detections = [
        Event("a", 10, 20, "tug", 0.3),
        Event("a", 11, 19, "tug", 0.9),  # of the same event: one of them is a false alarm, and no background
        Event("a", 40, 41, "tug", 0.8),
        Event("b", 52, 53, "tug", 0.5),  # on an event of a class that is not scored
        Event("b", 50, 60, "cargo", 0.5),
        Event("c", 0, 1, "whale", 0.1),
    ]
    counts = count_events(detections, TRUTH, ["a", "b", "c"], ["tug", "whale"], Overlap(0.5), SECONDS)
    assert counts.score.tolist() == [0.9, 0.8, 0.5, 0.3, 0.1]
    assert counts.right.tolist() == [True, False, False, False, False]
    assert counts.in_background.tolist() == [False, True, False, False, True]
    assert counts.events.tolist() == [[2, 1], [0, 0], [0, 0]]
    right, found = counts.counted(counts.score >= 0.3)
    assert right.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert found.tolist() == [[3, 0], [1, 0], [0, 0]]
    assert counts.background_alarms(np.ones(5, dtype=bool)).tolist() == [1, 0, 1]
    assert counts.hours == pytest.approx([1, 55 / 3600, 0.5])
    # 10 to 31 of a; 50 to its end at 55 of b; nothing of c.
    assert counts.background_hours == pytest.approx([(3600 - 21) / 3600, 50 / 3600, 0.5])


def test_time_that_several_events_share_counts_once() -> None:
    assert covered_seconds(TRUTH) == pytest.approx(21 + 10)


@pytest.mark.parametrize(
    ("start", "end", "background"), [(0, 9.9, True), (0, 10, False), (31, 32, False), (32, 33, True)]
)
def test_background_meets_no_event(start: float, end: float, background: bool) -> None:
    counts = count_events([Event("a", start, end, "tug", 1.0)], TRUTH, ["a", "b"], ["tug"], Overlap())
    assert counts.in_background.tolist() == [background]
    assert counts.hours is None


def test_background_agrees_with_a_grid_of_time() -> None:
    generator = np.random.default_rng(2)
    start, length = generator.integers(0, 900, 40).tolist(), generator.integers(1, 30, 40).tolist()
    truth = [Event("a", begin, begin + long, "x") for begin, long in zip(start, length, strict=True)]
    heard = np.zeros(1000, dtype=bool)
    for event in truth:
        heard[int(event.start) : int(event.end)] = True
    assert covered_seconds(truth) == heard.sum()
    begins = generator.integers(0, 990, 200)
    detections = [Event("a", begin + 0.25, begin + 0.75, "y", 0.0) for begin in begins]
    counts = count_events(detections, truth, ["a"], ["y"], Overlap(), {"a": 1000.0})
    assert counts.in_background.tolist() == (~heard[begins]).tolist()
    assert counts.background_hours == pytest.approx([(~heard).sum() / 3600])


def test_nothing_found_is_counted_too() -> None:
    counts = count_events([], TRUTH, ["a", "b"], ["tug"], Overlap())
    assert counts.counted(np.zeros(0, dtype=bool))[1].tolist() == [[0], [0]]
