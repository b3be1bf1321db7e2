"""How sure we may be that one method is better than another, from what both said of the same clips.

Two things were drawn at random: the recordings that were tested, and the training runs (their seeds). They are crossed:
every run of a fold is tested on all the recordings of that fold. So a difference of two methods has a part that
belongs to the recording, one to the run, and one to both together (this run happened to get this recording right):

    variance of the mean = recordings / G  +  runs / S  +  together / (G S)

`difference` gives a percentile interval from a paired bootstrap of both. Resampling G recordings and S runs at once and
multiplying their weights, the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1, 2007), counts the third part
three times, and on few test clips that part is the largest. So recordings and runs are resampled separately and their
deviations are added, those of the runs shrunk to what is more than the recordings explain already (the crossed analysis
of readers and cases, Gallas, Academic Radiology 13, 2006). Of n units n - 1 are drawn, which makes the variance of
small samples, such as three seeds, unbiased (Rao and Wu, JASA 83, 1988), and deviations of few runs get the tails of
Student's t.

Recordings are resampled within each fold, and so are runs: the same seed in two folds is two students that learnt from
different clips. Where test sides overlap, as splits drawn at random do, a recording is resampled for all of them at
once, and whole splits stand for the runs. One run says nothing of the next: then the interval is over recordings alone.
No interval speaks of other training recordings: folds share most of theirs, and no estimator is unbiased for that
(Bengio and Grandvalet, JMLR 5, 2004).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import InputError
from edgekd.json_files import Count, Share
from edgekd.runs.predictions import Predictions
from edgekd.scoring.average_precision import LabelCounts
from edgekd.scoring.intervals import CONFIDENCE, RESAMPLES, Counts, Floats, Gap, Gaps, GroupCounts
from edgekd.task import MULTI, SINGLE, Task

FLIPS = 9999

Trial = tuple[str, int]
"""The part of the data that is tested (a fold, a split), and the seed."""


@dataclass(frozen=True)
class Difference:
    """One method less another, over the `trials` that both have; shares, not per cent.

    `mcnemar` counts the clips, of all trials, that only the first and only the second got right, and the p-value of
    McNemar's exact test. It takes each clip of each seed for independent, which windows of a recording and seeds of a
    clip are not, so it is too small; `sign_flip` is the p-value of a permutation test over whole recordings.
    `runs_resampled` tells whether the intervals are over runs too, `recordings` how many were tested (None: in a report
    from before they were counted).
    """

    trials: Count
    accuracy: Gap
    accuracy_interval: Gaps
    macro_f1: Gap
    macro_f1_interval: Gaps
    only_first: Count
    only_second: Count
    mcnemar: Share
    sign_flip: Share
    runs_resampled: bool
    recordings: int | None = None

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return SINGLE

    @property
    def measure(self) -> float:
        """The difference in the figure that models are compared by."""
        return self.accuracy

    @property
    def measure_interval(self) -> tuple[float, float]:
        """Its interval."""
        return self.accuracy_interval

    @property
    def shown(self) -> bool:
        """Whether there is a difference in accuracy: its interval does not hold 0."""
        return is_shown(self)

    @property
    def least_told(self) -> float:
        """What the accuracies would have to differ by, as a share, for these recordings to tell: the longer arm of the
        interval, which is half of it where both are alike."""
        return least_told(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LabelDifference:
    """`Difference` where clips may be of several classes. No clip is right or wrong as a whole, so that McNemar's test
    has nothing to count: what there is to go by is the paired bootstrap."""

    trials: Count
    mean_average_precision: Gap
    mean_average_precision_interval: Gaps
    macro_f1: Gap
    macro_f1_interval: Gaps
    runs_resampled: bool
    recordings: int | None = None

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return MULTI

    @property
    def measure(self) -> float:
        """The difference in the figure that models are compared by."""
        return self.mean_average_precision

    @property
    def measure_interval(self) -> tuple[float, float]:
        """Its interval."""
        return self.mean_average_precision_interval

    @property
    def shown(self) -> bool:
        """Whether there is a difference in mAP: its interval does not hold 0."""
        return is_shown(self)

    @property
    def least_told(self) -> float:
        """As `Difference.least_told`, of mAP."""
        return least_told(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


AnyDifference = Difference | LabelDifference


def is_shown(found: AnyDifference) -> bool:
    """Whether the interval of the measure does not hold 0."""
    low, high = found.measure_interval
    return not low <= 0 <= high


def least_told(found: AnyDifference) -> float:
    """The longer arm of the interval of the measure."""
    low, high = found.measure_interval
    return max(high - found.measure, found.measure - low)


def difference(
    first: Mapping[Trial, Predictions],
    second: Mapping[Trial, Predictions],
    classes: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
    flips: int = FLIPS,
) -> AnyDifference | None:
    """`first` less `second`, mean over the trials both have; None where they have none in common.

    Accuracy (or mAP) and macro-F1 of a trial are those of its clips. Raises `InputError` where the two did not see the
    same clips.
    """
    trials = [trial for trial in first if trial in second]
    if not trials:
        return None
    names = np.unique([group for trial in trials for group in first[trial].groups])
    pairs = [_Pair.of(trial, first[trial], second[trial], names, classes) for trial in trials]
    # (2, trials): accuracy and macro-F1.
    differences = np.stack([pair.estimate for pair in pairs], axis=1)
    estimate = differences.mean(axis=1)
    rng = np.random.default_rng(seed)

    overlapping = _overlap(pairs)
    strata = _runs(trials, overlapping)
    by_groups = _resampled_groups(pairs, len(names), overlapping, rng, resamples)  # (2, R)
    by_runs = _resampled_runs(differences, strata, rng, resamples)
    own = _share_of_runs(pairs, differences, strata)
    freedom = sum(len(units) - 1 for units in strata)
    tails = np.sqrt(freedom / rng.chisquare(freedom, resamples)) if freedom else np.zeros(resamples)
    resampled = by_groups + own[:, None] * (by_runs - estimate[:, None]) * tails
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    # Where every recording says the same there is nothing to vary: the exact bound on the share of others instead.
    unseen = np.where(np.ptp(resampled, axis=1) < 1e-12, 1 - ((1 - CONFIDENCE) / 2) ** (1 / len(names)), 0)
    low, high = np.maximum(low - unseen, -1), np.minimum(high + unseen, 1)
    if first[trials[0]].task.several:
        return LabelDifference(
            trials=len(trials),
            mean_average_precision=float(estimate[0]),
            mean_average_precision_interval=(float(low[0]), float(high[0])),
            macro_f1=float(estimate[1]),
            macro_f1_interval=(float(low[1]), float(high[1])),
            runs_resampled=freedom > 0,
            recordings=len(names),
        )
    only_first = sum(int(pair.only_first) for pair in pairs)
    only_second = sum(int(pair.only_second) for pair in pairs)
    surplus = np.sum([pair.surplus for pair in pairs], axis=0)
    return Difference(
        trials=len(trials),
        accuracy=float(estimate[0]),
        accuracy_interval=(float(low[0]), float(high[0])),
        macro_f1=float(estimate[1]),
        macro_f1_interval=(float(low[1]), float(high[1])),
        only_first=only_first,
        only_second=only_second,
        mcnemar=mcnemar(only_first, only_second),
        sign_flip=sign_flip(surplus, rng, flips),
        runs_resampled=freedom > 0,
        recordings=len(names),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947): were both as good, each clip that only one got right
    would be a toss of a coin."""
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    chosen = np.arange(1, fewer + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((tosses - chosen + 1) / chosen))])  # log of n choose k
    return float(min(1.0, 2 * np.exp(ways - tosses * np.log(2)).sum()))


