"""What probabilities answer: the most probable class or, where a clip may be of several, all that reach a threshold."""

from __future__ import annotations

import numpy as np

from edgekd.device.runner.detection import DEFAULT_OPEN

SEVERAL = "sigmoid"  # the activation of a classifier that answers each class for itself


def same_answers(found: np.ndarray, expected: np.ndarray, activation: str) -> float:
    """The share of answers that are the same in two sets of scores `(N, K)`: the winning classes of clips or, where
    each class is answered for itself, whether it reaches `DEFAULT_OPEN`."""
    if activation == SEVERAL:
        return float(((found >= DEFAULT_OPEN) == (expected >= DEFAULT_OPEN)).mean())
    return float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
