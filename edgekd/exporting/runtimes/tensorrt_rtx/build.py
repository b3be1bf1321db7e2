"""Engines built ahead of time by TensorRT for RTX: no GPU needed, neither that of the target nor another.

The builder says in its log what every layer of the finished engine computes in. Its inspector would, too, but opens no
engine without a GPU. That an int8 convolution runs on integers is not a matter of course: after a build for Turing that
failed, release 1.7.1 makes the next engine of the same process with every one of them in float32, without a word.
"""

from __future__ import annotations

import functools
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.device import runner
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.manifest import Check
from edgekd.exporting.qdq_checks import int8_layers
from edgekd.exporting.runtimes.tensorrt.engine import Refused, parsed_network, recorder, serialized_engine
from edgekd.exporting.targets import Precision, Target

TYPED_AS = (11,)  # TensorRT for RTX counts its releases from 1; its networks are strongly typed, as TensorRT 11's
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], (?:Constants|Outputs): \[(?P<rest>.*)"
)
_TYPE = re.compile(r"Datatype: (\w+)")


@dataclass(frozen=True)
class Built:
    """An engine, and what the builder says of it. `layers` of the parsed network, `rounded` of them QuantizeLinear;
    `types`: int8 layer of the graph -> "int8" or "float", as far as it is told."""

    version: str
    plan: bytes
    layers: int
    rounded: int
    types: Mapping[str, str]
    seconds: float


def import_rtx() -> Any | None:
    """The Python module of TensorRT for RTX; None where the extra `rtx` is not installed. Raises `InputError` where it
    is, and does not load."""
    try:
        return runner.import_rtx()
    except runner.NotInstalled:
        return None
    except runner.RunnerError as failure:
        raise InputError(f"{failure}: pip install --force-reinstall 'edgekd[rtx]'.") from None


def build_ahead(rtx: Any, model: bytes, capabilities: Sequence[str] = (), max_batch: int = 8) -> Built:
    """Parse and build a serialised graph for GPUs of these compute capabilities; none: those it takes by itself, 8.6
    and later. Raises `Refused`."""
    start = time.perf_counter()
    builder, network = parsed_network(rtx, TYPED_AS, model)
    kinds = [network.get_layer(number).type for number in range(network.num_layers)]
    plan = serialized_engine(rtx, TYPED_AS, "int8", builder, network, max_batch, cache=None, capabilities=capabilities)
    layers = reported_layers(recorder(rtx).take_report())
    return Built(
        version=rtx.__version__,
        plan=plan,
        layers=len(kinds),
        rounded=kinds.count(rtx.LayerType.QUANTIZE),
        types=runner.types_of(layers, int8_layers(model)),
        seconds=round(time.perf_counter() - start, 2),
    )


def reported_layers(report: str) -> list[dict[str, Any]]:
    """What the builder's log says of the layers of an engine, as the inspector would have it."""
    found = []
    for line in report.splitlines():
        told = _LAYER.match(line)
        if told is not None:
            inputs = [{"Datatype": kind} for kind in _TYPE.findall(told["inputs"])]
            found.append({"Name": told["name"], "LayerType": told["kind"], "Inputs": inputs, "Metadata": told["rest"]})
    return found


def require_builder(target: Target) -> Any:
    """The module that builds engines for `target`. Raises `InputError` where it is missing, broken or of another
    release, `UsageError` on a machine that builds for other processors."""
    assert target.tensorrt_rtx is not None
    wanted = target.tensorrt_rtx.version
    install = f"pip install 'tensorrt-rtx-cu13-libs=={wanted}.*' 'tensorrt-rtx-cu13-bindings=={wanted}.*'"
    if platform.machine() != target.architecture:
        raise UsageError(
            f"Target '{target.name}': TensorRT for RTX builds for the processors that it runs on, which are"
            f" {platform.machine()} here and {target.architecture} there. Export it on such a machine."
        )
    rtx = import_rtx()
    if rtx is None:
        raise InputError(
            f"Target '{target.name}' takes engines that are built here, and TensorRT for RTX is not installed."
            f" Next: {install}"
        )
    if rtx.__version__.split(".")[:3] != wanted.split("."):
        raise InputError(
            f"Target '{target.name}' runs TensorRT for RTX {wanted}, and {rtx.__version__} here builds other engines."
            f" Next: {install}, or write version in a copy of the target's TOML"
        )
    return rtx


def engine_for(model: bytes, target: Target) -> Built:
    """The engine of a graph for `target`. Raises `InputError`, and `GateError` in the builder's own words."""
    settings = target.tensorrt_rtx
    assert settings is not None
    return _engine(model, settings.capabilities, settings.max_batch, require_builder(target))


@functools.lru_cache(maxsize=4)  # what is checked is what is written: it is built once
def _engine(model: bytes, capabilities: tuple[str, ...], max_batch: int, rtx: Any) -> Built:
    try:
        return build_ahead(rtx, model, capabilities, max_batch)
    except Refused as refusal:
        raise GateError(
            f"TensorRT for RTX {rtx.__version__} builds no engine for compute capability {', '.join(capabilities)}:"
            f" {refusal}."
        ) from None


def check_layers(model: bytes, precision: Precision, target: Target) -> Check:
    """What the builder says of the engine that ships, as an entry of the manifest.

    Raises `GateError` that names the layers of an int8 graph that it computes in float, or of which it says nothing.
    """
    built = engine_for(model, target)
    assert target.tensorrt_rtx is not None
    capabilities = ", ".join(target.tensorrt_rtx.capabilities)
    fallen = [name for name, kind in built.types.items() if kind != "int8"]
    if fallen:
        keep = " ".join(f"--keep-float {name.removeprefix('network.').rpartition('/')[0]}" for name in fallen)
        raise GateError(
            f"TensorRT for RTX {built.version} computes in float what is to be int8, for compute capability"
            f" {capabilities}: {', '.join(fallen)} ({len(fallen)} of {len(built.types)} layers). Next:"
            f" --precision fp16, or leave these in float on purpose: edgekd quantize RUN {keep}"
        )
    untold = [name for name in int8_layers(model) if name not in built.types]
    if untold:
        raise GateError(
            f"TensorRT for RTX {built.version} does not say whether it computes in int8 what is to be:"
            f" {', '.join(untold)}. Next: --precision fp16, or an edgekd that reads the log of this release"
        )
    return Check(
        by=f"the builder of TensorRT for RTX {built.version}, for compute capability {capabilities}",
        precision=precision,
        figures={"layers": built.layers, "int8": built.rounded, "engine_bytes": len(built.plan)},
        layers=dict(built.types),
    )
