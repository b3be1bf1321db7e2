"""An integer network as constants of C: what `edgekd/device/c/edgekd_network.h` has structures for.

Weights lie as the kernels read them: those of an output side by side, each row of a kernel filled with zeros to whole
words; depthwise ones with four channels last.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgekd.microcontrollers.c.definitions import NUMBERS
from edgekd.microcontrollers.integer.fixed_point import Factors
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
    Means,
    Pointwise,
    sources,
)
from edgekd.microcontrollers.integer.memory import SLACK, Memory, padded

_TYPES = {dtype: kind for kind, dtype in NUMBERS.items()}
_LINE = 110
VECTOR = 16
"""Values that a kernel may read at once: of the last output's weights, zeros behind them among these."""


def network_constants(network: IntegerNetwork, memory: Memory, name: str) -> str:
    """The definitions that `const edgekd_network NAME` takes, and it."""
    maps = list(network.maps)
    beyond = {ring.beyond for ring in memory.rings if ring.padded}
    longest = max(ring.row_bytes for ring in memory.rings)
    parts = [
        array(f"{name}_beyond_{value + 128}", np.full(longest + SLACK, value, np.int8)) for value in sorted(beyond)
    ]
    layers = []
    for number, layer in enumerate(network.layers):
        arrays, fields = _layer(layer, maps, memory, number, f"{name}_{number}")
        parts += arrays
        layers.append(fields)
    classifier = network.classifier
    parts += [
        array(f"{name}_weights", _in_words(classifier.weight)),
        array(f"{name}_parameters", _pairs(classifier)),
        _structures("edgekd_map", f"{name}_maps", (_map(each, memory, name) for each in maps)),
        _structures("edgekd_layer", f"{name}_layers", layers),
        f"const edgekd_network {name} = {{\n"
        f"    .maps = {len(maps)}, .layers = {len(network.layers)}, .source = {maps.index(classifier.source)},"
        f" .classes = {len(classifier.weight)}, .several = {int(classifier.several)},\n"
        f"    .map = {name}_maps, .layer = {name}_layers,\n"
        f"    .weights = {name}_weights, .parameters = {name}_parameters,"
        f" .exponent = {classifier.factors.exponent},\n"
        f"    .progress = {memory.progress}, .scratch = {memory.scratch}, .memory_bytes = {memory.size},\n}};\n",
    ]
    return "\n".join(parts)


def array(name: str, values: NDArray[np.generic]) -> str:
    """A constant array of `values`, flattened; float32 in hexadecimal, so that each bit is kept."""
    kind = _TYPES[values.dtype]
    flat = values.ravel().tolist()
    words = [f"{float(value).hex()}f" for value in flat] if kind == "float" else [str(value) for value in flat]
    return f"static const {kind} {name}[{len(words)}] = {{\n{''.join(_lines(words))}}};\n"


def _lines(words: list[str]) -> Iterator[str]:
    line = ""
    for word in words:
        if len(line) + len(word) > _LINE:
            yield f"    {line.rstrip()}\n"
            line = ""
        line += f"{word}, "
    yield f"    {line.rstrip()}\n"


def _structures(kind: str, name: str, entries: Iterator[str] | list[str]) -> str:
    rows = "".join(f"    {{{entry}}},\n" for entry in entries)
    return f"static const {kind} {name}[] = {{\n{rows}}};\n"


def _map(each: Map, memory: Memory, name: str) -> str:
    ring = memory.ring(each)
    beyond = f"{name}_beyond_{ring.beyond + 128}" if ring.padded else "0"
    return (
        f".rows = {each.rows}, .columns = {each.columns}, .channels = {each.channels}, .left = {ring.left}, "
        f".right = {ring.right}, .ring = {ring.rows}, .parts = {ring.parts}, .zero_point = {each.zero_point}, "
        f".beyond = {beyond}, .place = {ring.place}"
    )


