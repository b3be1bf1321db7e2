"""What a reader of a profile should know of its figures: doubtful times, modelled energy, few recordings."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.number_formats import NONE, load
from edgekd.profiling.accuracy import FEW_GROUPS
from edgekd.profiling.energy import why_no_meter
from edgekd.profiling.robustness import MOST_CLIPS
from edgekd.profiling.subjects import Candidate
from edgekd.report.results import Machine, Subject
from edgekd.task import SINGLE, THRESHOLD, Task


def reader_notes(candidates: Sequence[Candidate], subjects: Sequence[Subject], machine: Machine) -> list[str]:
    """Sentences of what was measured here; that the machine was busy comes first. `subjects` are the `candidates`,
    measured."""
    notes = [note for candidate in candidates for note in candidate.notes]
    if machine.busy:
        notes.insert(0, _busy(machine))
    if machine.throttled:
        notes.append(f"The machine was held back: {', '.join(machine.throttled)}. Times are too long.")
    unsettled = [subject.name for subject in subjects if not subject.latency.settled]
    if unsettled:
        notes.append(f"Had not settled before it was timed: {', '.join(unsettled)}. Is something else running?")
    estimated = [subject for subject in subjects if subject.energy is not None and subject.energy.source == "model"]
    if estimated:
        reason = why_no_meter(gpu=any(subject.threads is None for subject in estimated))
        notes.append(f"Energy was not measured but modelled, a lower bound: {reason}.")
    clips = next((candidate.clips for candidate in candidates if candidate.clips is not None), None)
    if clips is not None:
        notes += recording_notes(clips.groups, len(candidates), clips.task)
        if clips.task.several:
            notes.append(
                f"Macro-F1, precision and recall are at {THRESHOLD:g} for every subject: a teacher has no thresholds."
                " What a run's own give: edgekd thresholds."
            )
        if len(clips.rows) > MOST_CLIPS and any(subject.robustness for subject in subjects):
            notes.append(f"Noise and length were tried on {MOST_CLIPS} of the {len(clips.rows)} clips.")
    return notes


def recording_notes(groups: Sequence[str], subjects: int, task: Task = SINGLE) -> list[str]:
    """What `groups`, the recording of each clip, mean for the intervals and p-values of so many `subjects`."""
    notes = []
    recordings = len(set(groups))
    if recordings < FEW_GROUPS:
        notes.append(
            f"Only {recordings} recordings were tested: with fewer than {FEW_GROUPS} intervals are too short, so they "
            "show the least doubt that there is."
        )
    if recordings < len(groups) and subjects > 1 and not task.several:
        notes.append(
            "McNemar's p takes clips of one recording for independent, so it is too small; intervals and the p of "
            "flipped signs are over recordings."
        )
    return notes


def _busy(machine: Machine) -> str:
    used, average = machine.cpus_used_by_others, machine.load_average
    if used is not None:
        others = f"others used {load(used)} of {machine.cpus} CPUs"
    else:
        others = f"load average {NONE if average is None else load(average)}"
    return f"The machine was busy ({others}): times are too long, and ratios less sure. Measure again when it is idle."
