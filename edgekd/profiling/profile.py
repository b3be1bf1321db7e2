"""`profile`: everything that was named, scored on the same clips and timed in turns, as one report.

What is measured by which module: accuracy (`accuracy`), noise and length (`robustness`), time (`latency`), the machine
(`machine`), operations and bytes (`cost`, `memory`), energy (`energy`), layers (`layers`), other hosts (`remote`).
`write_report` puts the result into a folder as a page to read, JSON for programs, Markdown for a pull request, CSV.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from edgekd import __version__
from edgekd.config import ProfileConfig
from edgekd.errors import UsageError
from edgekd.exporting.manifest import Bundle
from edgekd.profiling.accuracy import FEW_GROUPS, predictions_on
from edgekd.profiling.backends import PRECISIONS, all_threads
from edgekd.profiling.energy import battery, measure_energy, modelled, open_meter, stated, why_no_meter
from edgekd.profiling.latency import Timer, Timings, take_turns, throughput
from edgekd.profiling.machine import watch
from edgekd.profiling.remote import check_hosts, profile_hosts, subject_of
from edgekd.profiling.robustness import MOST_CLIPS, Noise, noise_of, robustness
from edgekd.profiling.subjects import Candidate, Source, candidates
from edgekd.profiling.visit import HostFailure, HostResult
from edgekd.progress import Progress, silent
from edgekd.report.results import (
    Battery,
    Cost,
    Energy,
    Latency,
    Machine,
    Profile,
    Robustness,
    Subject,
    Throughput,
    Versus,
)
from edgekd.report.verdict import verdict
from edgekd.runs.predictions import Predictions
from edgekd.runs.run import Run
from edgekd.scoring.differences import difference
from edgekd.scoring.scores import Scores, score

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
) -> Profile:
    """Measure every subject that `sources` name (see `edgekd.profiling.subjects`), side by side.

    The baseline of all comparisons is the first teacher, else the first subject. `remote`: bundles are tried on other
    devices too. `command`: what makes this report again, for the reader.
    Raises `InputError` for what is missing, unfinished or damaged, has no test side, or cannot be compared;
    `UsageError` for settings that fit none of it.
    """
    config = config or ProfileConfig()
    _check_battery(config)
    if remote is not None:
        check_hosts(remote.hosts, remote.ssh)
    listed = [sources] if isinstance(sources, Run | Bundle | Path) else list(sources)
    found = candidates(listed, config, progress)
    if remote is not None and not any(one.bundle for one in found):
        raise UsageError("--host: only a bundle can be tried on another device. Next: edgekd export RUN --target NAME.")
    clips = next((one.clips for one in found if one.clips is not None), None)
    noises = _noises(found, config)
    visits = _visits(found, remote, config, progress)  # before anything is timed here
    said = _predictions(found, progress)
    curves = _curves(found, noises, progress)
    timings, machine = _times(found, config, progress)
    baseline = _baseline(found)
    measured = _Measured(config, said, timings, progress, notes=[])
    subjects = []
    for done, one in enumerate(found):
        progress("cost", done, len(found))
        subjects.append(measured.subject(one, curves.get(one.name)))
    progress("cost", len(found), len(found))
    subjects = [_against(subject, subjects, baseline, measured) for subject in subjects]
    notes, failures = [*_notes(found, subjects, machine), *measured.notes], []
    for one, result in visits:
        if isinstance(result, HostFailure):
            failures.append(result.reason)
        else:
            subjects.append(_there(one, result, subjects))
            notes += result.notes
    return Profile(
        edgekd=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
        environment=_environment(),
        dataset=clips.dataset if clips else None,
        clips=clips.words if clips else "none: nothing was scored",
        clips_digest=clips.digest if clips else None,
        clip_seconds=clips.clip_seconds if clips else None,
        sample_rate=clips.sample_rate if clips else None,
        noise=next((words for _, words in noises.values()), None),
        baseline=baseline,
        machine=machine,
        verdict=verdict(tuple(subjects), baseline),
        notes=tuple(dict.fromkeys(notes)),
        failures=tuple(failures),
        subjects=tuple(subjects),
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


def _predictions(found: Sequence[Candidate], progress: Progress) -> dict[str, Predictions]:
    return {
        one.name: predictions_on(one.clips, one.model.classify, progress, f"{one.name}: accuracy")
        for one in found
        if one.clips is not None
    }


def _noises(found: Sequence[Candidate], config: ProfileConfig) -> dict[str, tuple[Noise, str]]:
    """The noise for each subject, at the rate that it hears, and what that is in words."""
    if config.noise is None:
        return {}
    return {
        one.name: noise_of(config.noise, one.clips.sample_rate, one.clips.samples)
        for one in found
        if one.clips is not None
    }


def _curves(
    found: Sequence[Candidate], noises: dict[str, tuple[Noise, str]], progress: Progress
) -> dict[str, Robustness]:
    return {
        one.name: robustness(one.clips, one.model.classify, noises[one.name][0], progress, f"{one.name}: noise")
        for one in found
        if one.clips is not None and one.name in noises
    }


def _example(one: Candidate) -> Tensor:
    """A clip `(1, S)` to time with: real sound where there is some."""
    if one.clips is not None:
        return one.clips.first()
    return 0.1 * torch.randn(1, one.samples, generator=torch.Generator().manual_seed(0))


def _times(found: Sequence[Candidate], config: ProfileConfig, progress: Progress) -> tuple[Timings, Machine]:
    timers: dict[str, Timer] = {}
    for one in found:
        parts = one.model.timers(_example(one))
        timers |= {f"{one.name}: {part}": timer for part, timer in parts.items()}
    observed = watch()
    timings = take_turns(
        timers, repetitions=config.repetitions, seconds=config.seconds, threads=config.threads, progress=progress
    )
    return timings, observed.machine()


def _baseline(found: Sequence[Candidate]) -> str | None:
    teacher = next((one.name for one in found if one.role == "teacher"), None)
    return teacher or (found[0].name if len(found) > 1 else None)


@dataclass(frozen=True)
class _Measured:
    """What was measured of all subjects together, and what is measured of each alone."""

    config: ProfileConfig
    said: dict[str, Predictions]
    timings: Timings
    progress: Progress
    notes: list[str]

    def subject(self, one: Candidate, curve: Robustness | None) -> Subject:
        example, config = _example(one), self.config
        latency, cost = self._latency(one), self._cost(one, example)
        energy = self._energy(one, example, latency, cost)
        return Subject(
            name=one.name,
            kind=one.kind,
            role=one.role,
            source=str(one.source),
            architecture=one.architecture,
            precision=one.model.precision,
            backend=one.model.backend,
            runtime=one.model.runtime,
            threads=one.model.threads,
            scores=self._scores(one),
            latency=latency,
            throughput=self._throughput(one, example),
            cost=cost,
            energy=energy,
            battery=self._battery(one, latency, energy),
            layers=one.model.layers(example) if config.layers else (),
            robustness=curve,
        )

    def _scores(self, one: Candidate) -> Scores | None:
        if one.clips is None:
            return None
        clips, said = one.clips, self.said[one.name]
        return score(said.probabilities, clips.labels, clips.groups, clips.classes, clips.seed)

    def _latency(self, one: Candidate) -> Latency:
        parts = {part: f"{one.name}: {part}" for part in ("front end", "network", "device")}
        known = {part: timer for part, timer in parts.items() if timer in self.timings.rounds}
        return self.timings.latency(
            f"{one.name}: whole",
            one.clips.clip_seconds if one.clips else None,
            frontend=known.get("front end"),
            network=known.get("network"),
            device=known.get("device"),
        )

    def _throughput(self, one: Candidate, example: Tensor) -> tuple[Throughput, ...]:
        # A GPU has no threads to choose; with one CPU, one thread is all.
        threads = sorted({1, all_threads()}) if one.model.threads is not None else [1]
        found: list[Throughput] = []
        for batch in self.config.batches:
            waveforms = example.expand(batch, -1).contiguous()
            if one.clips is not None:
                rows = [one.clips.rows[place % len(one.clips.rows)] for place in range(batch)]
                waveforms = one.clips.store.waveforms(rows)
            for count in threads:
                with one.model.batches(waveforms, count) as call:
                    found.append(throughput(call, batch, count, seconds=0.5))
                self.progress(f"{one.name}: batches", len(found), len(self.config.batches) * len(threads))
        return tuple(found)

    def _cost(self, one: Candidate, example: Tensor) -> Cost:
        cost = one.model.cost(example)
        if not self.config.memory:
            return cost
        memory = one.model.memory(example)
        if memory.failure is not None:
            self.notes.append(f"{one.name}: its memory could not be measured: {memory.failure}.")
        return cost.model_copy(update=memory.figures())

    def _energy(self, one: Candidate, example: Tensor, latency: Latency, cost: Cost) -> Energy | None:
        config = self.config
        if config.active_watts is not None:
            return stated(config.active_watts, latency.p50_ms / 1e3)
        if not config.energy:
            return None
        meter = open_meter(gpu=one.model.threads is None)
        if meter is None:
            return modelled(cost, one.model.precision)
        return measure_energy(meter, lambda: one.model.classify(example))

    def _battery(self, one: Candidate, latency: Latency, energy: Energy | None) -> Battery | None:
        if self.config.battery_wh is None or energy is None or one.clips is None:
            return None
        return battery(
            self.config.battery_wh,
            self.config.duty_cycle,
            energy,
            idle_watts=self.config.idle_watts,
            clip_seconds=one.clips.clip_seconds,
            latency_seconds=latency.p50_ms / 1e3,
        )

    def versus(self, subject: Subject, baseline: Subject) -> Versus:
        accuracy = None
        if subject.name in self.said and baseline.name in self.said and subject.scores is not None:
            accuracy = difference(
                {("test", 0): self.said[subject.name]},
                {("test", 0): self.said[baseline.name]},
                len(subject.scores.classes),
            )
        return Versus(
            baseline=baseline.name,
            accuracy=accuracy,
            speedup=self.timings.ratio(f"{baseline.name}: whole", f"{subject.name}: whole"),
            smaller=baseline.cost.file_bytes / subject.cost.file_bytes,
        )


def _against(subject: Subject, subjects: Sequence[Subject], baseline: str | None, measured: _Measured) -> Subject:
    if baseline is None or subject.name == baseline:
        return subject
    other = next(one for one in subjects if one.name == baseline)
    return subject.model_copy(update={"versus": measured.versus(subject, other)})


def _visits(
    found: Sequence[Candidate], remote: Remote | None, config: ProfileConfig, progress: Progress
) -> list[tuple[Candidate, HostResult | HostFailure]]:
    """Every bundle on every host."""
    if remote is None:
        return []
    bundles = {one.bundle.folder: one for one in found if one.bundle is not None}  # in whichever back end
    return [
        (one, result)
        for folder, one in bundles.items()
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


def _there(one: Candidate, result: HostResult, subjects: Sequence[Subject]) -> Subject:
    """A bundle on another device: scored as here, where it is the same model and agrees with its golden examples."""
    assert one.bundle is not None
    here = next(subject for subject in subjects if subject.name == one.name)
    same = result.agrees and PRECISIONS[result.bench["precision"]] == here.precision
    return subject_of(one.bundle, result, here.scores if same else None, here.cost)


def _notes(found: Sequence[Candidate], subjects: Sequence[Subject], machine: Machine) -> list[str]:
    notes = [note for one in found for note in one.notes]
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
    clips = next((one.clips for one in found if one.clips is not None), None)
    if clips is None:
        return notes
    groups = len(set(clips.groups))
    if groups < FEW_GROUPS:
        notes.append(
            f"Only {groups} recordings were tested: with fewer than {FEW_GROUPS} intervals are too short, so they show "
            "the least doubt that there is."
        )
    if groups < len(clips.rows) and len(found) > 1:
        notes.append(
            "McNemar's p takes clips of one recording for independent, so it is too small; intervals and the p of "
            "flipped signs are over recordings."
        )
    if len(clips.rows) > MOST_CLIPS:
        notes.append(f"Noise and length were tried on {MOST_CLIPS} of the {len(clips.rows)} clips.")
    return notes


def _busy(machine: Machine) -> str:
    used = machine.cpus_used_by_others
    others = (
        f"load average {machine.load_average}" if used is None else f"others used {used:.1f} of {machine.cpus} CPUs"
    )
    return f"The machine was busy ({others}): times are too long, and ratios less sure. Measure again when it is idle."


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # onnxruntime may be installed as onnxruntime-gpu
            continue
    return found
