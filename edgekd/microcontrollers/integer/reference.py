"""The integer network in numpy: whole maps, one layer after the other. The C has to give the same, bit for bit.

Products are summed in float64, which holds every integer below 2^53 and has BLAS; sums stay below 2^31.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from edgekd.microcontrollers.integer.fixed_point import scaled
from edgekd.microcontrollers.integer.layers import (
    HIGHEST,
    LOWEST,
    SHARE,
    Addition,
    Classifier,
    Convolution,
    Deviations,
    IntegerNetwork,
    Layer,
    Lookup,
    Map,
    Maxima,
    MaxPool,
    Means,
    Product,
    place_in_target,
    sources,
)
from edgekd.microcontrollers.integer.tables import sigmoid, softmax

Values = NDArray[np.int8]


def quantised(log_mel: NDArray[np.float32], entry: Map) -> Values:
    """A normalised log-mel `(B, 1, T, F)` as the values `(B, T, F, 1)` that enter the network."""
    steps = np.rint(log_mel / np.float32(entry.scale)) + entry.zero_point
    return np.clip(steps, LOWEST, HIGHEST).astype(np.int8).transpose(0, 2, 3, 1)


def run(network: IntegerNetwork, values: Values) -> NDArray[np.int64]:
    """The scores `(B, K)`, in units of 1 / SHARE, of `values (B, rows, columns, channels)`."""
    maps = every_map(network, values)
    classifier = network.classifier
    return (sigmoid if classifier.several else softmax)(logits(classifier, maps[classifier.source.name]))


def every_map(network: IntegerNetwork, values: Values) -> dict[str, Values]:
    """All maps by name, `(B, rows, columns, channels)` each."""
    maps = {network.entry.name: values}
    for layer in network.layers:
        target = layer.target
        into = maps.setdefault(target.name, np.zeros((len(values), *target.shape), np.int8))
        found = _RULES[type(layer)](layer, *(maps[source.name] for source in sources(layer)))
        start = place_in_target(layer)
        into[..., start : start + found.shape[-1]] = found
    return maps


def logits(classifier: Classifier, values: Values) -> NDArray[np.int64]:
    """`(B, 1, 1, inputs)` -> `(B, K)`, in units of 2^-LOGIT_BITS."""
    sums = _product(values.reshape(len(values), -1), classifier.weight) + classifier.bias
    return scaled(sums, classifier.factors)


def classifier_of(
    network: IntegerNetwork, log_mel: Callable[[Tensor], Tensor], batch: int = 16
) -> Callable[[Tensor], Tensor]:
    """The network as a function of waveforms `(B, S)`, by their normalised log-mel, to probabilities `(B, K)`."""

    @torch.no_grad()
    def classify(waveforms: Tensor) -> Tensor:
        scores = [run(network, quantised(log_mel(part).numpy(), network.entry)) for part in waveforms.split(batch)]
        return torch.from_numpy((np.concatenate(scores) / SHARE).astype(np.float32))

    return classify


def _convolution(layer: Layer, values: Values) -> Values:
    assert isinstance(layer, Convolution)
    windows = _windows(values, layer.kernel, layer.stride, layer.padding, layer.source.zero_point)
    if layer.depthwise:
        sums = np.einsum("bxyckl,ckl->bxyc", windows, layer.weight[..., 0], dtype=np.int64)
    else:
        patches = windows.transpose(0, 1, 2, 4, 5, 3)  # as the weight lies: kernel rows, kernel columns, channels
        sums = _product(patches.reshape(*patches.shape[:3], -1), layer.weight.reshape(len(layer.weight), -1))
    steps = scaled(sums + layer.bias, layer.factors) + layer.target.zero_point
    return np.clip(steps, layer.low, layer.high).astype(np.int8)


def _max_pool(layer: Layer, values: Values) -> Values:
    assert isinstance(layer, MaxPool)
    windows = _windows(values, layer.kernel, layer.stride, layer.padding, LOWEST)
    largest: Values = windows.max(axis=(-2, -1))
    return largest


def _means(layer: Layer, values: Values) -> Values:
    """`(B, 1, 1, outputs)`."""
    assert isinstance(layer, Means)
    responses = _responses(layer.table, values)  # (B, rows, columns, channels, bins)
    cells = [
        [responses[:, top:bottom, left:right].sum(axis=(1, 2)) for left, right in layer.column_cells]
        for top, bottom in layer.row_cells
    ]
    # (B, bins, rows, columns, channels)
    sums = (np.array(cells, np.int64).transpose(2, 4, 0, 1, 3) << layer.doublings) + layer.bias.astype(np.int64)
    steps = scaled(sums, layer.factors).transpose(0, 4, 1, 2, 3) + layer.target.zero_point
    return np.clip(steps, LOWEST, HIGHEST).astype(np.int8).reshape(len(values), 1, 1, -1)


def _responses(table: NDArray[np.uint16] | None, values: Values) -> NDArray[np.int64]:
    """What a table says of each of `values (..., channels)`, or they themselves: `(..., channels, bins)`."""
    if table is None:
        return values.astype(np.int64)[..., None]
    channels = np.arange(values.shape[-1]) if len(table) > 1 else 0
    return table[channels, values.astype(np.int64) - LOWEST].astype(np.int64)


def _maxima(layer: Layer, values: Values) -> Values:
    assert isinstance(layer, Maxima)
    return _vector(layer, values.max(axis=(1, 2)).astype(np.int64) << layer.doublings)


def _deviations(layer: Layer, values: Values) -> Values:
    assert isinstance(layer, Deviations)
    sums = values.astype(np.int64).sum(axis=2)  # (B, rows, channels)
    squares = sums.shape[1] * (sums * sums).sum(axis=1) - sums.sum(axis=1) ** 2
    roots = np.vectorize(isqrt, otypes=[np.int64])(squares << (2 * layer.doublings))
    return _vector(layer, np.maximum(roots, layer.least))


def _vector(layer: Maxima | Deviations, sums: NDArray[np.int64]) -> Values:
    """`(B, channels)` rounded: `(B, 1, 1, channels)`."""
    steps = scaled(sums + layer.bias, layer.factors) + layer.target.zero_point
    return np.clip(steps, LOWEST, HIGHEST).astype(np.int8)[:, None, None]


def _lookup(layer: Layer, values: Values) -> Values:
    assert isinstance(layer, Lookup)
    channels = np.arange(values.shape[-1]) if len(layer.table) > 1 else 0
    found: Values = layer.table[channels, values.astype(np.int64) - LOWEST]
    return found


def _addition(layer: Layer, values: Values, others: Values) -> Values:
    assert isinstance(layer, Addition)
    first, second = layer.mantissas
    sums = layer.bias + first * values.astype(np.int64) + second * others.astype(np.int64)
    return np.clip(sums >> layer.exponent, layer.low, layer.high).astype(np.int8)


def _product_of_maps(layer: Layer, values: Values, others: Values) -> Values:
    assert isinstance(layer, Product)
    first, second = layer.tables.astype(np.int64)
    products = first[values.astype(np.int64) - LOWEST] * second[others.astype(np.int64) - LOWEST]
    steps = scaled(products, layer.factors) + layer.target.zero_point
    return np.clip(steps, layer.low, layer.high).astype(np.int8)


_RULES: dict[type, Callable[..., Values]] = {
    Convolution: _convolution,
    MaxPool: _max_pool,
    Means: _means,
    Maxima: _maxima,
    Deviations: _deviations,
    Lookup: _lookup,
    Addition: _addition,
    Product: _product_of_maps,
}


def _product(values: NDArray[np.int8], weight: NDArray[np.int8]) -> NDArray[np.int64]:
    return (values.astype(np.float64) @ weight.astype(np.float64).T).astype(np.int64)


def _windows(
    values: Values, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int], beyond: int
) -> Values:
    """`(B, rows, columns, channels)` -> `(B, rows', columns', channels, kernel rows, kernel columns)`."""
    top, bottom, left, right = padding
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=beyond)
    windows = sliding_window_view(padded, kernel, axis=(1, 2))
    return windows[:, :: stride[0], :: stride[1]]
