"""What subjects make of sounds that are none of their classes (`edgekd.profiling.probes`).

Of every subject the highest probability is a score of how familiar a clip is; of a run's students, whose logits and
embedding are at hand, so are energy and Mahalanobis, of its teacher energy; of a bundle what it ships
(`edgekd.scoring.familiarity`). Thresholds are those of the validation side, figures those of the test side and of the
probes, with 95 % intervals over their recordings. Of many clips `MOST_CLIPS` are taken, evenly spaced.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgekd.audio.hearing import ClipHearing
from edgekd.errors import InputError, UsageError
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.known import KnownScore
from edgekd.exporting.manifest import Reject
from edgekd.exporting.rejection import as_it_computes, kept_fit
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.models.outputs import TeacherOutput
from edgekd.profiling.accuracy import Classify, ScoredClips
from edgekd.profiling.backends import OnnxGraph
from edgekd.profiling.probes import SILENCE, SITE, Sounds, probes_of, site_clips
from edgekd.profiling.robustness import MOST_CLIPS
from edgekd.profiling.subjects import Candidate
from edgekd.progress import Progress, silent
from edgekd.report.results import Probe, Unknown
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.scoring.familiarity import Gaussians, ScoreName, ToldApart, Trial, known_threshold, told_apart
from edgekd.scoring.intervals import Floats, Interval

CONFIDENT = 0.99
_BATCH = 8


@dataclass(frozen=True)
class Answers:
    """Of N clips: class probabilities `(N, K)`, and each score `(N,)` by its name."""

    probabilities: Tensor
    scores: Mapping[ScoreName, Floats]


Ask = Callable[[Tensor], Mapping[ScoreName, Tensor]]
"""Waveforms `(B, S)` -> other scores than the highest probability, `(B,)`, by name."""


@dataclass(frozen=True)
class Ear:
    """A subject, asked for its scores. `rejects`: what it ships to tell the unknown; `validation`: clips to choose
    other thresholds on, none where its run cannot be read."""

    classify: Classify
    others: Ask
    rejects: Reject | None
    validation: tuple[RunData, Sequence[int]] | None
    hearing: ClipHearing

    def hear(self, waveforms: Tensor) -> Answers:
        said, told = [], []
        with torch.inference_mode():
            for batch in waveforms.split(_BATCH):
                said.append(self.classify(batch))
                told.append(self.others(batch))
        probabilities = torch.cat(said)
        scores: dict[ScoreName, Floats] = {"softmax": probabilities.amax(dim=1).double().numpy()}
        for name in told[0]:
            scores[name] = torch.cat([each[name] for each in told]).double().numpy()
        return Answers(probabilities, scores)


def unknown_sounds(
    candidates: Sequence[Candidate], site: Sequence[Path], progress: Progress = silent
) -> dict[str, Unknown]:
    """What each of `candidates` that is scored makes of the probes, and of the recordings at `site`.

    Raises `InputError` for a `site` that cannot be read.
    """
    scored = [(candidate, candidate.clips) for candidate in candidates if candidate.clips is not None]
    found = {}
    heard: dict[tuple[object, ...], Sounds] = {}  # the site, as it is heard
    for done, (candidate, clips) in enumerate(scored):
        progress("unknown sounds", done, len(scored))
        ear = ear_of(candidate)
        sounds = probes_of(clips)
        if site:
            hearing, size = ear.hearing, (clips.sample_rate, clips.samples)
            way = (hearing.channel, hearing.full_scale, hearing.padding, hearing.trim_silence, *size)
            if way not in heard:
                heard[way] = site_clips(site, hearing, *size)
            sounds[SITE] = heard[way]
        found[candidate.name] = made_of(ear, clips, sounds)
    progress("unknown sounds", len(scored), len(scored))
    return found


def made_of(ear: Ear, clips: ScoredClips, sounds: Mapping[str, Sounds]) -> Unknown:
    """What `ear` makes of `sounds` by their names, against `clips`."""
    places = _spaced(np.arange(len(clips.rows)))
    known = ear.hear(clips.store.waveforms([clips.rows[place] for place in places]))
    groups = [clips.groups[place] for place in places]
    thresholds: dict[ScoreName, float] = {}
    if ear.validation is not None:
        data, rows = ear.validation
        chosen = ear.hear(data.waveforms(_spaced(np.asarray(rows))))
        thresholds = {name: known_threshold(scores) for name, scores in chosen.scores.items()}
    if ear.rejects is not None:
        thresholds[ear.rejects.score] = ear.rejects.threshold

    def told(answers: Answers, unknown_groups: Sequence[str]) -> dict[ScoreName, ToldApart]:
        """By each score; where none has a threshold, only of its AUROC."""
        others = [f"not of a class: {name}" for name in unknown_groups]
        trials = {
            name: Trial(known.scores[name], groups, scores, others, thresholds.get(name, -np.inf))
            for name, scores in answers.scores.items()
        }
        return {name: told_apart([trial], clips.seed) for name, trial in trials.items()}

    probes: list[Probe] = []
    lost: dict[str, Interval] = {}
    for kind, each in sounds.items():
        answers = ear.hear(each.waveforms)
        apart = told(answers, each.groups)
        probe = _probe(ear, kind, answers, apart, thresholds, clips.classes)
        if kind == SILENCE:  # there is one, so nothing of it is left to chance
            probe = probe.model_copy(update={"auroc_interval": {}, "false_alarms_interval": {}})
        probes.append(probe)
        lost = lost or {name: _ends(apart[name].lost_interval) for name in thresholds}  # alike beside any sounds
    return Unknown(
        rejects=None if ear.rejects is None else ear.rejects.score,
        thresholds={name: round(value, 6) for name, value in thresholds.items()},
        lost={name: _below(known.scores[name], value) for name, value in thresholds.items()},
        lost_interval=lost,
        probes=tuple(probes),
    )


def _probe(
    ear: Ear,
    kind: str,
    answers: Answers,
    told: Mapping[ScoreName, ToldApart],
    thresholds: Mapping[ScoreName, float],
    classes: Sequence[str],
) -> Probe:
    best = answers.probabilities.argmax(dim=1).numpy()
    confident = answers.scores["softmax"] >= CONFIDENT
    if ear.rejects is not None:
        confident = confident & (answers.scores[ear.rejects.score] >= ear.rejects.threshold)
    said = best[confident] if confident.any() else best
    return Probe(
        kind=kind,
        clips=len(best),
        confident=round(float(confident.mean()), 6),
        named=classes[int(np.bincount(said).argmax())],
        auroc={name: round(each.auroc, 6) for name, each in told.items()},
        auroc_interval={name: _ends(each.auroc_interval) for name, each in told.items()},
        false_alarms={name: round(told[name].false_alarms, 6) for name in thresholds},
        false_alarms_interval={name: _ends(told[name].false_alarms_interval) for name in thresholds},
    )


def _ends(found: Interval) -> Interval:
    low, high = found
    return round(low, 6), round(high, 6)


def _below(scores: Floats, threshold: float) -> float:
    return round(float((scores < threshold).mean()), 6)


def ear_of(candidate: Candidate) -> Ear:
    """How `candidate` is asked. What its run could tell is left out where that cannot be read."""
    classify, bundle, clips = candidate.model.classify, candidate.bundle, candidate.clips
    assert clips is not None
    if candidate.kind == "run":
        run = Run.open(candidate.source)
        data = run.open_data()
        others, rejects = _of_run(run, candidate.role, data)
        return Ear(classify, others, rejects, (data, data.split.validation), run.config.data)
    if bundle is None:
        return Ear(classify, _nothing, None, None, _Plain())
    validation = None
    if clips.golden is None:
        try:
            data = Run.open(Path(bundle.manifest.provenance.run)).open_data()
            validation = data, data.split.validation
        except (InputError, UsageError):
            pass
    model, rejects = candidate.model, bundle.manifest.detection.reject
    if rejects is None or not isinstance(model, OnnxGraph):
        return Ear(classify, _nothing, None, validation, bundle.manifest.classifier)
    score: ScoreName = rejects.score
    return Ear(classify, lambda clip: {score: model.known(clip)}, rejects, validation, bundle.manifest.classifier)


def _nothing(_waveforms: Tensor) -> Mapping[ScoreName, Tensor]:
    return {}


@dataclass(frozen=True)
class _Plain:
    """How a graph that does not tell hears a recording."""

    channel: int | Literal["mean"] = "mean"
    full_scale: float = 1.0
    padding: Literal["repeat", "zeros"] = "repeat"
    trim_silence: bool = False


def _of_run(run: Run, role: str, data: RunData) -> tuple[Ask, Reject | None]:
    def energy(logits: Tensor) -> Tensor:
        return KnownScore("energy", independent=run.task.several).of(logits, run.task.probabilities(logits), None)

    if role == "teacher":
        teacher = run.teacher()
        assert teacher is not None

        def by_teacher(waveforms: Tensor) -> Mapping[ScoreName, Tensor]:
            output: TeacherOutput = teacher(waveforms)
            return {"energy": energy(output.logits)}

        return by_teacher, None
    deployable = deployable_of(run, "int8" if role == "int8" else "fp32")
    student = copy.deepcopy(as_it_computes(deployable, OnnxRuntime.flavour)).eval()
    fitted = kept_fit(run, deployable.stage)
    reject = None if fitted is None else fitted.reject
    if student.embedding_layer is None or run.task.several:
        return lambda waveforms: {"energy": energy(student(waveforms).logits)}, reject
    student.give_embedding()
    gaussians = fitted.known.gaussians if fitted is not None else None
    if gaussians is None:
        gaussians = _gaussians(student, data)
    distance = KnownScore("mahalanobis", gaussians)

    def by_student(waveforms: Tensor) -> Mapping[ScoreName, Tensor]:
        output = student(waveforms)
        probabilities = output.logits.softmax(dim=1)
        return {
            "energy": energy(output.logits),
            "mahalanobis": distance.of(output.logits, probabilities, output.embedding),
        }

    return by_student, reject


def _gaussians(student: Callable[[Tensor], object], data: RunData) -> Gaussians:
    """Those of the training side, of many clips of `MOST_CLIPS` of each class, evenly spaced."""
    train = data.side("train")
    places = [
        place for label in range(len(data.index.classes)) for place in _spaced(np.flatnonzero(train.labels == label))
    ]
    embeddings = []
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            batch = data.waveforms([train.rows[place] for place in places[start : start + _BATCH]])
            embeddings.append(student(batch).embedding)  # type: ignore[attr-defined]
    return Gaussians.fit(torch.cat(embeddings).numpy(), train.labels[places], len(data.index.classes))


def _spaced(places: np.ndarray) -> list[int]:
    """`MOST_CLIPS` of them, evenly spaced."""
    wanted = np.unique(np.linspace(0, len(places) - 1, MOST_CLIPS).round().astype(int))
    chosen: list[int] = places[wanted].tolist()
    return chosen
