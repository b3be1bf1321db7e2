"""What probabilities answer: the most probable class or, where a clip may be of several, all that reach a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

SEVERAL = "sigmoid"  # the activation of a classifier that answers each class for itself
THRESHOLD = 0.5  # where nobody chose another


def thresholds_of(manifest: dict[str, Any]) -> np.ndarray:
    """From which score each class is answered, `(K,)`."""
    chosen = (manifest.get("detection") or {}).get("open") or {}
    return np.array([chosen.get(name, THRESHOLD) for name in manifest["classifier"]["classes"]], dtype=np.float64)


def same_answers(found: np.ndarray, expected: np.ndarray, activation: str, thresholds: Any = THRESHOLD) -> float:
    """The share of answers that are the same in two sets of scores `(N, K)`: the winning classes of clips or, where
    each class is answered for itself, whether it reaches its threshold."""
    if activation == SEVERAL:
        return float(((found >= thresholds) == (expected >= thresholds)).mean())
    return float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
