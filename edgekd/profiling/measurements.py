"""What was measured of all subjects of a profile together, and, made of that and of what each is measured alone, the
`Subject` of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.config import ProfileConfig
from edgekd.escaping import legible
from edgekd.profiling.backends import all_threads
from edgekd.profiling.energy import battery, measure_energy, modelled, open_meter, stated
from edgekd.profiling.latency import Timings, throughput
from edgekd.profiling.microcontrollers import board_notes, on_microcontroller
from edgekd.profiling.subjects import Candidate
from edgekd.progress import Progress
from edgekd.report.results import (
    Battery,
    Calibration,
    Cost,
    Energy,
    Latency,
    Microcontroller,
    Robustness,
    Subject,
    Throughput,
    Unknown,
    Versus,
)
from edgekd.runs.predictions import Predictions
from edgekd.scoring.calibration import before_temperature, calibration
from edgekd.scoring.differences import Difference, LabelDifference, difference
from edgekd.scoring.scored import AnyScores, score_clips
from edgekd.scoring.scores import DIGITS


def example_of(candidate: Candidate) -> Tensor:
    """A clip `(1, S)` to time with: real sound where there is some."""
    if candidate.clips is not None:
        return candidate.clips.first()
    return 0.1 * torch.randn(1, candidate.samples, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Measurements:
    """What was measured of all subjects together: predictions, curves and unknown sounds by the subject's name,
    timings by the subject's name and the part that was timed, `student: whole`.

    `notes` is filled while subjects are measured: what could not be.
    """

    config: ProfileConfig
    predictions: Mapping[str, Predictions]
    curves: Mapping[str, Robustness]
    unknown: Mapping[str, Unknown]
    timings: Timings
    progress: Progress
    notes: list[str]

    def subjects(self, candidates: Sequence[Candidate], baseline: str | None) -> list[Subject]:
        """Every candidate as a subject of the report, compared with the one that is called `baseline`."""
        measured = []
        for done, candidate in enumerate(candidates):
            self.progress("cost", done, len(candidates))
            measured.append(self._subject(candidate))
        self.progress("cost", len(candidates), len(candidates))
        reference = next((subject for subject in measured if subject.name == baseline), None)
        return [
            subject
            if reference is None or subject is reference
            else subject.model_copy(update={"versus": self._versus(subject, reference)})
            for subject in measured
        ]

    def _subject(self, candidate: Candidate) -> Subject:
        example = example_of(candidate)
        latency, cost = self._latency(candidate), self._cost(candidate, example)
        energy = self._energy(candidate, example, latency, cost)
        return Subject(
            name=candidate.name,
            kind=candidate.kind,
            role=candidate.role,
            source=legible(str(candidate.source)),
            architecture=candidate.architecture,
            precision=candidate.model.precision,
            backend=candidate.model.backend,
            runtime=candidate.model.runtime,
            threads=candidate.model.threads,
            scores=self._scores(candidate),
            calibration=self._calibration(candidate),
            latency=latency,
            throughput=self._throughput(candidate, example),
            cost=cost,
            energy=energy,
            battery=self._battery(candidate, latency, energy),
            microcontroller=self._microcontroller(candidate, example),
            layers=candidate.model.layers(example) if self.config.layers else (),
            robustness=self.curves.get(candidate.name),
            unknown=self.unknown.get(candidate.name),
        )

    def _scores(self, candidate: Candidate) -> AnyScores | None:
        clips = candidate.clips
        if clips is None:
            return None
        probabilities = self.predictions[candidate.name].probabilities
        return score_clips(probabilities, clips.labels, clips.groups, clips.classes, clips.seed)

    def _calibration(self, candidate: Candidate) -> Calibration | None:
        clips, temperature = candidate.clips, candidate.temperature
        if clips is None:
            return None
        predictions = self.predictions[candidate.name]
        said = predictions.probabilities
        now = calibration(said, clips.labels, clips.groups, clips.seed)
        told = Calibration(
            temperature=temperature,
            error=round(now.error, DIGITS),
            error_interval=now.interval,
            cross_entropy=round(now.cross_entropy, DIGITS),
        )
        if temperature is None or temperature == 1:
            return told
        without = before_temperature(said, temperature, predictions.task.activation)
        before = calibration(without, clips.labels, clips.groups, clips.seed)
        return told.model_copy(
            update={
                "error_before": round(before.error, DIGITS),
                "error_before_interval": before.interval,
                "cross_entropy_before": round(before.cross_entropy, DIGITS),
            }
        )

    def _latency(self, candidate: Candidate) -> Latency:
        parts = {part: f"{candidate.name}: {part}" for part in ("front end", "network", "device")}
        known = {part: timer for part, timer in parts.items() if timer in self.timings.rounds}
        return self.timings.latency(
            f"{candidate.name}: whole",
            candidate.clips.clip_seconds if candidate.clips else None,
            frontend=known.get("front end"),
            network=known.get("network"),
            device=known.get("device"),
        )

    def _throughput(self, candidate: Candidate, example: Tensor) -> tuple[Throughput, ...]:
        # A GPU has no threads to choose; with one CPU, one thread is all.
        threads = sorted({1, all_threads()}) if candidate.model.threads is not None else [1]
        rates: list[Throughput] = []
        for batch in self.config.batches:
            waveforms = example.expand(batch, -1).contiguous()
            if candidate.clips is not None:
                clips = candidate.clips
                waveforms = clips.store.waveforms([clips.rows[clip % len(clips.rows)] for clip in range(batch)])
            for count in threads:
                with candidate.model.batches(waveforms, count) as call:
                    rates.append(throughput(call, batch, count, seconds=0.5))
                self.progress(f"{candidate.name}: batches", len(rates), len(self.config.batches) * len(threads))
        return tuple(rates)

    def _cost(self, candidate: Candidate, example: Tensor) -> Cost:
        cost = candidate.model.cost(example)
        if not self.config.memory:
            return cost
        memory = candidate.model.memory(example)
        if memory.failure is not None:
            self.notes.append(f"{candidate.name}: its memory could not be measured: {memory.failure}.")
        return cost.model_copy(update=memory.figures())

    def _energy(self, candidate: Candidate, example: Tensor, latency: Latency, cost: Cost) -> Energy | None:
        config = self.config
        if config.active_watts is not None:
            return stated(config.active_watts, latency.p50_ms / 1e3)
        if not config.energy:
            return None
        meter = open_meter(gpu=candidate.model.threads is None)
        if meter is None:
            return modelled(cost, candidate.model.precision)
        return measure_energy(meter, lambda: candidate.model.classify(example))

    def _battery(self, candidate: Candidate, latency: Latency, energy: Energy | None) -> Battery | None:
        if self.config.battery_wh is None or energy is None or candidate.clips is None:
            return None
        return battery(
            self.config.battery_wh,
            self.config.duty_cycle,
            energy,
            idle_watts=self.config.idle_watts,
            clip_seconds=candidate.clips.clip_seconds,
            latency_seconds=latency.p50_ms / 1e3,
        )

    def _microcontroller(self, candidate: Candidate, example: Tensor) -> Microcontroller | None:
        if candidate.bundle is None:
            return None
        found = on_microcontroller(candidate.bundle, example)
        if found is not None:
            self.notes.extend(board_notes(candidate.name, found, candidate.bundle))
        return found

    def _versus(self, subject: Subject, baseline: Subject) -> Versus:
        paired = None
        if subject.name in self.predictions and baseline.name in self.predictions and subject.scores is not None:
            paired = difference(
                {("test", 0): self.predictions[subject.name]},
                {("test", 0): self.predictions[baseline.name]},
                len(subject.scores.classes),
            )
        return Versus(
            baseline=baseline.name,
            accuracy=paired if isinstance(paired, Difference) else None,
            mean_average_precision=paired if isinstance(paired, LabelDifference) else None,
            speedup=self.timings.ratio(f"{baseline.name}: whole", f"{subject.name}: whole"),
            smaller=baseline.cost.file_bytes / subject.cost.file_bytes,
        )
