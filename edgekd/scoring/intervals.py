"""How sure we may be of a score: 95 % intervals of accuracy and macro-F1.

Windows cut from one recording are not independent, so what is resampled is the *group* (recording, vessel), never the
window: the bias-corrected and accelerated bootstrap (BCa; Efron, "Better bootstrap confidence intervals", JASA 1987)
over groups, with the jackknife over groups for its acceleration. A percentile bootstrap would miss macro-F1 more often:
resamples repeat recordings, so their macro-F1 lies below the one it stands for.

Accuracy and macro-F1 of a resample need, for each group and class, only how many windows were right, how many were
predicted and how many there are, so all resamples are three matrix products. `intervals_over_groups` does the same for
any statistic of weighted groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le
from pydantic import Strict

from edgekd.json_files import Share

CONFIDENCE = 0.95
RESAMPLES = 2000

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
Shares = tuple[Share, Share]
"""An interval of shares."""
Gap = Annotated[float, Strict(), Ge(-1), Le(1)]
Gaps = tuple[Gap, Gap]
"""An interval of differences of shares."""


@dataclass(frozen=True)
class GroupCounts:
    """Windows of each group and class, `(G, K)` each: classified right, predicted to be, truly are."""

    right: Floats
    predicted: Floats
    actual: Floats

    @classmethod
    def of(
        cls, predicted: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], groups: Sequence[str], classes: int
    ) -> Self:
        names, group = np.unique(np.asarray(groups), return_inverse=True)

        def count(member: npt.NDArray[np.intp], kind: npt.NDArray[np.int64]) -> Floats:
            cells = np.bincount(member * classes + kind, minlength=len(names) * classes)
            return cells.reshape(len(names), classes).astype(np.float64)

        hit = predicted == truth
        return cls(right=count(group[hit], truth[hit]), predicted=count(group, predicted), actual=count(group, truth))

    @property
    def estimate(self) -> Floats:
        """Accuracy and macro-F1 `(2,)` of all windows."""
        return self.statistics(np.ones((1, len(self.right))))[:, 0]

    def statistics(self, weights: Floats) -> Floats:
        """Accuracy and macro-F1 `(2, R)` of R samples in which group g stands `weights[r, g]` times."""
        return _accuracy_and_f1(weights @ self.right, weights @ self.predicted, weights @ self.actual)

    def left_out(self) -> Floats:
        """Accuracy and macro-F1 `(2, G)` without each group in turn."""
        parts = (self.right, self.predicted, self.actual)
        return _accuracy_and_f1(*(part.sum(axis=0) - part for part in parts))


def _accuracy_and_f1(right: Floats, predicted: Floats, actual: Floats) -> Floats:
    """`(2, R)` from windows of R samples by class, `(R, K)`; NaN for a sample of none."""
    both = predicted + actual
    f1 = np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0)
    with np.errstate(invalid="ignore"):
        return np.stack([right.sum(axis=1) / actual.sum(axis=1), f1.sum(axis=1) / (both > 0).sum(axis=1)])


class Counts(Protocol):
    """What two figures of samples of groups follow from: accuracy, or mAP, and macro-F1."""

    @property
    def right(self) -> Floats:
        """`(G, K)`."""
        ...

    @property
    def estimate(self) -> Floats:
        """Both figures `(2,)` of all windows."""
        ...

    def statistics(self, weights: Floats) -> Floats:
        """Both figures `(2, R)` of R samples in which group g stands `weights[r, g]` times."""
        ...

    def left_out(self) -> Floats:
        """Both figures `(2, G)` without each group in turn."""
        ...


def intervals(counts: Counts, seed: int) -> tuple[Interval, Interval]:
    """The 95 % intervals of accuracy, or mAP, and macro-F1; of one recording from 0 to 1, as it says nothing
    about the next."""
    groups = len(counts.right)
    if groups == 1:
        return (0.0, 1.0), (0.0, 1.0)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)
    estimate = counts.estimate
    resampled = counts.statistics(weights)
    left_out = counts.left_out()
    first, macro_f1 = (
        _bca(float(estimate[i]), resampled[i][np.isfinite(resampled[i])], left_out[i][np.isfinite(left_out[i])])
        if np.nanmax(left_out[i]) - np.nanmin(left_out[i]) > 1e-12
        else _exact(estimate[i], groups)
        for i in range(2)
    )
    return first, macro_f1


Kind = Literal["share", "rate"]
"""What a statistic is: from 0 to 1, or a number of things an hour."""

_MOST_CELLS = 4_000_000  # weights held at a time


def intervals_over_groups(
    statistics: Callable[[Floats], Floats],
    kinds: Sequence[Kind],
    hours: Sequence[float | None],
    groups: int,
    seed: int,
    *,
    behind: Sequence[int] | None = None,
) -> tuple[Floats, list[Interval | None]]:
    """The value of each statistic `(M,)`, NaN where it is not defined, and its 95 % interval.

    `statistics` gives `(M, R)` for weights `(R, G)`: how often each of the G groups stands in a sample. Samples for
    which a statistic is not defined (no detections: no precision) are left out of its interval. `behind`: how many of
    the groups each one is of, where that is not all. A share of one group is anything from 0 to 1; a rate of one has no
    interval. Where no group has any, the upper end of a rate is the exact one of a Poisson process over its `hours`
    (Garwood, Biometrika 28, 1936).
    """
    values: Floats = statistics(np.ones((1, groups)))[:, 0]
    if groups == 1:
        return values, [(0.0, 1.0) if kind == "share" else None for kind in kinds]
    generator = np.random.default_rng(seed)
    step = max(1, _MOST_CELLS // groups)
    chances, parts, left = np.full(groups, 1 / groups), [], []
    for first in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - first)
        parts.append(statistics(generator.multinomial(groups, chances, size=size).astype(np.float64)))
    for first in range(0, groups, step):
        without = np.ones((min(step, groups - first), groups))
        without[np.arange(len(without)), first + np.arange(len(without))] = 0
        left.append(statistics(without))
    resampled, left_out = np.concatenate(parts, axis=1), np.concatenate(left, axis=1)
    found: list[Interval | None] = []
    for row, (kind, length, own) in enumerate(zip(kinds, hours, behind or [groups] * len(kinds), strict=True)):
        samples, others = (each[row][np.isfinite(each[row])] for each in (resampled, left_out))
        found.append(_of_statistic(kind, float(values[row]), samples, others, length, own))
    return values, found


def _of_statistic(
    kind: Kind, value: float, resampled: Floats, left_out: Floats, hours: float | None, groups: int
) -> Interval | None:
    if not np.isfinite(value):
        return None
    if groups == 1 and kind == "share":
        return 0.0, 1.0
    if len(left_out) > 1 and np.ptp(left_out) > 1e-12:
        return _bca(value, resampled, left_out)
    if kind == "share":
        return _exact(value, groups)
    if value == 0 and hours:
        return 0.0, -float(np.log((1 - CONFIDENCE) / 2)) / hours
    return None


def _bca(estimate: float, resampled: Floats, left_out: Floats) -> Interval:
    """BCa interval from bootstrap replicates and the leave-one-group-out values of a statistic."""
    normal = NormalDist()
    # Ties count half: on few clips the statistic takes few values.
    tied = np.isclose(resampled, estimate, rtol=0, atol=1e-12)
    below = np.mean((resampled < estimate) & ~tied) + 0.5 * np.mean(tied)
    bias = normal.inv_cdf(float(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES)))
    deviation = left_out.mean() - left_out
    acceleration = float((deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5))

    def level(share: float) -> float:
        shifted = bias + normal.inv_cdf(share)
        return normal.cdf(bias + shifted / (1 - acceleration * shifted))

    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [level(tail), level(1 - tail)])
    return float(low), float(high)


def _exact(estimate: float, groups: int) -> Interval:
    """Where every group scores the same, a bootstrap has nothing to vary and would claim certainty.

    A flawless (or hopeless) score gets the exact binomial bound over groups instead (Clopper and Pearson 1934): with 30
    recordings all right, the lower end is 0.88. Any other constant score says the groups hold no variation.
    """
    if estimate == 1:
        return ((1 - CONFIDENCE) / 2) ** (1 / groups), 1.0
    if estimate == 0:
        return 0.0, 1 - ((1 - CONFIDENCE) / 2) ** (1 / groups)
    return float(estimate), float(estimate)
