"""Scores of clips, of one class each or of several: what both kinds are made by, and read back by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.scoring.label_scores import LabelScores, score_labels
from edgekd.scoring.scores import Scores, score

AnyScores = Scores | LabelScores


def score_clips(
    probabilities: npt.NDArray[Any],
    truth: Sequence[int | Sequence[int]] | npt.NDArray[np.int64],
    groups: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
) -> AnyScores:
    """Scores of `probabilities (N, K)` against classes `(N,)` or memberships `(N, K)`; see `score`, `score_labels`."""
    known = np.asarray(truth, dtype=np.int64)
    if known.ndim == 2:
        return score_labels(probabilities, known, groups, classes, seed)
    return score(probabilities, known.tolist(), groups, classes, seed)


def read_scores(values: Mapping[str, Any]) -> AnyScores:
    """Scores from what their `to_dict` gave."""
    return (LabelScores if "mean_average_precision" in values else Scores).from_dict(values)
