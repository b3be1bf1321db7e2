"""How good a classifier is: accuracy, macro-F1, recall, confusion matrix and calibration of one set of clips.

What is right of each class, what is predicted and what is there are counts, and all figures but the calibration error
follow from them; `intervals` says how sure we may be of the first two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgekd.json_files import Count, Share
from edgekd.scoring.intervals import GroupCounts, Shares, intervals
from edgekd.task import SINGLE, Task

CALIBRATION_BINS = 15
DIGITS = 6  # of a share; a probability in float32 has no more


@dataclass(frozen=True)
class Scores:
    """What one model scored on one set of clips; shares, not per cent.

    `recall[k]` and `confusion[true][predicted]` (clips) are in the order of `classes`; `recall[k]` is None where the
    clips hold none of class k. Intervals are 95 % over `groups`. `calibration_error` is the expected calibration error
    of the highest probability over 15 bins (Guo et al. 2017).
    """

    classes: tuple[str, ...]
    clips: Count
    groups: Count
    accuracy: Share
    accuracy_interval: Shares
    macro_f1: Share
    macro_f1_interval: Shares
    recall: tuple[Share | None, ...]
    confusion: tuple[tuple[Count, ...], ...]
    calibration_error: Share

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return SINGLE

    @property
    def measure(self) -> float:
        """The figure that models are compared by."""
        return self.accuracy

    @property
    def measure_interval(self) -> tuple[float, float]:
        """Its interval."""
        return self.accuracy_interval

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            **{
                **values,
                "classes": tuple(values["classes"]),
                "accuracy_interval": tuple(values["accuracy_interval"]),
                "macro_f1_interval": tuple(values["macro_f1_interval"]),
                "recall": tuple(values["recall"]),
                "confusion": tuple(tuple(row) for row in values["confusion"]),
            }
        )


def score(
    probabilities: npt.NDArray[Any],
    labels: Sequence[int],
    groups: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
) -> Scores:
    """Scores of `probabilities (N, K)` against `labels`, where `groups[i]` names the recording clip i was cut from.

    Classes that are neither present nor predicted are left out of macro-F1. `seed` is that of the intervals' resamples.
    """
    shares = np.asarray(probabilities, dtype=np.float32)
    truth = np.asarray(labels, dtype=np.int64)
    predicted = shares.argmax(axis=1)
    confusion = confusion_matrix(predicted, truth, len(classes))
    right, actual = confusion.diagonal(), confusion.sum(axis=1)

    counts = GroupCounts.of(predicted, truth, groups, len(classes))
    accuracy, macro_f1 = counts.estimate
    accuracy_interval, macro_f1_interval = intervals(counts, seed)
    return Scores(
        classes=tuple(classes),
        clips=len(truth),
        groups=len(counts.right),
        accuracy=rounded(accuracy),
        accuracy_interval=accuracy_interval,
        macro_f1=rounded(macro_f1),
        macro_f1_interval=macro_f1_interval,
        recall=tuple(rounded(hits / clips) if clips else None for hits, clips in zip(right, actual, strict=True)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration_error=rounded(calibration_error(shares.max(axis=1), predicted == truth)),
    )


def confusion_matrix(
    predicted: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Clips by true and predicted class, `(K, K)`."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def calibration_error(
    confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """The expected calibration error of predictions `(N,)`: how far, in the mean over clips, the accuracy of a bin is
    from its mean confidence (Guo et al., "On calibration of modern neural networks", ICML 2017).

    `bins` of equal width; each holds its lower edge, and a confidence of 1 is a bin to itself.
    """
    edges = np.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    member = np.searchsorted(edges, confidence, side="right")
    surplus = np.bincount(member, weights=right - confidence.astype(np.float64))  # right less expected, of each bin
    return float(np.abs(surplus).sum() / len(confidence))


def rounded(share: float) -> float:
    """A share with as many digits as are kept."""
    return round(float(share), DIGITS)
