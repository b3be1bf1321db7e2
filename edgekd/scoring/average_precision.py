"""How well clips are ranked class by class: average precision, and its sampling over groups.

    AP = sum over thresholds of (R_n - R_(n-1)) P_n        with precision P_n and recall R_n at the n-th threshold

without interpolation, clips of one score counted at once (Buckley and Voorhees, SIGIR 2000). mAP is its mean over the
classes that some clip has: every class counts alike, however rare (macro). It needs no threshold, and is 1 where every
clip of a class has more of it than any other clip. Drawn at random it comes to the share of clips that have the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgekd.scoring.intervals import Floats, GroupCounts

_MOST_CELLS = 4_000_000  # weights of clips held at a time


def average_precision(probabilities: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Floats:
    """The average precision of each class `(K,)`, NaN for one that no clip has, of probabilities and memberships
    `(N, K)`."""
    weights = np.ones((1, len(truth)))
    ranked = _ranked(np.asarray(probabilities), np.asarray(truth))
    return np.array([each.precision(weights)[0] for each in ranked])


def mean_average_precision(probabilities: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """The mean of `average_precision` over the classes that some clip has; 0 where there is none."""
    found = average_precision(probabilities, truth)
    return float(found[np.isfinite(found)].mean()) if np.isfinite(found).any() else 0.0


@dataclass(frozen=True, eq=False)
class _Ranking:
    """The clips in falling order of their probability of one class: `order (N,)` their numbers, `has (N,)` whether they
    have it, `last (N,)` whether the next one has another probability."""

    order: npt.NDArray[np.intp]
    has: Floats
    last: npt.NDArray[np.bool_]

    def precision(self, weights: Floats) -> Floats:
        """The average precision `(R,)` where clip n stands `weights[r, n]` times; NaN where none has the class."""
        drawn = weights[:, self.order]
        right = np.cumsum(drawn * self.has, axis=1)[:, self.last]
        said = np.cumsum(drawn, axis=1)[:, self.last]
        gained = np.diff(right, axis=1, prepend=0)
        precision = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
        with np.errstate(invalid="ignore"):
            return np.asarray((gained * precision).sum(axis=1) / right[:, -1])


def _ranked(probabilities: npt.NDArray[Any], truth: npt.NDArray[Any]) -> list[_Ranking]:
    found = []
    for scores, has in zip(probabilities.T, truth.T, strict=True):
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.diff(scores[order]) != 0, True)
        found.append(_Ranking(order, (has[order] > 0).astype(np.float64), ends))
    return found


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """What is needed to score samples of groups where clips may be of several classes; the form of `GroupCounts`."""

    answers: GroupCounts
    """Right and given answers of yes to each class, and clips that have it, by group."""
    member: npt.NDArray[np.intp]
    """The group of each clip, `(N,)`."""
    ranked: tuple[_Ranking, ...]
    """Of the classes that some clip has."""

    @classmethod
    def of(
        cls,
        probabilities: npt.NDArray[Any],
        answered: npt.NDArray[np.bool_],
        truth: npt.NDArray[np.int64],
        groups: Sequence[str],
    ) -> Self:
        """Of probabilities, the answers made of them and the memberships, `(N, K)` each."""
        names, member = np.unique(np.asarray(groups), return_inverse=True)

        def count(cells: npt.NDArray[Any]) -> Floats:
            summed = np.zeros((len(names), cells.shape[1]))
            np.add.at(summed, member, cells.astype(np.float64))
            return summed

        has = truth > 0
        present = has.any(axis=0)
        counts = GroupCounts(right=count(answered & has), predicted=count(answered), actual=count(has))
        ranked = _ranked(np.asarray(probabilities)[:, present], truth[:, present])
        return cls(counts, member, tuple(ranked))

    @property
    def right(self) -> Floats:
        """Right answers of yes by group and class, `(G, K)`."""
        return self.answers.right

    @property
    def estimate(self) -> Floats:
        """mAP and macro-F1 `(2,)` of all clips."""
        return self.statistics(np.ones((1, len(self.right))))[:, 0]

    def statistics(self, weights: Floats) -> Floats:
        """mAP and macro-F1 `(2, R)` of R samples in which group g stands `weights[r, g]` times; a class that a sample
        lacks is left out of its mAP."""
        macro_f1 = self.answers.statistics(weights)[1]
        step = max(1, _MOST_CELLS // max(1, len(self.member)))
        parts = [self._mean_precision(weights[first : first + step]) for first in range(0, len(weights), step)]
        return np.stack([np.concatenate(parts), macro_f1])

    def left_out(self) -> Floats:
        """mAP and macro-F1 `(2, G)` without each group in turn."""
        return self.statistics(1 - np.eye(len(self.right)))

    def _mean_precision(self, weights: Floats) -> Floats:
        of_clips = weights[:, self.member]
        found = np.stack([each.precision(of_clips) for each in self.ranked])  # (classes, R)
        known = np.isfinite(found)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(known, found, 0).sum(axis=0) / known.sum(axis=0))
