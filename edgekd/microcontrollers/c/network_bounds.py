"""Whether the layers of an `edgekd_network` keep the C inside of its arrays and its memory.

The arrays are compared with what is read of them, and the memory with the one that is planned anew for the same layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import GateError
from edgekd.microcontrollers.c.constants import beyond_weights
from edgekd.microcontrollers.c.definitions import enumerated, has_length, need
from edgekd.microcontrollers.integer.fixed_point import LARGEST_EXPONENT, Factors
from edgekd.microcontrollers.integer.layers import (
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
    Summary,
)
from edgekd.microcontrollers.integer.memory import LARGEST_KERNEL, SLACK, padded, plan, sums_of

_NO_WEIGHT = -128  # no layer has it: sums of two products of others have 16 bits
_MOST_STEPS = 20_000_000  # of the plan: a network of 30 layers and 1,000 frames takes 1,000,000
_NO_FACTORS = Factors(np.zeros(0, np.int32), 0)
_NONE = np.zeros(0, np.int32)
_LEAST_EXPONENT = -30  # sums are shifted to the left by at most a word


def check_network(network: SimpleNamespace, sizes: Mapping[str, int]) -> None:
    """Raise `ValueError`, with what is wrong, where the layers of an `edgekd_network` would lead the C astray."""
    maps, layers = network.map or [], network.layer or []
    need(0 < network.maps == len(maps) and network.layers == len(layers), "maps or layers are not as many as it says")
    need(network.source < len(maps) and network.classes == sizes["CLASSES"], "EDGEKD_CLASSES is not .classes")
    need(network.memory_bytes == 4 * sizes["MEMORY_WORDS"], "EDGEKD_MEMORY_WORDS is not .memory_bytes")
    places = [
        Map(str(number), each.rows, each.columns, each.channels, 1.0, each.zero_point)
        for number, each in enumerate(maps)
    ]
    for each in places:
        need(min(each.shape) > 0, f"map {each.name} has no values")
    entry, last = places[0], places[network.source]
    frames = sizes["FRAMES"] // sizes["FRAMES_PER_STEP"]
    taken = entry.columns * entry.channels
    need(entry.rows == frames and taken == sizes["BINS"], "the first map is not that of the log-mel")
    need(last.rows == last.columns == 1, "the classifier reads a map that is no vector")
    has_length(network.weights, network.classes * padded(last.channels), "the classifier's weights")
    has_length(network.parameters, 2 * network.classes, "the classifier's parameters")
    need(_LEAST_EXPONENT <= network.exponent <= LARGEST_EXPONENT, "the classifier's exponent is out of range")
    made = [_layer(each, maps, places, f"layer {number}") for number, each in enumerate(layers)]
    need({0, *(each.target for each in layers)} == set(range(len(maps))), "a map is written by no layer")
    steps = (sum(each.rows for each in places) + sum(each.source.rows for each in made)) * len(made)
    need(steps <= _MOST_STEPS, "it has more rows and layers than can be")
    weight = _shape(network.classes, last.channels)
    try:
        memory = plan(IntegerNetwork(entry, tuple(made), Classifier(last, weight, _NONE, _NO_FACTORS)))
    except GateError as refused:
        raise ValueError(str(refused).split(":", 1)[-1].strip()) from None
    used: list[tuple[int, int, str]] = []
    for ring in memory.rings:
        name, each = f"map {ring.map.name}", maps[int(ring.map.name)]
        length = (each.left + each.columns + each.right) * each.channels
        need(each.ring >= ring.rows, f"{name} keeps {each.ring} rows where {ring.rows} are needed")
        need(each.left >= ring.left and each.right >= ring.right, f"{name} has too few columns of padding")
        need(each.parts == ring.parts, f"{name} is written in {ring.parts} parts, not {each.parts}")
        need(each.parts * each.rows < 1 << 16, f"{name} has too many rows")
        if ring.padded or each.beyond is not None:
            need(each.beyond is not None and len(each.beyond) >= length + SLACK, f"{name} has no row of padding")
        used.append((each.place, each.place + padded(each.ring * length), name))
    for number, (layer, each) in enumerate(zip(made, layers, strict=True)):
        if isinstance(layer, Summary):
            used.append((each.place, each.place + 4 * sums_of(layer), f"the sums of layer {number}"))
    progress = padded(2 * (len(maps) + 2 * len(layers)))
    used.append((network.progress, network.progress + progress, "the progress"))
    used.append((network.scratch, network.scratch + memory.size - memory.scratch, "what lies under the kernels"))
    _apart(sorted(used), network.memory_bytes)
    begin = maps[-1].place + maps[-1].ring * (maps[-1].left + maps[-1].columns + maps[-1].right) * maps[-1].channels
    cleared = [start for start, _, what in used if what.startswith(("the sums", "the progress"))]
    need(begin <= min(cleared) and max(cleared) < network.scratch, "sums or progress are not where they are cleared")
    rings = max(each.place + each.ring * (each.left + each.columns + each.right) * each.channels for each in maps)
    need(rings + SLACK <= network.memory_bytes, "nothing lies behind the rows of the last map")


def _apart(used: list[tuple[int, int, str]], size: int) -> None:
    """That places in the memory are of whole words, inside of it, and of one thing alone."""
    end = 0
    for start, stop, what in used:
        need(start % 4 == 0, f"{what} begins at no whole word")
        need(start >= end, f"{what} lies where something else does")
        need(stop <= size, f"{what} reaches beyond the memory")
        end = stop


def _layer(layer: SimpleNamespace, maps: list[SimpleNamespace], places: list[Map], name: str) -> Layer:
    """The layer as it is planned for, once its arrays are as long as what is read of them."""
    need(layer.source < layer.target < len(places), f"{name} goes from map {layer.source} to {layer.target}")
    need(layer.other < layer.target, f"{name} goes from map {layer.other} to {layer.target}")
    source, target = places[layer.source], places[layer.target]
    least = 0 if layer.kind == enumerated()["EDGEKD_ADD"] else _LEAST_EXPONENT
    need(
        least <= layer.exponent <= LARGEST_EXPONENT and layer.low <= layer.high, f"{name} has an exponent out of range"
    )
    kinds = {enumerated()[f"EDGEKD_{kind}"]: made for kind, made in _MADE.items()}
    need(layer.kind in kinds, f"{name} is of no kind")
    made = kinds[layer.kind]
    return _window(layer, maps, source, target, name) if made is None else made(layer, places, source, target, name)


def _window(layer: SimpleNamespace, maps: list[SimpleNamespace], source: Map, target: Map, name: str) -> Layer:
    kernel, stride = (layer.kernel_rows, layer.kernel_columns), (layer.stride_rows, layer.stride_columns)
    need(min(kernel) > 0 and min(stride) > 0, f"{name} has a kernel or a stride of 0")
    need(kernel[0] <= LARGEST_KERNEL, f"{name} has a kernel of {kernel[0]} rows")
    need(layer.left <= maps[layer.source].left, f"{name} has more padding than its map")
    rows = _reach(source.rows, target.rows, kernel[0], stride[0], layer.top, f"{name}: rows")
    columns = _reach(source.columns, target.columns, kernel[1], stride[1], layer.left, f"{name}: columns")
    padding = (layer.top, rows, layer.left, columns)
    if layer.kind == enumerated()["EDGEKD_MAX_POOL"]:
        need(source.channels == target.channels, f"{name} makes other channels than it has")
        return MaxPool(source, target, kernel, stride, padding)
    depthwise = layer.kind == enumerated()["EDGEKD_DEPTHWISE"]
    if depthwise:
        need(source.channels == target.channels, f"{name} makes other channels than it has")
        has_length(layer.weights, padded(target.channels) * kernel[0] * kernel[1], f"{name}: weights")
    else:
        each = kernel[0] * padded(kernel[1] * source.channels)
        least = target.channels * each
        filled = least + beyond_weights(each)  # older bundles have no zeros behind their weights
        has_length(layer.weights, least if np.size(layer.weights) == least else filled, f"{name}: weights")
    need(layer.weights.min() > _NO_WEIGHT, f"{name} has a weight of {_NO_WEIGHT}")
    has_length(layer.parameters, 2 * target.channels, f"{name}: parameters")
    weight = _shape(target.channels, *kernel, 1 if depthwise else source.channels)
    return Convolution(
        source, target, weight, _NONE, _NO_FACTORS, stride, padding, layer.low, layer.high, depthwise=depthwise
    )


def _reach(have: int, made: int, kernel: int, stride: int, before: int, name: str) -> int:
    """How much padding follows `have` rows or columns, of which `made` are made."""
    after = (made - 1) * stride - before + kernel - have
    need(before <= kernel and after <= kernel and after > -stride, f"{name} are {made}, which {have} do not give")
    return max(after, 0)


def _means(layer: SimpleNamespace, _places: list[Map], source: Map, target: Map, name: str) -> Means:
    bins, rows, columns = layer.bins, layer.row_cells, layer.column_cells
    need(min(bins, rows, columns) > 0, f"{name} has no cells")
    need(target.rows == target.columns == 1, f"{name} makes no vector")
    need(
        layer.start + source.channels * bins * rows * columns <= target.channels, f"{name} makes more than its map has"
    )
    for edges, cells, most in ((layer.row_edges, rows, source.rows), (layer.column_edges, columns, source.columns)):
        has_length(edges, 2 * cells, f"{name}: edges of cells")
        need((edges <= most).all(), f"{name} has a cell beyond its map")
    table = None
    if layer.table is None:
        need(bins == 1, f"{name} has bins without a table")
    else:
        channels = 1 if layer.shared else source.channels
        has_length(layer.table, channels * 256 * bins, f"{name}: table")
        table = layer.table.reshape(channels, 256, bins)
    has_length(layer.parameters, 2 * source.channels, f"{name}: parameters")
    cells = [[tuple(pair) for pair in edges.reshape(-1, 2).tolist()] for edges in (layer.row_edges, layer.column_edges)]
    return Means(source, target, layer.start, tuple(cells[0]), tuple(cells[1]), table, _NONE, _NO_FACTORS)


def _extent(layer: SimpleNamespace, _places: list[Map], source: Map, target: Map, name: str) -> Layer:
    need(target.rows == target.columns == 1, f"{name} makes no vector")
    need(layer.start + source.channels <= target.channels, f"{name} makes more than its map has")
    has_length(layer.parameters, 2 * source.channels, f"{name}: parameters")
    if layer.kind == enumerated()["EDGEKD_MAXIMA"]:
        return Maxima(source, target, layer.start, _NONE, _NO_FACTORS)
    need(layer.doublings < 32, f"{name} doubles a root too often")
    return Deviations(source, target, layer.start, _NONE, _NO_FACTORS, layer.least, layer.doublings)


def _look_up(layer: SimpleNamespace, _places: list[Map], source: Map, target: Map, name: str) -> Lookup:
    _same_places(source, target, name)
    need(layer.start + source.channels <= target.channels, f"{name} makes more than its map has")
    channels = 1 if layer.shared else source.channels
    has_length(layer.weights, channels * 256, f"{name}: table")
    return Lookup(source, target, layer.start, _shape(channels, 256))


def _of_two(layer: SimpleNamespace, places: list[Map], source: Map, target: Map, name: str) -> Layer:
    other = places[layer.other]
    _same_places(source, target, name)
    need(source.channels == target.channels and layer.start == 0, f"{name} makes other channels than it has")
    single = (1, 1, source.channels)
    if layer.kind == enumerated()["EDGEKD_ADD"]:
        need(other.shape == source.shape, f"{name} adds a map of another shape")
        has_length(layer.parameters, 3, f"{name}: parameters")
        return Addition(source, other, target, 0, (0, 0), layer.exponent, layer.low, layer.high)
    need(other.shape in (source.shape, single), f"{name} multiplies by a map of another shape")
    has_length(layer.parameters, 2, f"{name}: parameters")
    has_length(layer.table, 512, f"{name}: table")
    return Product(source, other, target, layer.table, _NO_FACTORS, layer.low, layer.high)


def _same_places(source: Map, target: Map, name: str) -> None:
    need(source.shape[:2] == target.shape[:2], f"{name} makes other rows or columns than it has")


_MADE: dict[str, Callable[[SimpleNamespace, list[Map], Map, Map, str], Layer] | None] = {
    "CONVOLUTION": None,
    "DEPTHWISE": None,
    "MAX_POOL": None,
    "MEANS": _means,
    "MAXIMA": _extent,
    "DEVIATIONS": _extent,
    "LOOK_UP": _look_up,
    "ADD": _of_two,
    "MULTIPLY": _of_two,
}
"""What makes the layer of each kind that is no window on rows."""


def _shape(*sizes: int) -> NDArray[np.int8]:
    """A weight of these sizes, which takes no memory."""
    return np.broadcast_to(np.int8(0), sizes)
