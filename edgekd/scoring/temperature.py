"""Temperature scaling: one number that the logits are divided by, so that probabilities are what they say.

Fitted by cross-entropy (Guo et al., "On calibration of modern neural networks", ICML 2017); the winner of no clip
changes. Everything here is in terms of probabilities: the logits are taken from them, up to what a softmax does not
tell. Sigmoid outputs are fitted alike, with the binary cross-entropy of all their classes.

The cross-entropy is convex in the inverse temperature b = 1/T, so its one minimum is found by Newton's method:

    softmax   d/db = E_p[z] - z_y       d2/db2 = Var_p[z]             p = softmax(b z), means over clips
    sigmoid   d/db = z (s(bz) - t)      d2/db2 = z^2 s(bz) (1 - s)    means over clips and classes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.task import Activation

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]

LOWEST, HIGHEST = 0.1, 10.0  # temperatures beyond are those of a broken classifier
FOLDS = 5
FEWEST = 20  # clips: of fewer a temperature is a guess
DIGITS = 4
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Fitted:
    """A temperature, and the mean cross-entropy of clips it was not fitted to, with it and without (cross-validated).

    `value` is 1 where those say that nothing is gained, and where there are too few clips, with losses of None.
    """

    value: float
    loss_before: float | None
    loss: float | None


def tempered(probabilities: npt.NDArray[Any], temperature: float, activation: Activation = "softmax") -> Floats:
    """Probabilities `(N, K)` as they are with logits divided by `temperature`; by its inverse, as they were before."""
    scaled = logits_of(probabilities, activation) / temperature
    if activation == "sigmoid":
        return _sigmoid(scaled)
    shares: Floats = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def logits_of(probabilities: npt.NDArray[Any], activation: Activation) -> Floats:
    """Logits `(N, K)` of probabilities, those of a softmax up to a constant for each clip."""
    shares = np.asarray(probabilities, dtype=np.float64)
    if activation == "softmax":
        return np.log(np.maximum(shares, _SMALLEST))
    rounding = float(np.finfo(np.float32).eps) / 2  # the nearest to 1 that float32 tells from it
    return np.log(np.maximum(shares, _SMALLEST)) - np.log(np.maximum(1 - shares, rounding))


def cross_entropy(
    probabilities: npt.NDArray[Any], truth: Truth, temperature: float = 1.0, activation: Activation = "softmax"
) -> Floats:
    """The cross-entropy `(N,)` of each clip; of a sigmoid the mean over classes. `truth (N, K)`: which classes are
    there."""
    return _losses(logits_of(probabilities, activation), truth, 1 / temperature, activation)


def fit_temperature(
    probabilities: npt.NDArray[Any], truth: Truth, groups: Sequence[str], activation: Activation = "softmax"
) -> Fitted:
    """The temperature for a classifier that said `probabilities (N, K)` of clips with the classes `truth (N, K)`.

    It is used only where it lowers the cross-entropy of clips that it was not fitted to: each fifth of the `groups`
    (recordings), under the temperature of the others. Of fewer than 20 clips, or one group, nothing is fitted.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(group) < FEWEST or len(names) < 2:
        return Fitted(1.0, None, None)
    logits = logits_of(probabilities, activation)
    before = _losses(logits, truth, 1.0, activation)
    after = np.empty_like(before)
    fold = _dealt(group, truth)
    for number in range(fold.max() + 1):
        held = fold == number
        inverse = _fitted(logits[~held], truth[~held], activation)
        after[held] = _losses(logits[held], truth[held], inverse, activation)
    value = round(1 / _fitted(logits, truth, activation), DIGITS)
    if not after.mean() < before.mean():
        value = 1.0
    return Fitted(value, float(before.mean()), float(after.mean()))


def _dealt(group: npt.NDArray[np.intp], truth: Truth) -> npt.NDArray[np.intp]:
    """A fold for each clip: groups are dealt out in turns, ordered by class so that every fold has some of each."""
    first = {int(member): row for row, member in reversed(list(enumerate(group)))}
    ordered = sorted(first, key=lambda member: (int(truth[first[member]].argmax()), first[member]))
    folds = min(FOLDS, len(ordered))
    turn = np.empty(len(ordered), dtype=np.intp)
    turn[ordered] = np.arange(len(ordered)) % folds
    return turn[group]


def _fitted(logits: Floats, truth: Truth, activation: Activation) -> float:
    """The inverse temperature of the least cross-entropy, within the bounds: Newton's steps, halved where they leave
    the bracket."""
    low, high, inverse = 1 / HIGHEST, 1 / LOWEST, 1.0
    for _ in range(60):
        slope, curvature = _derivatives(logits, truth, inverse, activation)
        if slope > 0:
            high = inverse
        else:
            low = inverse
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) < 1e-9:
            break
        inverse = following
    return inverse


def _derivatives(logits: Floats, truth: Truth, inverse: float, activation: Activation) -> tuple[float, float]:
    if activation == "sigmoid":
        shares = _sigmoid(inverse * logits)
        return float((logits * (shares - truth)).mean()), float((logits**2 * shares * (1 - shares)).mean())
    shares = np.exp(inverse * (logits - logits.max(axis=1, keepdims=True)))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = (shares * logits).sum(axis=1)
    spread = (shares * (logits - expected[:, None]) ** 2).sum(axis=1)
    return float((expected - (logits * truth).sum(axis=1)).mean()), float(spread.mean())


def _losses(logits: Floats, truth: Truth, inverse: float, activation: Activation) -> Floats:
    scaled = inverse * logits
    if activation == "sigmoid":
        return np.asarray((np.logaddexp(0, scaled) - truth * scaled).mean(axis=1))
    top = scaled.max(axis=1)
    total = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
    return np.asarray(total - (scaled * truth).sum(axis=1))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
