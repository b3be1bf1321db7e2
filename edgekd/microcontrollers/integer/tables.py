"""The histogram layer of an int8 value as a table; softmax and sigmoid of the logits in integers.

A histogram layer sees 256 values and no more, so what it says of each is known beforehand: the normalised responses of
all its bins, to 1/32768. Nothing is left of its exponentials but a look-up and a sum.

The softmax is of logits in units of 2^-12. With d the distance to the largest (or, in a sigmoid, to 0),

    exp(-d) = WHOLE[d >> 12] * SIXTYFOURTHS[(d >> 6) & 63] * REST[d & 63],

each factor a table in units of 2^-30, each product cut off; the scores, in units of 2^-15, are rounded to the nearest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.microcontrollers.integer.layers import LOGIT_BITS, SHARE, Map
from edgekd.microcontrollers.integer.values import function_of
from edgekd.models.histogram import FLOOR, HistogramLayer

EXP_BITS = 30
FARTHEST = 16  # a class whose logit is that far below the largest has a score of 0
_STEP = LOGIT_BITS // 2

WHOLE, SIXTYFOURTHS, REST = (
    np.rint(np.exp(-np.arange(length) / per_unit) * (1 << EXP_BITS)).astype(np.int64)
    for length, per_unit in ((FARTHEST, 1), (1 << _STEP, 1 << _STEP), (1 << _STEP, 1 << LOGIT_BITS))
)


def softmax(logits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Logits `(..., K)` in units of 2^-12 -> scores in units of 2^-15; their sum may be a few units off 1."""
    shares = _decayed(logits.max(axis=-1, keepdims=True) - logits)
    return _shares_of(shares, shares.sum(axis=-1, keepdims=True))


def sigmoid(logits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Logits in units of 2^-12 -> scores in units of 2^-15, each for itself: `1 / (1 + exp(-x))`, or its complement."""
    decayed = _decayed(np.abs(logits))
    return _shares_of(np.where(logits < 0, decayed, 1 << EXP_BITS), decayed + (1 << EXP_BITS))


def _decayed(below: NDArray[np.int64]) -> NDArray[np.int64]:
    """`exp(-below)`, of units of 2^-12 in units of 2^-30."""
    near = np.minimum(below, (FARTHEST << LOGIT_BITS) - 1)
    steps = (1 << _STEP) - 1
    shares = (WHOLE[near >> LOGIT_BITS] * SIXTYFOURTHS[(near >> _STEP) & steps]) >> EXP_BITS
    shares = (shares * REST[near & steps]) >> EXP_BITS
    shares[below != near] = 0
    return shares


def _shares_of(parts: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.int64]:
    return (parts * SHARE + total // 2) // total


def histogram_table(layer: HistogramLayer, source: Map) -> NDArray[np.uint16]:
    """What `layer` says of each value of `source`: uint16 `(C, 256, bins)`, in units of 1 / SHARE."""
    values = function_of(source).values[:, :, None]
    centres, widths = (each.detach().double().cpu().numpy()[:, None, :] for each in (layer.mu, layer.gamma))
    responses = np.exp(-((widths * (values - centres)) ** 2))
    return np.rint(SHARE * (responses / (responses.sum(axis=2, keepdims=True) + FLOOR))).astype(np.uint16)
