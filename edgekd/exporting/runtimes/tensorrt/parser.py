"""NVIDIA's own ONNX parser and ahead-of-time builder, asked here whether they take a graph. No GPU needed.

They come with TensorRT for RTX (`pip install 'edgekd[rtx]'`), whose parser is TensorRT's and whose builder compiles for
GPUs that are not there. Its engines do not run on a Jetson, and not here: this says that a graph is accepted, not that
an engine of it is right.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

from edgekd.errors import GateError
from edgekd.exporting.manifest import Check
from edgekd.exporting.runtimes.tensorrt.engine import Refused, parsed_network, serialized_engine
from edgekd.exporting.targets import Precision
from edgekd.progress import Progress

_TYPED_AS = (11,)  # TensorRT for RTX counts its releases from 1; its networks are strongly typed, as TensorRT 11's
_MAX_BATCH = 8


@dataclass(frozen=True)
class Accepted:
    """What NVIDIA's parser and builder made of a graph. `rounded`: layers that round activations to int8."""

    version: str
    layers: int
    rounded: int
    engine_bytes: int
    seconds: float


def check_by_parser(model: bytes, precision: Precision, progress: Progress) -> Check:
    """What NVIDIA's parser and builder say of a graph, as an entry of the manifest. Raises `GateError`."""
    by = "NVIDIA's ONNX parser and builder"
    progress("parse", 0, 1, precision=precision)
    accepted = parse_with_nvidia(model)
    progress("parse", 1, 1, precision=precision)
    if accepted is None:
        return Check(by=by, precision=precision, not_run="the extra 'rtx' is not installed")
    return Check(
        by=f"{by} (TensorRT for RTX {accepted.version})",
        precision=precision,
        figures={"layers": accepted.layers, "int8": accepted.rounded},
    )


def parse_with_nvidia(model: bytes) -> Accepted | None:
    """Have NVIDIA's parser read a serialised graph and its builder build it; None where the extra `rtx` is absent.

    Raises `GateError` with their own words where they refuse it.
    """
    rtx = _import_rtx()
    if rtx is None:
        return None
    start = time.perf_counter()
    try:
        builder, network = parsed_network(rtx, _TYPED_AS, model)
        plan = serialized_engine(rtx, _TYPED_AS, "int8", builder, network, _MAX_BATCH, cache=None)
    except Refused as refusal:
        raise GateError(
            f"NVIDIA's parser or builder (TensorRT for RTX {rtx.__version__}) refuses the graph: {refusal}."
            " A TensorRT device would too: build the student of other layers."
        ) from None
    kinds = [network.get_layer(number).type for number in range(network.num_layers)]
    return Accepted(
        version=rtx.__version__,
        layers=len(kinds),
        rounded=kinds.count(rtx.LayerType.QUANTIZE),
        engine_bytes=len(plan),
        seconds=round(time.perf_counter() - start, 2),
    )


def _import_rtx() -> Any | None:
    try:
        return importlib.import_module("tensorrt_rtx_bindings")
    except (ImportError, OSError):
        return None
