"""Where the values of an integer network lie while it is computed row by row.

A map is kept as a ring of its latest rows. How many that must be is found by going through the window as the C does:
each row that comes in is followed by all rows that can be made of it, layer by layer. In a ring's row lie, beside the
map's columns, those of the padding that its readers ask for, which are written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.layers import (
    LOWEST,
    Convolution,
    Deviations,
    IntegerNetwork,
    Layer,
    Map,
    Maxima,
    MaxPool,
    Summary,
    Window,
    sources,
)

LARGEST_KERNEL = 16  # rows
PATCHES = 8  # bytes for each value under a kernel: of four pixels, widened to 16 bits
FEW_VALUES = 12  # under a kernel: where there are no more, weights may be widened instead,
FEW_OUTPUTS, FEW_WEIGHTS = 16, 28  # those of so many outputs at once, each to so many bytes with what rounds it
SLACK = 16  # bytes behind the rows of a map that may be read, and count for nothing
_WORD = 4


@dataclass(frozen=True)
class Ring:
    """A map's rows: how many are kept, columns of padding at their sides, whether there is padding at all, how many
    layers write a row in parts, and where they lie, in bytes."""

    map: Map
    rows: int
    left: int
    right: int
    padded: bool
    parts: int
    place: int

    @property
    def row_bytes(self) -> int:
        return (self.left + self.map.columns + self.right) * self.map.channels

    @property
    def beyond(self) -> int:
        """The value of the padding."""
        return self.map.zero_point


@dataclass(frozen=True)
class Memory:
    """All that changes while a window is computed. Places are in bytes: `sums` of each layer that sums over a map,
    `progress` of two bytes for each map and four for each layer, `scratch` of the values under the kernels, or what
    else is forgotten when a row is made."""

    rings: tuple[Ring, ...]
    sums: dict[int, int]
    progress: int
    scratch: int
    size: int

    def ring(self, of: Map) -> Ring:
        return next(ring for ring in self.rings if ring.map == of)


def plan(network: IntegerNetwork) -> Memory:
    """The memory of `network`. Raises `GateError` for a kernel that is too high, and padding that a map lacks."""
    writers = {each: [n for n, layer in enumerate(network.layers) if layer.target == each] for each in network.maps}
    rows = _rows_kept(network, writers)
    place, rings, sums = 0, [], {}
    for each in network.maps:
        readers = [layer for layer in network.layers if isinstance(layer, Window) and layer.source == each]
        paddings = [layer.padding for layer in readers]
        _check(each, readers)
        ring = Ring(
            map=each,
            rows=rows[each],
            left=max([0, *(padding[2] for padding in paddings)]),
            right=max([0, *(padding[3] for padding in paddings)]),
            padded=any(any(padding) for padding in paddings),
            parts=len(writers[each]) or 1,
            place=place,
        )
        rings.append(ring)
        place += padded(ring.rows * ring.row_bytes)
    for number, layer in enumerate(network.layers):
        if isinstance(layer, Summary):
            sums[number] = place
            place += _WORD * sums_of(layer)
    progress = place
    place += padded(2 * (len(network.maps) + 2 * len(network.layers)))
    scratch = max(SLACK, padded(network.classifier.source.size), *(_patches(layer) for layer in network.layers))
    return Memory(tuple(rings), sums, progress, place, place + scratch)


def sums_of(layer: Summary) -> int:
    """The words in which a layer sums: maxima take a byte; a deviation the sum, and the sum of squares in two words."""
    if isinstance(layer, Maxima):
        return padded(layer.outputs) // _WORD
    return 3 * layer.outputs if isinstance(layer, Deviations) else layer.outputs


def padded(size: int) -> int:
    """Up to whole words."""
    return -(-size // _WORD) * _WORD


def _patches(layer: Layer) -> int:
    if isinstance(layer, Deviations):
        return _WORD * layer.source.channels  # the sums of a row
    if not isinstance(layer, Convolution) or layer.depthwise:
        return 0
    outputs, rows, columns, inputs = layer.weight.shape
    values = rows * padded(columns * inputs)
    few = FEW_WEIGHTS * min(outputs, FEW_OUTPUTS) if values <= FEW_VALUES else 0
    return max(PATCHES * values, few)


def _check(source: Map, readers: Sequence[Window]) -> None:
    for layer in readers:
        if layer.kernel[0] > LARGEST_KERNEL:
            raise GateError(
                f"The student cannot be computed row by row: a kernel of '{layer.target.name}' spans {layer.kernel[0]} "
                f"frames, {LARGEST_KERNEL} at most. Distil another student: 'edgekd students' lists them."
            )
        if max(layer.padding[:2]) > layer.kernel[0] or max(layer.padding[2:]) > layer.kernel[1]:
            raise GateError(
                f"The student cannot be computed row by row: the padding of '{layer.target.name}' is larger than its "
                "kernel. Distil another student: 'edgekd students' lists them."
            )
        if isinstance(layer, MaxPool) and any(layer.padding) and source.zero_point != LOWEST:
            raise GateError(
                f"The student cannot be computed row by row: '{layer.target.name}' pools values of both signs with "
                "padding. Distil another student: 'edgekd students' lists them."
            )


def _rows_kept(network: IntegerNetwork, writers: Mapping[Map, Sequence[int]]) -> dict[Map, int]:
    """How many rows of each map are needed at once, at most."""
    layers = network.layers
    written, done = dict.fromkeys(network.maps, 0), [0] * len(layers)
    kept = dict.fromkeys(network.maps, 1)

    def write(target: Map, row: int) -> None:
        readers = [number for number, layer in enumerate(layers) if target in sources(layer)]
        oldest = [_first(layers[number], target, done[number]) for number in readers]
        if target.rows > 1:
            kept[target] = max(kept[target], row - max(0, min(oldest, default=row)) + 1)

    for row in range(network.entry.rows):
        write(network.entry, row)
        written[network.entry] += 1
        for number, layer in enumerate(layers):
            while done[number] < _rows(layer):
                if any(written[source] < _needed(layer, source, done[number]) for source in sources(layer)):
                    break
                if not isinstance(layer, Summary):
                    write(layer.target, done[number])
                done[number] += 1
                written[layer.target] = min(_given(layers[writer], done[writer]) for writer in writers[layer.target])
    return kept


def _rows(layer: Layer) -> int:
    """How many steps a layer takes."""
    return layer.source.rows if isinstance(layer, Summary) else layer.target.rows


def _given(layer: Layer, steps: int) -> int:
    """How many rows of its target, or of its part of it, a layer has written in so many steps."""
    return int(steps == _rows(layer)) if isinstance(layer, Summary) else steps


def _first(layer: Layer, source: Map, row: int) -> int:
    """The first row of a source that a layer needs from its row number `row` on."""
    if row >= _rows(layer):
        return source.rows
    return row * layer.stride[0] - layer.padding[0] if isinstance(layer, Window) else row


def _needed(layer: Layer, source: Map, row: int) -> int:
    """How many rows of a source must be there for a layer's row number `row`."""
    if isinstance(layer, Window):
        return min(source.rows, row * layer.stride[0] - layer.padding[0] + layer.kernel[0])
    return min(source.rows, row + 1)
