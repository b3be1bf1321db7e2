"""Where the values of an integer network lie while it is computed row by row.

A map is kept as a ring of its latest rows. How many that must be is found by going through the window as the C does:
each row that comes in is followed by all rows that can be made of it, layer by layer. In a ring's row lie, beside the
map's columns, those of the padding that its readers ask for, which are written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.errors import GateError
from edgekd.microcontrollers.integer.layers import LOWEST, Convolution, IntegerNetwork, Layer, Map, MaxPool, Means

LARGEST_KERNEL = 16  # rows
PATCHES = 8  # bytes for each value under a kernel: of four pixels, widened to 16 bits
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
    """All that changes while a window is computed. Places are in bytes: `sums` of each layer that takes means,
    `progress` of two bytes for each map and four for each layer, `scratch` of the values under the kernels."""

    rings: tuple[Ring, ...]
    sums: dict[int, int]
    progress: int
    scratch: int
    size: int

    def ring(self, of: Map) -> Ring:
        return next(ring for ring in self.rings if ring.map == of)


def plan(network: IntegerNetwork) -> Memory:
    """The memory of `network`. Raises `GateError` for a kernel that is too high, and padding that a map lacks."""
    parts = {each: sum(layer.target == each for layer in network.layers) or 1 for each in network.maps}
    rows = _rows_kept(network, parts)
    place, rings, sums = 0, [], {}
    for each in network.maps:
        readers = [layer for layer in network.layers if layer.source == each and not isinstance(layer, Means)]
        paddings = [layer.padding for layer in readers if not isinstance(layer, Means)]
        _check(each, readers)
        ring = Ring(
            map=each,
            rows=rows[each],
            left=max([0, *(padding[2] for padding in paddings)]),
            right=max([0, *(padding[3] for padding in paddings)]),
            padded=any(any(padding) for padding in paddings),
            parts=parts[each],
            place=place,
        )
        rings.append(ring)
        place += padded(ring.rows * ring.row_bytes)
    for number, layer in enumerate(network.layers):
        if isinstance(layer, Means):
            sums[number] = place
            place += _WORD * layer.outputs
    progress = place
    place += padded(2 * (len(network.maps) + 2 * len(network.layers)))
    scratch = max(SLACK, padded(network.classifier.source.size), *(_patches(layer) for layer in network.layers))
    return Memory(tuple(rings), sums, progress, place, place + scratch)


def padded(size: int) -> int:
    """Up to whole words."""
    return -(-size // _WORD) * _WORD


def _patches(layer: Layer) -> int:
    if not isinstance(layer, Convolution) or layer.depthwise:
        return 0
    rows, columns, inputs = layer.weight.shape[1:]
    return PATCHES * rows * padded(columns * inputs)


def _check(source: Map, readers: Sequence[Layer]) -> None:
    for layer in readers:
        assert not isinstance(layer, Means)
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


def _rows_kept(network: IntegerNetwork, parts: dict[Map, int]) -> dict[Map, int]:
    """How many rows of each map are needed at once, at most."""
    written, done = dict.fromkeys(network.maps, 0), [0] * len(network.layers)
    kept = dict.fromkeys(network.maps, 1)

    def write(target: Map) -> None:
        oldest = [_first(layer, row) for layer, row in zip(network.layers, done, strict=True) if layer.source == target]
        if target.rows > 1:
            kept[target] = max(kept[target], written[target] - max(0, min(oldest, default=written[target])) + 1)
        written[target] += 1

    for _ in range(network.entry.rows):
        write(network.entry)
        for number, layer in enumerate(network.layers):
            while done[number] < _rows(layer):
                if written[layer.source] < parts[layer.source] * _needed(layer, done[number]):
                    break
                if not isinstance(layer, Means):
                    write(layer.target)
                elif done[number] + 1 == _rows(layer):
                    written[layer.target] += 1
                done[number] += 1
    return kept


def _rows(layer: Layer) -> int:
    """How many steps a layer takes."""
    return layer.source.rows if isinstance(layer, Means) else layer.target.rows


def _first(layer: Layer, row: int) -> int:
    """The first row of its source that a layer needs from its row number `row` on."""
    if row >= _rows(layer):
        return layer.source.rows
    return row if isinstance(layer, Means) else row * layer.stride[0] - layer.padding[0]


def _needed(layer: Layer, row: int) -> int:
    """How many rows of its source must be there for a layer's row number `row`."""
    if isinstance(layer, Means):
        return row + 1
    return min(layer.source.rows, row * layer.stride[0] - layer.padding[0] + layer.kernel[0])
