"""The layers of an ONNX graph, by ONNX Runtime's own profile: operator by operator, after its fusions.

A fused operator is given the name of the layer that it computes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgekd.exporting.verify import session_options
from edgekd.profiling.layers import WARMUP, LayerTime, macs_of, slowest_first, with_own_names
from edgekd.report.results import Layer

if TYPE_CHECKING:
    import onnx

_KERNEL = "_kernel_time"
_DERIVED = re.compile(r"(?:_token_\d+|_nchwc|_d?q|/\w+)*")  # what ONNX Runtime appends to the name of a node it changes
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_PRECISIONS = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "int8": "int8", "uint8": "int8"}


def onnx_layers(
    model: bytes,
    feed: Mapping[str, NDArray[Any]],
    runs: int = 50,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> tuple[Layer, ...]:
    """Mean times over `runs` of what ONNX Runtime runs for `model`, given `feed` (a batch of one)."""
    import onnx
    import onnxruntime

    graph = with_own_names(onnx.load_from_string(model))
    options = session_options(threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=list(providers))
        for _ in range(WARMUP + runs):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    executed: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            executed[event["args"]["node_index"]].append(event)
    origin = _Origins(graph.graph, macs_of(graph))
    found: dict[str, LayerTime] = {}
    before = "the input"
    for own in executed.values():  # in the order in which they run
        name, operator, macs = origin.of(own[0]["name"].removesuffix(_KERNEL), own[0]["args"]["op_name"], before)
        before = name if origin.is_known(name) else before
        counted = own[len(own) * WARMUP // (WARMUP + runs) :]
        layer = found.setdefault(name, LayerTime(operator))
        layer.ms += sum(event["dur"] for event in counted) / 1e3 / runs
        layer.macs = macs if layer.macs is None else layer.macs
        layer.output_bytes = int(own[0]["args"]["output_size"])
        layer.precision = _first_type(own[0]["args"]["input_type_shape"])
    return slowest_first(found)


class _Origins:
    """Which layer of the graph an operator of ONNX Runtime computes."""

    def __init__(self, graph: onnx.GraphProto, macs: Mapping[str, int]) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        # ONNX Runtime names an operator after the node it was, or after that node's output.
        self._nodes = self._makers | {node.name: node for node in graph.node}
        self._macs = dict(macs)
        self._named: set[str] = set()

    def of(self, name: str, operator: str, before: str) -> tuple[str, str, int | None]:
        """Name, operator and MACs. `before`: the layer that ran last, after which a changed layout is named."""
        node = self._nodes.get(name)
        if node is None:
            bases = [base for base in self._nodes if name.startswith(base) and _DERIVED.fullmatch(name[len(base) :])]
            if not bases:
                return self._unique(f"{operator} after {before}"), operator, None
            node = self._nodes[max(bases, key=len)]
        if any(word in operator for word in _PRODUCTS):
            product = self._product_behind(node)
            if product is not None:
                return self._unique(product.name), operator, self._macs.pop(product.name, None)
        return self._unique(node.name), operator, None

    def is_known(self, name: str) -> bool:
        return name in self._nodes

    def _product_behind(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The layer that a fused operator, named after its last node, begins with."""
        for _ in range(8):
            if node.name in self._macs:
                return node
            behind = self._makers.get(node.input[0]) if node.input else None
            if behind is None:
                return None
            node = behind
        return None

    def _unique(self, name: str) -> str:
        found, number = name, 1
        while found in self._named:
            number += 1
            found = f"{name} ({number})"
        self._named.add(found)
        return found


def _first_type(shapes: list[dict[str, Any]]) -> str | None:
    return _PRECISIONS.get(next(iter(shapes[0]))) if shapes else None
