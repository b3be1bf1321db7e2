"""The gate for continuous integration: has what ships become less accurate or slower since an earlier report?

Accuracy is compared as it is, which on the same test clips has no noise. Time has noise, so slower means both: the
ratio of the medians is above what is allowed, and the new median's 95 % interval lies wholly above the old one's. Where
the reports are from different machines, or one was busy, it is the speedup over the baseline that is compared, which
both reports must have measured in the same way: another machine changes both of its times, and a neighbour slows both.
What cannot be compared is an error, never a pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.errors import GateError, InputError
from edgekd.number_formats import number, percent, points_lost, ratio, setting
from edgekd.report.results import Machine, Profile, Subject


def check_profile(profile: Profile, earlier: Profile | None, *, max_drop: float, max_slowdown: float) -> None:
    """Raise `GateError` where a subject is worse than in the `earlier` report or not what its golden examples say.

    `max_drop`, `max_slowdown`: as for `regressions`. Raises `InputError` where there is no such regression but a host
    could not be profiled, or where the reports cannot be compared.
    """
    refused = [] if earlier is None else regressions(profile, earlier, max_drop=max_drop, max_slowdown=max_slowdown)
    refused += [
        f"{subject.name} does not agree with the golden examples"
        for subject in profile.subjects
        if subject.golden is not None and not subject.golden.agrees
    ]
    if refused:
        raise GateError("; ".join(refused) + ".")
    if profile.failures:
        raise InputError(" ".join(profile.failures))


def regressions(new: Profile, old: Profile, *, max_drop: float, max_slowdown: float) -> list[str]:
    """What is worse in `new` than in `old`, each with its figures; nothing where all is well.

    Subjects are matched by name, else by what they are where there is one of a kind. A teacher, which
    does not ship, is compared only where it is all there is. `max_drop`: points of accuracy, or mAP; `max_slowdown`:
    ratio of times. Raises `InputError` where the two do not have a subject in common, or were not measured alike.
    """
    pairs = list(_pairs(new, old))
    if not pairs:
        theirs, ours = (", ".join(subject.name for subject in report.subjects) for report in (old, new))
        raise InputError(f"The earlier report has {theirs}; none of it is in this one: {ours}. Compare like with like.")
    pairs = [pair for pair in pairs if pair[0].role != "teacher"] or pairs
    worse: list[str] = []
    for now, before in pairs:
        worse += _less_accurate(now, before, new, old, max_drop)
        worse += _slower(now, before, new, old, max_slowdown)
    return worse


def _pairs(new: Profile, old: Profile) -> Iterator[tuple[Subject, Subject]]:
    earlier = {subject.name: subject for subject in old.subjects}
    for now in new.subjects:
        alike = [[subject for subject in report.subjects if _kind(subject) == _kind(now)] for report in (new, old)]
        if now.name in earlier:
            yield now, earlier[now.name]
        elif all(len(subjects) == 1 for subjects in alike):
            yield now, alike[1][0]


def _kind(subject: Subject) -> tuple[str, str | None]:
    return subject.role, subject.host


def _less_accurate(now: Subject, before: Subject, new: Profile, old: Profile, max_drop: float) -> Iterator[str]:
    if now.scores is None or before.scores is None:
        if now.scores is not before.scores:
            which = "this report" if now.scores is None else "the earlier one"
            raise InputError(f"{now.name}: {which} has no accuracy to compare. Profile it where its test clips are.")
        return
    if (new.clips_digest, new.clips_digest or new.clips) != (old.clips_digest, old.clips_digest or old.clips):
        raise InputError(
            f"{now.name}: scored on other clips ({new.clips}) than in the earlier report ({old.clips}), so its accuracy"
            " cannot be compared. Make the earlier report again with these."
        )
    title = now.scores.task.title
    if before.scores.task != now.scores.task:
        raise InputError(
            f"{now.name}: has {title}, and {before.scores.task.title} in the earlier report. Make it again."
        )
    drop = 100 * (before.scores.measure - now.scores.measure)
    if drop > max_drop + 1e-9:
        yield (
            f"{now.name}: {title} fell by {points_lost(drop)} points, {percent(before.scores.measure)} to"
            f" {percent(now.scores.measure)} on the same {now.scores.clips} clips (at most {setting(max_drop)})"
        )


def _slower(now: Subject, before: Subject, new: Profile, old: Profile, max_slowdown: float) -> Iterator[str]:
    if (now.backend, now.threads) != (before.backend, before.threads):
        raise InputError(
            f"{now.name}: timed with {_runs_on(now)}, in the earlier report with {_runs_on(before)}, so times cannot be"
            " compared. Profile it as before, or make the earlier report again."
        )
    machines = now.machine or new.machine, before.machine or old.machine
    same = _identity(machines[0], now) == _identity(machines[1], before)
    busy = [which for which, machine in zip(("now", "then"), machines, strict=True) if machine.busy]
    caveat = f"; the machine was busy {' and '.join(busy)}" if busy else ""
    if (not same or busy) and _same_baseline(now, before, new, old):
        yield from _less_speedup(now, before, max_slowdown, caveat)
    elif same:
        yield from _longer(now, before, max_slowdown, caveat)
    else:
        raise InputError(
            f"{now.name}: timed on {_described(machines[0])}, in the earlier report on {_described(machines[1])}, and"
            " there is no speedup over the same baseline in both, so times cannot be compared. Profile it beside its"
            " teacher, or make the earlier report again here."
        )


def _longer(now: Subject, before: Subject, max_slowdown: float, caveat: str) -> Iterator[str]:
    times = now.latency, before.latency
    slowdown = times[0].p50_ms / times[1].p50_ms
    if slowdown > max_slowdown and times[0].p50_interval_ms[0] > times[1].p50_interval_ms[1]:
        yield (
            f"{now.name}: {ratio(slowdown)} times as slow, {number(times[1].p50_ms)} to {number(times[0].p50_ms)} ms"
            f" (at most {setting(max_slowdown)}{caveat})"
        )


def _less_speedup(now: Subject, before: Subject, max_slowdown: float, caveat: str) -> Iterator[str]:
    assert now.versus is not None and now.versus.speedup is not None
    assert before.versus is not None and before.versus.speedup is not None
    ours, theirs = now.versus.speedup, before.versus.speedup
    slowdown = theirs.value / ours.value
    if slowdown > max_slowdown and ours.high < theirs.low:
        yield (
            f"{now.name}: {ratio(slowdown)} times as slow beside {now.versus.baseline}, which it was"
            f" {ratio(theirs.value)} times as fast as and now {ratio(ours.value)} times"
            f" (at most {setting(max_slowdown)}{caveat})"
        )


def _same_baseline(now: Subject, before: Subject, new: Profile, old: Profile) -> bool:
    """Whether both have a speedup over the same thing, run in the same way."""
    if now.versus is None or before.versus is None or None in (now.versus.speedup, before.versus.speedup):
        return False
    ours, theirs = new.subject(now.versus.baseline), old.subject(before.versus.baseline)
    return _model(ours) == _model(theirs)


def _model(subject: Subject) -> tuple[object, ...]:
    return subject.architecture, subject.precision, subject.backend, subject.threads, subject.cost.macs


def _identity(machine: Machine, subject: Subject) -> tuple[str | None, ...]:
    """What must be the same for times to be compared as they are."""
    return machine.cpu, machine.power_mode, machine.gpu if subject.threads is None else None


def _described(machine: Machine) -> str:
    return ", ".join(
        filter(None, (machine.cpu or "a CPU that does not tell its name", machine.gpu, machine.power_mode))
    )


def _runs_on(subject: Subject) -> str:
    threads = subject.threads
    return subject.backend + (f" on {threads} thread{'s' * (threads > 1)}" if threads else "")
