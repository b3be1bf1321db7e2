"""How good a classifier is, and how sure we may be of it.

Windows cut from one recording are not independent, so what is resampled for the intervals is the *group* (recording,
vessel), never the window: the bias-corrected and accelerated bootstrap (BCa; Efron, "Better bootstrap confidence
intervals", JASA 1987) over groups, with the jackknife over groups for its acceleration. A percentile bootstrap would
miss macro-F1 more often: resamples repeat recordings, so their macro-F1 lies below the one it stands for.

Point figures come from torchmetrics. Accuracy and macro-F1 of a resample need, for each group and class, only how many
windows were right, how many were predicted and how many there are, so all resamples are three matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd import processes
from edgekd.progress import Progress, silent

CONFIDENCE = 0.95
RESAMPLES = 2000
CALIBRATION_BINS = 15

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]


class Waveforms(Protocol):
    """Where clips come from: `waveforms(rows) -> (B, S)` float32."""

    def waveforms(self, rows: Sequence[int], /) -> Tensor: ...


@dataclass(frozen=True)
class Scores:
    """What one model scored on one set of clips; shares, not per cent.

    `recall[k]` and `confusion[true][predicted]` (clips) are in the order of `classes`; `recall[k]` is None where the
    clips hold none of class k. Intervals are 95 % over `groups`. `calibration_error` is the expected calibration error
    of the highest probability over 15 bins (Guo et al. 2017).
    """

    classes: tuple[str, ...]
    clips: int
    groups: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    recall: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float

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


def predict_probabilities(
    model: Callable[[Tensor], Tensor],
    store: Waveforms,
    rows: Sequence[int],
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    *,
    progress: Progress = silent,
    stage: str = "evaluating",
) -> npt.NDArray[np.float32]:
    """Class probabilities `(N, K)` of `rows`, in their order; `model` maps waveforms `(B, S)` to logits `(B, K)`.

    Where there are several processes, each computes its share of the rows. The caller puts the model in `eval()` mode
    and on `device`.
    """
    own = rows[processes.share_of(len(rows))]
    parts: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(own), batch_size):
            batch = own[start : start + batch_size]
            logits = model(store.waveforms(batch).to(device))
            parts.append(logits.float().softmax(dim=1).cpu())
            progress(stage, start + len(batch), len(own))
    return processes.put_together(parts, len(rows)).numpy()


def score(
    probabilities: npt.NDArray[Any],
    labels: Sequence[int],
    groups: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
) -> Scores:
    """Scores of `probabilities (N, K)` against `labels`, where `groups[i]` names the recording clip i was cut from.

    Classes that are neither present nor predicted are left out of macro-F1, as torchmetrics does.
    """
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_calibration_error,
        multiclass_confusion_matrix,
        multiclass_f1_score,
        multiclass_recall,
    )

    count = len(classes)
    predicted_share = torch.from_numpy(np.ascontiguousarray(probabilities, dtype=np.float32))  # (N, K)
    truth = torch.as_tensor(labels, dtype=torch.int64)
    predicted = predicted_share.argmax(dim=1)
    accuracy = multiclass_accuracy(predicted, truth, count, average="micro")
    macro_f1 = multiclass_f1_score(predicted, truth, count, average="macro")
    recall = multiclass_recall(predicted, truth, count, average="none")
    calibration_error = multiclass_calibration_error(predicted_share, truth, count, CALIBRATION_BINS)
    confusion = multiclass_confusion_matrix(predicted, truth, count)
    present = confusion.sum(dim=1).tolist()

    counts = GroupCounts.of(predicted.numpy(), truth.numpy(), groups, count)
    accuracy_interval, macro_f1_interval = _intervals(counts, seed)
    return Scores(
        classes=tuple(classes),
        clips=len(truth),
        groups=len(counts.right),
        accuracy=_share(accuracy),
        accuracy_interval=accuracy_interval,
        macro_f1=_share(macro_f1),
        macro_f1_interval=macro_f1_interval,
        recall=tuple(_share(share) if clips else None for share, clips in zip(recall, present, strict=True)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration_error=_share(calibration_error),
    )


def _share(value: Tensor) -> float:
    return round(float(value), 6)  # float32 holds no more


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


def _intervals(counts: GroupCounts, seed: int) -> tuple[Interval, Interval]:
    """The 95 % intervals of accuracy and macro-F1."""
    groups = len(counts.right)
    if groups == 1:
        return (0.0, 1.0), (0.0, 1.0)  # one recording says nothing about the next
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES).astype(np.float64)
    estimate = counts.statistics(np.ones((1, groups)))[:, 0]
    resampled = counts.statistics(weights)
    left_out = counts.left_out()
    accuracy, macro_f1 = (
        _bca(float(estimate[i]), resampled[i], left_out[i])
        if np.ptp(left_out[i]) > 1e-12
        else _exact(estimate[i], groups)
        for i in range(2)
    )
    return accuracy, macro_f1


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
