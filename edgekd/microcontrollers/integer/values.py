"""What lies in a network between a layer and the quantiser after it: values that nobody has rounded yet.

They become layers once there is a map to be rounded to (`sums`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgekd.microcontrollers.integer.layers import LOWEST, SHARE, Map

Pair = tuple[int, int]
Numbers = NDArray[np.float64]
STEPS = 256  # values of a map


@dataclass(frozen=True)
class Entry:
    """The log-mel, before it is rounded."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Sum:
    """What a convolution gives: its weight int8 `(outputs, kernel rows, kernel columns, inputs)`, its bias `(outputs,)`
    in units of a sum, and `unit (outputs,)`, what such a unit stands for. `above`: a real value that it is cut off
    at."""

    source: Map
    shape: tuple[int, int, int]
    weight: NDArray[np.int8]
    bias: NDArray[np.int64]
    unit: Numbers
    stride: Pair
    padding: tuple[int, int, int, int]
    depthwise: bool
    relu: bool = False
    above: float | None = None


@dataclass(frozen=True)
class Added:
    """The sum of two maps of one shape."""

    terms: tuple[Map, Map]
    relu: bool = False
    above: float | None = None


@dataclass(frozen=True)
class FunctionOf:
    """What a function makes of each value of a map: `values (1 or channels, 256)`, of -128 first."""

    source: Map
    values: Numbers


@dataclass(frozen=True)
class Multiplied:
    """The product of functions of two maps, the second of the first's shape or of one row and column."""

    terms: tuple[FunctionOf, FunctionOf]
    relu: bool = False
    above: float | None = None


@dataclass(frozen=True)
class Statistic:
    """A number for each channel of a map, then `factor` times it plus `offset`."""

    source: Map
    factor: Numbers = field(default_factory=lambda: np.ones(1), kw_only=True)
    offset: Numbers = field(default_factory=lambda: np.zeros(1), kw_only=True)

    @property
    def outputs(self) -> int:
        return self.source.channels

    def scaled(self, factor: Numbers, offset: Numbers) -> Self:
        """With another factor and offset after those that it has."""
        return replace(self, factor=self.factor * factor, offset=self.offset * factor + offset)


@dataclass(frozen=True)
class MeansOf(Statistic):
    """Means over cells, of a map's values or of what a table says of them: uint16 `(1 or channels, 256, bins)`. Both
    are in units of `unit`, and stand for 0 at `zero`."""

    row_cells: tuple[Pair, ...]
    column_cells: tuple[Pair, ...]
    unit: float
    zero: float
    table: NDArray[np.uint16] | None = None

    @property
    def outputs(self) -> int:
        bins = 1 if self.table is None else self.table.shape[2]
        return self.source.channels * bins * len(self.row_cells) * len(self.column_cells)


@dataclass(frozen=True)
class MaximaOf(Statistic):
    """Maxima over a whole map."""


@dataclass(frozen=True)
class DeviationsOf(Statistic):
    """The root of the variance over rows of the mean over columns, of variances from `least` on."""

    least: float = 0.0


@dataclass(frozen=True)
class Joined:
    """Values side by side, channel after channel, on the same rows and columns."""

    parts: tuple[Statistic | FunctionOf, ...]


@dataclass(frozen=True)
class RowMeans:
    """The mean of each row of a map, on the way to a deviation."""

    source: Map


@dataclass(frozen=True)
class Centred:
    """How far the mean of each row lies from that of all."""

    source: Map


@dataclass(frozen=True)
class Squares:
    """The square of that."""

    source: Map


@dataclass(frozen=True)
class Variances:
    """The mean of that over all rows, from `least` on."""

    source: Map
    least: float = 0.0


_OfRows = RowMeans | Centred | Squares | Variances
Value = Map | Entry | Sum | Added | FunctionOf | Multiplied | Statistic | Joined | _OfRows | None


def function_of(value: Map | FunctionOf) -> FunctionOf:
    """A map as a function of itself."""
    if isinstance(value, FunctionOf):
        return value
    steps = (np.arange(LOWEST, LOWEST + STEPS) - value.zero_point).astype(np.float64)
    return FunctionOf(value, value.scale * steps[None])


def means_of(value: Map | FunctionOf) -> MeansOf:
    """The means of a map, or of a function of it, over all of it."""
    source = value if isinstance(value, Map) else value.source
    cells = ((0, source.rows),), ((0, source.columns),)
    if isinstance(value, Map):
        return MeansOf(source, *cells, source.scale, source.zero_point)
    least = value.values.min()
    unit = float(value.values.max() - least or 1.0) / SHARE
    table = np.rint((value.values - least) / unit).astype(np.uint16)
    return MeansOf(source, *cells, unit, -least / unit, table[..., None])
