"""How good a classifier is whose clips may be of several classes: mAP, average precision and F1 of each class.

There is no one winning class, so no accuracy and no confusion matrix. What is right of a class at its threshold are
counts; how well its clips are ranked needs no threshold (`average_precision`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgekd.json_files import Count, Share
from edgekd.runs.predictions import answered
from edgekd.scoring.average_precision import LabelCounts, average_precision
from edgekd.scoring.intervals import Shares, intervals
from edgekd.scoring.scores import calibration_error, rounded
from edgekd.task import MULTI, THRESHOLD, Task


@dataclass(frozen=True)
class LabelScores:
    """What one model scored on one set of clips; shares, not per cent.

    `average_precision`, `precision`, `recall` and `clips_of` (how many have the class) are in the order of `classes`,
    None where the clips hold none of a class, or (precision) none was answered. A class is answered from its
    `thresholds` on. Intervals are 95 % over `groups`. `calibration_error` is that of the probability of every class of
    every clip: yes or no, whichever is the larger.
    """

    classes: tuple[str, ...]
    clips: Count
    groups: Count
    mean_average_precision: Share
    mean_average_precision_interval: Shares
    macro_f1: Share
    macro_f1_interval: Shares
    average_precision: tuple[Share | None, ...]
    precision: tuple[Share | None, ...]
    recall: tuple[Share | None, ...]
    clips_of: tuple[Count, ...]
    thresholds: tuple[Share, ...]
    calibration_error: Share

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return MULTI

    @property
    def measure(self) -> float:
        """The figure that models are compared by."""
        return self.mean_average_precision

    @property
    def measure_interval(self) -> tuple[float, float]:
        """Its interval."""
        return self.mean_average_precision_interval

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        made: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
        return cls(**made)


def score_labels(
    probabilities: npt.NDArray[Any],
    truth: npt.NDArray[np.int64],
    groups: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
    thresholds: Sequence[float] | None = None,
) -> LabelScores:
    """Scores of `probabilities (N, K)` against memberships `truth (N, K)`, where `groups[i]` names the recording clip i
    was cut from; `thresholds (K,)`: `edgekd.task.THRESHOLD` where there are none."""
    shares = np.asarray(probabilities, dtype=np.float32)
    limits = np.full(len(classes), THRESHOLD) if thresholds is None else np.asarray(thresholds, dtype=np.float64)
    has, said = truth > 0, answered(shares, limits)
    right, given, held = (each.sum(axis=0) for each in (said & has, said, has))
    counts = LabelCounts.of(shares, said, truth, groups)
    mean_precision, macro_f1 = counts.estimate if counts.ranked else (0.0, 0.0)
    mean_interval, f1_interval = intervals(counts, seed) if counts.ranked else ((0.0, 1.0), (0.0, 1.0))

    def of_those(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> tuple[float | None, ...]:
        return tuple(rounded(p / w) if w else None for p, w in zip(part, whole, strict=True))

    each = average_precision(shares, truth)
    yes = shares >= 0.5
    confidence = np.where(yes, shares, 1 - shares).astype(np.float32)
    return LabelScores(
        classes=tuple(classes),
        clips=len(truth),
        groups=len(counts.right),
        mean_average_precision=rounded(mean_precision),
        mean_average_precision_interval=mean_interval,
        macro_f1=rounded(macro_f1),
        macro_f1_interval=f1_interval,
        average_precision=tuple(rounded(value) if np.isfinite(value) else None for value in each),
        precision=of_those(right, given),
        recall=of_those(right, held),
        clips_of=tuple(held.tolist()),
        thresholds=tuple(limits.tolist()),
        calibration_error=rounded(calibration_error(confidence.ravel(), (yes == has).ravel())),
    )
