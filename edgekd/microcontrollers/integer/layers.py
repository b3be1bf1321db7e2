"""What an integer network is made of: maps of int8 values, and the layers that go from one to the next.

A value `q` of a map stands for `scale * (q - zero_point)`. Maps that cannot be negative have their zero point at -128,
which gives them all 256 steps, others at 0: the values of the ONNX Runtime flavour of the same student, 128 less.
A map has its channels last, `(rows, columns, channels)`: rows are frames of the log-mel, columns its mel bins. A vector
is a map of one row and one column.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgekd.microcontrollers.integer.fixed_point import Factors

LOWEST, HIGHEST = -128, 127
SHARE = 1 << 15  # what stands for 1 in tables and scores
LOGIT_BITS = 12  # a logit is a multiple of 2^-12


@dataclass(frozen=True)
class Map:
    """Where int8 values are: `(rows, columns, channels)`, and what they stand for."""

    name: str
    rows: int
    columns: int
    channels: int
    scale: float
    zero_point: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows, self.columns, self.channels

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def largest(self) -> int:
        """Of the magnitudes of `q - zero_point`."""
        return HIGHEST - self.zero_point if self.zero_point else -LOWEST


@dataclass(frozen=True)
class Convolution:
    """A convolution, rounded to its target's scale and kept within `low` and `high` (a ReLU is no more than that).

    `weight` int8 `(outputs, kernel rows, kernel columns, inputs)`, inputs 1 where it is `depthwise`; `bias` int32, with
    what the source's zero point adds; `padding`: rows above and below, columns left and right, of real value 0.
    """

    source: Map
    target: Map
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    factors: Factors
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    low: int
    high: int
    depthwise: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[1], self.weight.shape[2]

    @property
    def macs(self) -> int:
        return self.target.rows * self.target.columns * self.weight.size


@dataclass(frozen=True)
class MaxPool:
    """The largest of the values under a window; beyond the map's border lie the lowest ones."""

    source: Map
    target: Map
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class Means:
    """Means over cells of a map, for each channel, into `target` from channel `start` on.

    Without a `table`, of the values themselves. With one, uint16 `(1 or channels, 256, bins)`, of its `bins` shares of
    each value, in units of 1 / SHARE: row `q + 128`. `row_cells` and `column_cells` are the first and the one past the
    last of each cell; all cells are of one size. The target's order is that of channels, bins, rows, columns.
    A sum is taken times 2^doublings, so that `bias` is finer than one of its steps; `bias` int32 and `factors` go for
    each channel.
    """

    source: Map
    target: Map
    start: int
    row_cells: tuple[tuple[int, int], ...]
    column_cells: tuple[tuple[int, int], ...]
    table: NDArray[np.uint16] | None
    bias: NDArray[np.int32]
    factors: Factors
    doublings: int = 0

    @property
    def bins(self) -> int:
        return 1 if self.table is None else self.table.shape[2]

    @property
    def outputs(self) -> int:
        return self.source.channels * self.bins * len(self.row_cells) * len(self.column_cells)

    @property
    def places(self) -> int:
        """In each cell."""
        (top, bottom), (left, right) = self.row_cells[0], self.column_cells[0]
        return (bottom - top) * (right - left)


@dataclass(frozen=True)
class Maxima:
    """The largest value of each channel over a whole map, into `target` from channel `start` on; `bias`, `factors` and
    `doublings` as of `Means`."""

    source: Map
    target: Map
    start: int
    bias: NDArray[np.int32]
    factors: Factors
    doublings: int = 0

    @property
    def outputs(self) -> int:
        return self.source.channels


@dataclass(frozen=True)
class Deviations:
    """How far each channel's mean over the columns deviates over the rows, into `target` from channel `start` on.

    With `S` the sum over the columns of a row and `R` rows, all in integers,

        square = R sum(S^2) - sum(S)^2,    root = max(least, floor(sqrt(square * 4^doublings))),

    and `root + bias` is brought to the target's scale by `factors`: rounded once, as all else. `doublings` make the
    floor of a root small beside a step of the target.
    """

    source: Map
    target: Map
    start: int
    bias: NDArray[np.int32]
    factors: Factors
    least: int
    doublings: int

    @property
    def outputs(self) -> int:
        return self.source.channels


@dataclass(frozen=True)
class Lookup:
    """What a table int8 `(1 or channels, 256)` says of each value `q`, in row `q + 128`, into channels of `target` from
    `start` on: a function of single values, or another scale."""

    source: Map
    target: Map
    start: int
    table: NDArray[np.int8]


@dataclass(frozen=True)
class Addition:
    """The sum of two maps of one shape, kept within `low` and `high`: `(bias + q m + q' m') >> exponent`, where `bias`
    has the zero points and the half that rounds."""

    source: Map
    other: Map
    target: Map
    bias: int
    mantissas: tuple[int, int]
    exponent: int
    low: int
    high: int


@dataclass(frozen=True)
class Product:
    """The product of what two tables int16 `(2, 256)` say of the values of two maps, brought to the target's scale.

    `other` has the source's shape, or one row and one column: one factor for each channel.
    """

    source: Map
    other: Map
    target: Map
    tables: NDArray[np.int16]
    factors: Factors
    low: int
    high: int


Window = Convolution | MaxPool  # a row of the target from some rows of the source
Summary = Means | Maxima | Deviations  # a part of a vector, once the whole source is known
Pointwise = Lookup | Addition | Product  # value by value
Layer = Window | Summary | Pointwise


def sources(layer: Layer) -> tuple[Map, ...]:
    """The maps that a layer reads."""
    return (layer.source, layer.other) if isinstance(layer, Addition | Product) else (layer.source,)


def place_in_target(layer: Layer) -> int:
    """The first of the target's channels that a layer writes."""
    return layer.start if isinstance(layer, Means | Maxima | Deviations | Lookup) else 0


@dataclass(frozen=True)
class Classifier:
    """The last linear layer: `weight` int8 `(classes, inputs)`, logits in units of 2^-LOGIT_BITS. Their softmax are the
    scores or, where a clip may be of `several` classes, the sigmoid of each."""

    source: Map
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    factors: Factors
    several: bool = False


@dataclass(frozen=True)
class IntegerNetwork:
    """From the quantised log-mel `entry` to the scores of the classes, `layers` in the order of execution."""

    entry: Map
    layers: tuple[Layer, ...]
    classifier: Classifier

    @property
    def maps(self) -> tuple[Map, ...]:
        """Every map once, in the order in which they are written."""
        return tuple(dict.fromkeys([self.entry, *(layer.target for layer in self.layers)]))
