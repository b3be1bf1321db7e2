"""How familiar a classifier finds what it hears: scores beside the classes, and how well they tell the unknown apart.

A softmax says how the classes share a clip out, not whether it is any of them. Three scores, higher is more familiar:

- *softmax*, the highest probability (Hendrycks and Gimpel, ICLR 2017, arXiv 1610.02136): what there is without more;
- *energy*, `T logsumexp(z / T)` of the logits z (Liu et al., NeurIPS 2020, arXiv 2010.03759), at their T = 1; of
  independent classes with a sigmoid each it is `sum log(1 + exp(z))` (Wang et al., NeurIPS 2021, arXiv 2111.14006);
- *mahalanobis*, `-min_k (e - m_k)' S^-1 (e - m_k)` of the embedding e (Lee et al., NeurIPS 2018, arXiv 1807.03888),
  with the mean m_k of each class and one covariance S for all, from the training side (`Gaussians`).

A clip is unknown where its score is *below* a threshold. Nobody has examples of everything that is not a class, so it
follows from what is known: the highest that rejects no more than a stated share of known clips (`known_threshold`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from edgekd.scoring.intervals import Floats, Interval, intervals_over_groups

ScoreName = Literal["softmax", "energy", "mahalanobis"]
SHARE = 0.05  # of known clips that may be rejected: where the literature reports the false alarms, too ("FPR95")
MOST_FACTORS = 32


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Classes in the space of embeddings: one Gaussian each, all of one covariance.

        S = V diag(l) V' + s (I - V V')

    has the variances l along R directions V and one variance s along all others, so that its inverse takes D x R
    numbers and not D x D (a mixture of probabilistic principal components, Tipping and Bishop 1999). With `factors
    (D, R) = V diag(sqrt(1/s - 1/l))` the squared distance of e from `means (K, D)` is `|e - m|^2 / s - |factors' (e -
    m)|^2`. `shrinkage`: how much of S is a multiple of the identity, on top (`fit`).
    """

    means: Floats
    factors: Floats
    rest: float
    shrinkage: float

    @classmethod
    def fit(cls, embeddings: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], classes: int) -> Self:
        """Those of `embeddings (N, D)` with `labels (N,)`, of which every class has some.

        The covariance within classes is shrunk towards a multiple of the identity by the share that loses least in
        expectation (Ledoit and Wolf, Journal of Multivariate Analysis 88, 2004), for there are often fewer clips than
        dimensions. Of its directions the `MOST_FACTORS` widest are kept; the others get their mean variance.
        """
        values = np.asarray(embeddings, dtype=np.float64)
        means = np.stack([values[labels == label].mean(axis=0) for label in range(classes)])
        centred = values - means[labels]
        shrinkage = ledoit_wolf(centred)
        covariance = centred.T @ centred / len(centred)
        size = len(covariance)
        even = np.trace(covariance) / size
        variances, directions = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * even * np.eye(size))
        kept = min(MOST_FACTORS, size - 1)
        rest = max(float(variances[: size - kept].mean()), 1e-12)
        widest, along = variances[size - kept :], directions[:, size - kept :]
        factors = along * np.sqrt(np.maximum(1 / rest - 1 / np.maximum(widest, rest), 0))
        return cls(means, factors, rest, shrinkage)


def ledoit_wolf(centred: Floats) -> float:
    """The share of the identity that a covariance of `centred (N, D)`, of mean 0, is best shrunk by, from 0 to 1."""
    count, size = centred.shape
    covariance = centred.T @ centred / count
    even = np.trace(covariance) / size
    spread = float(((covariance - even * np.eye(size)) ** 2).sum())
    squares = float(((centred**2).T @ (centred**2)).sum()) / count  # mean over clips of |x|^4
    noise = (squares - float((covariance**2).sum())) / count
    return 1.0 if spread <= 0 else float(np.clip(noise / spread, 0, 1))


