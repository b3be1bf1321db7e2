"""How far a classifier's probabilities are from what is true, as they ship and before their temperature.

The expected calibration error of the highest probability (`scores.calibration_error`), or where clips may be of several
classes that of every yes or no, with its 95 % interval over recordings; and the cross-entropy, which a temperature is
fitted by and which no bins are needed for.

Of few clips the error comes out too large, since chance parts accuracy and confidence in every bin; and more so in
resamples of them. The intervals are corrected for that (BCa), so a figure may lie at their upper end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.scoring.intervals import Floats, Interval, intervals_over_groups
from edgekd.scoring.scores import CALIBRATION_BINS, calibration_error
from edgekd.scoring.temperature import cross_entropy, tempered
from edgekd.task import Activation, task_of


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error and its 95 % interval over groups, and the mean cross-entropy."""

    error: float
    interval: Interval
    cross_entropy: float


def calibration(
    probabilities: npt.NDArray[Any],
    truth: Sequence[int | Sequence[int]] | npt.NDArray[np.int64],
    groups: Sequence[str],
    seed: int = 0,
) -> CalibrationError:
    """Of `probabilities (N, K)` of clips of these classes `(N,)`, or memberships `(N, K)`, and groups; `seed`: of the
    interval's resamples."""
    labels = np.asarray(truth, dtype=np.int64)
    task = task_of(labels)
    if task.several:
        known, yes = labels > 0, probabilities >= 0.5
        confidence = np.where(yes, probabilities, 1 - probabilities).astype(np.float32).ravel()
        right, answered_in = (yes == known).ravel(), np.repeat(np.asarray(groups), probabilities.shape[1])
    else:
        known = np.eye(probabilities.shape[1], dtype=bool)[labels]
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        answered_in = np.asarray(groups)
    error = calibration_error(confidence, right)
    low, high = _interval(confidence, right, answered_in, seed)
    return CalibrationError(
        error=error,
        interval=(min(low, error), max(high, error)),  # the correction of a few groups may go past the figure itself
        cross_entropy=float(cross_entropy(probabilities, known, activation=task.activation).mean()),
    )


def before_temperature(
    probabilities: npt.NDArray[Any], temperature: float, activation: Activation = "softmax"
) -> npt.NDArray[np.float32]:
    """What a classifier with this temperature in it would say without, of what it said: `(N, K)`."""
    return tempered(probabilities, 1 / temperature, activation).astype(np.float32)


def _interval(
    confidence: npt.NDArray[Any], right: npt.NDArray[np.bool_], groups: npt.NDArray[np.str_], seed: int
) -> Interval:
    """Groups are resampled; of a resample the surplus of each bin is a sum over its groups, so all are two products."""
    names, group = np.unique(groups, return_inverse=True)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1, dtype=confidence.dtype)
    member = np.searchsorted(edges, confidence, side="right")
    width = CALIBRATION_BINS + 2
    cells = np.bincount(
        group * width + member, weights=right - confidence.astype(np.float64), minlength=len(names) * width
    ).reshape(len(names), width)
    clips = np.bincount(group, minlength=len(names)).astype(np.float64)

    def statistics(weights: Floats) -> Floats:
        return np.asarray([np.abs(weights @ cells).sum(axis=1) / (weights @ clips)])

    _, (found,) = intervals_over_groups(statistics, ["share"], [None], len(names), seed)
    assert found is not None  # of clips there is one
    return min(max(found[0], 0.0), 1.0), min(max(found[1], 0.0), 1.0)
