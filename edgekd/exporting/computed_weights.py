"""Weights of the front end that a graph computes when it is loaded, in place of storing them.

The kernels and matrices of the DFT are cosines of whole numbers of steps on one circle, times a window; the mel filters
are mostly zeros. What is stored is the circle's cosines, the numbers of steps along each dimension and the filters' own
values; operators on constants make the weights of them, those of `ExportLogMel` but for the last bit. ONNX Runtime runs
such operators once, when a session starts (constant folding, at every level of optimisation but none), and then has the
graph with stored weights. 130 KB of a log-mel at 32 kHz become 20.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgekd.dft_factors import cosines
from edgekd.log_mel import ExportLogMel

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

OPERATORS = frozenset(("Add", "Gather", "Max", "Min", "Mod", "Mul", "Pad", "Range", "Reshape", "Slice", "Sub"))
_TAKERS = ("Conv", "Gather", "MatMul")


def with_computed_weights(model: onnx.ModelProto, frontend: ExportLogMel, scope: str) -> onnx.ModelProto:
    """`model` with operators in place of the stored weights of `frontend`, whose nodes begin with `scope`.

    Weights are known by what they hold. The operators come first, and are called `scope/weights/...`.
    """
    import onnx
    from onnx import numpy_helper

    computed = _Computed(f"{scope}/weights")
    made = {**_transform(computed, frontend), **_mel(computed, frontend)}
    weights = {name: frontend.get_buffer(name).numpy() for name in made}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    renamed = {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        name = next((name for name, weight in weights.items() if _same(array, weight)), None)
        if name is not None:
            renamed[tensor.name] = made[name]
    for node in graph.node:
        if node.op_type in _TAKERS and node.output[0].startswith(f"{scope}/"):  # others may have a like constant
            node.input[:] = [renamed.get(name, name) for name in node.input]
    before = computed.needed({name for node in graph.node for name in node.input})
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    taken = {name for node in nodes for name in node.input}
    stored = [tensor for tensor in graph.initializer if tensor.name in taken]
    stored += [numpy_helper.from_array(array, name) for name, array in computed.stored.items() if name in taken]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    return changed


def _same(array: NDArray[Any], other: NDArray[Any]) -> bool:
    return array.dtype == other.dtype and array.shape == other.shape and np.array_equal(array, other)


class _Computed:
    """Operators on constants, and what they take."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, NDArray[Any]] = {}

    def store(self, values: Tensor | NDArray[Any]) -> str:
        """A constant: float32, int32 or int64."""
        array = np.asarray(values, order="C")
        for name, other in self.stored.items():
            if _same(other, array):
                return name
        name = f"{self.scope}/{len(self.stored)}"
        self.stored[name] = array
        return name

    def steps(self, numbers: Tensor | int) -> str:
        """Numbers to reckon with: half the size of those that shapes are."""
        return self.store(torch.as_tensor(numbers).int())

    def integers(self, *numbers: int) -> str:
        return self.store(np.array(numbers, dtype=np.int64))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Write an operator and return its output."""
        from onnx import helper

        name = f"{self.scope}/{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def needed(self, names: set[str]) -> list[onnx.NodeProto]:
        """The operators that `names` are made of, in their order."""
        found = []
        for node in reversed(self.nodes):
            if node.output[0] in names:
                names = {*names, *node.input}
                found.append(node)
        return found[::-1]


def _transform(computed: _Computed, frontend: ExportLogMel) -> dict[str, str]:
    """The buffers of the DFT -> what computes them."""
    factors = frontend.factors
    table = computed.store(cosines(torch.arange(factors.circle // 2 + 1), factors.circle).float())  # of half a circle
    circle = computed.steps(factors.circle)

    def cosine(steps: str) -> str:
        """Of an angle or its negative, whichever lies in the upper half."""
        one_way = computed.node("Mod", steps, circle)
        return computed.node("Gather", table, computed.node("Min", one_way, computed.node("Sub", circle, one_way)))

    def shifted(steps: str, quarters: Tensor) -> str:
        return computed.node("Add", steps, computed.steps(factors.circle // 4 * quarters))

    residue = computed.steps(factors.residue)
    within = computed.steps(factors.sample[0, :, 0] - factors.residue[0])  # the channels of the first residue
    each = computed.node("Reshape", residue, computed.integers(-1, 1, 1, 1, 1))
    source = computed.node("Add", each, computed.node("Reshape", within, computed.integers(-1, 1)))
    sample = computed.node(
        "Add", source, computed.steps(factors.hop * torch.arange(factors.hops))
    )  # (A B, 1, 1, channels, hops)
    turn = factors.circle // factors.length * factors.frequency[:, None, None]
    parts = torch.tensor([0, 1])[:, None, None, None]
    first = cosine(shifted(computed.node("Mul", sample, computed.steps(turn)), parts))
    first = computed.node("Mul", first, computed.node("Gather", _window(computed, frontend, cosine), sample))
    turn = factors.circle // factors.residues * torch.arange(factors.middle)[:, None, None]
    each = computed.node("Reshape", residue, computed.integers(factors.inner, 1, 1, factors.middle, 1))
    parts = torch.tensor([[0, 3], [1, 0]])[:, None, None, :]  # of the sum: from a column's to a row's
    second = cosine(shifted(computed.node("Mul", each, computed.steps(turn)), parts))
    return {
        "first": computed.node("Reshape", first, computed.integers(*frontend.first.shape)),
        "second": computed.node("Reshape", second, computed.integers(*frontend.second.shape)),
        "source": computed.node("Reshape", source, computed.integers(-1)),
    }


def _window(computed: _Computed, frontend: ExportLogMel, cosine: Callable[[str], str]) -> str:
    """`gain` times the window, and zeros as far as the last hop that it reaches into."""
    factors, gain = frontend.factors, frontend.gain
    if factors.window == factors.circle:  # Hann's: 0.5 - 0.5 cos
        half = computed.store(np.array(gain / 2, dtype=np.float32))
        around = computed.node("Range", *(computed.steps(number) for number in (0, factors.circle, 1)))
        window = computed.node("Sub", half, computed.node("Mul", cosine(around), half))
    else:
        window = computed.store((gain * torch.hann_window(factors.window, dtype=torch.float64)).float())
    beyond = max(0, int(factors.sample.max()) + 1 - factors.window)
    return computed.node("Pad", window, computed.integers(0, beyond)) if beyond else window


def _mel(computed: _Computed, frontend: ExportLogMel) -> dict[str, str]:
    """The buffers of the mel filters -> what computes them.

    A filter's values lie in a row, zeros before and after it: bin k has the value `k - start`, held between -1 and
    `length`, of its row.
    """
    filters = frontend.filters.numpy()  # (n_fft/2+1, F)
    lowest = min(bins.start for _, bins in frontend.blocks)
    highest = max(bins.stop for _, bins in frontend.blocks)
    values, runs = [0.0], []
    for weights in filters.T:
        used = weights.nonzero()[0]
        start, stop = (used[0], used[-1] + 1) if len(used) else (0, 0)
        runs.append((start, stop - start, len(values)))
        values += [*weights[start:stop], 0.0]
    start, length, begins = (computed.steps(torch.tensor(column)[:, None]) for column in zip(*runs, strict=True))
    limits = [computed.steps(number) for number in (lowest, highest, 1)]
    place = computed.node("Sub", computed.node("Range", *limits), start)
    place = computed.node("Min", computed.node("Max", place, computed.steps(-1)), length)
    place = computed.node("Add", place, begins)
    whole = computed.node("Gather", computed.store(np.array(values, dtype=np.float32)), place)  # (F, bins)
    row = computed.steps(frontend.factors.row[lowest:highest])
    found, axes = {}, (computed.integers(0, 1), computed.integers(0))
    for number, (mels, bins) in enumerate(frontend.blocks):
        here, there = bins.start - lowest, bins.stop - lowest
        begin, end = computed.integers(mels.start, here), computed.integers(mels.stop, there)
        found[f"filters{number}"] = computed.node("Slice", whole, begin, end, axes[0])
        found[f"rows{number}"] = computed.node("Slice", row, computed.integers(here), computed.integers(there), axes[1])
    return found
