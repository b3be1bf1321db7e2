"""The clips that subjects of a profile are scored on, the same for all of them, and the scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.console import Progress, silent
from edgekd.export.bundle import Bundle
from edgekd.training.evaluation import Scores, Waveforms, predict_probabilities, score
from edgekd.training.run import Run

if TYPE_CHECKING:
    pass

Classifier = Callable[[Tensor], Tensor]
"""Waveforms `(B, S)` -> logits `(B, K)`."""


@dataclass(frozen=True)
class LabelledClips:
    """Clips and what they are. `labels` and `groups` are those of `rows`, in their order."""

    description: str
    dataset: str
    store: Waveforms
    rows: Sequence[int]
    labels: Sequence[int]
    groups: Sequence[str]
    classes: tuple[str, ...]
    seed: int

    def first(self) -> Tensor:
        """A clip `(1, S)` to time with: real sound, for zeros may be quicker."""
        return self.store.waveforms(self.rows[:1])


def clips_of_run(run: Run) -> LabelledClips:
    """Every clip of the run's test side. Raises `InputError` where the data has moved or changed."""
    index = run.index()
    rows = run.split(index).test
    clips = [index.clips[row] for row in rows]
    return LabelledClips(
        description=f"the {len(rows)} clips of the test side",
        dataset=index.dataset,
        store=run.store(index),
        rows=rows,
        labels=[clip.label for clip in clips],
        groups=[clip.group for clip in clips],
        classes=run.classes,
        seed=run.config.seed,
    )


def clips_of_bundle(bundle: Bundle) -> LabelledClips:
    """The golden examples of a bundle. Which recordings they are from is not known: each is its own group."""
    with np.load(bundle.folder / "golden.npz", allow_pickle=False) as golden:
        waveforms: npt.NDArray[np.float32] = golden["waveform"] * golden["scale"][:, None] / np.float32(32767)
        labels = [int(label) for label in golden["labels"]]
    return LabelledClips(
        description=f"the bundle's {len(labels)} golden examples",
        dataset=bundle.manifest.provenance.dataset,
        store=_InMemory(waveforms.astype(np.float32)),
        rows=range(len(labels)),
        labels=labels,
        groups=[str(row) for row in range(len(labels))],
        classes=bundle.manifest.classifier.classes,
        seed=bundle.manifest.provenance.seed,
    )


def score_on(
    clips: LabelledClips, classifier: Classifier, progress: Progress = silent, stage: str = "accuracy"
) -> Scores:
    """Scores of `classifier`, which runs on the CPU, on all of `clips`."""
    probabilities = predict_probabilities(
        classifier, clips.store, clips.rows, batch_size=8, progress=progress, stage=stage
    )
    return score(probabilities, clips.labels, clips.groups, clips.classes, clips.seed)


class _InMemory:
    """Clips `(N, S)` held in an array."""

    def __init__(self, clips: npt.NDArray[np.float32]) -> None:
        self._clips = clips

    def waveforms(self, rows: Sequence[int], /) -> Tensor:
        return torch.from_numpy(self._clips[list(rows)])
