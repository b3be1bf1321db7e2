"""What detections are worth, on standard output."""

from __future__ import annotations

from collections.abc import Callable

from edgekd.number_formats import NONE, interval, number, percent, setting
from edgekd.report.terminal import line, table
from edgekd.scoring.event_scores import MOST_AN_HOUR, EventScores, Figures, Measure
from edgekd.scoring.event_tables import ScoredTables


def print_event_scores(tables: ScoredTables) -> None:
    """Classes, all of them together with intervals, and what other thresholds would give."""
    scores = tables.scores
    line(_heard(scores))
    line(f"Right: {tables.criterion}, one detection an event.")
    line()
    print_classes(scores)
    line()
    print_overall(scores)
    if len(scores.curve) > 1:
        line()
        print_curve(scores)
    for note in tables.notes:
        line(f"Note: {note}")


def print_classes(scores: EventScores) -> None:
    """A line a class."""
    columns = ("class", "events", "detections", "right", "precision", "recall", "F1", "false/h")
    rows = [
        (
            name,
            f"{figures.events:,}",
            f"{figures.detections:,}",
            f"{figures.right:,}",
            _share(figures.precision),
            _share(figures.recall),
            _share(figures.f1),
            _rate(figures.an_hour),
        )
        for name, figures in scores.classes.items()
    ]
    table(columns, rows, numbers=columns[1:])


def print_overall(scores: EventScores) -> None:
    """All classes together, each figure with its interval."""
    overall = scores.overall
    shares = [("precision", overall.precision), ("recall", overall.recall), ("F1", overall.f1)]
    shares.append(("macro-F1", scores.macro_f1))
    if scores.area is not None:
        shares.append((f"recall, mean up to {setting(MOST_AN_HOUR)} false alarms/h", scores.area))
    rows = [(name, _share(measure), _ends(measure, percent)) for name, measure in shares]
    for name, rate in (("all audio", overall.an_hour), ("background", overall.background_an_hour)):
        if rate is not None:
            rows.append((f"false alarms/h, {name}", _rate(rate), _ends(rate, number)))
    table(("all classes", "", "interval"), rows, numbers=("", "interval"))
    if overall.an_hour is None:
        line("No false alarms an hour: how long the recordings are is not known (--audio or --hours).")
    elif overall.an_hour.interval is None and overall.precision.interval is not None and scores.recordings > 1:
        line("A rate has no interval where the length of each recording is not known (--audio).")


def print_curve(scores: EventScores) -> None:
    """The figures at some thresholds."""
    columns = ("score from", "precision", "recall", "F1", "interval", "false/h", "background/h")
    rows = [
        (
            setting(threshold),
            _share(figures.precision),
            _share(figures.recall),
            _share(figures.f1),
            _ends(figures.f1, percent),
            _rate(figures.an_hour),
            _rate(figures.background_an_hour),
        )
        for threshold, figures in _some(scores)
    ]
    table(columns, rows, numbers=columns)
    best = NONE if scores.best_threshold is None else setting(scores.best_threshold)
    line(f"Best F1 from a score of {best}; chosen on these very events, it flatters.")


def _heard(scores: EventScores) -> str:
    recordings = "1 recording" if scores.recordings == 1 else f"{scores.recordings:,} recordings"
    told = f"{recordings}, {scores.recordings_without_events:,} without a true event"
    if scores.hours is not None and scores.background_hours is not None:
        told += f"; {number(scores.hours)} h, {number(scores.background_hours)} h of background"
    return f"{told}. Intervals are 95%, over recordings."


def _some(scores: EventScores) -> list[tuple[float, Figures]]:
    """At most ten points of the curve, the best among them."""
    step = -(-len(scores.curve) // 9)
    return [
        point
        for place, point in enumerate(scores.curve)
        if place % step == 0 or point[0] == scores.best_threshold or place == len(scores.curve) - 1
    ]


def _share(measure: Measure) -> str:
    return NONE if measure.value is None else percent(measure.value)


def _rate(measure: Measure | None) -> str:
    return NONE if measure is None or measure.value is None else number(measure.value)


def _ends(measure: Measure, written: Callable[[float], str]) -> str:
    return NONE if measure.interval is None else interval(*measure.interval, written)
