"""Which values of a graph have one column after another in time, and how much of a window each column feels.

The graph takes a log-mel `(batch, 1, T, F)`. From there on, convolutions, poolings and what works on single values
leave time where it is: column t of their output is made of a few columns of their input round `stride * t`. What
follows a mean over time, say, has no columns any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

POINTWISE = frozenset(
    [
        *(
            "Add",
            "Cast",
            "Clip",
            "DequantizeLinear",
            "Elu",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "LeakyRelu",
        ),
        *("Max", "Min", "Mish", "Mul", "QuantizeLinear", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"),
    ]
)
SLIDING = frozenset(("Conv", "MaxPool", "AveragePool"))
LONGEST = 64  # columns that a pooling may take in and still be one that slides, not a mean over a stretch


@dataclass(frozen=True)
class Columns:
    """The columns of a value: how many, of how many columns of the log-mel each, and how many at its beginning and at
    its end feel the border of the window."""

    count: int
    stride: int
    left: int
    right: int


@dataclass(frozen=True)
class Slide:
    """How an operator goes over time: `kernel` columns, each `dilation` after the last, `stride` from one to the next,
    with `before` columns of zeros."""

    kernel: int
    dilation: int
    stride: int
    before: int
    after: int

    def first_untouched(self, columns: int) -> int:
        """The first column that is made of none of the first `columns` of the input, nor of the zeros before them."""
        return max(0, -(-(columns + self.before) // self.stride))

    def first_touching(self, column: int) -> int:
        """The first column that is made of `column` of the input or of later ones."""
        return max(0, -((self.dilation * (self.kernel - 1) - self.before - column) // self.stride))

    def needed_by(self, columns: int) -> int:
        """How many columns of the input the first `columns` are made of."""
        return (columns - 1) * self.stride - self.before + self.dilation * (self.kernel - 1) + 1

    def count(self, columns: int) -> int:
        return (columns + self.before + self.after - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


def slide_of(node: onnx.NodeProto) -> Slide | None:
    """How a convolution or a pooling goes over time; None for one that rounds up, or pads by itself."""
    from onnx import helper

    attributes: dict[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    kernel = attributes.get("kernel_shape", [])
    if len(kernel) != 2 or attributes.get("ceil_mode", 0) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    if node.op_type != "Conv" and kernel[0] > LONGEST:
        return None
    pads = attributes.get("pads", [0, 0, 0, 0])
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return Slide(kernel[0], dilations[0], strides[0], pads[0], pads[2])


class Timeline:
    """The columns of the values of a graph, whose operators are `nodes` in their order.

    `shapes`: of every value that is known; `log_mel`: the name and the columns of what the graph takes.
    """

    def __init__(
        self,
        nodes: Sequence[onnx.NodeProto],
        shapes: Mapping[str, tuple[int, ...]],
        constants: Iterable[str],
        log_mel: tuple[str, Columns],
    ) -> None:
        self.nodes, self.shapes, self.stored = nodes, shapes, frozenset(constants)
        self.constants = set(self.stored)  # and what is made of them
        self.source = log_mel[0]
        self.columns: dict[str, Columns] = {log_mel[0]: log_mel[1]}
        self.maker: dict[str, onnx.NodeProto] = {}
        for node in nodes:
            for output in node.output:
                self.maker[output] = node
            if self.constants.issuperset(filter(None, node.input)):
                self.constants.update(node.output)
            made = self._made(node)
            if made is not None:
                self.columns[node.output[0]] = made

    def sources(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of `node` that are no constants."""
        return [name for name in node.input if name and name not in self.constants]

    def _made(self, node: onnx.NodeProto) -> Columns | None:
        sources = self.sources(node)
        found = [self.columns.get(name) for name in sources]
        if not found or len(node.output) != 1 or len(self.shapes.get(node.output[0], ())) != 4:
            return None
        known = [each for each in found if each is not None]
        first = known[0] if known else None
        if (
            first is None
            or len(known) < len(found)
            or {(e.count, e.stride) for e in known} != {(first.count, first.stride)}
        ):
            return None
        left, right = max(each.left for each in known), max(each.right for each in known)
        together = Columns(first.count, first.stride, left, right)
        if node.op_type in POINTWISE:
            return together if all(self._is_steady(name) for name in node.input if name in self.constants) else None
        if node.op_type == "Concat":
            return together if node.attribute[0].i in (1, -3) else None
        slide = slide_of(node) if node.op_type in SLIDING and len(sources) == 1 else None
        if slide is None:
            return None
        count = slide.count(first.count)
        right = count - min(count, slide.first_touching(first.count - first.right))
        return Columns(count, first.stride * slide.stride, min(count, slide.first_untouched(first.left)), right)

    def _is_steady(self, constant: str) -> bool:
        """Whether a constant is the same for all columns."""
        shape = self.shapes.get(constant, ())
        return len(shape) < 2 or shape[-2] == 1

    def between(self, given: str, wanted: Sequence[str]) -> list[onnx.NodeProto] | None:
        """The operators that make the values `wanted` of `given`, in their order; None where they need the log-mel,
        too."""
        needed = set(wanted) - {given}
        chosen = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                chosen.append(node)
                needed.update(name for name in node.input if name and name != given and name not in self.stored)
        return None if self.source in needed else chosen[::-1]

    def reach(self, given: str, wanted: Sequence[str]) -> tuple[dict[str, int], int]:
        """Of the part of the graph from `given` to the values `wanted`: how many columns at the beginning of each feel
        the beginning of a stretch of `given`; and how many columns of `given` those of `wanted` are made of that feel
        the beginning of a window."""
        nodes = self.between(given, wanted) or []
        touched = {given: 0}
        needed = {name: self.columns[name].left for name in wanted}
        for node in nodes:
            if not self.sources(node):
                continue
            slide = slide_of(node) if node.op_type in SLIDING else None
            most = max(touched[name] for name in self.sources(node))
            touched[node.output[0]] = most if slide is None else slide.first_untouched(most)
        for node in reversed(nodes):
            columns = needed.get(node.output[0], 0)
            slide = slide_of(node) if node.op_type in SLIDING else None
            for name in self.sources(node):
                wants = columns if slide is None or not columns else slide.needed_by(columns)
                needed[name] = max(needed.get(name, 0), wants)
        return {name: touched[name] for name in wanted}, needed[given]

    def products(self, nodes: Iterable[onnx.NodeProto]) -> int:
        """Multiplications of convolutions among `nodes`, for one window."""
        total = 0
        for node in nodes:
            if node.op_type == "Conv":
                weight = self.shapes[node.input[1]]
                total += prod(self.shapes[node.output[0]][1:]) * prod(weight[1:])
        return total
