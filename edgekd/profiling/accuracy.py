"""The clips that subjects of a profile are scored on, and what each says of them.

Every subject is scored on the same clips, so that differences can be taken in pairs: those on the test side of *every*
run in the profile. A clip that is on the test side of one run and was trained on by another is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.device import runner
from edgekd.errors import InputError
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.verify import graph_classifier
from edgekd.progress import Progress, silent
from edgekd.runs.predictions import Predictions
from edgekd.runs.run import Run
from edgekd.scoring.probabilities import Waveforms, predict_probabilities
from edgekd.task import MULTI, SINGLE, Task

FEW_GROUPS = 30
"""Of fewer groups, bootstrap intervals are known to be too short (Hesterberg, The American Statistician 69, 2015)."""

Classify = Callable[[Tensor], Tensor]
"""Waveforms `(B, S)` -> class probabilities `(B, K)`, both on the CPU."""
ClipName = tuple[str, int]
"""A file of the data set, and where in it the clip starts, in samples."""


@dataclass(frozen=True)
class ScoredClips:
    """Clips and what they are: `names`, `labels` and `groups` are those of `rows`, in their order.

    `labels` are classes `(N,)`, or memberships `(N, K)` where clips may be of several. `description` says where
    they are from, in words.
    `golden`: these are the examples in a bundle, because the test side cannot be had; why.
    """

    description: str
    dataset: str
    store: Waveforms
    rows: Sequence[int]
    names: Sequence[ClipName]
    labels: Sequence[int | Sequence[int]]
    groups: Sequence[str]
    classes: tuple[str, ...]
    sample_rate: int
    clip_seconds: float
    padding: Literal["repeat", "zeros"]
    seed: int
    golden: str | None = None

    @property
    def samples(self) -> int:
        """Of one clip."""
        return round(self.sample_rate * self.clip_seconds)

    @property
    def words(self) -> str:
        """How many they are, and where from."""
        recordings = "" if self.golden is not None else f" of {len(set(self.groups))} recordings"
        return f"{len(self.rows)} clips{recordings}, {self.description}"

    @property
    def digest(self) -> str:
        """sha256 of which clips these are and of what: two profiles with the same one can be compared."""
        told = [[*name, self._label(label)] for name, label in zip(self.names, self.labels, strict=True)]
        return hashlib.sha256(json.dumps([self.clip_seconds, sorted(told)]).encode()).hexdigest()

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return SINGLE if isinstance(self.labels[0], int) else MULTI

    def _label(self, label: int | Sequence[int]) -> str:
        if isinstance(label, int):
            return self.classes[label]
        return ";".join(name for name, member in zip(self.classes, label, strict=True) if member)

    def first(self) -> Tensor:
        """A clip `(1, S)` to time with: real sound, for zeros may be quicker."""
        return self.store.waveforms(self.rows[:1])

    def at(self, places: Sequence[int]) -> ScoredClips:
        """Only the clips at these places."""
        return replace(
            self,
            rows=[self.rows[place] for place in places],
            names=[self.names[place] for place in places],
            labels=[self.labels[place] for place in places],
            groups=[self.groups[place] for place in places],
        )


def clips_of_run(run: Run, progress: Progress = silent) -> ScoredClips:
    """Every clip of the run's test side. Raises `InputError` where it has none, and where the data has moved."""
    data, config = run.open_data(progress), run.config.data
    test = data.side("test")
    if not len(test):
        raise InputError(f"{run.folder / 'splits.csv'}: no clip is on the test side, so there is nothing to score on.")
    return ScoredClips(
        description=f"the test side of {run.folder}",
        dataset=data.index.dataset,
        store=data.store,
        rows=test.rows,
        names=test.names,
        labels=test.labels.tolist(),
        groups=test.groups,
        classes=run.classes,
        sample_rate=config.sample_rate,
        clip_seconds=config.clip_seconds,
        padding=config.padding,
        seed=run.config.seed,
    )


