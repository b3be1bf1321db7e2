"""The graph of a student in parts, for windows that overlap: what they have in common is then computed once.

    log-mel -> part -> map -> part -> maps -> end -> probabilities        (`edgekd.device.runner.steps` runs them)

The weights are those of the one graph, and so are the operators. A map has its time first, `(1, columns, mel bins,
channels)`: that is how ONNX Runtime computes in int8, and columns of a window then lie together in memory. Where the
graph is cut is decided by counting multiplications; the last cut is where its maps end and means over time begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm, prod
from typing import TYPE_CHECKING

from edgekd.device.runner.log_mel import LogMel
from edgekd.exporting.columns import POINTWISE, Columns, Timeline

if TYPE_CHECKING:
    import onnx

HOPS = (10, 5)  # windows to be cheap for: every tenth, every fifth of a clip
_PART_COST = 500_000  # multiplications that take as long as calling one more graph
_FIRST, _NEXT = (0, 2, 3, 1), (0, 3, 1, 2)  # channels last, and back


@dataclass(frozen=True)
class MapOf:
    """A map that a part makes: see `edgekd.device.runner.steps.Map`."""

    name: str
    columns: int
    stride: int
    left: int
    right: int
    reach: int


@dataclass(frozen=True)
class PartOf:
    """The operators between a value and the maps that are made of it."""

    given: str
    maps: tuple[MapOf, ...]
    lead: int
    graph: bytes


@dataclass(frozen=True)
class StepGraphs:
    """A graph in parts that follow one another, and its end, which takes the maps of the last, or the log-mel."""

    parts: tuple[PartOf, ...]
    end: bytes


def step_graphs(model_bytes: bytes, log_mel: LogMel, clip_samples: int) -> StepGraphs:
    """`model_bytes`, a graph that takes a log-mel of clips of so many samples, in parts."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(model_bytes))
    line = timeline(model, log_mel, clip_samples)
    source = line.source
    last = frontier(line)
    if source in last or not line.products(line.between(source, last) or []):
        return StepGraphs((), _graph(model, line, [source], [model.graph.output[0].name]))
    cuts = [[source], *([[middle]] if (middle := _middle(line, last)) else []), last]
    parts = tuple(_part(model, line, given[0], wanted) for given, wanted in pairwise(cuts))
    return StepGraphs(parts, _graph(model, line, last, [model.graph.output[0].name]))


