"""Integer networks of random layers: all shapes, strides, paddings, scales, and values at the ends of their range.

Channels go beyond the 16 that a vector of Helium holds, sums to the ends of 32 bits, factors from nothing at all to
what shifts a sum to the left by all the bits that it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekd.microcontrollers.integer.fixed_point import CONVOLUTION_EXPONENT, LARGEST_EXPONENT, Factors, factors
from edgekd.microcontrollers.integer.layers import (
    LOGIT_BITS,
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
)
from edgekd.microcontrollers.integer.sums import addition, summary
from edgekd.microcontrollers.integer.values import Added, DeviationsOf

Values = NDArray[np.int8]


def random_network(random: Generator) -> tuple[IntegerNetwork, Values]:
    """A network of up to four layers before its means, and a window of `(rows, columns, channels)` for it."""
    rows, columns, channels = int(random.integers(1, 14)), int(random.integers(1, 11)), _channels(random, 9)
    kind = random.random()
    if kind < 0.4:  # some cores have code of their own for whole words
        columns, channels = columns + 3, 4 * (1 + channels // 2)
    elif kind < 0.55:  # and for one channel
        columns, channels = columns + 6, 1
    entry = _map("entry", random, rows, columns, channels)
    layers: list[Layer] = []
    for number in range(random.integers(0, 5)):
        source = layers[-1].target if layers and random.random() < 0.85 else entry
        kinds = [_convolution, _depthwise, _max_pool, _lookup, _residual, _joined, _excited]
        made = random.choice(np.array(kinds), p=[0.25, 0.25, 0.15, 0.1, 0.1, 0.1, 0.05])(random, source, f"map{number}")
        layers += made if isinstance(made, list) else [made]
    sources = [layers[-1].target if layers else entry, entry][: int(random.integers(1, 3))]
    parts = [
        random.choice(np.array([_means, _maxima, _deviations]), p=[0.6, 0.2, 0.2])(random, source) for source in sources
    ]
    joined = Map("joined", 1, 1, sum(part(entry, 0).outputs for part in parts), 1.0, _zero_point(random))
    start = 0
    for part in parts:
        layers.append(part(joined, start))
        start += part(joined, start).outputs
    classes, several = int(random.integers(2, 7)), bool(random.random() < 0.3)
    weight = _weight(random, (classes, joined.channels))
    bias = random.integers(-50_000, 50_000, classes).astype(np.int32)
    by = factors(random.uniform(0.2, 1, classes) * 2.0 ** (LOGIT_BITS - 11) / joined.channels)
    network = IntegerNetwork(entry, tuple(layers), Classifier(joined, weight, bias, by, several))
    return network, _values(random, entry.shape)


def _map(name: str, random: Generator, *shape: int) -> Map:
    return Map(name, *shape, scale=1.0, zero_point=_zero_point(random))


def _channels(random: Generator, few: int) -> int:
    return int(random.integers(15, 38)) if random.random() < 0.15 else int(random.integers(1, few + 1))


def _zero_point(random: Generator) -> int:
    return int(random.choice([-128, 0, 0, random.integers(-128, 128)]))


def _values(random: Generator, shape: tuple[int, ...]) -> Values:
    kind = random.random()
    if kind < 0.1:
        return np.full(shape, random.choice([-128, 0, 127]), np.int8)
    if kind < 0.3:
        return random.choice(np.array([-128, 127], np.int8), shape)
    return random.integers(-128, 128, shape, dtype=np.int8)


def _weight(random: Generator, shape: tuple[int, ...]) -> Values:
    kind = random.random()
    if kind < 0.1:
        return np.zeros(shape, np.int8)
    if kind < 0.3:
        return random.choice(np.array([-127, 127], np.int8), shape)
    return random.integers(-127, 128, shape, dtype=np.int8)


def _window(random: Generator, source: Map) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """A kernel that fits, its stride, its padding."""
    if random.random() < 0.3 and min(source.rows, source.columns) > 1:
        return (3, 3), (int(random.integers(1, 3)), int(random.integers(1, 3))), (1, 1, 1, 1)
    kernel, padding = [], []
    for size in (source.rows, source.columns):
        if random.random() < 0.25:
            length, ends = 1, [0, 0]
        else:
            length = int(random.integers(1, 6))
            ends = [int(random.integers(0, length)) for _ in range(2)]
            ends[0] += max(0, length - size - sum(ends))
        kernel.append(length)
        padding.append(ends)
    stride = (int(random.integers(1, 4)), int(random.integers(1, 4)))
    return (kernel[0], kernel[1]), stride, (*padding[0], *padding[1])  # type: ignore[return-value]


def _slid(source: Map, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...]) -> tuple[int, int]:
    rows = (source.rows + padding[0] + padding[1] - kernel[0]) // stride[0] + 1
    return rows, (source.columns + padding[2] + padding[3] - kernel[1]) // stride[1] + 1


def _factors(random: Generator, channels: int, products: int, most: int) -> Factors:
    """Such that some results lie within the range and some beyond, or of any size at all, none among them; most with an
    exponent as convolutions have it."""
    kind, largest_exponent = random.random(), CONVOLUTION_EXPONENT if random.random() < 0.8 else LARGEST_EXPONENT
    if kind < 0.15:
        signs = random.choice([-1, 0, 1], channels)
        real = signs * np.exp2(random.uniform(-40, _most_places(most * products) - 3, channels))
    elif kind < 0.2:
        real = random.uniform(0.6, 0.99, channels) * np.exp2(_most_places(most * products) - 2)
    else:
        real = random.uniform(0.3, 3, channels) * 128 / (most * products**0.5)
    return factors(real, largest_exponent)


def _most_places(largest: int) -> int:
    """By how many a sum of that size may be shifted to the left."""
    return 30 - int(np.ceil(np.log2(largest + 1)))


def _bias(random: Generator, outputs: int, products: int, by: Factors) -> NDArray[np.int32]:
    """Small, or such that sums reach the ends of what fits."""
    room = min((2**31 - 2) >> by.left, 2**31 - 1) - products * 128 * 127
    assert room >= 20_000, "no such sum fits"
    if random.random() < 0.1:
        return random.choice(np.array([-room, room], np.int32), outputs)
    return random.integers(-20_000, 20_000, outputs).astype(np.int32)


def _convolution(random: Generator, source: Map, name: str, depthwise: bool = False) -> Convolution:
    kernel, stride, padding = _window(random, source)
    outputs = source.channels if depthwise else int(random.choice([_channels(random, 11), 4, 8]))
    inputs = 1 if depthwise else source.channels
    low, high = sorted(int(each) for each in random.integers(-128, 128, 2)) if random.random() < 0.3 else (-128, 127)
    products = prod(kernel) * inputs
    by = _factors(random, outputs, products + 2, 128 * 127)
    return Convolution(
        source=source,
        target=_map(name, random, *_slid(source, kernel, stride, padding), outputs),
        weight=_weight(random, (outputs, *kernel, inputs)),
        bias=_bias(random, outputs, products, by),
        factors=by,
        stride=stride,
        padding=padding,
        low=low,
        high=high,
        depthwise=depthwise,
    )


def _depthwise(random: Generator, source: Map, name: str) -> Convolution:
    return _convolution(random, source, name, depthwise=True)


def _max_pool(random: Generator, source: Map, name: str) -> MaxPool:
    kernel, stride, padding = _window(random, source)
    if source.zero_point != -128:
        rows, columns = min(kernel[0], source.rows), min(kernel[1], source.columns)
        kernel, padding = (rows, columns), (0, 0, 0, 0)
    target = Map(name, *_slid(source, kernel, stride, padding), source.channels, 1.0, source.zero_point)
    return MaxPool(source, target, kernel, stride, padding)


def _lookup(random: Generator, source: Map, name: str) -> Lookup:
    return _part(random, source, _map(name, random, *source.shape), 0)


def _part(random: Generator, source: Map, target: Map, start: int) -> Lookup:
    table = random.integers(-128, 128, (int(random.choice([1, source.channels])), 256), dtype=np.int8)
    return Lookup(source, target, start, table)


def _joined(random: Generator, source: Map, name: str) -> list[Layer]:
    """Two or three maps side by side, one of which lags behind."""
    layers: list[Layer] = [_convolution_of_that_size(random, source, f"{name}a")]
    parts = [source, layers[0].target, source][: int(random.integers(2, 4))]
    random.shuffle(parts)  # type: ignore[arg-type]
    target = _map(name, random, source.rows, source.columns, sum(part.channels for part in parts))
    start = 0
    for part in parts:
        layers.append(_part(random, part, target, start))
        start += part.channels
    return layers


def _excited(random: Generator, source: Map, name: str) -> list[Layer]:
    """A map times a number for each channel, which is known when the map is."""
    vector = _map(f"{name}v", random, 1, 1, source.channels)
    return [_means(random, source, whole=True)(vector, 0), _product(random, source, vector, name)]


def _residual(random: Generator, source: Map, name: str) -> list[Layer]:
    """A map and what a convolution makes of it, added or multiplied."""
    layer = _convolution_of_that_size(random, source, f"{name}a", source.channels)
    terms = [source, layer.target] if random.random() < 0.5 else [layer.target, source]
    combine = _product if random.random() < 0.3 else _addition
    return [layer, combine(random, *terms, name)]


def _convolution_of_that_size(random: Generator, source: Map, name: str, channels: int | None = None) -> Convolution:
    kernel = int(random.choice([1, 3, 5])), int(random.choice([1, 3]))
    outputs = channels or _channels(random, 11)
    products = prod(kernel) * source.channels
    by = _factors(random, outputs, products + 2, 128 * 127)
    return Convolution(
        source=source,
        target=_map(name, random, source.rows, source.columns, outputs),
        weight=_weight(random, (outputs, *kernel, source.channels)),
        bias=_bias(random, outputs, products, by),
        factors=by,
        stride=(1, 1),
        padding=(kernel[0] // 2, kernel[0] // 2, kernel[1] // 2, kernel[1] // 2),
        low=-128,
        high=127,
    )


def _addition(random: Generator, source: Map, other: Map, name: str) -> Addition:
    target = _map(name, random, *source.shape)
    scales = np.exp2(random.uniform(-12 if random.random() < 0.2 else -2, 2, 2))
    if random.random() < 0.1:
        scales = np.exp2([-40.0, random.uniform(-2, 15)])
    terms = replace(source, scale=float(scales[0])), replace(other, scale=float(scales[1]))
    layer = addition(Added(terms, relu=bool(random.random() < 0.5)), target)
    return replace(layer, source=source, other=other)


def _product(random: Generator, source: Map, other: Map, name: str) -> Product:
    target = _map(name, random, *source.shape)
    tables = random.integers(-(2**15) + 1, 2**15, (2, 256), dtype=np.int16)
    by = factors(random.choice([2.0**-40, 2.0**-23, 2.0**-22, 1e-3]))
    low, high = (target.zero_point, 127) if random.random() < 0.5 else (-128, 127)
    return Product(source, other, target, tables, by, low, high)


def _maxima(random: Generator, source: Map) -> Callable[[Map, int], Maxima]:
    doublings = int(random.integers(0, 17))
    by = _factors(random, source.channels, 2, 256 << doublings)
    bias = random.integers(-128 << doublings, 129 << doublings, source.channels).astype(np.int32)
    return lambda target, start: Maxima(source, target, start, bias, by, doublings)


def _deviations(random: Generator, source: Map) -> Callable[[Map, int], Deviations]:
    """In the units that a network has them in, or in none."""
    part = DeviationsOf(source, least=float(random.choice([0.0, 1.0, 1e6])))
    shift = random.uniform(-100, 100, source.channels)
    factor = float(np.exp2(random.uniform(-2, 8))) * random.choice([-1, 1], source.channels)

    def made(target: Map, start: int) -> Deviations:
        found = summary(part.scaled(factor, shift), target, start)
        assert isinstance(found, Deviations)
        return found

    return made


def _means(random: Generator, source: Map, whole: bool = False) -> Callable[[Map, int], Means]:
    cells = [
        [(0, size)] if whole or random.random() < 0.5 else [(0, size - size // 2), (size // 2, size)]
        for size in (source.rows, source.columns)
    ]
    table = None
    if not whole and random.random() < 0.5:
        shape = (int(random.choice([1, source.channels])), 256, int(random.integers(1, 6)))
        table = random.integers(0, SHARE + 1, shape).astype(np.uint16)
    places = prod(stop - start for (start, stop), *_ in cells)
    most = 128 if table is None else SHARE
    doublings = int(random.integers(0, 4))
    bias = random.integers(-most << doublings, most << doublings, source.channels).astype(np.int32)
    by = _factors(random, source.channels, places + 1, most << doublings)
    ends = tuple(cells[0]), tuple(cells[1])
    return lambda target, start: Means(source, target, start, *ends, table, bias, by, doublings)
