"""Integer networks of random layers: all shapes, strides, paddings, scales, and values at the ends of their range.

Channels go beyond the 16 that a vector of Helium holds, sums to the ends of 32 bits, factors from nothing at all to
what shifts a sum to the left by all the bits that it leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekd.microcontrollers.integer.fixed_point import CONVOLUTION_EXPONENT, LARGEST_EXPONENT, Factors, factors
from edgekd.microcontrollers.integer.layers import (
    LOGIT_BITS,
    SHARE,
    Classifier,
    Convolution,
    IntegerNetwork,
    Layer,
    Map,
    MaxPool,
    Means,
)

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
        layer = random.choice(np.array([_convolution, _depthwise, _max_pool]))(random, source, f"map{number}")
        layers.append(layer)
    sources = [layers[-1].target if layers else entry, entry][: int(random.integers(1, 3))]
    parts = [_means(random, source) for source in sources]
    joined = Map("joined", 1, 1, sum(part(entry, 0).outputs for part in parts), 1.0, _zero_point(random))
    start = 0
    for part in parts:
        means = part(joined, start)
        layers.append(means)
        start += means.outputs
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


def _means(random: Generator, source: Map) -> Callable[[Map, int], Means]:
    cells = [
        [(0, size)] if random.random() < 0.5 else [(0, size - size // 2), (size // 2, size)]
        for size in (source.rows, source.columns)
    ]
    table = None
    if random.random() < 0.5:
        shape = (int(random.choice([1, source.channels])), 256, int(random.integers(1, 6)))
        table = random.integers(0, SHARE + 1, shape).astype(np.uint16)
    places = prod(stop - start for (start, stop), *_ in cells)
    most = 128 if table is None else SHARE
    bias = random.integers(-most, most, source.channels).astype(np.int32)
    by = _factors(random, source.channels, places + 1, most)
    return lambda target, start: Means(source, target, start, tuple(cells[0]), tuple(cells[1]), table, bias, by)
