"""How much the class goes with an attribute of the recordings: Cramer's V with Bergsma's correction for bias (J. Korean
Stat. Soc. 42, 2013; 0: independent, 1: the attribute gives the class away), its p value by permuting the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFOUNDED_V = 0.3
CONFOUNDED_P = 0.01

_PERMUTATIONS = 999
_BINS = 8  # of an attribute that is a number, each with as many groups


@dataclass(frozen=True)
class Attribute:
    """How much the class goes with an attribute of the recordings. `share`: of the groups whose class a guess from
    the attribute alone, learned from the other groups, gets right; `chance`: of the largest class."""

    name: str
    values: int
    cramers_v: float
    p: float
    share: float
    chance: float
    confounded: bool


def typical_value(values: Sequence[Any]) -> Any:
    """The median of numbers that differ from clip to clip, the commonest of everything else."""
    if isinstance(values[0], float):
        return float(np.median(values))
    return Counter(values).most_common(1)[0][0]


def binned(values: list[Any], shown: Callable[[Any], str]) -> tuple[NDArray[np.intp], list[str]]:
    """The number of each value's bin, and what the bins hold: one value each, or a range where there are many.

    A value that many share, such as no silence at all, is a bin of its own; as many others make one.
    """
    counts = Counter(values)
    distinct = sorted(counts)
    if isinstance(values[0], float) and len(distinct) > _BINS:
        common = [value for value in distinct if counts[value] > len(values) / _BINS]
        rest = np.array([value for value in values if value not in common])
        ranges = max(1, round(_BINS * len(rest) / len(values)))
        edges = np.unique(np.quantile(rest, np.arange(1, ranges) / ranges))
        place = {value: number for number, value in enumerate(common)}
        codes = np.array(
            [place.get(value, len(common) + int(np.searchsorted(edges, value, side="right"))) for value in values]
        )
        bounds = [float(rest.min()), *edges.tolist(), float(rest.max())]
        names = [*map(shown, common), *(f"{shown(low)} to {shown(high)}" for low, high in pairwise(bounds))]
        held, codes = np.unique(codes, return_inverse=True)
        return codes, [names[code] for code in held]
    place = {value: number for number, value in enumerate(distinct)}
    return np.array([place[value] for value in values]), [shown(value) for value in distinct]


def association(name: str, codes: NDArray[np.intp], labels: NDArray[np.intp]) -> Attribute:
    """How much the class goes with the attribute `name`, from the bin and the class of each group `(N,)`."""
    table = cross_table(codes, labels)
    expected = expected_if_independent(table)
    rng = np.random.default_rng(0)

    def chi_square(table: NDArray[np.intp]) -> float:
        return float((table**2 / expected).sum()) - len(labels)  # permuting keeps what is expected

    observed = chi_square(table)
    as_high = sum(chi_square(cross_table(codes, rng.permutation(labels))) >= observed for _ in range(_PERMUTATIONS))
    p = (1 + as_high) / (1 + _PERMUTATIONS)
    v = cramers_v(observed, table.shape, len(labels))
    sizes = table.sum(axis=0)
    own = np.eye(len(sizes), dtype=np.intp)[labels]  # (groups, classes)
    # How many of each class have the value, by the other groups; without itself its own class must not seem rarer.
    others = (table[codes] - own) / np.maximum(sizes - own, 1) * sizes
    return Attribute(
        name=name,
        values=len(table),
        cramers_v=round(v, 3),
        p=p,
        share=round(float(np.mean(others.argmax(axis=1) == labels)), 3),
        chance=round(float(table.sum(axis=0).max() / len(labels)), 3),
        confounded=v >= CONFOUNDED_V and p <= CONFOUNDED_P,
    )


def cross_table(codes: NDArray[np.intp], labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Groups of each bin and class `(bins, classes)`."""
    bins, classes = int(codes.max()) + 1, int(labels.max()) + 1
    return np.bincount(codes * classes + labels, minlength=bins * classes).reshape(bins, classes)


def expected_if_independent(table: NDArray[np.intp]) -> NDArray[np.float64]:
    """What `table` would hold if its rows and columns were independent; never 0."""
    return np.maximum(np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum(), 1e-12)


def cramers_v(chi_square: float, shape: tuple[int, ...], count: int) -> float:
    """With Bergsma's correction: 0 is expected of attributes that have nothing to do with the class."""
    rows, columns = shape
    spread = max(0.0, chi_square / count - (rows - 1) * (columns - 1) / (count - 1))
    effective = min(rows - (rows - 1) ** 2 / (count - 1), columns - (columns - 1) ** 2 / (count - 1))
    return float(np.sqrt(min(1.0, spread / (effective - 1)))) if effective > 1 else 0.0
