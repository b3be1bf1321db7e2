"""What a quantised network knows of whole maps: means, maxima, deviations over time, histograms, side by side.

The deviation over time is read off the formula that students have for it: the mean over mel bins; what is left of it
less its mean; the square of that; its mean; the root.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgekd.microcontrollers.integer.layers import SHARE, Map
from edgekd.microcontrollers.integer.pointwise import function, multiply
from edgekd.microcontrollers.integer.sums import no_form
from edgekd.microcontrollers.integer.tables import histogram_table
from edgekd.microcontrollers.integer.values import (
    Centred,
    DeviationsOf,
    FunctionOf,
    Joined,
    MaximaOf,
    MeansOf,
    Numbers,
    RowMeans,
    Squares,
    Statistic,
    Sum,
    Value,
    Variances,
    function_of,
    means_of,
)
from edgekd.microcontrollers.integer.walk import Walk, argument, name_of, rounded_to
from edgekd.models.histogram import HistogramLayer, grid_windows

_WHOLE = [2, 3]  # rows and columns, of (B, channels, rows, columns)


def same(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """What changes nothing."""
    return walk.before(node)


def mean(walk: Walk, node: fx.Node, module: nn.Module | None) -> Value:
    """Over a whole map, over its columns, or over the rows of what the latter gave."""
    value = _map_or_function(walk, node)
    if isinstance(value, RowMeans) and _dims(node, 3) == [2]:
        return means_of(value.source)
    if isinstance(value, Squares) and _dims(node, 3) == [2]:
        return Variances(value.source)
    dims = _reduced(node, module)
    if isinstance(value, Map) and dims == [3] and not argument(node, 2, "keepdim", otherwise=False):
        return RowMeans(value)
    if dims != _WHOLE or not isinstance(value, Map | FunctionOf):
        raise no_form(f"'{node.name}' is a mean of what is not rounded to int8, or not over frames and mel bins")
    return means_of(value)


def maximum(walk: Walk, node: fx.Node, module: nn.Module | None) -> Value:
    """Over a whole map."""
    value = _map_or_function(walk, node)
    if _reduced(node, module) != _WHOLE or not isinstance(value, Map):
        raise no_form(f"'{node.name}' is a maximum of what is not rounded to int8, or not over frames and mel bins")
    return MaximaOf(value)


def _reduced(node: fx.Node, module: nn.Module | None) -> list[int]:
    """Over which dimensions of a map `node` goes."""
    if module is None and not name_of(node).startswith("adaptive"):
        return _dims(node, 4)
    size = argument(node, 1, "output_size") if module is None else module.output_size
    if size not in (1, (1, 1), [1, 1]):
        raise no_form(f"'{node.name}' is a pooling to {size}")
    return _WHOLE


def _map_or_function(walk: Walk, node: fx.Node) -> Value:
    """What enters `node`. A pooled map that nothing rounds is rounded here, to the scale of what it was pooled from."""
    value, before = walk.before(node), node.all_input_nodes[0]
    if isinstance(value, Sum) and value.depthwise and (value.weight == 1).all() and not value.bias.any():
        value = walk.values[before] = rounded_to(walk, value, before.name, value.source.scale, value.source.zero_point)
    return value


def _dims(node: fx.Node, of: int) -> list[int]:
    dims: Any = argument(node, 1, "dim", ())
    return sorted(dim % of for dim in ((dims,) if isinstance(dims, int) else dims or ()))


def subtract(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """A map's row means less their mean; or a map less a number."""
    terms = [walk.values[each] for each in node.all_input_nodes]
    if len(terms) == 2 and isinstance(terms[0], RowMeans) and terms[1] == means_of(terms[0].source):
        return Centred(terms[0].source)
    return function(walk, node, None)


