"""NVIDIA's own ONNX parser and ahead-of-time builder, asked here whether they take a graph. No GPU needed.

They come with TensorRT for RTX (`pip install 'edgekd[rtx]'`), whose parser is TensorRT's and whose builder compiles for
GPUs that are not there. Its engines do not run on a Jetson, and not here: this says that a graph is accepted, not that
an engine of it is right.
"""

from __future__ import annotations

from edgekd.errors import GateError, InputError
from edgekd.exporting.manifest import Check
from edgekd.exporting.runtimes.tensorrt.engine import Refused
from edgekd.exporting.runtimes.tensorrt_rtx.build import Built, build_ahead, import_rtx
from edgekd.exporting.targets import Precision
from edgekd.progress import Progress


def check_by_parser(model: bytes, precision: Precision, progress: Progress) -> Check:
    """What NVIDIA's parser and builder say of a graph, as an entry of the manifest. Raises `GateError`."""
    by = "NVIDIA's ONNX parser and builder"
    progress("parse", 0, 1, precision=precision)
    try:
        accepted = parse_with_nvidia(model)
    except InputError as failure:
        return Check(by=by, precision=precision, not_run=str(failure))
    progress("parse", 1, 1, precision=precision)
    if accepted is None:
        return Check(by=by, precision=precision, not_run="the extra 'rtx' is not installed")
    return Check(
        by=f"{by} (TensorRT for RTX {accepted.version})",
        precision=precision,
        figures={"layers": accepted.layers, "int8": accepted.rounded},
        layers=dict(accepted.types),
    )


def parse_with_nvidia(model: bytes) -> Built | None:
    """Have NVIDIA's parser read a serialised graph and its builder build it; None where the extra `rtx` is absent.

    Raises `GateError` with their own words where they refuse it, `InputError` where it is there and does not load.
    """
    rtx = import_rtx()
    if rtx is None:
        return None
    try:
        return build_ahead(rtx, model)
    except Refused as refusal:
        raise GateError(
            f"NVIDIA's parser or builder (TensorRT for RTX {rtx.__version__}) refuses the graph: {refusal}."
            " A TensorRT device would too: build the student of other layers."
        ) from None
