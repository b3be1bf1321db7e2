"""Classifying audio files of any rate and length with a run or a bundle.

Both do what the device does: resample, cut a longer recording into windows half a clip apart and average their scores,
fill up a shorter one by the data set's rule. A bundle is run as its runtime runs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.hearing import ClipHearing, heard_pieces
from edgekd.audio.read import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.audio.recording import opened
from edgekd.device.runner import windows
from edgekd.device.runner.answers import SEVERAL
from edgekd.device.runner.detection import Rule, rule_of
from edgekd.device.runner.errors import BadSamples, RunnerError, WrongUsage
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.resample import resample_pieces
from edgekd.device.runner.steps import StepGraphs
from edgekd.errors import InputError, UsageError
from edgekd.exporting.folders import kind_of
from edgekd.exporting.manifest import Detection, read_bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.since_export import since_export

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Classes and their probabilities, the most probable first; none, and `error`, for a file that cannot be read.

    `silent`: there was nothing to hear, for every sample has one value. `known`: how familiar it is, and `unknown`:
    that it is not familiar enough, of a classifier that rejects the unknown.
    """

    file: Path
    ranked: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    silent: bool = False
    known: float | None = None
    unknown: bool = False
    answers: tuple[str, ...] | None = None
    """The classes that reach their thresholds, the most probable first; None where nobody has chosen any, unless a clip
    may be of several classes."""
    several: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, probabilities with six digits."""
        if self.error is not None:
            return {"file": str(self.file), "error": self.error}
        scores = {name: round(share, 6) for name, share in self.ranked}
        told: dict[str, Any] = {} if self.known is None else {"known": round(self.known, 6), "unknown": self.unknown}
        answered = {} if self.answers is None else {"classes": list(self.answers)}
        return {"file": str(self.file), "silent": self.silent, **told, **answered, "scores": scores}


class Predictor(ABC):
    """Something that classifies clips, and files as windows of them.

    `hearing` says what is heard of a file and how a clip is filled, `resampler` and `detection` are those sections of a
    manifest (None: an older one has none). What a `Listener` of the runner asks of a classifier is here, too.
    """

    classes: tuple[str, ...]
    hearing: ClipHearing
    sample_rate: int
    clip_samples: int
    hop_samples: int
    resampler: dict[str, Any]
    detection: Detection | None
    several: bool
    """Whether each class is answered for itself, so that a clip may be of several, or of none."""
    notes: tuple[str, ...] = ()
    """What is odd about the model, for whoever reads its answers."""

    @property
    def padding(self) -> Literal["repeat", "zeros"]:
        return self.hearing.padding

    @property
    def trim_silence(self) -> bool:
        return self.hearing.trim_silence

    @abstractmethod
    def answers(self, clips: Scores) -> Scores:
        """Class probabilities `(B, K)` of clips `(B, S)`, and how familiar each is in one more column where the
        classifier rejects the unknown. Raises `BadSamples` where they are not finite, `InputError` where the classifier
        cannot be run."""

    def told(self, answer: Scores) -> dict[str, Any]:
        """`known`, how familiar what was answered so `(K + 1,)` is, and whether it is `unknown`; empty where the
        classifier rejects nothing."""
        reject = None if self.detection is None else self.detection.reject
        if reject is None:
            return {}
        known = float(answer[len(self.classes)])
        return {"known": known, "unknown": known < reject.threshold}

    def step_graphs(self) -> StepGraphs | None:
        """The graphs for windows that overlap, where the classifier has some. Raises `InputError`."""
        return None

    def answered(self, scores: Scores) -> tuple[str, ...]:
        """Of scores `(K,)`, the classes that reach their thresholds, the most probable first."""
        opens = self._rule(self.detection).open
        return tuple(self.classes[k] for k in np.argsort(-scores, kind="stable") if scores[k] >= opens[k])

    @abstractmethod
    def digest(self) -> str:
        """Of all that its answers come of: another classifier has another."""

    def rule(self, **asked: Any) -> Rule:
        """What makes an event, by `detection` and what is `asked` for instead (`rule_of`). Raises `UsageError`."""
        return self._rule(self.detection, **asked)

    def _rule(self, detection: Detection | None, **asked: Any) -> Rule:
        classifier = {
            "classes": list(self.classes),
            "sample_rate": self.sample_rate,
            "clip_samples": self.clip_samples,
        }
        try:
            found = None if detection is None else detection.model_dump()
            return rule_of({"classifier": classifier, "detection": found}, **asked)
        except WrongUsage as failure:
            raise UsageError(f"{failure}.") from None

    def predict_file(self, path: Path) -> tuple[Scores, bool]:
        """What is answered, as `answers` has it, and whether the file is silent. Raises `InputError` for one that
        cannot be decoded, or not be heard as the classifier hears."""
        width, rolloff = self.resampler["lowpass_filter_width"], self.resampler["rolloff"]
        with opened(path) as recording:
            rate = recording.info.rate
            stretches = Stretches(rate, self.sample_rate)
            heard = heard_pieces(recording, self.hearing, stretches)
            pieces = resample_pieces(heard, rate, self.sample_rate, width, rolloff)
            trimmed = stretches if self.trim_silence else None
            clips = windows(pieces, self.clip_samples, self.hop_samples, self.padding, trimmed)
            scores = [self._classified(batch, path) for batch in clips]
            return np.concatenate(scores).mean(axis=0), stretches.flat

    def _classified(self, batch: Scores, path: Path) -> Scores:
        try:
            return self.answers(batch)
        except (BadSamples, InputError) as failure:
            raise InputError(f"{path}: {failure}.") from None


class BundlePredictor(Predictor):
    """The shipped model, with the resampler and the windows of the on-device runner."""

    def __init__(self, folder: Path) -> None:
        bundle = read_bundle(folder)
        manifest, changed = bundle.manifest, since_export(bundle)
        self.notes = () if changed is None else (changed,)
        self.hearing = self.classifier = manifest.classifier
        self.several = self.classifier.activation == SEVERAL
        self.classes = self.classifier.classes
        self.sample_rate, self.clip_samples = self.classifier.sample_rate, self.classifier.clip_samples
        self.hop_samples, self.resampler = self.classifier.hop_samples, self.classifier.resampler.model_dump()
        self.detection = manifest.detection if "detection" in manifest.model_fields_set else None
        self._folder, self._manifest = folder, manifest
        self._steps: StepGraphs | None = None
        self.classify = RUNTIMES[manifest.target.runtime].open(folder)

    def answers(self, clips: Scores) -> Scores:
        try:
            return self.classify(clips)
        except InputError as failure:
            if isinstance(failure.__cause__, BadSamples):
                raise failure.__cause__ from None
            raise

    def step_graphs(self) -> StepGraphs | None:
        manifest = self._manifest
        if manifest.steps is None or not RUNTIMES[manifest.target.runtime].in_steps:
            return None
        if self._steps is None:
            told = manifest.model_dump(mode="json")
            try:
                self._steps = StepGraphs(self._folder, told["steps"], told["classifier"], manifest.target.opset, 1)
            except RunnerError as failure:
                raise InputError(str(failure)) from None
        return self._steps

    def digest(self) -> str:
        return self._manifest.sha256


class RunPredictor(Predictor):
    """The int8 student of a run, rounded as ONNX Runtime rounds; its float student where it has no int8 one."""

    def __init__(self, folder: Path) -> None:
        from edgekd.exporting.deployable import deployable_of
        from edgekd.exporting.detection import detection_of
        from edgekd.exporting.kept_rejection import AGAIN, kept_rejection
        from edgekd.exporting.rejection import kept_fit
        from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
        from edgekd.runs.run import Run

        self._run = run = Run.open(folder)
        self._hops: Detection | None = None  # what makes an event, when it has been asked for
        self.classes = run.classes
        self.hearing = data = run.config.data
        self.sample_rate, self.clip_samples = data.sample_rate, round(data.clip_seconds * data.sample_rate)
        self.hop_samples = max(1, self.clip_samples // 2)
        self.resampler = {"lowpass_filter_width": RESAMPLE_FILTER_WIDTH, "rolloff": RESAMPLE_ROLLOFF}
        self.several = run.task.several
        int8 = "int8" in run.report().get("test", {})
        deployable = deployable_of(run, "int8" if int8 else "fp32")
        fitted = kept_fit(run, deployable.stage)
        found = detection_of(run, deployable.stage)
        self.detection: Detection = found.model_copy(update={"reject": None if fitted is None else fitted.reject})
        told, known = kept_rejection(run), None if fitted is None else fitted.known
        if told is not None and fitted is None:
            self.notes = (f"{folder}: nothing is unknown to its {deployable.stage} model, though it rejects. {AGAIN}",)
        # An int8 one as it is rounded where it ships: far from its data a plain rounding answers something else.
        self._answers = replace(deployable, known=known).trained(OnnxRuntime.flavour)
        self._source = deployable.source if known is None else f"{deployable.source} {known.digest}"

    def rule(self, **asked: Any) -> Rule:
        from edgekd.exporting.detection import with_hops

        if self._hops is None:  # they take a graph, which nothing else needs
            self._hops = with_hops(self.detection, self._run)
        return self._rule(self._hops, **asked)

    def answers(self, clips: Scores) -> Scores:
        import torch

        scores: Scores = self._answers(torch.from_numpy(clips)).numpy()
        if not np.isfinite(scores).all():
            raise BadSamples("the model's output is not finite")
        return scores

    def digest(self) -> str:
        return self._source


def open_predictor(folder: Path) -> Predictor:
    """The predictor of a run folder or a bundle. Raises `InputError` for a folder that is neither."""
    return BundlePredictor(folder) if kind_of(folder) == "bundle" else RunPredictor(folder)


def predict_files(
    model: Path, files: Sequence[Path], tell: Callable[[str], None] = lambda _: None
) -> Iterator[Prediction]:
    """What the run or bundle `model` says of each of `files`, in turn; `tell` hears first of what is odd about the
    model. Raises as `open_predictor` does, at once."""
    predictor = open_predictor(model)
    for note in predictor.notes:
        tell(note)
    detection = predictor.detection
    answers_known = predictor.several or (detection is not None and detection.chosen is not None)

    def predict(file: Path) -> Prediction:
        try:
            answer, silent = predictor.predict_file(file)
        except InputError as failure:
            return Prediction(file, error=str(failure))
        scores = answer[: len(predictor.classes)]
        ranked = sorted(zip(predictor.classes, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        answers = predictor.answered(scores) if answers_known else None
        several, told = predictor.several, predictor.told(answer)
        return Prediction(file, tuple(ranked), silent=silent, answers=answers, several=several, **told)

    return map(predict, files)