def times(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """Such a difference times itself; or a product of maps."""
    value = walk.before(node)
    if isinstance(value, Centred) and node.args == (node.all_input_nodes[0],) * 2:
        return Squares(value.source)
    return multiply(walk, node, None)


def clamp(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """Of a variance from below; or a function of a map."""
    value, least = walk.before(node), argument(node, 1, "min")
    if isinstance(value, Variances) and isinstance(least, int | float) and argument(node, 2, "max") is None:
        return Variances(value.source, max(value.least, least))
    return function(walk, node, None)


def root(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """Of a variance; or a function of a map."""
    value = walk.before(node)
    return DeviationsOf(value.source, value.least) if isinstance(value, Variances) else function(walk, node, None)


def unsqueeze(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """Of a vector, which is a map of one row and column anyway."""
    value = walk.before(node)
    source = value.source if isinstance(value, FunctionOf) else value
    if not isinstance(value, Statistic | Joined) and not (isinstance(source, Map) and source.shape[:2] == (1, 1)):
        raise no_form(f"'{node.name}' calls {node.target} of what is no vector")
    return value


def histogram(walk: Walk, node: fx.Node, module: nn.Module) -> Value:
    """Local histograms: means of shares."""
    assert isinstance(module, HistogramLayer)
    source = walk.map_before(node)
    sides = (source.rows, source.columns)
    cells = [
        tuple((place * stride, place * stride + size) for place in ((0, 0) if side == 1 else (0, 1)))
        for side, size, stride in zip(sides, *grid_windows(sides), strict=True)
    ]
    return MeansOf(source, cells[0], cells[1], 1 / SHARE, 0.0, histogram_table(module, source))


def norm(walk: Walk, node: fx.Node, module: nn.Module) -> Value:
    """A batch norm that no layer could take in: of statistics, of a map, or of what lies side by side."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    value = walk.before(node)
    parts = value.parts if isinstance(value, Joined) else (value,)
    average, variance, weight, shift = (_numbers(each) for each in _statistics(module))
    factor = weight / np.sqrt(variance + module.eps)
    offset = shift - average * factor
    found, start = [], 0
    for part in parts:
        scalable = _scalable(part)
        if scalable is None:
            raise no_form(f"'{node.target}' is a batch norm of something else than a map or means over one")
        of = slice(start, start + scalable.source.channels)
        found.append(_normalised(scalable, factor[of], offset[of]))
        start = of.stop
    return Joined(tuple(found)) if isinstance(value, Joined) else found[0]


def _scalable(value: Value) -> Statistic | FunctionOf | None:
    """What can be scaled channel by channel."""
    if isinstance(value, Statistic):
        return value if value.outputs == value.source.channels else None
    return function_of(value) if isinstance(value, Map | FunctionOf) else None


def _normalised(value: Statistic | FunctionOf, factor: Numbers, offset: Numbers) -> Statistic | FunctionOf:
    if isinstance(value, Statistic):
        return value.scaled(factor, offset)
    return replace(value, values=value.values * factor[:, None] + offset[:, None])


def _statistics(batch_norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, ...]:
    average, variance = batch_norm.running_mean, batch_norm.running_var
    assert average is not None
    assert variance is not None
    if not batch_norm.affine:
        return average, variance, torch.ones_like(average), torch.zeros_like(average)
    return average, variance, batch_norm.weight, batch_norm.bias


def _numbers(tensor: Tensor) -> Numbers:
    return tensor.detach().double().cpu().numpy()


def join(walk: Walk, node: fx.Node, _module: nn.Module | None) -> Value:
    """Channels of maps, or statistics, side by side."""
    parts = [walk.values[part] for part in node.all_input_nodes]
    flat = [each for part in parts for each in (part.parts if isinstance(part, Joined) else (part,))]
    given = argument(node, 0, "tensors")
    if argument(node, 1, "dim", 0) not in (1, -1, -3) or list(given) != list(node.all_input_nodes):
        raise no_form(f"'{node.name}' joins something else than channels")
    joined = [function_of(part) if isinstance(part, Map) else part for part in flat]
    places = {part.source.shape[:2] if isinstance(part, FunctionOf) else (1, 1) for part in joined if _joins(part)}
    if len(places) != 1 or not all(map(_joins, joined)):
        raise no_form(f"'{node.name}' joins something else than maps of one size, or means over maps")
    return Joined(tuple(part for part in joined if isinstance(part, Statistic | FunctionOf)))


def _joins(value: object) -> bool:
    return isinstance(value, Statistic | FunctionOf)