def sign_flip(surplus: npt.NDArray[Any], rng: np.random.Generator, flips: int = FLIPS) -> float:
    """Two-sided p-value of a permutation test: were both methods as good, the `surplus (G,)` of clips that the first
    has right in a recording could as well be the second's.

    Over `flips` random choices of signs, the one that occurred among them (Phipson and Smyth 2010).
    """
    surplus = surplus[surplus != 0].astype(np.float64)
    reached = 0
    for batch in np.array_split(np.arange(flips), 9):
        signs = rng.integers(0, 2, (len(batch), len(surplus))) * 2.0 - 1
        reached += int((np.abs(signs @ surplus) >= abs(surplus.sum()) - 1e-9).sum())
    return (reached + 1) / (flips + 1)


@dataclass(frozen=True, eq=False)
class _Pair:
    """The answers of two methods in one trial. `members`: the places of its groups among all; `surplus (G,)` of all."""

    trial: Trial
    members: npt.NDArray[np.intp]
    first: Counts
    second: Counts
    only_first: int
    only_second: int
    surplus: Floats

    @classmethod
    def of(cls, trial: Trial, first: Predictions, second: Predictions, names: npt.NDArray[Any], classes: int) -> _Pair:
        same = first.groups == second.groups and np.array_equal(first.labels, second.labels)
        if first.rows != second.rows or not same:
            raise InputError(
                f"{trial[0]}, seed {trial[1]}: two methods were not tested on the same clips, so they cannot be "
                "compared. Were the data changed between the runs? Make the comparison anew."
            )
        counts = [_counts(each, classes) for each in (first, second)]
        members = np.searchsorted(names, np.unique(first.groups))
        if first.task.several:
            return cls(trial, members, counts[0], counts[1], 0, 0, np.zeros(len(names)))
        right = [each.predicted == each.labels for each in (first, second)]
        surplus = np.zeros(len(names))
        surplus[members] = (counts[0].right - counts[1].right).sum(axis=1)
        only = (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
        return cls(trial, members, counts[0], counts[1], *only, surplus)

    def at(self, weights: Floats) -> Floats:
        """Differences `(2, R)` where group g of this trial stands `weights[r, g]` times."""
        return self.first.statistics(weights) - self.second.statistics(weights)

    @property
    def estimate(self) -> Floats:
        """The differences `(2,)` of this trial."""
        return self.first.estimate - self.second.estimate

    def pulls(self, groups: int) -> Floats:
        """How far leaving out each of all `groups` moves the differences, `(2, groups)`; 0 for one not tested here."""
        moved = np.zeros((2, groups))
        if len(self.members) > 1:
            without = self.first.left_out() - self.second.left_out()
            moved[:, self.members] = without - without.mean(axis=1, keepdims=True)
        return moved


def _counts(said: Predictions, classes: int) -> Counts:
    """What the figures of samples of groups follow from."""
    if said.task.several:
        return LabelCounts.of(said.probabilities, said.predicted, said.labels, said.groups)
    return GroupCounts.of(said.predicted, said.labels, said.groups, classes)


def _overlap(pairs: Sequence[_Pair]) -> bool:
    """Whether a group is tested in more than one part."""
    part_of: dict[int, str] = {}
    return any(
        part_of.setdefault(int(group), pair.trial[0]) != pair.trial[0] for pair in pairs for group in pair.members
    )


def _runs(trials: Sequence[Trial], overlapping: bool) -> list[list[list[int]]]:
    """What stands for a run: strata of units of trials (by place). Units are resampled within their stratum."""
    parts = {part: [place for place, trial in enumerate(trials) if trial[0] == part] for part, _ in trials}
    if overlapping:
        return [list(parts.values())]
    return [[[place] for place in places] for places in parts.values()]


def _draws(units: int, rng: np.random.Generator, resamples: int) -> Floats:
    """How often each unit stands in each resample, `(R, units)`: n - 1 draws, scaled to n; a single one always."""
    if units == 1:
        return np.ones((resamples, 1))
    drawn = rng.multinomial(units - 1, np.full(units, 1 / units), size=resamples)
    return drawn.astype(np.float64) * (units / (units - 1))


def _resampled_groups(
    pairs: Sequence[_Pair], groups: int, overlapping: bool, rng: np.random.Generator, resamples: int
) -> Floats:
    """Mean differences over trials `(2, R)`, the runs as they are, a group's draw the same in all its trials."""
    total, present = np.zeros((2, resamples)), np.zeros(resamples)
    members = {pair.trial[0]: pair.members for pair in pairs}
    if overlapping:
        shared = _draws(groups, rng, resamples)
        drawn = {part: shared[:, tested] for part, tested in members.items()}
    else:
        drawn = {part: _draws(len(tested), rng, resamples) for part, tested in members.items()}
    for pair in pairs:
        values = pair.at(drawn[pair.trial[0]])
        known = np.isfinite(values[0])  # a resample may hold no group of this part
        total += np.where(known, values, 0)
        present += known
    return total / np.maximum(present, 1)


def _resampled_runs(
    differences: Floats, strata: Iterable[Sequence[Sequence[int]]], rng: np.random.Generator, resamples: int
) -> Floats:
    """Mean differences over trials `(2, R)`, the recordings as they are."""
    weights = np.ones((resamples, differences.shape[1]))
    for units in strata:
        for unit, drawn in zip(units, _draws(len(units), rng, resamples).T, strict=True):
            weights[:, unit] = drawn[:, None]
    return (differences @ weights.T) / weights.sum(axis=1)


def _share_of_runs(pairs: Sequence[_Pair], differences: Floats, strata: Iterable[Sequence[Sequence[int]]]) -> Floats:
    """The factor `(2,)` for deviations of runs: what is left of their variance when that of their recordings, by the
    jackknife, is taken away, as a standard deviation."""
    groups = 1 + max(int(pair.members.max()) for pair in pairs)
    between, explained = np.zeros(2), np.zeros(2)
    for units in strata:
        if len(units) < 2:
            continue
        means = np.stack([differences[:, unit].mean(axis=1) for unit in units])  # (units, 2)
        pulls = np.stack([np.mean([pairs[place].pulls(groups) for place in unit], axis=0) for unit in units])
        tested = len(np.unique(np.concatenate([pairs[place].members for unit in units for place in unit])))
        between += means.var(axis=0, ddof=1)
        explained += (tested - 1) / tested * pulls.var(axis=0, ddof=1).sum(axis=1)
    left = np.divide(between - explained, between, out=np.zeros(2), where=between > 0)
    return np.sqrt(np.clip(left, 0, 1))
