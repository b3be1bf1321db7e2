"""A graph while it is written: its operators in their order, its constants, and what each value is.

Values are called after the module that makes them, `network.stem.0/conv`, a second one `network.stem.0/conv_2`.
Constants of one type, shape and content are stored once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...]  # None: the batch, where it is any; only ever the first

Attribute = int | float | str | Sequence[int]

KINDS = {torch.float32: 1, torch.float16: 10}  # as ONNX numbers the types (TensorProto.DataType)


class Unknown(Exception):
    """A layer, or a setting of one, that the writer does not know."""


@dataclass(frozen=True)
class Value:
    """What an operator takes and gives."""

    name: str
    shape: Shape
    dtype: torch.dtype = torch.float32


class Operator(NamedTuple):
    """One operator with one output."""

    kind: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class Sheet:
    """The graph so far. `scope`: the module whose operators are being written."""

    def __init__(self) -> None:
        self.scope = ""
        self._operators: list[Operator] = []
        self._constants: dict[str, np.ndarray] = {}
        self._stored: dict[tuple[str, tuple[int, ...], bytes], str] = {}  # type, shape and content -> name
        self._taken: Counter[str] = Counter()

    @contextmanager
    def within(self, scope: str) -> Iterator[None]:
        """Within it, operators are those of the module called `scope`."""
        before, self.scope = self.scope, scope
        try:
            yield
        finally:
            self.scope = before

    def node(
        self,
        operator: str,
        inputs: Sequence[Value | str],
        shape: Shape,
        dtype: torch.dtype | None = None,
        output: str | None = None,
        **attributes: Attribute,
    ) -> Value:
        """Write an operator and return what it gives: of `shape`, and of the first input's type where none is given.

        `output` is its name where it is not that of the scope.
        """
        if dtype is None:
            dtype = next(each.dtype for each in inputs if isinstance(each, Value))
        name = output or self._new_name(operator)
        taken = [each if isinstance(each, str) else each.name for each in inputs]
        self._operators.append(Operator(operator, taken, name, attributes))
        return Value(name, shape, dtype)

    def tensor(self, tensor: Tensor, name: str) -> str:
        """Store a tensor and return its name: `name`, but where the same tensor is stored already."""
        return self.array(tensor.detach().cpu().numpy(), name)

    def array(self, array: np.ndarray, name: str | None = None) -> str:
        """Store an array and return its name; one that has none is called by a number."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._stored:
            self._stored[key] = self._new_constant(name or f"c{len(self._constants)}")
            self._constants[self._stored[key]] = array
        return self._stored[key]

    def integers(self, *numbers: int) -> str:
        """Store a list of integers, such as a shape or axes."""
        return self.array(np.array(numbers, dtype=np.int64))

    def number(self, number: float, dtype: torch.dtype) -> str:
        """Store one number of a floating-point type."""
        return self.array(torch.tensor(number, dtype=dtype).numpy())

    def model(self, name: str, inputs: Value, outputs: Sequence[Value], opset: int, batch: str) -> onnx.ModelProto:
        """The graph as a model; `batch` is what a batch of any size is called."""
        from onnx import helper, numpy_helper

        described = [
            helper.make_tensor_value_info(
                value.name, KINDS[value.dtype], [batch if size is None else size for size in value.shape]
            )
            for value in (inputs, *outputs)
        ]
        nodes = [
            helper.make_node(each.kind, each.inputs, [each.output], name=each.output, **each.attributes)
            for each in self._operators
        ]
        stored = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(nodes, name, described[:1], described[1:], stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])

    def _new_name(self, operator: str) -> str:
        stem = f"{self.scope}/{operator.lower()}"
        self._taken[stem] += 1
        return stem if self._taken[stem] == 1 else f"{stem}_{self._taken[stem]}"

    def _new_constant(self, name: str) -> str:
        """`name`, or one with a number after it: a layer that is called twice may be folded with two norms."""
        names = (name, *(f"{name}_{number}" for number in range(2, len(self._constants) + 2)))
        return next(each for each in names if each not in self._constants)
