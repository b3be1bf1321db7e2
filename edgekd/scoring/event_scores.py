"""How good detections are: precision, recall and F1 of events, false alarms an hour, over thresholds, with intervals.

Intervals are 95 % over recordings (`intervals`). Micro figures are of all events together; macro-F1 is the mean over
the classes that the truth has. A false alarm is a detection that is not right (`edgekd.events.matching`); one in the
background overlaps no true event of any class, and is counted against the hours in which there is none. `area` is like
the polyphonic sound detection score (Bilen et al., ICASSP 2020, with both its weights 0): the recall at each number of
false alarms an hour, at best, averaged from 0 to `MOST_AN_HOUR` and over classes; but a detection is right by the
criterion here, one to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.scoring.event_counts import EventCounts
from edgekd.scoring.intervals import Floats, Interval, Kind, intervals_over_groups

MOST_AN_HOUR = 100.0
"""False alarms an hour up to which `area` goes: that of psds_eval where nothing else is said."""
POINTS = 20
"""Thresholds of the curve, at most."""


@dataclass(frozen=True)
class Measure:
    """A figure, None where it is not defined, and its 95 % interval, None where there is no telling."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Figures:
    """Event measures of one class, or of all at one threshold. `an_hour`: false alarms, of all audio;
    `background_an_hour`: those in the background, of audio without events. Both None where no length is known."""

    events: int
    detections: int
    right: int
    precision: Measure
    recall: Measure
    f1: Measure
    an_hour: Measure | None
    background_an_hour: Measure | None


@dataclass(frozen=True)
class EventScores:
    """All that `edgekd score` says. `curve`: the figures from each score on, the highest first; empty without scores.
    `best_threshold`: the point of it with the highest F1."""

    recordings: int
    recordings_without_events: int
    hours: float | None
    background_hours: float | None
    overall: Figures
    macro_f1: Measure
    area: Measure | None
    classes: dict[str, Figures]
    curve: tuple[tuple[float, Figures], ...]
    best_threshold: float | None

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        values["curve"] = [{"threshold": threshold, **asdict(figures)} for threshold, figures in self.curve]
        return values


def score_events(
    counts: EventCounts,
    thresholds: Mapping[str, float] | None = None,
    hours: float | None = None,
    covered_hours: float = 0.0,
    seed: int = 0,
) -> EventScores:
    """The figures of the detections whose score is the threshold of their class or more (`thresholds`; None: of all).

    `hours`: how long all recordings are together, `covered_hours` of them with events, where `counts` does not know:
    rates then have no interval. The curve and `area` are over all scores, whatever the thresholds.
    """
    kept = np.ones(len(counts.score), dtype=np.bool_)
    if thresholds is not None:
        least = np.array([thresholds.get(name, -np.inf) for name in counts.classes])
        kept = counts.score >= least[counts.class_]
    total = _Hours.of(counts, hours, covered_hours)
    points = _points(counts) if len(counts.score) and np.isfinite(counts.score).all() else []
    asked = [_figures(counts, kept, total), *(_figures(counts, counts.score >= point, total) for point in points)]
    asked += [
        _figures(counts, kept & (counts.class_ == number), total, number) for number in range(len(counts.classes))
    ]
    asked.append(_macro_f1(counts, kept))
    if points and counts.hours is not None:
        asked.append(_area(counts, counts.hours))
    answers = _measured(asked, len(counts.recordings), seed)
    figures = [_told(question, measures) for question, measures in zip(asked, answers, strict=True) if question.whole]
    curve = tuple(zip(points, figures[1 : 1 + len(points)], strict=True))
    best = max(curve, key=lambda point: (point[1].f1.value or 0.0, point[0]), default=None)
    return EventScores(
        recordings=len(counts.recordings),
        recordings_without_events=int((counts.events.sum(axis=1) == 0).sum()),
        hours=total.all,
        background_hours=total.background,
        overall=figures[0],
        macro_f1=answers[len(figures)][0],
        area=answers[-1][0] if len(answers) > len(figures) + 1 else None,
        classes=dict(zip(counts.classes, figures[1 + len(points) :], strict=True)),
        curve=curve,
        best_threshold=None if best is None else best[0],
    )


@dataclass(frozen=True)
class _Question:
    """Statistics to be measured over recordings, with what `intervals_over_groups` needs of each; of `Figures` also the
    true events, detections and right ones, and the false alarms in all and in the background."""

    statistics: Callable[[Floats], Floats]
    kinds: tuple[Kind, ...]
    hours: tuple[float | None, ...]
    whole: tuple[int, int, int] | None = None
    alarms: tuple[float, float] = (0.0, 0.0)


def _measured(asked: Sequence[_Question], groups: int, seed: int) -> list[list[Measure]]:
    """The measures of each question, all over the same samples of recordings."""
    values, ends = intervals_over_groups(
        lambda weights: np.concatenate([question.statistics(weights) for question in asked]),
        [kind for question in asked for kind in question.kinds],
        [length for question in asked for length in question.hours],
        groups,
        seed,
    )
    measures = [_measure(value, interval) for value, interval in zip(values, ends, strict=True)]
    given = iter(measures)
    return [[next(given) for _ in question.kinds] for question in asked]


