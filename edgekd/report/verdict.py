"""The sentences that a profile is read for: what was gained, what was given up, and how sure that is.

A difference whose 95 % interval holds 0 (or, of times, 1) is not called one.
"""

from __future__ import annotations

from edgekd.report.results import Estimate, Subject
from edgekd.report.tables import size
from edgekd.scoring.differences import Difference


def verdict(subjects: tuple[Subject, ...], baseline: str | None) -> tuple[str, ...]:
    """A sentence for each subject but the baseline; for the baseline itself where it is alone."""
    if len(subjects) == 1 or baseline is None:
        return tuple(_alone(subject) for subject in subjects)
    return tuple(
        _alone(subject) if subject.versus is None else _compared(subject, subject.versus.baseline)
        for subject in subjects
        if subject.name != baseline
    )


def _alone(subject: Subject) -> str:
    latency = subject.latency
    keeps_up = "" if latency.real_time_factor is None else f", real-time factor {latency.real_time_factor:.2g}"
    told = [f"answers in {latency.p50_ms:.3g} ms (p95 {latency.p95_ms:.3g} ms{keeps_up})"]
    if subject.scores is not None:
        low, high = subject.scores.accuracy_interval
        told.append(f"is right on {subject.scores.accuracy:.1%} of clips ({100 * low:.1f} to {100 * high:.1f})")
    if subject.golden is not None:
        agrees = "agrees" if subject.golden.agrees else "does NOT agree"
        told.append(f"{agrees} with its golden examples")
    told.append(f"takes {size(subject.cost.file_bytes)}")
    return f"{subject.name} {', '.join(told[:-1])} and {told[-1]}."


def _compared(subject: Subject, baseline: str) -> str:
    versus = subject.versus
    assert versus is not None
    told = []
    if versus.speedup is not None:
        told.append(f"{_speed(versus.speedup)} {baseline}{_interval(versus.speedup)}")
    told.append(_size(versus.smaller) + ("" if told else f" than {baseline}"))
    gained = f"{subject.name} is {' and '.join(told)}"
    if versus.accuracy is None:
        return f"{gained}."
    return f"{gained}; {_accuracy(versus.accuracy)}."


def _speed(speedup: Estimate) -> str:
    if speedup.low <= 1 <= speedup.high:
        return "as fast as"
    return f"{_times(speedup.value)} faster than" if speedup.value > 1 else f"{_times(1 / speedup.value)} slower than"


def _interval(speedup: Estimate) -> str:
    low, high = speedup.low, speedup.high
    if speedup.value < 1 and high < 1:
        low, high = 1 / high, 1 / low
    return f" ({_figure(low)} to {_figure(high)})"


def _size(smaller: float) -> str:
    if 0.99 < smaller < 1.01:
        return "as large"
    return f"{_times(smaller)} smaller" if smaller > 1 else f"{_times(1 / smaller)} larger"


def _accuracy(difference: Difference) -> str:
    low, high = (100 * bound for bound in difference.accuracy_interval)
    points = 100 * difference.accuracy
    if low <= 0 <= high:
        return f"no difference in accuracy is shown ({points:+.1f} points, {low:+.1f} to {high:+.1f})"
    if points < 0:
        return f"its accuracy is {-points:.1f} points lower ({-high:.1f} to {-low:.1f})"
    return f"its accuracy is {points:.1f} points higher ({low:.1f} to {high:.1f})"


def _times(ratio: float) -> str:
    return f"{_figure(ratio)} times"


def _figure(ratio: float) -> str:
    """Three digits, fewer where the first ones are far from what can be told apart."""
    return f"{ratio:.0f}" if ratio >= 30 else f"{ratio:.1f}" if ratio >= 3 else f"{ratio:.2f}"