def _layer(layer: Layer, maps: list[Map], memory: Memory, number: int, name: str) -> tuple[list[str], str]:
    """Arrays, and the fields of the structure that names them."""
    read = [maps.index(source) for source in sources(layer)]
    ends = f".source = {read[0]}, .target = {maps.index(layer.target)}, .other = {read[-1]}"
    if isinstance(layer, Maxima | Deviations):
        return _extent(layer, ends, memory.sums[number], name)
    if isinstance(layer, Pointwise):
        return _pointwise(layer, ends, name)
    if isinstance(layer, Means):
        edges = {"row": layer.row_cells, "column": layer.column_cells}
        arrays = [array(f"{name}_{side}s", np.array(cells, np.uint16)) for side, cells in edges.items()]
        table, shared = "0", 0
        if layer.table is not None:
            arrays.append(array(f"{name}_table", layer.table))
            table, shared = f"{name}_table", int(len(layer.table) == 1)
        arrays.append(array(f"{name}_parameters", _pairs(layer)))
        return arrays, (
            f".kind = EDGEKD_MEANS, {ends}, .table = {table}, .bins = {layer.bins}, .start = {layer.start}, "
            f".shared = {shared}, .row_cells = {len(layer.row_cells)}, .column_cells = {len(layer.column_cells)}, "
            f".row_edges = {name}_rows, .column_edges = {name}_columns, .place = {memory.sums[number]}, "
            f".doublings = {layer.doublings}, "
            f"{_parameters(name, layer.factors)}"
        )
    window = (
        f"{ends}, .kernel_rows = {layer.kernel[0]}, .kernel_columns = {layer.kernel[1]}, "
        f".stride_rows = {layer.stride[0]}, .stride_columns = {layer.stride[1]}, .top = {layer.padding[0]}, "
        f".left = {layer.padding[2]}"
    )
    if not isinstance(layer, Convolution):
        return [], f".kind = EDGEKD_MAX_POOL, {window}"
    kind = "DEPTHWISE" if layer.depthwise else "CONVOLUTION"
    weights = _by_fours(layer.weight) if layer.depthwise else _in_vectors(layer.weight)
    arrays = [array(f"{name}_weights", weights), array(f"{name}_parameters", _pairs(layer))]
    return arrays, (
        f".kind = EDGEKD_{kind}, {window}, .low = {layer.low}, .high = {layer.high}, "
        f".weights = {name}_weights, {_parameters(name, layer.factors)}"
    )


def _extent(layer: Maxima | Deviations, ends: str, place: int, name: str) -> tuple[list[str], str]:
    fields = (
        f"{ends}, .start = {layer.start}, .place = {place}, .doublings = {layer.doublings}, "
        f"{_parameters(name, layer.factors)}"
    )
    kind = "MAXIMA"
    if isinstance(layer, Deviations):
        kind, fields = "DEVIATIONS", f"{fields}, .least = {layer.least}"
    return [array(f"{name}_parameters", _pairs(layer))], f".kind = EDGEKD_{kind}, {fields}"


def _pointwise(layer: Pointwise, ends: str, name: str) -> tuple[list[str], str]:
    if isinstance(layer, Lookup):
        shared = int(len(layer.table) == 1)
        fields = f"{ends}, .start = {layer.start}, .weights = {name}_table, .shared = {shared}"
        return [array(f"{name}_table", layer.table)], f".kind = EDGEKD_LOOK_UP, {fields}"
    ends = f"{ends}, .low = {layer.low}, .high = {layer.high}, .parameters = {name}_parameters"
    if isinstance(layer, Addition):
        numbers = np.array([layer.bias, *layer.mantissas], np.int32)
        return [array(f"{name}_parameters", numbers)], f".kind = EDGEKD_ADD, {ends}, .exponent = {layer.exponent}"
    numbers = np.array([0, layer.factors.mantissa[0]], np.int32)
    arrays = [array(f"{name}_parameters", numbers), array(f"{name}_table", layer.tables.view(np.uint16))]
    return arrays, f".kind = EDGEKD_MULTIPLY, {ends}, .table = {name}_table, .exponent = {layer.factors.exponent}"


def _parameters(name: str, by: Factors) -> str:
    return f".parameters = {name}_parameters, .exponent = {by.exponent}"


def _pairs(layer: Convolution | Means | Maxima | Deviations | Classifier) -> NDArray[np.int32]:
    """`(C, 2)`: what each sum begins with, and its mantissa."""
    return np.stack([layer.bias, layer.factors.mantissa], axis=-1)


def _by_fours(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """`(channels, kernel rows, kernel columns, 1)` as `(channels / 4, kernel rows, kernel columns, 4)`."""
    filled = np.pad(weight, ((0, padded(len(weight)) - len(weight)), (0, 0), (0, 0), (0, 0)))
    return filled.reshape(-1, 4, *weight.shape[1:3]).transpose(0, 2, 3, 1)


def beyond_weights(values: int) -> int:
    """How many zeros follow the weights of a convolution whose outputs have so many each, filled to words."""
    return -values % VECTOR


def _in_vectors(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """As `_in_words`, and behind them what may be read with the last output's."""
    filled = _in_words(weight)
    return np.pad(filled.ravel(), (0, beyond_weights(filled[0].size)))


def _in_words(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """`(outputs, kernel rows, kernel columns, inputs)` or `(outputs, inputs)`, each row in whole words."""
    rows = weight.reshape(len(weight), weight.shape[1] if weight.ndim > 2 else 1, -1)
    return np.pad(rows, ((0, 0), (0, 0), (0, padded(rows.shape[2]) - rows.shape[2])))