@dataclass(frozen=True)
class _Hours:
    """Hours of all recordings together, and of those without events; None where they are not known."""

    all: float | None
    background: float | None

    @classmethod
    def of(cls, counts: EventCounts, hours: float | None, covered_hours: float) -> _Hours:
        if counts.hours is not None and counts.background_hours is not None:
            return cls(float(counts.hours.sum()), float(counts.background_hours.sum()))
        return cls(hours, None if hours is None else max(0.0, hours - covered_hours))


_KINDS: tuple[Kind, ...] = ("share", "share", "share", "rate", "rate")


def _figures(counts: EventCounts, kept: npt.NDArray[np.bool_], total: _Hours, class_: int | None = None) -> _Question:
    """Those of the detections `kept (D,)`, beside the true events of one class or of all."""
    by_class = (*counts.counted(kept), counts.events)
    right, found, events = (each.sum(axis=1) if class_ is None else each[:, class_] for each in by_class)
    background = counts.background_alarms(kept)
    unknown = np.full(len(right), np.nan)
    hours = unknown if counts.hours is None else counts.hours
    quiet = unknown if counts.background_hours is None else counts.background_hours

    def statistics(weights: Floats) -> Floats:
        r, f, e, a, b = (weights @ each for each in (right, found, events, found - right, background))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([r / f, r / e, 2 * r / (f + e), a / (weights @ hours), b / (weights @ quiet)])

    return _Question(
        statistics,
        _KINDS,
        (None, None, None, total.all, total.background),
        (int(events.sum()), int(found.sum()), int(right.sum())),
        (float((found - right).sum()), float(background.sum())),
    )


def _told(question: _Question, measures: Sequence[Measure]) -> Figures:
    """The answer to `_figures`. Where only the length of all is known, rates have no interval."""
    assert question.whole is not None
    rates = [
        None if not length else measure if measure.value is not None else Measure(number / length, None)
        for measure, number, length in zip(measures[3:], question.alarms, question.hours[3:], strict=True)
    ]
    return Figures(*question.whole, *measures[:3], *rates)


def _measure(value: float, interval: Interval | None) -> Measure:
    return Measure(float(value), interval) if np.isfinite(value) else Measure(None, None)


def _macro_f1(counts: EventCounts, kept: npt.NDArray[np.bool_]) -> _Question:
    right, found = counts.counted(kept)

    def statistics(weights: Floats) -> Floats:
        r, f, e = (weights @ each for each in (right, found, counts.events))
        f1 = np.divide(2 * r, f + e, out=np.zeros_like(r), where=f + e > 0)
        with np.errstate(invalid="ignore"):
            return ((f1 * (e > 0)).sum(axis=1) / (e > 0).sum(axis=1))[None]

    return _Question(statistics, ("share",), (None,))


def _points(counts: EventCounts) -> list[float]:
    """Thresholds of the curve, the highest first: that of the best F1, and others spread over the ranks."""
    score = counts.score
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # of detections that have one score
    right = counts.right.cumsum()[last]
    f1 = 2 * right / (last + 1 + counts.events.sum())
    spread = np.unique(np.linspace(0, len(last) - 1, POINTS - 1).round().astype(int))
    chosen = np.union1d(spread, [int(f1.argmax())])
    return [float(value) for value in score[last[chosen]]]


def _area(counts: EventCounts, hours: Floats) -> _Question:
    """The mean of `area_below` over the classes that the truth has."""
    present = np.flatnonzero(counts.events.sum(axis=0) > 0)
    of_class = [np.flatnonzero(counts.class_ == number) for number in present]

    def statistics(weights: Floats) -> Floats:
        areas = np.full((len(present), len(weights)), np.nan)
        step = max(1, 2_000_000 // max(1, max(map(len, of_class), default=1)))
        for first in range(0, len(weights), step):
            part = weights[first : first + step]
            for row, (number, own) in enumerate(zip(present, of_class, strict=True)):
                areas[row, first : first + step] = area_below(
                    counts.score[own],
                    part[:, counts.recording[own]] * counts.right[own],
                    part[:, counts.recording[own]] * ~counts.right[own],
                    part @ counts.events[:, number],
                    part @ hours,
                )
        there = np.isfinite(areas)
        with np.errstate(invalid="ignore"):
            return (np.where(there, areas, 0).sum(axis=0) / there.sum(axis=0))[None]

    return _Question(statistics, ("share",), (None,))


def area_below(score: Floats, right: Floats, wrong: Floats, events: Floats, hours: Floats) -> Floats:
    """The mean recall `(R,)` from 0 to `MOST_AN_HOUR` false alarms an hour, NaN without events.

    `score (D,)` from the highest on; `right` and `wrong (R, D)`: how often each detection counts as the one or the
    other in R samples, which have `events (R,)` true events in `hours (R,)`.
    """
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)) if len(score) else np.zeros(0, dtype=np.intp)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right.cumsum(axis=1)[:, last] / events[:, None]
        alarms = np.minimum(wrong.cumsum(axis=1)[:, last] / hours[:, None], MOST_AN_HOUR)
    until = np.concatenate([alarms[:, 1:], np.full((len(events), min(1, len(last))), MOST_AN_HOUR)], axis=1)
    area: Floats = (recall * (until - alarms)).sum(axis=1) / MOST_AN_HOUR
    return np.where(events > 0, area, np.nan)
