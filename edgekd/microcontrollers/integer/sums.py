"""What lies in a network between a layer and the quantiser after it, and the integer layers that the two make.

A sum that nobody has rounded yet becomes a layer once there is a map to be rounded to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.fixed_point import CONVOLUTION_EXPONENT, Factors, factors, fits
from edgekd.microcontrollers.integer.layers import (
    HIGHEST,
    LOGIT_BITS,
    LOWEST,
    SHARE,
    Classifier,
    Convolution,
    Map,
    Means,
)
from edgekd.quantization.fake_quant import QuantizedLayer

Pair = tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """The log-mel, before it is rounded."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Sum:
    """What a convolution gives before it is rounded, `above` a real value that it is cut off at."""

    layer: QuantizedLayer
    source: Map
    shape: tuple[int, int, int]
    padding: tuple[int, int, int, int]
    relu: bool = False
    above: float | None = None


@dataclass(frozen=True)
class MeansOf:
    """Means of a map or of what a table says of it, then `factor * mean + offset` for each channel."""

    source: Map
    table: NDArray[np.uint16] | None = None
    row_cells: tuple[Pair, ...] = ()
    column_cells: tuple[Pair, ...] = ()
    factor: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    offset: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    @property
    def outputs(self) -> int:
        bins = 1 if self.table is None else self.table.shape[2]
        return self.source.channels * bins * len(self.row_cells) * len(self.column_cells)


@dataclass(frozen=True)
class Told:
    """What a table says of each value of a map, everywhere."""

    source: Map
    table: NDArray[np.uint16]


@dataclass(frozen=True)
class Joined:
    """Means side by side in one vector."""

    parts: tuple[MeansOf, ...]


def convolution(value: Sum, target: Map) -> Convolution:
    """`value` rounded to `target`. Raises `GateError` where a sum may not fit into 32 bits, as do the next two."""
    inner = value.layer.layer
    assert isinstance(inner, nn.Conv2d)
    weight = value.layer.integer_weight().numpy().transpose(0, 2, 3, 1)
    above = HIGHEST if value.above is None else target.zero_point + round(value.above / target.scale)
    bias, by = _bias_and_factors(value.layer, weight, value.source, target.scale)
    return Convolution(
        source=value.source,
        target=target,
        weight=np.ascontiguousarray(weight),
        bias=bias,
        factors=by,
        stride=pair(inner.stride),
        padding=value.padding,
        low=target.zero_point if value.relu else LOWEST,
        high=min(HIGHEST, above),
        depthwise=inner.groups > 1,
    )


def classifier(layer: QuantizedLayer, source: Map, several: bool) -> Classifier:
    """The linear layer that makes the logits."""
    weight = layer.integer_weight().numpy()
    bias, by = _bias_and_factors(layer, weight, source, 2.0**-LOGIT_BITS)
    return Classifier(source, weight, bias, by, several)


def _bias_and_factors(
    layer: QuantizedLayer, weight: NDArray[np.int8], source: Map, scale: float
) -> tuple[NDArray[np.int32], Factors]:
    """The bias with what the zero point adds, and what brings a sum to `scale`."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    stored = layer.integer_bias(torch.tensor(source.scale))
    bias = np.zeros(len(rows), np.int64) if stored is None else stored.numpy().astype(np.int64)
    bias -= source.zero_point * rows.sum(axis=1)
    by = factors(source.scale * layer.weight_quant.scale.double().numpy() / scale, CONVOLUTION_EXPONENT)
    if not fits(np.abs(bias) - LOWEST * np.abs(rows).sum(axis=1), by):
        raise no_form("a sum of one of its layers does not fit into 32 bits")
    return bias.astype(np.int32), by


def means(part: MeansOf, target: Map, start: int) -> Means:
    """`part` rounded to `target`, into it from channel `start` on."""
    source, channels = part.source, part.source.channels
    (top, bottom), (left, right) = part.row_cells[0], part.column_cells[0]
    places = (bottom - top) * (right - left)
    unit, largest, below = (source.scale, 128, source.zero_point) if part.table is None else (1 / SHARE, SHARE, 0)
    factor, offset = (np.broadcast_to(each, channels) for each in (part.factor, part.offset))
    by = factors(factor * unit / places / target.scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = np.where(factor == 0, 0, offset / (factor * unit / places)) - places * below
    if not ((offset[factor == 0] == 0).all() and fits(np.abs(bias) + places * largest, by)):
        raise no_form("a mean of one of its maps does not fit into 32 bits")
    return Means(
        source=source,
        target=target,
        start=start,
        row_cells=part.row_cells,
        column_cells=part.column_cells,
        table=part.table,
        bias=np.rint(bias).astype(np.int32),
        factors=by,
    )


def pair(size: Any) -> Pair:
    """A size that PyTorch has as one number or two."""
    found: Sequence[int] = (size, size) if isinstance(size, int) else size
    return found[0], found[1]


def no_form(cause: str, advice: str = "Distil another student: 'edgekd students' lists them") -> GateError:
    """The refusal of a student: `cause` is what it has that integers have not."""
    return GateError(f"The student has no form in integers alone: {cause}. {advice}.")
