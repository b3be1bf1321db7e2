"""The sentences that a profile is read for: what was gained, what was given up, and how sure that is.

A difference whose 95 % interval holds 0 (or, of times, 1) is not called one. Of accuracy, that is no finding either:
what is said is how large a difference the recordings could have told.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.number_formats import count, interval, number, percent, points, ratio, real_time_factor, size
from edgekd.report.results import Estimate, Subject
from edgekd.scoring.differences import AnyDifference


def verdict(subjects: tuple[Subject, ...], baseline: str | None) -> tuple[str, ...]:
    """A sentence for each subject but the baseline; for the baseline itself where it is alone. Then one for each bundle
    of C, of its board, and one for each that is sure of what is none of its classes; a teacher, which does not ship, is
    passed by."""
    named = [sentence for subject in subjects for sentence in _on_board(subject)]
    named += [sentence for subject in subjects if subject.role != "teacher" for sentence in _sure_of_nothing(subject)]
    if len(subjects) == 1 or baseline is None:
        return (*(_alone(subject) for subject in subjects), *named)
    gained = (
        _alone(subject) if subject.versus is None else _compared(subject, subject.versus.baseline)
        for subject in subjects
        if subject.name != baseline
    )
    return (*gained, *named)


def _on_board(subject: Subject) -> Iterator[str]:
    """What a bundle of C takes of its board: all times elsewhere are those of this machine."""
    found = subject.microcontroller
    if found is None:
        return
    memory = f"{size(found.constant_bytes)} of constants and {size(found.state_bytes)} of RAM, beside code and stack"
    if found.flash_bytes is not None and found.ram_bytes is not None:
        memory = f"{size(found.flash_bytes)} of flash and {size(found.ram_bytes)} of RAM"
    takes = f"On its board, a {found.core}, {subject.name} takes {memory}"
    if found.instructions is None:
        yield f"{takes}; how long, was not counted."
        return
    of_them = f"log-mel {count(found.log_mel_instructions or 0)}, network {count(found.network_instructions or 0)}"
    span = found.milliseconds
    estimate = "" if span is None else f", {interval(*span, number)} ms by estimate"
    yield f"{takes}; a second of sound is {count(found.instructions)} instructions ({of_them}){estimate}."


def _here(subject: Subject) -> str:
    """The name of a subject before what was timed of it."""
    return subject.name if subject.microcontroller is None else f"{subject.name}, compiled for this machine,"


def _sure_of_nothing(subject: Subject) -> Iterator[str]:
    """What a subject answers with 99 % confidence though it is no class."""
    if subject.unknown is None:
        return
    sure = [probe for probe in subject.unknown.probes if probe.confident]
    if sure:
        told = [
            (f"{percent(probe.confident)} of " if probe.clips > 1 else "") + f"{probe.kind} ({probe.named})"
            for probe in sure
        ]
        listed = " and ".join(filter(None, (", ".join(told[:-1]), told[-1])))
        how = "" if subject.microcontroller is not None else " (edgekd export --reject energy)"  # C has no form of it
        advice = "" if subject.unknown.rejects else f"; it rejects nothing{how}"
        yield f"{subject.name} answers what is none of its classes with 99% confidence: {listed}{advice}."


def undecided(difference: AnyDifference) -> str:
    """What is to be said of a `difference` in accuracy, or mAP, that is not shown: the recordings are too few for
    it."""
    count = difference.recordings
    tested = "its recordings are" if count is None else "1 recording is" if count == 1 else f"{count:,} recordings are"
    if difference.runs_resampled:
        tested = tested.replace("recordings are", f"recordings in {difference.trials} runs are")
    ends = interval(*difference.measure_interval, points)
    return (
        f"{tested} too few to tell less than {_unsigned(difference.least_told)} points of {difference.task.title} "
        f"(found {points(difference.measure)}, {ends})"
    )


def _alone(subject: Subject) -> str:
    latency = subject.latency
    factor = latency.real_time_factor
    keeps_up = "" if factor is None else f", real-time factor {real_time_factor(factor)}"
    clauses = [f"answers in {number(latency.p50_ms)} ms (p95 {number(latency.p95_ms)} ms{keeps_up})"]
    if subject.scores is not None:
        ends = interval(*subject.scores.measure_interval, percent)
        found = percent(subject.scores.measure)
        several = subject.scores.task.several
        clauses.append(
            f"ranks classes at mAP {found} ({ends})" if several else f"is right on {found} of clips ({ends})"
        )
    if subject.golden is not None:
        agrees = "agrees" if subject.golden.agrees else "does NOT agree"
        clauses.append(f"{agrees} with its golden examples")
    clauses.append(f"takes {size(subject.cost.file_bytes)}")
    return f"{_here(subject)} {', '.join(clauses[:-1])} and {clauses[-1]}."


def _compared(subject: Subject, baseline: str) -> str:
    versus = subject.versus
    assert versus is not None
    clauses = []
    if versus.speedup is not None:
        clauses.append(f"{_speed(versus.speedup)} {baseline}{_interval(versus.speedup)}")
    clauses.append(_size(versus.smaller) + ("" if clauses else f" than {baseline}"))
    gained = f"{_here(subject)} is {' and '.join(clauses)}"
    if versus.measured is None:
        return f"{gained}."
    return f"{gained}; {_accuracy(versus.measured)}."


def _speed(speedup: Estimate) -> str:
    if speedup.low <= 1 <= speedup.high:
        return "as fast as"
    if speedup.value > 1:
        return f"{ratio(speedup.value)} times faster than"
    return f"{ratio(1 / speedup.value)} times slower than"


def _interval(speedup: Estimate) -> str:
    low, high = speedup.low, speedup.high
    if speedup.value < 1 and high < 1:
        low, high = 1 / high, 1 / low
    return f" ({interval(low, high, ratio)})"


def _size(smaller: float) -> str:
    if 0.99 < smaller < 1.01:
        return "as large"
    return f"{ratio(smaller)} times smaller" if smaller > 1 else f"{ratio(1 / smaller)} times larger"


def _accuracy(difference: AnyDifference) -> str:
    low, high = difference.measure_interval
    its = f"its {difference.task.title} is"
    if not difference.shown:
        return undecided(difference)
    if difference.measure < 0:
        return f"{its} {_unsigned(-difference.measure)} points lower ({interval(-high, -low, _unsigned)})"
    return f"{its} {_unsigned(difference.measure)} points higher ({interval(low, high, _unsigned)})"


def _unsigned(share: float) -> str:
    """Points of a gain or a loss whose direction is in the sentence."""
    return points(share).removeprefix("+")
