"""`profile`: teacher, float student and int8 student side by side, or the classifier a bundle ships.

Students are measured on the path that ships: exported, and run by ONNX Runtime on one thread, their accuracy as well as
their time. The teacher does not ship: its time is PyTorch's, on one thread too, and its scores are those that its run
recorded on the same test clips.

The profile as a JSON object, as in the section `profile` of a run's `report.json` (version 1):

    version       1
    kind, folder  "run" or "bundle", and where
    dataset       name of the data set
    clips         which clips the subjects were scored on, in words
    sample_rate   Hz
    clip_seconds  length of a clip
    machine       {cpu, cpus, governor, load_average, cpus_used_by_others, busy}
    notes         [what a reader of the figures should know]
    subjects      {name: {architecture, precision, runtime,
                          scores:  see edgekd.training.evaluation.Scores,
                          cost:    {parameters, macs, frontend_macs, file_bytes},
                          latency: {mean_ms, p50_ms, p95_ms, p99_ms, repetitions,
                                    frontend_ms, network_ms, real_time_factor}}}

`parameters` and `macs` are the network's. `frontend_ms` and `network_ms` are medians: of the two parts of the graph run
alone, or, for the teacher, of its front end (resampling and log-mel) alone and of what is left of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.console import Progress, silent
from edgekd.errors import InputError, UsageError
from edgekd.export.bundle import Bundle
from edgekd.export.cost import graph_cost, split_at_log_mel
from edgekd.export.onnx_graph import float_onnx, quantized_onnx
from edgekd.export.targets import Precision
from edgekd.export.verify import graph_classifier, in_session
from edgekd.export.verify import session as onnx_session
from edgekd.models.teachers.base import Teacher
from edgekd.profiling.accuracy import (
    LabelledClips,
    clips_of_bundle,
    clips_of_run,
    score_on,
)
from edgekd.profiling.cost import Cost, module_macs, module_parameters
from edgekd.profiling.latency import Latency, Machine, measure
from edgekd.quantization.qat import load_int8, quantized_network
from edgekd.runtime.edgekd_runner import Runner
from edgekd.training.evaluation import Scores
from edgekd.training.run import Run

PROFILE_VERSION = 1
REPETITIONS = 200
SECONDS_PER_SUBJECT = 10.0  # of timing; a teacher that is slower than 50 ms is called less than `REPETITIONS` times

PrecisionName = Literal["float32", "float16", "int8"]
PRECISIONS: dict[Precision, PrecisionName] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}

Value = str | int | float | None


@dataclass(frozen=True)
class SubjectProfile:
    """One subject of the comparison. `frontend_ms` and `network_ms` are None where a graph cannot be taken apart."""

    name: str
    architecture: str
    precision: PrecisionName
    runtime: str
    scores: Scores
    cost: Cost
    latency: Latency
    frontend_ms: float | None
    network_ms: float | None
    real_time_factor: float

    def to_dict(self) -> dict[str, Any]:
        parts = {
            "frontend_ms": self.frontend_ms,
            "network_ms": self.network_ms,
            "real_time_factor": self.real_time_factor,
        }
        return {
            "architecture": self.architecture,
            "precision": self.precision,
            "runtime": self.runtime,
            "scores": self.scores.to_dict(),
            "cost": self.cost.to_dict(),
            "latency": {**self.latency.to_dict(), **parts},
        }

    def row(self) -> dict[str, Value]:
        """The figures of a table, by name: shares from 0 to 1, bytes, ms."""
        scores = self.scores
        return {
            "subject": self.name,
            "architecture": self.architecture,
            "precision": self.precision,
            "runtime": self.runtime,
            "accuracy": scores.accuracy,
            "accuracy_low": scores.accuracy_interval[0],
            "accuracy_high": scores.accuracy_interval[1],
            "macro_f1": scores.macro_f1,
            "macro_f1_low": scores.macro_f1_interval[0],
            "macro_f1_high": scores.macro_f1_interval[1],
            **self.cost.to_dict(),
            "p50_ms": self.latency.p50_ms,
            "p95_ms": self.latency.p95_ms,
            "p99_ms": self.latency.p99_ms,
            "frontend_ms": self.frontend_ms,
            "network_ms": self.network_ms,
            "real_time_factor": self.real_time_factor,
        }


@dataclass(frozen=True)
class Profile:
    """What `profile` found; see the module for its JSON."""

    kind: Literal["run", "bundle"]
    folder: Path
    dataset: str
    clips: str
    sample_rate: int
    clip_seconds: float
    machine: Machine
    notes: tuple[str, ...]
    subjects: tuple[SubjectProfile, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": PROFILE_VERSION,
            "kind": self.kind,
            "folder": str(self.folder),
            "dataset": self.dataset,
            "clips": self.clips,
            "sample_rate": self.sample_rate,
            "clip_seconds": self.clip_seconds,
            "machine": self.machine.to_dict(),
            "notes": list(self.notes),
            "subjects": {subject.name: subject.to_dict() for subject in self.subjects},
        }

    def rows(self) -> list[dict[str, Value]]:
        """A row a subject."""
        return [subject.row() for subject in self.subjects]


def profile(subject: Run | Bundle, progress: Progress = silent) -> Profile:
    """Measure the teacher and the students of a run, or the graph of a bundle.

    A run's profile is also written to its `report.json`. A bundle, which is sealed by its checksums, is left as it is;
    it is scored on the test side of the run it came from where that is still there, else on its golden examples.
    Raises `InputError` for a run without a finished student or whose data has moved.
    """
    if isinstance(subject, Bundle):
        return _profile_bundle(subject, progress)
    measured = _profile_run(subject, progress)
    subject.update_report("profile", measured.to_dict())
    return measured


@dataclass(frozen=True)
class _Subject:
    """Something to score and to time, and what is known of it without running it."""

    name: str
    architecture: str
    precision: PrecisionName
    runtime: str
    cost: Cost
    scores: Callable[[LabelledClips, Progress], Scores]
    whole: Callable[[], object]
    front_end: Callable[[], object] | None
    network: Callable[[], object] | None


def _profile_run(run: Run, progress: Progress) -> Profile:
    student = run.student()
    clips = clips_of_run(run)
    example = clips.first()
    samples = example.shape[1]
    exported = 1 + ("int8" in run.report()["test"])

    subjects = []
    teacher = run.teacher()
    if teacher is not None:
        subjects.append(_teacher_subject(run, teacher, example))
    progress("export", 0, exported)
    graph = float_onnx(student, samples)
    parameters = module_parameters(student.network)
    subjects.append(_graph_subject("student", student.name, "float32", graph, parameters, example))
    progress("export", 1, exported)
    if exported > 1:
        quantised = load_int8(run)
        network = quantized_network(quantised)
        graph = quantized_onnx(quantised, network, samples, "onnxruntime")
        parameters = module_parameters(network)
        subjects.append(_graph_subject("int8", student.name, "int8", graph, parameters, example))
        progress("export", 2, exported)
    return _measured("run", run.folder, run.config.data.sample_rate, clips, subjects, [], progress)


def _profile_bundle(bundle: Bundle, progress: Progress) -> Profile:
    manifest = bundle.manifest
    clips, notes = _clips_for(bundle)
    model = (bundle.folder / "model.onnx").read_bytes()
    example = clips.first()
    log_mel = None
    if manifest.classifier.input == "log_mel":
        log_mel = Runner(bundle.folder, cpu=True).graph_input  # the path that ships
    name = "int8" if manifest.precision == "int8" else "student"
    subject = _graph_subject(
        name, manifest.classifier.student, PRECISIONS[manifest.precision], model, None, example, log_mel
    )
    if manifest.target.runtime == "tensorrt":
        notes.append(
            f"Times are ONNX Runtime's on this machine, not TensorRT's on {manifest.target.title}; "
            "there: python3 edgekd_runner.py bench"
        )
    return _measured("bundle", bundle.folder, manifest.classifier.sample_rate, clips, [subject], notes, progress)


def _clips_for(bundle: Bundle) -> tuple[LabelledClips, list[str]]:
    """The test side of the run a bundle came from; its golden examples, and why, where that cannot be had."""
    classifier = bundle.manifest.classifier
    try:
        run = Run.open(Path(bundle.manifest.provenance.run))
        data = run.config.data
        same_clips = (data.sample_rate, round(data.sample_rate * data.clip_seconds)) == (
            classifier.sample_rate,
            classifier.clip_samples,
        )
        if run.classes != classifier.classes or not same_clips:
            raise InputError(f"{run.folder}: now another run than the one the bundle came from.")
        return clips_of_run(run), []
    except (InputError, UsageError) as failure:
        golden = clips_of_bundle(bundle)
        return golden, [f"Scored on {golden.description} only, as the test side cannot be read: {failure}"]


def _graph_subject(
    name: str,
    architecture: str,
    precision: PrecisionName,
    model: bytes,
    parameters: int | None,
    example: Tensor,
    outside: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> _Subject:
    """An exported graph. `parameters` None: those that the graph stores.

    `outside` computes the log-mel of waveforms `(B, S)` for a graph that takes one.
    """
    import onnx
    import onnxruntime

    graph = onnx.load_from_string(model)
    parts = split_at_log_mel(graph)
    costs = [graph_cost(part) for part in parts] if parts else [graph_cost(graph)]
    session = onnx_session(model)
    tensors = None if outside is None else lambda clips: torch.from_numpy(outside(clips.numpy()))
    classify = in_session(session, tensors)
    waveform = example.numpy()
    sound = session.get_inputs()[0].name
    feed = {sound: waveform if outside is None else outside(waveform)}
    front_end = network = None
    if outside is not None:
        front_end, network = (lambda: outside(waveform)), (lambda: session.run(None, feed))
    elif parts:
        first, second = (onnx_session(part.SerializeToString()) for part in parts)
        log_mel = {second.get_inputs()[0].name: first.run(None, feed)[0]}
        front_end, network = (lambda: first.run(None, feed)), (lambda: second.run(None, log_mel))
    return _Subject(
        name=name,
        architecture=architecture,
        precision=precision,
        runtime=f"ONNX Runtime {onnxruntime.__version__}, 1 thread",
        cost=Cost(
            parameters=costs[-1].parameters if parameters is None else parameters,
            macs=costs[-1].macs,
            frontend_macs=costs[0].macs if parts else None,
            file_bytes=len(model),
        ),
        scores=lambda clips, progress: score_on(clips, graph_classifier(classify), progress, f"{name} accuracy"),
        whole=lambda: session.run(None, feed if outside is None else {sound: outside(waveform)}),
        front_end=front_end,
        network=network,
    )


def _teacher_subject(run: Run, teacher: Teacher, example: Tensor) -> _Subject:
    log_mel = teacher.front_end()  # None: it takes the waveform itself

    def front_end(waveform: Tensor) -> Tensor:
        return waveform if log_mel is None else log_mel(teacher.at_own_rate(waveform))

    def timed(call: Callable[[Tensor], object]) -> Callable[[], object]:
        def once() -> object:
            with torch.inference_mode():
                return call(example)

        return once

    return _Subject(
        name="teacher",
        architecture=run.config.teacher.name,
        precision="float32",
        runtime=f"PyTorch {torch.__version__.partition('+')[0]}, 1 thread",
        cost=Cost(
            parameters=module_parameters(teacher),
            macs=module_macs(teacher, example) - module_macs(front_end, example),
            frontend_macs=None,
            file_bytes=(run.folder / "teacher" / "best.safetensors").stat().st_size,
        ),
        scores=lambda _clips, _progress: Scores.from_dict(run.report()["test"]["teacher"]),
        whole=timed(teacher),
        front_end=None if log_mel is None else timed(front_end),
        network=None,
    )


def _measured(
    kind: Literal["run", "bundle"],
    folder: Path,
    sample_rate: int,
    clips: LabelledClips,
    subjects: list[_Subject],
    notes: list[str],
    progress: Progress,
) -> Profile:
    """Score all subjects, then time them together."""
    clip_seconds = clips.first().shape[1] / sample_rate
    scores = {subject.name: subject.scores(clips, progress) for subject in subjects}
    calls: dict[str, Callable[[], object]] = {}
    for subject in subjects:
        parts = {"whole": subject.whole, "front end": subject.front_end, "network": subject.network}
        calls |= {f"{subject.name} {part}": call for part, call in parts.items() if call is not None}
    latencies, machine = measure(calls, REPETITIONS, SECONDS_PER_SUBJECT, progress=progress)
    if machine.busy:
        notes = [*notes, "The machine was busy with other work while latencies were taken: they are too high."]

    profiles = []
    for subject in subjects:
        whole = latencies[f"{subject.name} whole"]
        front_end, network = latencies.get(f"{subject.name} front end"), latencies.get(f"{subject.name} network")
        network_ms = network.p50_ms if network else None
        if network is None and front_end is not None:
            network_ms = round(max(0.0, whole.p50_ms - front_end.p50_ms), 4)
        profiles.append(
            SubjectProfile(
                name=subject.name,
                architecture=subject.architecture,
                precision=subject.precision,
                runtime=subject.runtime,
                scores=scores[subject.name],
                cost=subject.cost,
                latency=whole,
                frontend_ms=front_end.p50_ms if front_end else None,
                network_ms=network_ms,
                real_time_factor=whole.real_time_factor(clip_seconds),
            )
        )
    return Profile(
        kind=kind,
        folder=folder,
        dataset=clips.dataset,
        clips=clips.description,
        sample_rate=sample_rate,
        clip_seconds=clip_seconds,
        machine=machine,
        notes=tuple(notes),
        subjects=tuple(profiles),
    )