def clips_of_bundle(bundle: Bundle, why: str) -> ScoredClips:
    """The golden examples of a bundle. Which recordings they are from is not known: each is its own group."""
    classifier = bundle.manifest.classifier
    try:
        golden = runner.read_golden(
            bundle.folder / "golden.npz", classifier.clip_samples, len(classifier.classes), labelled=True
        )
    except runner.RunnerError as failure:
        raise InputError(f"{failure}.") from None
    waveforms: npt.NDArray[np.float32] = golden["waveform"] * golden["scale"][:, None] / np.float32(32767)
    labels = golden["labels"].tolist()
    digest = bundle.manifest.files["golden.npz"]
    return ScoredClips(
        description=f"the golden examples of {bundle.folder}",
        dataset=bundle.manifest.provenance.dataset,
        store=_InMemory(waveforms.astype(np.float32)),
        rows=range(len(labels)),
        names=[(digest, row) for row in range(len(labels))],
        labels=labels,
        groups=[str(row) for row in range(len(labels))],
        classes=classifier.classes,
        sample_rate=classifier.sample_rate,
        clip_seconds=classifier.clip_samples / classifier.sample_rate,
        padding=classifier.padding,
        seed=bundle.manifest.provenance.seed,
        golden=why,
    )


def in_common(sides: Sequence[ScoredClips]) -> list[ScoredClips]:
    """Of each of `sides`, the clips that all of them have, in the order of the first.

    Raises `InputError` as `check_alike` does, and where no clip is left.
    """
    first = sides[0]
    for other in sides[1:]:
        check_alike(first, other)
    places = [{name: place for place, name in enumerate(side.names)} for side in sides]
    shared = [name for name in first.names if all(name in known for known in places)]
    if not shared:
        raise InputError(
            f"No clip is on every test side, so nothing can be compared without a leak: {first.description}; "
            f"{'; '.join(side.description for side in sides[1:])}. Profile them one at a time, or train on one split."
        )
    return [side.at([known[name] for name in shared]) for side, known in zip(sides, places, strict=True)]


def check_alike(one: ScoredClips, other: ScoredClips) -> None:
    """Raise `InputError` where classes or lengths of clips differ."""
    if other.task != one.task:
        raise InputError(
            f"{one.description} and {other.description}: clips of one class and of several cannot be compared. Profile "
            "them one at a time."
        )
    if other.classes != one.classes:
        raise InputError(
            f"Subjects with different classes cannot be compared: {', '.join(one.classes)} ({one.description}); "
            f"{', '.join(other.classes)} ({other.description}). Profile them one at a time."
        )
    if other.clip_seconds != one.clip_seconds:
        raise InputError(
            f"Subjects with different clips cannot be compared: {one.clip_seconds:g} s ({one.description}); "
            f"{other.clip_seconds:g} s ({other.description}). Profile them one at a time."
        )


def predictions_on(
    clips: ScoredClips, classify: Classify, progress: Progress = silent, stage: str = "accuracy"
) -> Predictions:
    """What `classify` says of all of `clips`."""
    probabilities = predict_probabilities(
        graph_classifier(classify, clips.task),
        clips.store,
        clips.rows,
        batch_size=8,
        progress=progress,
        stage=stage,
        task=clips.task,
    )
    return Predictions(
        rows=tuple(range(len(clips.rows))),  # places among the common clips: two runs may number them differently
        groups=tuple(clips.groups),
        labels=np.asarray(clips.labels, dtype=np.int64),
        probabilities=probabilities,
    )


class _InMemory:
    """Clips `(N, S)` held in an array."""

    def __init__(self, clips: npt.NDArray[np.float32]) -> None:
        self._clips = clips

    def waveforms(self, rows: Sequence[int], /) -> Tensor:
        return torch.from_numpy(self._clips[list(rows)])
