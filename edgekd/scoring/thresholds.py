"""The score from which a class is heard, chosen on clips whose classes are known: best F1, or few false alarms an hour.

Each class is looked at alone, as one score and one truth of each window, so that it does not matter whether classes
exclude each other. Between two neighbouring scores every threshold does the same, and the one in their middle is taken;
windows with one score are never parted. Where several do equally well, the highest is taken.

False alarms are windows of something else, one after another, so an hour of them is an hour of other sounds. How many
an hour there are in truth is known no better than by a Poisson process that was heard for so long (`rate_interval`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.runs.thresholds import BEST_F1, Aim, ClassThreshold, Counts
from edgekd.scoring.intervals import CONFIDENCE, Interval
from edgekd.scoring.temperature import Truth

CLOSE = 0.8
"""An event ends where the score falls below this share of the threshold it began at: hysteresis, so that a score that
trembles about a threshold makes one event and not twenty."""
IS_BACKGROUND = "the background, which is no event"
DIGITS = 6


def choose_thresholds(
    probabilities: npt.NDArray[Any],
    truth: Truth,
    classes: Sequence[str],
    window_hours: float,
    aim: Aim = BEST_F1,
    background: str | None = None,
) -> dict[str, ClassThreshold]:
    """A threshold for each class but the `background` from `probabilities (N, K)` of windows with the classes
    `truth (N, K)`, each of `window_hours`."""
    found = {}
    for number, name in enumerate(classes):
        scores, of_class = probabilities[:, number], truth[:, number]
        if name == background:
            found[name] = _nothing(IS_BACKGROUND, counts_at(scores, of_class, None, window_hours))
        else:
            found[name] = choose_threshold(scores, of_class, window_hours, aim)
    return found


def choose_threshold(
    scores: npt.NDArray[Any], truth: npt.NDArray[np.bool_], window_hours: float, aim: Aim = BEST_F1
) -> ClassThreshold:
    """The threshold of one class from the `scores (N,)` of windows, of which those in `truth (N,)` are of the class."""
    scores = np.asarray(scores, dtype=np.float64)
    levels, found, false_alarms = _counts_from_each_score(scores, truth)
    positives, hours = int(truth.sum()), float((~truth).sum() * window_hours)
    note = None
    if not len(levels):
        return _nothing("no window to choose on", counts_at(scores, truth, None, window_hours))
    if aim.an_hour is None:
        if not positives:
            return _nothing("no window of this class to choose on", counts_at(scores, truth, None, window_hours))
        last = int(np.argmax(2 * found / (found + false_alarms + positives)))
    else:
        allowed = math.floor(aim.an_hour * hours * (1 + 1e-12))
        last = int(np.searchsorted(false_alarms, allowed, side="right")) - 1
        if last >= 0 and found[last]:  # alarms that find nothing more are not worth it
            last = int(np.searchsorted(found, found[last]))
        if not (hours and positives):
            note = "no window of this class: what it misses is not known" if hours else "no window of anything else"
    threshold = _between(levels, last)
    counts = counts_at(scores, truth, threshold, window_hours)
    if last < 0 and counts.false_alarms:
        note = "something else has a score of 1, which no threshold keeps out"
    return ClassThreshold(open=threshold, close=closing(threshold), validation=counts, note=note)


def closing(threshold: float) -> float:
    """The score below which an event of a class with this `threshold` ends."""
    return float(f"{CLOSE * threshold:.6g}")


def counts_at(
    scores: npt.NDArray[Any], truth: npt.NDArray[np.bool_], threshold: float | None, window_hours: float
) -> Counts:
    """What a threshold gives on the `scores (N,)` of windows; with None nothing is ever heard."""
    heard = np.zeros(len(scores), dtype=bool) if threshold is None else np.asarray(scores) >= threshold
    return Counts(
        positives=int(truth.sum()),
        found=int((heard & truth).sum()),
        false_alarms=int((heard & ~truth).sum()),
        other_hours=float((~truth).sum() * window_hours),
    )


def rate_interval(events: int, hours: float) -> Interval | None:
    """The 95 % interval of events an hour after `events` in so many hours, of a Poisson process (Garwood, Biometrika
    28, 1936); None where there was no time to hear any."""
    if hours <= 0:
        return None
    tail = (1 - CONFIDENCE) / 2
    low = _mean_with(events - 1, 1 - tail) if events else 0.0
    return low / hours, _mean_with(events, tail) / hours


def hours_to_promise(an_hour: float) -> float:
    """Hours of other sounds without a single false alarm after which there are `an_hour` at most, by the 95 %
    interval."""
    return -math.log((1 - CONFIDENCE) / 2) / an_hour


def _counts_from_each_score(
    scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The different scores, the highest first, and how many windows of the class and of others have each or more."""
    order = np.argsort(-scores, kind="stable")
    ranked, of_class = scores[order], truth[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, dtype=np.intp)
    return ranked[ends], np.cumsum(of_class, dtype=np.int64)[ends], np.cumsum(~of_class, dtype=np.int64)[ends]


def _between(levels: npt.NDArray[np.float64], last: int) -> float:
    """A threshold that keeps `levels[last]` and leaves out the next; -1 leaves out all but scores of 1."""
    above = float(levels[last]) if last >= 0 else 1.0
    below = float(levels[last + 1]) if last + 1 < len(levels) else 0.0
    middle = (above + below) / 2
    short = float(f"{middle:.{DIGITS}g}")
    return short if below < short <= above else middle


def _nothing(why: str, counts: Counts) -> ClassThreshold:
    return ClassThreshold(open=None, close=None, validation=counts, note=why)


def _mean_with(events: int, chance: float) -> float:
    """The mean of a Poisson distribution that gives `events` or fewer with this chance: bisection."""
    low, high = 0.0, events + 20 + 10 * math.sqrt(events + 1)
    for _ in range(200):
        middle = (low + high) / 2
        if _poisson_up_to(events, middle) > chance:
            low = middle
        else:
            high = middle
        if high - low < 1e-10 * high:
            break
    return high


def _poisson_up_to(events: int, mean: float) -> float:
    """The chance of `events` or fewer."""
    if not mean:
        return 1.0
    term = total = math.exp(-mean) if mean < 700 else 0.0
    if not term:  # the sum from the top, in logarithms
        logs = [number * math.log(mean) - mean - math.lgamma(number + 1) for number in range(events + 1)]
        top = max(logs)
        return min(1.0, math.exp(top) * sum(math.exp(each - top) for each in logs))
    for number in range(1, events + 1):
        term *= mean / number
        total += term
    return min(1.0, total)