def strides(model_bytes: bytes, log_mel: LogMel, clip_samples: int) -> tuple[int, ...]:
    """Of how many steps of the log-mel a graph that takes one has columns, the least first."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(model_bytes))
    return tuple(sorted({each.stride for each in timeline(model, log_mel, clip_samples).columns.values()}))


def timeline(model: onnx.ModelProto, log_mel: LogMel, clip_samples: int) -> Timeline:
    """The columns of a model's values; shapes are in it."""
    graph = model.graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = constants | {
        value.name: tuple(each.dim_value or 1 for each in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    steps, _ = log_mel.shape(clip_samples)
    columns = Columns(steps, 1, *log_mel.at_borders(clip_samples))
    return Timeline(graph.node, shapes, constants, (graph.input[0].name, columns))


def frontier(line: Timeline) -> list[str]:
    """The last values that have columns: what is made of them has none. Of those that hold the same, the smallest."""
    found: list[str] = []
    for node in line.nodes:
        if any(name in line.columns for name in node.output):
            continue
        for name in line.sources(node):
            if name in line.columns and (least := _smallest(line, name)) not in found:
                found.append(least)
    return found


def _smallest(line: Timeline, name: str) -> str:
    """The value of the fewest bytes among `name` and those it is made of by operators on single values."""
    best, least = name, _bytes_of(line, name)
    while (node := line.maker.get(name)) is not None and node.op_type in POINTWISE and len(line.sources(node)) == 1:
        name = line.sources(node)[0]
        if _bytes_of(line, name) < least:
            best, least = name, _bytes_of(line, name)
    return best


def _bytes_of(line: Timeline, name: str) -> int:
    node = line.maker.get(name)
    size = 1 if node is not None and node.op_type == "QuantizeLinear" else 4
    return size * prod(line.shapes[name][1:])


def _middle(line: Timeline, last: Sequence[str]) -> str | None:
    """Where to cut a second time, at a value all of `last` are made of; None where that saves nothing."""
    whole = _cost(line, [line.source], last)
    best, name = whole, None
    for value, columns in line.columns.items():
        if value == line.source or value in last or columns.stride == max(line.columns[each].stride for each in last):
            continue
        if line.between(value, last) is None:
            continue
        cost = _cost(line, [line.source, value], last)
        if cost < best or (cost == best and name is not None and _bytes_of(line, value) < _bytes_of(line, name)):
            best, name = cost, value
    return name


def _cost(line: Timeline, cuts: Sequence[str], last: Sequence[str]) -> float:
    """Multiplications of the parts that `cuts` begin and `last` ends, summed over windows of each of `HOPS`."""
    total = 0.0
    steps = line.columns[line.source].count
    for given, wanted in zip(cuts, [*([each] for each in cuts[1:]), last], strict=True):
        products = line.products(line.between(given, wanted) or [])
        stride = max(line.columns[each].stride for each in wanted)
        reach, lead = line.reach(given, wanted)
        again = line.columns[given].stride * lead + max(
            line.columns[name].stride * (reach[name] + line.columns[name].right) for name in wanted
        )
        for share in HOPS:
            new = lcm(max(1, steps // share), stride) + again
            total += products * min(1.0, new / steps) + _PART_COST
    return total


def _part(model: onnx.ModelProto, line: Timeline, given: str, wanted: Sequence[str]) -> PartOf:
    reach, lead = line.reach(given, wanted)
    unit = line.columns[given].stride
    stride = max(line.columns[name].stride for name in wanted) // unit
    maps = tuple(
        MapOf(name, each.count, each.stride // unit, each.left, each.right, reach[name])
        for name, each in ((name, line.columns[name]) for name in wanted)
    )
    return PartOf(given, maps, -(-lead // stride) * stride, _graph(model, line, [given], wanted))


def _graph(model: onnx.ModelProto, line: Timeline, given: Sequence[str], wanted: Sequence[str]) -> bytes:
    """The operators from the values `given` to those `wanted`, as a model for one window of any number of columns.

    Maps are taken and given with channels last.
    """
    import onnx
    from onnx import helper

    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {value.name: value.type.tensor_type.elem_type for value in graph.output}
    nodes = _needed(line, given, wanted)
    ends = graph.output[0].name in wanted
    inputs, outputs, before, after = [], [], [], []
    for number, name in enumerate(given):
        _, channels, columns, bins = line.shapes[name]
        taken = f"map_{number}"
        inputs.append(
            helper.make_tensor_value_info(taken, types[name], ["batch", columns if ends else "columns", bins, channels])
        )
        before.append(helper.make_node("Transpose", [taken], [name], name=name, perm=_NEXT))
    for number, name in enumerate(wanted):
        if ends:
            outputs.append(graph.output[0])
            continue
        _, channels, _, bins = line.shapes[name]
        made = f"made_{number}"
        outputs.append(helper.make_tensor_value_info(made, types[name], ["batch", "made", bins, channels]))
        after.append(helper.make_node("Transpose", [name], [made], name=made, perm=_FIRST))
    used = {name for node in nodes for name in node.input}
    stored = [tensor for tensor in graph.initializer if tensor.name in used]
    made_of = helper.make_graph([*before, *nodes, *after], "edgekd", inputs, outputs, stored)
    result = helper.make_model(made_of, opset_imports=model.opset_import, ir_version=model.ir_version)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    onnx.checker.check_model(result)
    return result.SerializeToString(deterministic=True)


def _needed(line: Timeline, given: Sequence[str], wanted: Sequence[str]) -> list[onnx.NodeProto]:
    needed, chosen = set(wanted) - set(given), []
    for node in reversed(line.nodes):
        if needed.intersection(node.output):
            chosen.append(node)
            needed.update(name for name in node.input if name not in given)
    return chosen[::-1]
