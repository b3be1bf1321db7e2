"""Where the time of a classifier goes: each layer's share, MACs, output and precision, the slowest first.

How a layer is timed depends on what runs it: a module of PyTorch (`module_layers`), an operator of ONNX Runtime
(`graph_layers`), a layer of a TensorRT engine (`engine_layers`). Measuring each layer takes time itself, so the sum is
more than a plain run takes: shares count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.exporting.cost import macs_by_node
from edgekd.report.results import Layer

if TYPE_CHECKING:
    import onnx

WARMUP = 10  # runs that are not counted


@dataclass
class LayerTime:
    """What has been measured of one layer."""

    operator: str
    ms: float = 0.0
    macs: int | None = None
    output_bytes: int | None = None
    precision: str | None = None


def slowest_first(times: Mapping[str, LayerTime]) -> tuple[Layer, ...]:
    """The layers of the report, of times by name."""
    total = sum(layer.ms for layer in times.values()) or 1.0
    ordered = sorted(times.items(), key=lambda item: -item[1].ms)
    return tuple(
        Layer(
            name=name,
            operator=layer.operator,
            ms=round(layer.ms, 6),
            share=layer.ms / total,
            macs=layer.macs,
            output_bytes=layer.output_bytes,
            precision=layer.precision,
        )
        for name, layer in ordered
    )


def with_own_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in which each node has a name of its own; what has one keeps it."""
    taken: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
        taken.add(node.name)
    return model


def macs_of(model: onnx.ModelProto) -> dict[str, int]:
    """MACs by the name of the node; nothing where they cannot be known before the graph runs."""
    from onnx.shape_inference import InferenceError

    try:
        return macs_by_node(model)
    except (ValueError, InferenceError):  # a graph from elsewhere, whose shapes are known only when it runs
        return {}
