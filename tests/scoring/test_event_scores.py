"""Event measures against sed_eval and psds_eval (figures of theirs, computed beside the project) and scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats

from edgekd.events.event import Event
from edgekd.events.matching import Criterion, Overlap, Tolerance
from edgekd.scoring.event_counts import EventCounts, count_events
from edgekd.scoring.event_scores import POINTS, area_below, score_events
from edgekd.scoring.intervals import intervals_over_groups

TRUTH = [
    *(Event("a.wav", *times, "tug") for times in ((1.0, 3.0), (1.4, 3.4), (30.0, 32.0))),
    *(Event("a.wav", *times, "whale") for times in ((10.0, 14.0), (20.0, 20.5))),
    *(Event("b.wav", *times, "whale") for times in ((5.0, 9.0), (5.2, 9.3))),
    *(Event("b.wav", *times) for times in ((40.0, 41.0, "tug"), (50.0, 55.0, "cargo"))),
    Event("c.wav", 7.0, 8.0, "cargo"),
]
DETECTIONS = [
    Event("a.wav", 1.2, 3.1, "tug", 0.9),
    Event("a.wav", 0.9, 2.9, "tug", 0.8),
    Event("a.wav", 10.1, 14.7, "whale", 0.7),
    Event("a.wav", 20.0, 21.0, "whale", 0.95),
    Event("a.wav", 30.2, 31.9, "whale", 0.6),
    Event("b.wav", 5.1, 9.1, "whale", 0.5),
    Event("b.wav", 4.9, 8.9, "whale", 0.65),
    Event("b.wav", 40.2, 41.1, "tug", 0.3),
    Event("b.wav", 50.1, 53.0, "cargo", 0.85),
    Event("c.wav", 7.1, 8.1, "cargo", 0.2),
    Event("c.wav", 30.0, 31.0, "tug", 0.75),
    Event("d.wav", 2.0, 3.0, "whale", 0.4),
]
FILES = ("a.wav", "b.wav", "c.wav", "d.wav")
CLASSES = ("cargo", "tug", "whale")


def counted(
    detections: Sequence[Event], truth: Sequence[Event], criterion: Criterion, seconds: dict[str, float] | None = None
) -> EventCounts:
    names = sorted({event.recording for event in [*detections, *truth]} | set(seconds or ()))
    classes = sorted({event.label for event in [*detections, *truth]})
    return count_events(detections, truth, names, classes, criterion, seconds)


# sed_eval 0.2.1: EventBasedMetrics(CLASSES, t_collar=0.25, percentage_of_length=share, event_matching_type="optimal").
@pytest.mark.parametrize(
    ("share", "threshold", "figures", "f1", "macro_f1"),
    [
        (0.2, 0.0, [(10, 12, 7), (2, 2, 1), (4, 4, 3), (4, 6, 3)], 0.6363636363636365, 0.6166666666666667),
        (0.5, 0.5, [(10, 9, 6), (2, 1, 1), (4, 3, 2), (4, 5, 3)], 0.631578947368421, 0.6349206349206349),
    ],
)
def test_figures_are_those_of_sed_eval(
    share: float, threshold: float, figures: list[tuple[int, ...]], f1: float, macro_f1: float
) -> None:
    scores = score_events(counted(DETECTIONS, TRUTH, Tolerance(0.25, share)), dict.fromkeys(CLASSES, threshold))
    shown = [(each.events, each.detections, each.right) for each in (scores.overall, *scores.classes.values())]
    assert shown == figures
    assert tuple(scores.classes) == CLASSES
    assert scores.overall.f1.value == pytest.approx(f1)
    assert scores.macro_f1.value == pytest.approx(macro_f1)


def test_thresholds_may_differ_by_class() -> None:
    scores = score_events(counted(DETECTIONS, TRUTH, Tolerance(0.25)), {"cargo": 0.85, "whale": 0.66})
    assert [each.detections for each in scores.classes.values()] == [1, 4, 2]
    assert scores.overall.detections == 7


def test_rates_are_false_alarms_over_hours_and_have_no_interval_without_lengths() -> None:
    seconds = dict.fromkeys((*FILES, "e.wav", "f.wav"), 60.0)
    scores = score_events(counted(DETECTIONS, TRUTH, Overlap(), seconds))
    assert (scores.recordings, scores.recordings_without_events) == (6, 3)
    assert scores.hours == pytest.approx(0.1)
    wrong = scores.overall.detections - scores.overall.right
    assert scores.overall.an_hour is not None
    assert scores.overall.an_hour.value == pytest.approx(wrong / 0.1)
    assert scores.overall.an_hour.interval is not None
    # In c.wav and in d.wav: outside of every event.
    assert scores.overall.background_an_hour is not None
    assert scores.overall.background_an_hour.value == pytest.approx(2 / scores.background_hours)
    told = score_events(counted(DETECTIONS, TRUTH, Overlap()), hours=0.1, covered_hours=0.1 - scores.background_hours)
    assert told.overall.an_hour is not None
    assert (told.overall.an_hour.value, told.overall.an_hour.interval) == (pytest.approx(wrong / 0.1), None)
    assert told.overall.background_an_hour is not None
    assert told.overall.background_an_hour.value == pytest.approx(scores.overall.background_an_hour.value)
    assert score_events(counted(DETECTIONS, TRUTH, Overlap())).overall.an_hour is None


SMALL_TRUTH = [
    *(Event("a.wav", *times) for times in ((1.0, 3.0, "tug"), (10.0, 14.0, "whale"), (30.0, 32.0, "tug"))),
    *(Event("b.wav", *times) for times in ((5.0, 9.0, "whale"), (40.0, 41.0, "tug"))),
]
SMALL = [
    *(Event("a.wav", *rest) for rest in ((1.0, 3.0, "tug", 0.9), (6.0, 7.0, "tug", 0.85), (10.0, 14.0, "whale", 0.4))),
    Event("a.wav", 50.0, 51.0, "whale", 0.8),
    *(Event("b.wav", *rest) for rest in ((5.0, 9.0, "whale", 0.7), (20.0, 22.0, "tug", 0.6), (40.0, 41.0, "tug", 0.6))),
    *(Event("b.wav", *rest) for rest in ((60.0, 61.0, "tug", 0.5), (70.0, 71.0, "whale", 0.3))),
]


def test_the_area_is_that_of_psds_eval_where_its_criteria_and_ours_agree() -> None:
    # psds_eval 0.5.3, psds(alpha_ct=0, alpha_st=0, max_efpr=100): each detection is a true event, or meets none.
    scores = score_events(counted(SMALL, SMALL_TRUTH, Overlap(), {"a.wav": 100.0, "b.wav": 80.0}))
    assert scores.area is not None
    assert scores.area.value == pytest.approx(2 / 3)


def test_the_area_is_the_mean_of_the_recall_at_each_rate() -> None:
    generator = np.random.default_rng(4)
    score = np.sort(generator.integers(0, 30, 60) / 30.0)[::-1]
    right = generator.random(60) < 0.5
    hours, events = 0.7, 45.0
    rates = (np.arange(200_000) + 0.5) / 2_000  # up to 100 an hour
    recall = np.zeros_like(rates)
    for threshold in np.unique(score):
        kept = score >= threshold
        recall = np.maximum(recall, np.where((kept & ~right).sum() / hours <= rates, (kept & right).sum() / events, 0))
    one = right[None].astype(float)
    found = area_below(score, one, 1 - one, np.array([events]), np.array([hours]))
    assert found == pytest.approx([recall.mean()], abs=1e-5)


def test_the_curve_is_the_figures_at_each_threshold_and_the_best_is_among_them() -> None:
    generator = np.random.default_rng(8)
    truth = [Event(f"{n % 7}", 10.0 * n, 10.0 * n + 5, "ab"[n % 2]) for n in range(80)]
    detections = [
        Event(each.recording, each.start + shift, each.end, each.label, noise - abs(shift) / 4)
        for each, shift, noise in zip(truth, generator.uniform(-4, 4, 80).tolist(), generator.random(80), strict=True)
    ]
    scores = score_events(counted(detections, truth, Overlap(0.75)))
    thresholds = [threshold for threshold, _ in scores.curve]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(thresholds) <= POINTS
    assert {max(each.score for each in detections), min(each.score for each in detections)} <= set(thresholds)
    for threshold, figures in scores.curve[::5]:
        alone = score_events(counted([each for each in detections if each.score >= threshold], truth, Overlap(0.75)))
        assert figures == alone.overall
    counts = counted(detections, truth, Overlap(0.75))
    f1 = 2 * counts.right.cumsum() / (np.arange(1, 81) + 80)
    best = dict(scores.curve)[scores.best_threshold].f1.value
    assert best == pytest.approx(f1.max())
    assert f1.argmax() not in np.linspace(0, 79, POINTS - 1).round()  # else it would be there anyhow


def test_detections_without_scores_have_no_curve() -> None:
    scores = score_events(counted([Event("a.wav", 1.0, 3.0, "tug")], TRUTH, Overlap()))
    assert (scores.curve, scores.best_threshold, scores.area) == ((), None, None)
    assert scores.overall.right == 1


def test_what_is_not_defined_is_not_told() -> None:
    scores = score_events(counted([], TRUTH, Overlap()))
    assert (scores.overall.precision.value, scores.overall.precision.interval) == (None, None)
    assert (scores.overall.recall.value, scores.overall.f1.value) == (0, 0)
    scores = score_events(counted(DETECTIONS, [], Overlap()))
    assert (scores.overall.recall.value, scores.overall.precision.value, scores.macro_f1.value) == (None, 0, None)


def test_intervals_are_those_of_a_bootstrap_over_recordings() -> None:
    generator = np.random.default_rng(1)
    groups = 60
    found = generator.integers(1, 9, groups).astype(float)
    right = generator.binomial(found.astype(int), generator.beta(4, 2, groups)).astype(float)

    def precision(weights: np.ndarray) -> np.ndarray:
        return ((weights @ right) / (weights @ found))[None]

    values, (ends,) = intervals_over_groups(precision, ("share",), (None,), groups, 0)
    oracle = scipy.stats.bootstrap(
        (right, found), lambda r, f, axis=-1: r.sum(axis=axis) / f.sum(axis=axis), paired=True, method="BCa",
        n_resamples=20_000, rng=generator,
    ).confidence_interval  # fmt: skip
    assert values == pytest.approx([right.sum() / found.sum()])
    assert ends == pytest.approx((oracle.low, oracle.high), abs=0.01)


def test_no_false_alarm_at_all_is_not_claimed_for_ever() -> None:
    seconds = dict.fromkeys(FILES[:3], 1800.0)
    scores = score_events(counted([], TRUTH, Overlap(), seconds))
    assert scores.overall.an_hour is not None
    exact = scipy.stats.chi2.ppf(0.975, 2) / 2 / 1.5  # Garwood's upper end of a count of 0
    assert scores.overall.an_hour.interval == pytest.approx((0, exact))
    assert scores.overall.background_an_hour is not None
    assert scores.overall.background_an_hour.interval == pytest.approx((0, exact * 1.5 / scores.background_hours))


def test_one_recording_says_nothing_of_the_next() -> None:
    truth = [each for each in TRUTH if each.recording == "a.wav"]
    scores = score_events(counted(truth, truth, Overlap(), {"a.wav": 60.0}))
    assert (scores.overall.f1.value, scores.overall.f1.interval) == (1, (0, 1))
    assert scores.overall.an_hour is not None
    assert (scores.overall.an_hour.value, scores.overall.an_hour.interval) == (0, None)


def test_intervals_cover_the_truth_at_about_the_nominal_rate() -> None:
    """Recordings differ in how well they are detected and in how many false alarms they have."""
    generator = np.random.default_rng(7)

    def drawn(recordings: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        events = generator.poisson(6, recordings)
        right = generator.binomial(events, generator.beta(3, 1.5, recordings))
        return right, right + generator.poisson(generator.gamma(2, 1, recordings)), events

    r, f, e = (each.sum() for each in drawn(400_000))
    truth = np.array([2 * r / (f + e), (f - r) / 400_000])
    hits, trials = np.zeros(2), 100
    for trial in range(trials):
        right, found, events = drawn(30)

        def statistics(weights: np.ndarray, right=right, found=found, events=events) -> np.ndarray:
            r, f, e = weights @ right, weights @ found, weights @ events
            return np.stack([2 * r / (f + e), (f - r) / weights.sum(axis=1)])

        _, ends = intervals_over_groups(statistics, ("share", "rate"), (None, 30.0), 30, trial)
        hits += [low <= value <= high for value, (low, high) in zip(truth, ends, strict=True)]
    # Nominal 0.95 with a standard error of 0.022 over the trials.
    assert (hits / trials >= 0.88).all(), hits / trials
    assert (hits / trials <= 0.995).all(), hits / trials
