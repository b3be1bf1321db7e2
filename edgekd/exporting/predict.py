"""Classifying audio files of any rate and length with a run or a bundle.

Both do what the device does: resample, cut a longer recording into windows half a clip apart and average their scores,
fill up a shorter one by the data set's rule. A bundle is run as its runtime runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.audio.hearing import heard_pieces
from edgekd.audio.read import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.audio.recording import opened
from edgekd.device.runner import windows
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.resample import resample_pieces
from edgekd.errors import InputError
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.folders import kind_of
from edgekd.exporting.manifest import read_bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.runs.run import Run

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Classes and their probabilities, the most probable first; none, and `error`, for a file that cannot be read.

    `silent`: there was nothing to hear, for every sample has one value.
    """

    file: Path
    ranked: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    silent: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, probabilities with six digits."""
        if self.error is not None:
            return {"file": str(self.file), "error": self.error}
        scores = {name: round(share, 6) for name, share in self.ranked}
        return {"file": str(self.file), "silent": self.silent, "scores": scores}


class Predictor(Protocol):
    """Something that classifies files."""

    classes: tuple[str, ...]

    def predict_file(self, path: Path) -> tuple[Scores, bool]:
        """Class probabilities `(K,)`, and whether the file is silent. Raises `InputError` for one that cannot be
        decoded, or not be heard as the classifier hears."""


class BundlePredictor:
    """The shipped model, with the resampler and the windows of the on-device runner."""

    def __init__(self, folder: Path) -> None:
        manifest = read_bundle(folder).manifest
        self.classifier = manifest.classifier
        self.classes = self.classifier.classes
        self.classify = RUNTIMES[manifest.target.runtime].open(folder)

    def predict_file(self, path: Path) -> tuple[Scores, bool]:
        wanted = self.classifier
        width, rolloff = wanted.resampler.lowpass_filter_width, wanted.resampler.rolloff
        with opened(path) as recording:
            rate = recording.info.rate
            stretches = Stretches(rate, wanted.sample_rate)
            heard = heard_pieces(recording, wanted, stretches)
            pieces = resample_pieces(heard, rate, wanted.sample_rate, width, rolloff)
            trimmed = stretches if wanted.trim_silence else None
            clips = windows(pieces, wanted.clip_samples, wanted.hop_samples, wanted.padding, trimmed)
            scores = [self._classify(batch, path) for batch in clips]
            return np.concatenate(scores).mean(axis=0), stretches.flat

    def _classify(self, batch: Scores, path: Path) -> Scores:
        try:
            return self.classify(batch)
        except InputError as failure:
            raise InputError(f"{path}: {failure}.") from None


class RunPredictor:
    """The int8 student of a run, fake-quantised; its float student where it has no int8 one."""

    def __init__(self, folder: Path) -> None:
        run = Run.open(folder)
        self.classes = run.classes
        self.data = run.config.data
        self.samples = round(self.data.clip_seconds * self.data.sample_rate)
        self.student = deployable_of(run, "int8" if "int8" in run.report().get("test", {}) else "fp32").student

    def predict_file(self, path: Path) -> tuple[Scores, bool]:
        rate, width, rolloff = self.data.sample_rate, RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
        with opened(path) as recording, torch.inference_mode():
            stretches = Stretches(recording.info.rate, rate)
            heard = heard_pieces(recording, self.data, stretches)
            pieces = resample_pieces(heard, recording.info.rate, rate, width, rolloff)
            trimmed = stretches if self.data.trim_silence else None
            clips = windows(pieces, self.samples, max(1, self.samples // 2), self.data.padding, trimmed)
            scores = [self.student(torch.from_numpy(batch)).logits.softmax(1).numpy() for batch in clips]
        return np.concatenate(scores).mean(axis=0), stretches.flat


def open_predictor(folder: Path) -> Predictor:
    """The predictor of a run folder or a bundle. Raises `InputError` for a folder that is neither."""
    return BundlePredictor(folder) if kind_of(folder) == "bundle" else RunPredictor(folder)


def predict_files(model: Path, files: Sequence[Path]) -> Iterator[Prediction]:
    """What the run or bundle `model` says of each of `files`, in turn. Raises as `open_predictor` does, at once."""
    predictor = open_predictor(model)

    def predict(file: Path) -> Prediction:
        try:
            scores, silent = predictor.predict_file(file)
        except InputError as failure:
            return Prediction(file, error=str(failure))
        ranked = sorted(zip(predictor.classes, scores.tolist(), strict=True), key=lambda pair: -pair[1])
        return Prediction(file, tuple(ranked), silent=silent)

    return map(predict, files)
