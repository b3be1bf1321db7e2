"""Scores of windows to events: thresholds with hysteresis, gaps, minimum length, one class at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgekd.device.runner.detection import CLOSE_SHARE, DEFAULT_OPEN, Detection, EventFinder, Rule, event_line, rule_of
from edgekd.device.runner.errors import WrongUsage

CLIP, HOP = 8, 4
CLASSIFIER = {"classes": ["tug", "whale", "sea"], "sample_rate": 2, "clip_samples": CLIP, "hop_samples": HOP}


def rule(**changes: Any) -> Rule:
    plain = Rule(("tug", "whale"), 2, HOP, np.array([0.6, 0.6]), np.array([0.4, 0.4]), 0, 0, False)
    return plain._replace(**changes)


def found(scores: Sequence[Any], wanted: Rule, clip: int = HOP) -> list[Detection]:
    """Events of windows every `HOP` samples with these scores, of the first class or of both; None: none. Where windows
    are no longer than a hop, each is a cell."""
    finder = EventFinder(wanted)
    events: list[Detection] = []
    for number, score in enumerate(scores):
        row = None if score is None else np.array(score if isinstance(score, tuple) else (score, 0.0))
        events += finder.push(number * HOP, number * HOP + clip, row)
    return sorted([*events, *finder.finish()], key=lambda event: (event.start, event.label))


def test_what_a_moment_scores_is_the_mean_of_the_windows_that_cover_it() -> None:
    assert found([0, 1, 0.2, 0], rule(), CLIP) == [Detection(0, 4, 12, 0.6)]
    assert found([0, 1, 0.1, 0], rule(), CLIP) == []
    assert found([0, 0.9, 0.9, 0.9, 0], rule(), CLIP) == [Detection(0, 4, 20, 0.9)]  # half of it at its ends


def test_one_window_covers_the_first_hop_and_the_last() -> None:
    assert found([1, 0, 0, 1], rule(), CLIP) == [Detection(0, 0, 8, 1.0), Detection(0, 12, 20, 1.0)]
    assert found([1], rule(), CLIP) == [Detection(0, 0, CLIP, 1.0)]


def test_a_last_window_out_of_step_is_one_of_those_that_cover_the_end() -> None:
    finder = EventFinder(rule())
    events: list[Detection] = []
    for start, score in ((0, 0.0), (4, 0.0), (5, 1.0)):
        events += finder.push(start, start + CLIP, np.array([score, 0.0]))
    assert [*events, *finder.finish()] == [Detection(0, 8, 13, 1.0)]  # from 8 on two windows, from 12 on this one


@pytest.mark.parametrize("scores", [(0.1, 0.4, 0.6, 0.4, 0.1), (0.1, 0.4, 0.5, 0.6, 0.1), (0.1, 0.6, 0.5, 0.4, 0.1)])
def test_an_event_opens_at_a_score_and_closes_below_a_lower_one(scores: tuple[float, ...]) -> None:
    assert found(scores, rule()) == [Detection(0, 4, 16, 0.6)]


def test_what_never_reaches_the_upper_threshold_is_no_event() -> None:
    assert found([0.1, 0.59, 0.59, 0.39], rule()) == []


def test_the_score_of_an_event_is_its_highest() -> None:
    assert [event.score for event in found([0, 0.6, 0.9, 0.7, 0], rule())] == [0.9]


@pytest.mark.parametrize(("gap", "events"), [(3, 2), (4, 1), (5, 1)])
def test_a_gap_no_longer_than_that_is_bridged(gap: int, events: int) -> None:
    assert len(found([0, 0.8, 0.1, 0.9, 0], rule(gap=gap))) == events


def test_only_what_is_an_event_itself_joins_another() -> None:
    assert found([0, 0.8, 0.1, 0.5, 0, 0], rule(gap=4)) == [Detection(0, 4, 8, 0.8)]
    assert found([0, 0.8, 0.1, 0.5, 0.7, 0], rule(gap=4)) == [Detection(0, 4, 20, 0.8)]


@pytest.mark.parametrize(("minimum", "events"), [(8, 1), (9, 0)])
def test_a_shorter_event_is_left_out(minimum: int, events: int) -> None:
    assert len(found([0, 0.8, 0.8, 0], rule(minimum=minimum))) == events


def test_gaps_are_bridged_before_lengths_are_looked_at() -> None:
    assert found([0, 0.8, 0.1, 0.8, 0], rule(minimum=12, gap=4)) == [Detection(0, 4, 16, 0.8)]


def test_a_window_without_scores_hears_nothing() -> None:
    assert found([0.9, None, 0.9], rule()) == [Detection(0, 0, 4, 0.9), Detection(0, 8, 12, 0.9)]
    assert found([None, None], rule()) == []
    assert found([None, 0.8, None], rule(), CLIP) == []


def test_classes_overlap_unless_they_exclude_each_other() -> None:
    scores = [(0, 0), (0.7, 0), (0.7, 0.9), (0, 0.9), (0, 0)]
    assert found(scores, rule()) == [Detection(0, 4, 12, 0.7), Detection(1, 8, 16, 0.9)]
    assert found(scores, rule(exclusive=True)) == [Detection(0, 4, 8, 0.7), Detection(1, 8, 16, 0.9)]


def test_the_surest_is_the_one_furthest_over_its_own_threshold() -> None:
    scores, wanted = [(0, 0), (0.8, 0.5), (0, 0)], rule(open=np.array([0.7, 0.2]), close=np.array([0.7, 0.2]))
    assert found(scores, wanted._replace(exclusive=True)) == [Detection(1, 4, 8, 0.5)]


def test_a_gap_is_not_bridged_over_another_class_that_excludes_it() -> None:
    scores = [(0.9, 0), (0, 0.9), (0.9, 0), (0, 0)]
    assert found(scores, rule(gap=8, exclusive=True)) == [
        Detection(0, 0, 4, 0.9),
        Detection(1, 4, 8, 0.9),
        Detection(0, 8, 12, 0.9),
    ]
    assert len(found(scores, rule(gap=8))) == 2


@pytest.mark.parametrize("clip", [HOP, CLIP, 11])
def test_exclusive_events_never_overlap(clip: int) -> None:
    rng = np.random.default_rng(0)
    wanted = rule(exclusive=True, gap=9)
    for _ in range(30):
        events = found([tuple(row) for row in rng.uniform(0, 1, (60, 2))], wanted, clip)
        assert all(one.stop <= other.start for one, other in pairwise(events))


def test_what_a_slow_device_leaves_out_is_left_to_the_windows_beside_it() -> None:
    finder = EventFinder(rule())
    events: list[Detection] = []
    for start, score in ((0, 0.0), (4, 0.0), (12, 0.9), (16, 0.0)):  # without that at 8
        events += finder.push(start, start + CLIP, np.array([score, 0.0]))
    assert [*events, *finder.finish()] == [Detection(0, 12, 20, 0.9)]


def test_what_no_window_covers_is_in_no_event() -> None:
    finder = EventFinder(rule())
    events = [event for start in (0, 4, 40) for event in finder.push(start, start + CLIP, np.array([0.9, 0.0]))]
    assert [*events, *finder.finish()] == [Detection(0, 0, 12, 0.9), Detection(0, 40, 48, 0.9)]


def test_events_are_told_as_soon_as_nothing_can_change_them() -> None:
    finder, told = EventFinder(rule(gap=4)), []
    for number, score in enumerate([0, 0.9, 0, 0, 0, 0.9]):
        told.append(len(list(finder.push(number * HOP, number * HOP + HOP, np.array([score, 0.0])))))
    assert told == [0, 0, 0, 0, 1, 0]  # two cells without, and a window that begins behind them
    assert len(list(finder.finish())) == 1


@pytest.mark.parametrize("clip", [HOP, CLIP, 11, 40])
def test_events_are_the_same_as_of_all_windows_at_once(clip: int) -> None:
    rng = np.random.default_rng(1)
    scores = np.repeat(rng.uniform(0, 1, 40), 10)
    starts = np.arange(400) * HOP
    moments = np.arange(starts[-1] + clip)
    mean = np.array([scores[(starts <= moment) & (moment < starts + clip)].mean() for moment in moments])
    expected, start = [], None
    for moment in range(len(mean) + 1):
        inside = moment < len(mean) and mean[moment] >= 0.4
        if inside and start is None:
            start = moment
        elif not inside and start is not None:
            if mean[start:moment].max() >= 0.6:
                expected.append((start, moment, pytest.approx(mean[start:moment].max())))
            start = None
    assert len(expected) > 3
    assert [(event.start, event.stop, event.score) for event in found(scores.tolist(), rule(), clip)] == expected


def test_a_bundle_without_thresholds_has_those_of_nobody() -> None:
    plain = rule_of({"classifier": CLASSIFIER})
    assert plain.classes == ("tug", "whale", "sea")
    np.testing.assert_allclose(plain.open, DEFAULT_OPEN)
    np.testing.assert_allclose(plain.close, DEFAULT_OPEN * CLOSE_SHARE)
    assert (plain.hop, plain.minimum, plain.gap, plain.exclusive) == (CLIP // 4, 0, 0, False)


def test_an_older_bundle_has_its_background_by_name() -> None:
    classifier = {**CLASSIFIER, "classes": ["tug", "Background"]}
    assert np.isinf(rule_of({"classifier": classifier}).open[1])
    assert np.isfinite(rule_of({"classifier": classifier, "detection": {"background": None}}).open[1])


def test_a_bundle_says_what_makes_an_event_and_the_caller_something_else() -> None:
    detection = {
        "open": {"tug": 0.8},
        "close": {"tug": 0.4},
        "background": "sea",
        "hop_samples": 2,
        "minimum_s": 1.5,
        "gap_s": 2.0,
        "exclusive": True,
    }
    manifest = {"classifier": CLASSIFIER, "detection": detection}
    said = rule_of(manifest)
    np.testing.assert_allclose(said.open, [0.8, DEFAULT_OPEN, np.inf])
    np.testing.assert_allclose(said.close, [0.4, DEFAULT_OPEN * CLOSE_SHARE, np.inf])
    assert (said.hop, said.minimum, said.gap, said.exclusive) == (2, 3, 4, True)
    asked = rule_of(manifest, hop_s=3, thresholds=[(None, 0.5), ("tug", 0.6)], minimum_s=0, gap_s=1, exclusive=False)
    np.testing.assert_allclose(asked.open, [0.6, 0.5, np.inf])
    np.testing.assert_allclose(asked.close, [0.3, 0.5 * CLOSE_SHARE, np.inf])  # half of it, as the bundle has it
    assert (asked.hop, asked.minimum, asked.gap, asked.exclusive) == (6, 0, 2, False)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"thresholds": [("orca", 0.5)]}, "'orca': this class is not there; there are tug, whale"),
        ({"thresholds": [("sea", 0.5)]}, "'sea': this class is the background, which is no event"),
        ({"thresholds": [(None, 1.5)]}, "scores are from 0 to 1"),
        ({"hop_s": 4.5}, "windows are 4 s, so what is between them would not be heard"),
    ],
)
def test_what_cannot_be_done_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongUsage, match=words):
        rule_of({"classifier": CLASSIFIER, "detection": {"background": "sea"}}, **asked)


def test_no_event_ends_behind_its_recording() -> None:
    line = event_line(Detection(1, 3, 9, 0.12345678), rule(), 4.4, "a.wav")
    assert line == {"audio_file": "a.wav", "annotation": "whale", "start_time": 1.5, "end_time": 4.4, "score": 0.123457}
