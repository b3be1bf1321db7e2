"""`profile`: everything that was named, scored on the same clips and timed in turns, as one report.

What is measured by which module: accuracy (`accuracy`), noise and length (`robustness`), sounds of no
class (`unknown`), time (`latency`), the machine
(`machine`), operations and bytes (`cost`, `memory`), energy (`energy`), layers (`layers`), other hosts (`remote`);
`measurements` puts what belongs to one subject together, `notes` says what a reader should know of the figures.
`edgekd.report.write.write_report` puts the result into a folder: a page to read, JSON, Markdown and CSV.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgekd import __version__, own_code
from edgekd.config import ProfileConfig
from edgekd.errors import UsageError
from edgekd.escaping import legible
from edgekd.exact_float32 import exact_float32
from edgekd.exporting.manifest import Bundle
from edgekd.files.locks import reading
from edgekd.profiling.accuracy import predictions_on
from edgekd.profiling.backends import ENGINE_PRECISIONS
from edgekd.profiling.energy import battery, open_meter
from edgekd.profiling.latency import Timer, Timings, take_turns
from edgekd.profiling.machine import watch
from edgekd.profiling.measurements import Measurements, example_of
from edgekd.profiling.notes import reader_notes
from edgekd.profiling.remote import check_hosts, profile_hosts, subject_of
from edgekd.profiling.robustness import Noise, noise_of, robustness
from edgekd.profiling.subjects import Candidate, Source, candidates, folders_of
from edgekd.profiling.unknown import unknown_sounds
from edgekd.profiling.visit import HostFailure, HostResult
from edgekd.progress import Progress, silent
from edgekd.report.results import Energy, Machine, Profile, Robustness, Subject
from edgekd.report.verdict import verdict
from edgekd.runs.predictions import Predictions
from edgekd.runs.run import Run

_PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


@dataclass(frozen=True)
class Remote:
    """Devices that a bundle is tried on, `user@device` each, and how they are reached."""

    hosts: tuple[str, ...]
    ssh: tuple[str, ...] = ("ssh",)
    python: str = "python3"


def profile(
    sources: Source | Sequence[Source],
    config: ProfileConfig | None = None,
    progress: Progress = silent,
    *,
    remote: Remote | None = None,
    command: Sequence[str] = (),
    trust: Sequence[str] = (),
) -> Profile:
    """Measure every subject that `sources` name (see `edgekd.profiling.subjects`), side by side.

    The baseline of all comparisons is the first teacher, else the first subject. `remote`: bundles are tried on other
    devices too. `command`: what makes this report again, for the reader. `trust`: code of your own that may be
    imported, `[FOLDER/]package.module:factory` (see `edgekd.own_code`).
    Raises `InputError` for what is missing, unfinished or damaged, has no test side, or cannot be compared;
    `UsageError` for settings that fit none of it, and for a run or bundle that another process writes.
    """
    own_code.trust(trust)
    config = config or ProfileConfig()
    _check_battery(config)
    if remote is not None:
        check_hosts(remote.hosts, remote.ssh)
    listed = [sources] if isinstance(sources, Run | Bundle | Path) else list(sources)
    with exact_float32(), ExitStack() as stack:
        for folder in folders_of(listed):
            stack.enter_context(reading(folder))
        found = candidates(listed, config, progress)
        return profile_candidates(found, config, progress, remote=remote, command=command)


@exact_float32()
def profile_candidates(
    subjects: Sequence[Candidate],
    config: ProfileConfig,
    progress: Progress = silent,
    *,
    remote: Remote | None = None,
    command: Sequence[str] = (),
) -> Profile:
    """`profile` of subjects that are open already."""
    if remote is not None and not any(candidate.bundle for candidate in subjects):
        raise UsageError("--host: only a bundle can be tried on another device. Next: edgekd export RUN --target NAME.")
    clips = next((candidate.clips for candidate in subjects if candidate.clips is not None), None)
    noises = _noises(subjects, config)
    on_hosts = _on_hosts(subjects, remote, config, progress)  # before anything is timed here
    predictions = _predictions(subjects, progress)
    curves = _curves(subjects, noises, progress)
    unknown = unknown_sounds(subjects, config.site, progress) if config.probes else {}
    timings, machine = _times(subjects, config, progress)
    baseline = _baseline(subjects)
    measurements = Measurements(config, predictions, curves, unknown, timings, progress, notes=[])
    measured = measurements.subjects(subjects, baseline)
    notes, failures = [*reader_notes(subjects, measured, machine), *measurements.notes], []
    for candidate, result in on_hosts:
        if isinstance(result, HostFailure):
            failures.append(result.reason)
        else:
            measured.append(_on_host(candidate, result, measured))
            notes += result.notes
    return Profile(
        edgekd=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(map(legible, command)),
        environment=_environment(),
        dataset=clips.dataset if clips else None,
        clips=legible(clips.words) if clips else "none: nothing was scored",
        clips_digest=clips.digest if clips else None,
        clip_seconds=clips.clip_seconds if clips else None,
        sample_rate=clips.sample_rate if clips else None,
        noise=next((words for _, words in noises.values()), None),
        baseline=baseline,
        machine=machine,
        verdict=verdict(tuple(measured), baseline),
        notes=tuple(dict.fromkeys(map(legible, notes))),
        failures=tuple(map(legible, failures)),
        subjects=tuple(measured),
    )


def _check_battery(config: ProfileConfig) -> None:
    """Raise `UsageError` for a battery that could not be sized in the end, before minutes go into the rest."""
    if config.battery_wh is not None and (config.active_watts is not None or open_meter() is None):
        power = Energy(joules_per_clip=0, watts=config.active_watts, source="stated", measured=False, how="")
        battery(
            config.battery_wh,
            config.duty_cycle,
            power,
            idle_watts=config.idle_watts,
            clip_seconds=1,
            latency_seconds=1,
        )


def _noises(subjects: Sequence[Candidate], config: ProfileConfig) -> dict[str, tuple[Noise, str]]:
    """The noise for each subject, at the rate that it hears, and what that is in words."""
    if config.noise is None:
        return {}
    return {
        candidate.name: noise_of(config.noise, candidate.clips.sample_rate, candidate.clips.samples)
        for candidate in subjects
        if candidate.clips is not None
    }


def _predictions(subjects: Sequence[Candidate], progress: Progress) -> dict[str, Predictions]:
    return {
        candidate.name: predictions_on(
            candidate.clips, candidate.model.classify, progress, f"{candidate.name}: accuracy"
        )
        for candidate in subjects
        if candidate.clips is not None
    }


def _curves(
    subjects: Sequence[Candidate], noises: dict[str, tuple[Noise, str]], progress: Progress
) -> dict[str, Robustness]:
    return {
        candidate.name: robustness(
            candidate.clips,
            candidate.model.classify,
            noises[candidate.name][0],
            progress,
            f"{candidate.name}: noise",
        )
        for candidate in subjects
        if candidate.clips is not None and candidate.name in noises
    }


def _times(subjects: Sequence[Candidate], config: ProfileConfig, progress: Progress) -> tuple[Timings, Machine]:
    timers: dict[str, Timer] = {}
    for candidate in subjects:
        parts = candidate.model.timers(example_of(candidate))
        timers |= {f"{candidate.name}: {part}": timer for part, timer in parts.items()}
    observed = watch()
    timings = take_turns(
        timers, repetitions=config.repetitions, seconds=config.seconds, threads=config.threads, progress=progress
    )
    return timings, observed.machine()


def _baseline(subjects: Sequence[Candidate]) -> str | None:
    teacher = next((candidate.name for candidate in subjects if candidate.role == "teacher"), None)
    return teacher or (subjects[0].name if len(subjects) > 1 else None)


def _on_hosts(
    subjects: Sequence[Candidate], remote: Remote | None, config: ProfileConfig, progress: Progress
) -> list[tuple[Candidate, HostResult | HostFailure]]:
    """Every bundle on every host."""
    if remote is None:
        return []
    bundles = {
        candidate.bundle.folder: candidate for candidate in subjects if candidate.bundle is not None
    }  # each once, in whichever back ends
    return [
        (candidate, result)
        for folder, candidate in bundles.items()
        for result in profile_hosts(
            folder,
            remote.hosts,
            ssh=remote.ssh,
            python=remote.python,
            threads=config.threads,
            runs=config.repetitions,
            progress=progress,
        )
    ]


def _on_host(candidate: Candidate, result: HostResult, measured: Sequence[Subject]) -> Subject:
    """A bundle on another device: scored as here, where it is the same model and agrees with its golden examples."""
    assert candidate.bundle is not None
    here = next(subject for subject in measured if subject.name == candidate.name)
    same = result.agrees and ENGINE_PRECISIONS[result.bench["precision"]] == here.precision
    there = subject_of(candidate.bundle, result, here.scores if same else None, here.cost)
    return there.model_copy(update={"calibration": here.calibration}) if same else there


def _environment() -> dict[str, str]:
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # onnxruntime may be installed as onnxruntime-gpu
            continue
    return versions
