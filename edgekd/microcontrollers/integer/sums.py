"""From values that nobody has rounded yet, and the map that they are rounded to, to the layers that do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.fixed_point import (
    CONVOLUTION_EXPONENT,
    LARGEST_EXPONENT,
    Factors,
    Integers,
    factors,
    fits,
)
from edgekd.microcontrollers.integer.layers import (
    HIGHEST,
    LOGIT_BITS,
    LOWEST,
    SHARE,
    Addition,
    Classifier,
    Convolution,
    Deviations,
    Lookup,
    Map,
    Maxima,
    Means,
    Product,
    Summary,
)
from edgekd.microcontrollers.integer.values import (
    Added,
    DeviationsOf,
    FunctionOf,
    MaximaOf,
    MeansOf,
    Multiplied,
    Numbers,
    Pair,
    Statistic,
    Sum,
)
from edgekd.quantization.fake_quant import QuantizedLayer

ADDITION_BITS = 21  # of the larger mantissa of a sum of two maps: 512 of them and the zero point stay below 2^31
SUM_BITS = 24  # of what a number for a whole map is made of, where it takes doublings to have so many
_TABLE_MOST = (1 << 15) - 1


def convolution(value: Sum, target: Map) -> Convolution:
    """`value` rounded to `target`. Raises `GateError` where a sum may not fit into 32 bits, as do all others here."""
    bias, by = _bias_and_factors(value.bias, value.unit, value.weight, value.source, target.scale)
    low, high = _range(value, target)
    return Convolution(
        source=value.source,
        target=target,
        weight=np.ascontiguousarray(value.weight),
        bias=bias,
        factors=by,
        stride=value.stride,
        padding=value.padding,
        low=low,
        high=high,
        depthwise=value.depthwise,
    )


def classifier(layer: QuantizedLayer, source: Map, several: bool) -> Classifier:
    """The linear layer that makes the logits."""
    weight = layer.integer_weight().numpy()
    bias, by = _bias_and_factors(*stored(layer, source), weight, source, 2.0**-LOGIT_BITS)
    return Classifier(source, weight, bias, by, several)


def stored(layer: QuantizedLayer, source: Map) -> tuple[Integers, Numbers]:
    """The bias of a layer `(outputs,)`, in units of its sums, and what each unit stands for."""
    bias = layer.integer_bias(torch.tensor(source.scale))
    unit = source.scale * layer.weight_quant.scale.double().numpy()
    return (np.zeros(len(unit), np.int64) if bias is None else bias.numpy().astype(np.int64)), unit


def _bias_and_factors(
    stored_bias: Integers, unit: Numbers, weight: NDArray[np.int8], source: Map, scale: float
) -> tuple[NDArray[np.int32], Factors]:
    """The bias with what the zero point adds, and what brings a sum to `scale`."""
    rows = weight.reshape(len(weight), -1).astype(np.int64)
    bias = stored_bias - source.zero_point * rows.sum(axis=1)
    by = factors(unit / scale, CONVOLUTION_EXPONENT)
    if not fits(np.abs(bias) - LOWEST * np.abs(rows).sum(axis=1), by):
        raise no_form("a sum of one of its layers does not fit into 32 bits")
    return bias.astype(np.int32), by


def _range(value: Sum | Added | Multiplied, target: Map) -> Pair:
    """Where values are cut off: by a ReLU, and by 8 bits."""
    above = HIGHEST if value.above is None else target.zero_point + round(value.above / target.scale)
    return target.zero_point if value.relu else LOWEST, min(HIGHEST, above)


def addition(value: Added, target: Map) -> Addition:
    """The sum of two maps, rounded to `target`."""
    real = np.array([term.scale / target.scale for term in value.terms])
    _, power = np.frexp(real.max())
    exponent = int(min(ADDITION_BITS - power, LARGEST_EXPONENT))
    if exponent < 1:
        raise no_form(f"'{target.name}' is too small beside what it is the sum of")
    first, second = (int(each) for each in np.rint(np.ldexp(real, exponent)))
    zero_points = first * value.terms[0].zero_point + second * value.terms[1].zero_point
    bias = (target.zero_point << exponent) + (1 << (exponent - 1)) - zero_points
    return Addition(*value.terms, target, bias, (first, second), exponent, *_range(value, target))


def product(value: Multiplied, target: Map) -> Product:
    """The product of functions of two maps, rounded to `target`."""
    (first, unit), (second, other) = (_whole_steps(term) for term in value.terms)
    by = factors(unit * other / target.scale)
    if not fits(_TABLE_MOST**2, by):
        raise no_form(f"'{target.name}' is too small beside what it is the product of")
    low, high = _range(value, target)
    sources = value.terms[0].source, value.terms[1].source
    return Product(*sources, target, np.stack([first, second]), by, low, high)


def _whole_steps(term: FunctionOf) -> tuple[NDArray[np.int16], float]:
    """A function of a map as multiples of a number."""
    if len(term.values) > 1:
        raise no_form(f"a function of '{term.source.name}' that differs by channel is multiplied")
    unit = float(np.abs(term.values).max() or 1.0) / _TABLE_MOST
    return np.rint(term.values[0] / unit).astype(np.int16), unit


def lookup(value: FunctionOf, target: Map, start: int = 0) -> Lookup:
    """A function of a map, rounded to `target`, into it from channel `start` on."""
    steps = np.rint(value.values / target.scale) + target.zero_point
    return Lookup(value.source, target, start, np.clip(steps, LOWEST, HIGHEST).astype(np.int8))


def summary(value: Statistic, target: Map, start: int) -> Summary:
    """A statistic of a map, rounded to `target`, into it from channel `start` on."""
    source, places = value.source, value.source.rows * value.source.columns
    if isinstance(value, MeansOf):
        return _means(value, target, start)
    if isinstance(value, MaximaOf):
        bias, by, doublings = _shifted(value, source.scale, -source.zero_point, -LOWEST, target)
        return Maxima(source, target, start, bias, by, doublings)
    assert isinstance(value, DeviationsOf)
    most = places * -LOWEST  # of the sum of all; no root is larger
    if most >= 1 << 31:
        raise no_form(f"the deviation over time of '{source.name}' does not fit into 64 bits")
    bias, by, doublings = _shifted(value, source.scale / places, 0.0, most, target)
    least = round(value.least**0.5 / (source.scale / places / 2**doublings))
    if least >= 1 << 31 or not fits(np.abs(bias.astype(np.int64)) + least, by):
        raise no_form(f"the deviation over time of '{source.name}' does not fit into 32 bits")
    return Deviations(source, target, start, bias, by, least, doublings)


def _means(value: MeansOf, target: Map, start: int) -> Means:
    (top, bottom), (left, right) = value.row_cells[0], value.column_cells[0]
    places = (bottom - top) * (right - left)
    largest = places * (-LOWEST if value.table is None else SHARE)
    bias, by, doublings = _shifted(value, value.unit / places, -places * value.zero, largest, target)
    return Means(
        source=value.source,
        target=target,
        start=start,
        row_cells=value.row_cells,
        column_cells=value.column_cells,
        table=value.table,
        bias=bias,
        factors=by,
        doublings=doublings,
    )


def _shifted(
    value: Statistic, unit: float, more: float, largest: int, target: Map
) -> tuple[NDArray[np.int32], Factors, int]:
    """What is added to each sum of size up to `largest`, of which 1 stands for `unit` and to which `more` belongs, and
    its factors; both go for sums that were doubled so often."""
    doublings = max(0, SUM_BITS - largest.bit_length())
    factor, offset = (np.broadcast_to(each, value.source.channels) for each in (value.factor, value.offset))
    step = factor * unit / 2**doublings
    by = factors(step / target.scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = np.rint(np.where(factor == 0, 0, offset / step) + more * 2**doublings)
    if not ((offset[factor == 0] == 0).all() and fits(np.abs(bias) + (largest << doublings), by)):
        raise no_form(f"a mean, maximum or deviation of '{value.source.name}' does not fit into 32 bits")
    return bias.astype(np.int32), by, doublings


def pair(size: Any) -> Pair:
    """A size that PyTorch has as one number or two."""
    found: Sequence[int] = (size, size) if isinstance(size, int) else size
    return found[0], found[1]


def no_form(cause: str, advice: str = "Distil another student: 'edgekd students' lists them") -> GateError:
    """The refusal of a student: `cause` is what it has that integers have not."""
    return GateError(f"The student has no form in integers alone: {cause}. {advice}.")
