"""Whether the numbers of a model keep the C inside of its arrays and its memory.

The C trusts its constants: a place, a size or a number of rows that is wrong has it read and write elsewhere. A
bundle may come from anybody, and its constants are compiled and run here. So they are read back (`definitions`), every
array is compared with what is read of it, and the memory with the one that is planned anew for the same layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgekd.errors import GateError, InputError
from edgekd.microcontrollers.c.definitions import enumerated, read
from edgekd.microcontrollers.c.front_end import LARGEST_RADIX
from edgekd.microcontrollers.c.model import HEADER, MODEL, header_of, sizes_of, state_bytes
from edgekd.microcontrollers.c.packages import model_in
from edgekd.microcontrollers.integer.fixed_point import LARGEST_EXPONENT, Factors
from edgekd.microcontrollers.integer.layers import (
    Classifier,
    Convolution,
    IntegerNetwork,
    Layer,
    Map,
    MaxPool,
    Means,
)
from edgekd.microcontrollers.integer.memory import LARGEST_KERNEL, SLACK, padded, plan

LOG_MEL, NETWORK = "edgekd_model_log_mel", "edgekd_model_network"
_EXPECTED = {LOG_MEL: "edgekd_log_mel", NETWORK: "edgekd_network"}
LARGEST_STATE = 1 << 28  # bytes of an edgekd_t: a board has less
_MOST_SAMPLES = 1 << 30  # of a window, whose frames are counted in 32 bits
_MOST_STEPS = 20_000_000  # of the plan: a network of 30 layers and 1,000 frames takes 1,000,000
_NO_FACTORS = Factors(np.zeros(0, np.int32), 0)
_NONE = np.zeros(0, np.int32)


def read_model(folder: Path) -> dict[str, str]:
    """The constants of the bundle in `folder`, by file, once they are numbers that the C may be trusted with.

    Raises `InputError` for others: they are compiled, and what they are compiled with is run.
    """
    try:
        model = model_in(folder)
    except UnicodeDecodeError:
        raise InputError(f"{folder}: its constants are no text. Export the bundle again.") from None
    check_model(model, folder)
    return model


def check_model(model: Mapping[str, str], place: object) -> None:
    """Raise `InputError` where constants of the bundle in `place` are more than numbers, or would lead the C astray."""
    sizes = sizes_of(model[HEADER])
    hop = sizes.pop("HOP_SAMPLES", 0)
    if model[HEADER] not in (header_of(sizes, hop), header_of(sizes, hop, for_cpp=False)):
        raise InputError(f"{place}: {HEADER} is not one that this edgekd wrote. Export the bundle again.")
    begin = f'#include "{HEADER}"\n\n'
    try:
        _need(model[MODEL].startswith(begin), f"it does not begin with {begin.strip()}")
        _check(read(model[MODEL][len(begin) :], _EXPECTED), {**sizes, "HOP_SAMPLES": hop})
    except ValueError as wrong:
        raise InputError(
            f"{place}: {MODEL} is not one that this edgekd wrote: {wrong}. Export the bundle again."
        ) from None


def _check(found: Mapping[str, SimpleNamespace], sizes: Mapping[str, int]) -> None:
    _windows(sizes)
    state = state_bytes(sizes)
    _need(state <= LARGEST_STATE, f"an edgekd_t of {state:,} bytes is none that a board has")
    _log_mel(found[LOG_MEL], sizes)
    check_network(found[NETWORK], sizes)


def _need(true: object, what: str) -> None:
    if not true:
        raise ValueError(what)


def _long(array: Any, length: int, what: str) -> None:
    """That a pointer leads to an array of `length` numbers."""
    have = 0 if array is None else len(array)
    _need(have == length, f"{what} has {have:,} numbers where {length:,} are read")


def _windows(sizes: Mapping[str, int]) -> None:
    """Frames lie in their window, but for the half of one at its ends that is reflected."""
    named = ("CLASSES", "WINDOW_SAMPLES", "FRAME_SAMPLES", "FRAME_HOP", "FRAMES", "FRAMES_PER_STEP", "BINS")
    missing = [name for name in (*named, "HOP_SAMPLES", "SPECTRUM", "MEMORY_WORDS") if sizes.get(name, 0) < 1]
    _need(not missing, f"EDGEKD_{''.join(missing[:1])} is missing or 0")
    window, length, hop = sizes["WINDOW_SAMPLES"], sizes["FRAME_SAMPLES"], sizes["FRAME_HOP"]
    half = length // 2 if sizes.get("CENTRED", 0) else 0
    last = (sizes["FRAMES"] - 1) * hop
    _need(window <= _MOST_SAMPLES and sizes["HOP_SAMPLES"] <= _MOST_SAMPLES, "a window has too many samples")
    _need(sizes["FRAMES"] % sizes["FRAMES_PER_STEP"] == 0, "EDGEKD_FRAMES is no multiple of EDGEKD_FRAMES_PER_STEP")
    _need(last + length - 2 * half <= window + (length % 2 if half else 0), "EDGEKD_FRAMES reach beyond the window")
    _need(half < window, "a frame is longer than the window")


def _log_mel(log_mel: SimpleNamespace, sizes: Mapping[str, int]) -> None:
    points, mels, length = log_mel.points, log_mel.mels, log_mel.window_length
    _need(2 * points + 2 == sizes["SPECTRUM"], "EDGEKD_SPECTRUM is not that of .points")
    _need(length == sizes["FRAME_SAMPLES"] and length <= 2 * points, "EDGEKD_FRAME_SAMPLES is not .window_length")
    steps = mels // max(log_mel.bins_per_step, 1)
    _need(steps * log_mel.bins_per_step == mels and steps == sizes["BINS"], "EDGEKD_BINS is not that of .mels")
    _long(log_mel.radices, log_mel.stages, "radices")
    product, twiddles = 1, 0
    for radix in log_mel.radices.tolist():
        _need(2 <= radix <= LARGEST_RADIX, f"a stage of radix {radix}")
        twiddles += 2 * (radix - 1) * product + (0 if radix in (2, 4) else 2 * radix)
        product *= radix
    _need(product == points, "the product of the radices is not .points")
    for name, count in (
        ("order", points),
        ("window", length),
        ("twiddles", twiddles),
        ("rotations", 2 * (points // 2 + 1)),
        ("first", mels),
        ("count", mels),
        ("factor", steps),
        ("offset", steps),
    ):
        _long(getattr(log_mel, name), count, name)
    _need((log_mel.order < points).all(), "order has a place beyond .points")
    reach = log_mel.first.astype(np.int64) + log_mel.count
    _need((reach <= points + 1).all(), "a filter hears bins beyond the spectrum")
    _long(log_mel.filters, int(log_mel.count.sum(dtype=np.int64)), "filters")


def check_network(network: SimpleNamespace, sizes: Mapping[str, int]) -> None:
    """Raise `ValueError`, with what is wrong, where the layers of an `edgekd_network` would lead the C astray."""
    maps, layers = network.map or [], network.layer or []
    _need(0 < network.maps == len(maps) and network.layers == len(layers), "maps or layers are not as many as it says")
    _need(network.source < len(maps) and network.classes == sizes["CLASSES"], "EDGEKD_CLASSES is not .classes")
    _need(network.memory_bytes == 4 * sizes["MEMORY_WORDS"], "EDGEKD_MEMORY_WORDS is not .memory_bytes")
    places = [
        Map(str(number), each.rows, each.columns, each.channels, 1.0, each.zero_point)
        for number, each in enumerate(maps)
    ]
    for each in places:
        _need(min(each.shape) > 0, f"map {each.name} has no values")
    entry, last = places[0], places[network.source]
    frames = sizes["FRAMES"] // sizes["FRAMES_PER_STEP"]
    taken = entry.columns * entry.channels
    _need(entry.rows == frames and taken == sizes["BINS"], "the first map is not that of the log-mel")
    _need(last.rows == last.columns == 1, "the classifier reads a map that is no vector")
    _long(network.weights, network.classes * padded(last.channels), "the classifier's weights")
    _long(network.parameters, 2 * network.classes, "the classifier's parameters")
    _need(-30 <= network.exponent <= LARGEST_EXPONENT, "the classifier's exponent is out of range")
    made = [_layer(each, maps, places, f"layer {number}") for number, each in enumerate(layers)]
    _need({0, *(each.target for each in layers)} == set(range(len(maps))), "a map is written by no layer")
    steps = (sum(each.rows for each in places) + sum(each.source.rows for each in made)) * len(made)
    _need(steps <= _MOST_STEPS, "it has more rows and layers than can be")
    weight = _shape(network.classes, last.channels)
    try:
        memory = plan(IntegerNetwork(entry, tuple(made), Classifier(last, weight, _NONE, _NO_FACTORS)))
    except GateError as refused:
        raise ValueError(str(refused).split(":", 1)[-1].strip()) from None
    used: list[tuple[int, int, str]] = []
    for ring in memory.rings:
        name, each = f"map {ring.map.name}", maps[int(ring.map.name)]
        length = (each.left + each.columns + each.right) * each.channels
        _need(each.ring >= ring.rows, f"{name} keeps {each.ring} rows where {ring.rows} are needed")
        _need(each.left >= ring.left and each.right >= ring.right, f"{name} has too few columns of padding")
        _need(each.parts == ring.parts, f"{name} is written in {ring.parts} parts, not {each.parts}")
        _need(each.parts * each.rows < 1 << 16, f"{name} has too many rows")
        if ring.padded or each.beyond is not None:
            _need(each.beyond is not None and len(each.beyond) >= length + SLACK, f"{name} has no row of padding")
        used.append((each.place, each.place + padded(each.ring * length), name))
    for number, (layer, each) in enumerate(zip(made, layers, strict=True)):
        if isinstance(layer, Means):
            used.append((each.place, each.place + 4 * layer.outputs, f"the sums of layer {number}"))
    progress = padded(2 * (len(maps) + 2 * len(layers)))
    used.append((network.progress, network.progress + progress, "the progress"))
    used.append((network.scratch, network.scratch + memory.size - memory.scratch, "what lies under the kernels"))
    _apart(sorted(used), network.memory_bytes)
    rings = max(each.place + each.ring * (each.left + each.columns + each.right) * each.channels for each in maps)
    _need(rings + SLACK <= network.memory_bytes, "nothing lies behind the rows of the last map")


def _apart(used: list[tuple[int, int, str]], size: int) -> None:
    """That places in the memory are of whole words, inside of it, and of one thing alone."""
    end = 0
    for start, stop, what in used:
        _need(start % 4 == 0, f"{what} begins at no whole word")
        _need(start >= end, f"{what} lies where something else does")
        _need(stop <= size, f"{what} reaches beyond the memory")
        end = stop


def _layer(layer: SimpleNamespace, maps: list[SimpleNamespace], places: list[Map], name: str) -> Layer:
    """The layer as it is planned for, once its arrays are as long as what is read of them."""
    _need(layer.source < layer.target < len(places), f"{name} goes from map {layer.source} to {layer.target}")
    source, target = places[layer.source], places[layer.target]
    _need(-30 <= layer.exponent <= LARGEST_EXPONENT and layer.low <= layer.high, f"{name} has an exponent out of range")
    if layer.kind == enumerated()["EDGEKD_MEANS"]:
        return _means(layer, source, target, name)
    kernel, stride = (layer.kernel_rows, layer.kernel_columns), (layer.stride_rows, layer.stride_columns)
    _need(min(kernel) > 0 and min(stride) > 0, f"{name} has a kernel or a stride of 0")
    _need(kernel[0] <= LARGEST_KERNEL, f"{name} has a kernel of {kernel[0]} rows")
    _need(layer.left <= maps[layer.source].left, f"{name} has more padding than its map")
    rows = _reach(source.rows, target.rows, kernel[0], stride[0], layer.top, f"{name}: rows")
    columns = _reach(source.columns, target.columns, kernel[1], stride[1], layer.left, f"{name}: columns")
    padding = (layer.top, rows, layer.left, columns)
    if layer.kind == enumerated()["EDGEKD_MAX_POOL"]:
        _need(source.channels == target.channels, f"{name} makes other channels than it has")
        return MaxPool(source, target, kernel, stride, padding)
    depthwise = layer.kind == enumerated()["EDGEKD_DEPTHWISE"]
    _need(depthwise or layer.kind == enumerated()["EDGEKD_CONVOLUTION"], f"{name} is of no kind")
    if depthwise:
        _need(source.channels == target.channels, f"{name} makes other channels than it has")
        _long(layer.weights, padded(target.channels) * kernel[0] * kernel[1], f"{name}: weights")
    else:
        _long(layer.weights, target.channels * kernel[0] * padded(kernel[1] * source.channels), f"{name}: weights")
    _long(layer.parameters, 2 * target.channels, f"{name}: parameters")
    weight = _shape(target.channels, *kernel, 1 if depthwise else source.channels)
    return Convolution(
        source, target, weight, _NONE, _NO_FACTORS, stride, padding, layer.low, layer.high, depthwise=depthwise
    )


def _reach(have: int, made: int, kernel: int, stride: int, before: int, name: str) -> int:
    """How much padding follows `have` rows or columns, of which `made` are made."""
    after = (made - 1) * stride - before + kernel - have
    _need(before <= kernel and after <= kernel and after > -stride, f"{name} are {made}, which {have} do not give")
    return max(after, 0)


def _means(layer: SimpleNamespace, source: Map, target: Map, name: str) -> Means:
    bins, rows, columns = layer.bins, layer.row_cells, layer.column_cells
    _need(min(bins, rows, columns) > 0, f"{name} has no cells")
    _need(target.rows == target.columns == 1, f"{name} makes no vector")
    _need(
        layer.start + source.channels * bins * rows * columns <= target.channels, f"{name} makes more than its map has"
    )
    for edges, cells, most in ((layer.row_edges, rows, source.rows), (layer.column_edges, columns, source.columns)):
        _long(edges, 2 * cells, f"{name}: edges of cells")
        _need((edges <= most).all(), f"{name} has a cell beyond its map")
    table = None
    if layer.table is None:
        _need(bins == 1, f"{name} has bins without a table")
    else:
        channels = 1 if layer.shared else source.channels
        _long(layer.table, channels * 256 * bins, f"{name}: table")
        table = layer.table.reshape(channels, 256, bins)
    _long(layer.parameters, 2 * source.channels, f"{name}: parameters")
    cells = [[tuple(pair) for pair in edges.reshape(-1, 2).tolist()] for edges in (layer.row_edges, layer.column_edges)]
    return Means(source, target, layer.start, tuple(cells[0]), tuple(cells[1]), table, _NONE, _NO_FACTORS)


def _shape(*sizes: int) -> Any:
    """A weight of these sizes, which takes no memory."""
    return np.broadcast_to(np.int8(0), sizes)