def known_threshold(known: npt.NDArray[np.floating], share: float = SHARE) -> float:
    """A threshold below which at most `share` of the scores `known (N,)` lie.

    The one below which most of that share lie is halfway between two scores, so that rounding elsewhere decides
    nothing; where nothing may be rejected, as far below the lowest as the next one is above.
    """
    ordered = np.unique(np.asarray(known, dtype=np.float64))
    kept = float(np.sort(known)[int(np.floor(share * len(known) + 1e-9))])  # the lowest that is not rejected
    place = int(np.searchsorted(ordered, kept))
    if place == 0:
        return kept - (float(ordered[1]) - kept) / 2 if len(ordered) > 1 else kept
    return (float(ordered[place - 1]) + kept) / 2


def auroc(known: npt.NDArray[np.floating], unknown: npt.NDArray[np.floating]) -> float:
    """How likely a known clip scores higher than an unknown one, ties by half: the area under the ROC curve."""
    below = np.searchsorted(np.sort(unknown), known, side="left") + np.searchsorted(
        np.sort(unknown), known, side="right"
    )
    return float(below.sum() / 2 / len(known) / len(unknown))


@dataclass(frozen=True, eq=False)
class Trial:
    """Scores of one classifier: of `known (N,)` and `unknown (M,)` clips of these groups, and its threshold."""

    known: Floats
    known_groups: Sequence[str]
    unknown: Floats
    unknown_groups: Sequence[str]
    threshold: float


@dataclass(frozen=True)
class ToldApart:
    """How well a score tells unknown clips from known ones: shares, with 95 % intervals over groups.

    `false_alarms`: of unknown clips that are not rejected; `lost`: of known clips that are.
    """

    auroc: float
    auroc_interval: Interval
    false_alarms: float
    false_alarms_interval: Interval
    lost: float
    lost_interval: Interval


def told_apart(trials: Sequence[Trial], seed: int = 0) -> ToldApart:
    """The means over `trials`; a group that is in several is resampled for all of them at once."""
    known = {name for trial in trials for name in trial.known_groups}
    unknown = {name for trial in trials for name in trial.unknown_groups}
    names = sorted(known | unknown)
    behind = [min(len(known), len(unknown)), len(unknown), len(known)]
    place = {name: number for number, name in enumerate(names)}
    parts = [_Ordered.of(trial, place) for trial in trials]

    def statistics(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            figures: Floats = np.mean([part.statistics(weights) for part in parts], axis=0)
        return figures

    values, found = intervals_over_groups(statistics, ["share"] * 3, [None] * 3, len(names), seed, behind=behind)
    ends = [(0.0, 1.0) if each is None else (max(0.0, each[0]), min(1.0, each[1])) for each in found]
    (area, alarms, lost), (area_ends, alarm_ends, lost_ends) = map(float, values), ends
    return ToldApart(area, area_ends, alarms, alarm_ends, lost, lost_ends)


@dataclass(frozen=True, eq=False)
class _Ordered:
    """A trial, its clips by score: the group of each, and whether it is known; and where scores are the same."""

    groups: npt.NDArray[np.intp]
    is_known: npt.NDArray[np.bool_]
    first: npt.NDArray[np.intp]  # of those with the score of clip i
    after: npt.NDArray[np.intp]  # the first with a higher one
    accepted: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, trial: Trial, place: dict[str, int]) -> Self:
        scores = np.concatenate([trial.known, trial.unknown])
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        groups = np.array([place[name] for name in (*trial.known_groups, *trial.unknown_groups)], dtype=np.intp)
        is_known = np.arange(len(scores)) < len(trial.known)
        first, after = (np.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
        return cls(groups[order], is_known[order], first, after, ordered >= trial.threshold)

    def statistics(self, weights: Floats) -> Floats:
        """AUROC, false alarms and lost known clips `(3, R)` where group g stands `weights[r, g]` times."""
        each = weights[:, self.groups]
        known, unknown = each * self.is_known, each * ~self.is_known
        below = np.concatenate([np.zeros((len(each), 1)), unknown.cumsum(axis=1)], axis=1)
        beaten = (below[:, self.first] + below[:, self.after]) / 2
        of_known, of_unknown = known.sum(axis=1), unknown.sum(axis=1)
        area = (known * beaten).sum(axis=1) / of_known / of_unknown
        alarms = (unknown * self.accepted).sum(axis=1) / of_unknown
        lost = (known * ~self.accepted).sum(axis=1) / of_known
        return np.stack([area, alarms, lost])
