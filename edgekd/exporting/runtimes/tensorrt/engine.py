"""TensorRT engines built here, where TensorRT's Python module and an NVIDIA GPU are: `build_engine.sh` in Python.

Each precision of a bundle is built, then the bundle's own runner compares the engines' outputs with the golden examples
and times them side by side (`edgekd_runner.py choose`), for the fastest of a tiny model is often not int8.

What is asked of TensorRT by release, 8.5 to 11, is what `build_script` asks of `trtexec`; see there for why.
A graph that TensorRT's own parser or builder refuses is tried through torch-tensorrt where that is installed, which
converts the PyTorch module without ONNX (`convert_exported_program_to_serialized_trt_engine`).
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekd.device import runner
from edgekd.errors import GateError, InputError
from edgekd.exporting.graph import FRONT_END
from edgekd.exporting.runtimes.tensorrt import TensorRT
from edgekd.exporting.runtimes.tensorrt.build_script import TIMING_CACHE, WORKSPACE_MIB, engine_name
from edgekd.exporting.runtimes.tensorrt.releases import (
    EXPLICIT_INT8,
    STRONGLY_TYPED,
    Installed,
    Release,
    language_of,
    newest_opset,
)
from edgekd.exporting.runtimes.tensorrt.rounding import clipped_rounding
from edgekd.exporting.targets import Precision
from edgekd.files.whole import write_bytes
from edgekd.optional_modules import import_optional
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn


_REPORT = "Layers:\nName: "


class Refused(Exception):
    """A parser or builder does not take a graph: its own words, in one line."""


def build_engines(
    folder: Path, modules: Mapping[Precision, nn.Module] | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Build the engines of the bundle in `folder`, let its runner choose, and return what it found.

    That is `{"precision": ..., "candidates": {precision: {"agrees": ..., "p50_ms": ...}}, "refused": {precision:
    why}}`.
    `modules`: the classifier as a PyTorch module in some of the precisions, for torch-tensorrt to try where TensorRT
    refuses the graph. Raises `InputError` for what is no TensorRT bundle, and where TensorRT or a GPU is missing;
    `GateError` when no engine can be built or none agrees with the golden examples.
    """
    try:
        manifest = runner.read_manifest(folder)
        runner.check_files(folder, manifest)
    except runner.RunnerError as failure:
        raise InputError(str(failure)) from None
    target = manifest["target"]
    if target["runtime"] != TensorRT.name:
        raise InputError(f"{folder}: made for '{target['name']}', which runs {target['runtime']}: no engine to build.")
    tensorrt = import_tensorrt()
    release = release_of(tensorrt)
    if newest_opset(release) < target["opset"]:
        raise InputError(
            f"{folder}: written in opset {target['opset']}, which TensorRT {tensorrt.__version__} here does not read."
            f" Export it for a target with opset = {newest_opset(release)}."
        )
    graphs = cast(dict[Precision, str], runner.graphs(manifest))
    max_batch = 1 if manifest["classifier"]["batch"] == 1 else Installed.model_validate(target["tensorrt"]).max_batch
    refused: dict[str, str] = {}
    for done, (precision, name) in enumerate(graphs.items(), start=1):
        engine = folder / engine_name(precision)
        try:
            plan = _build(tensorrt, release, precision, folder, name, max_batch, (modules or {}).get(precision))
            write_bytes(engine, plan)
        except Refused as refusal:
            refused[precision] = str(refusal)
            engine.unlink(missing_ok=True)  # an older one would be taken for this one
        progress("engines", done, len(graphs), precision=precision)
    if len(refused) == len(graphs):
        reasons = "; ".join(f"{precision}: {why}" for precision, why in refused.items())
        raise GateError(f"TensorRT {tensorrt.__version__} builds no engine of {folder}: {reasons}.")
    return {**chosen_by_runner(folder), "refused": refused}


def import_tensorrt() -> Any:
    """TensorRT's Python module, 8.5 or later. Raises `InputError` that says what to install."""
    try:
        import tensorrt
    except (ImportError, OSError) as failure:
        raise InputError(
            f"TensorRT's Python module cannot be imported ({failure}). Next: pip install 'edgekd[tensorrt]' beside an"
            " NVIDIA driver; on a Jetson, sudo apt install python3-libnvinfer; or run the bundle's build_engine.sh."
        ) from None
    if release_of(tensorrt) < EXPLICIT_INT8:
        raise InputError(
            f"TensorRT {tensorrt.__version__} is too old to build from Python; 8.5 or later does."
            " Next: run the bundle's build_engine.sh."
        )
    return tensorrt


def release_of(tensorrt: Any) -> Release:
    """`(10, 3, 0)` of a TensorRT module."""
    return tuple(int(number) for number in re.findall(r"\d+", tensorrt.__version__)[:3])


def parsed_network(tensorrt: Any, release: Release, model: bytes) -> tuple[Any, Any]:
    """A builder, and the network that the module's ONNX parser makes of `model`. Raises `Refused`, also for a graph
    that the parser would take and misread."""
    clipped = _clipped(model)
    if clipped is not None:
        raise Refused(clipped)
    logger = recorder(tensorrt)
    try:
        builder = tensorrt.Builder(logger)
    except (TypeError, RuntimeError) as failure:  # a null pointer, to the binding
        raise InputError(f"TensorRT finds no GPU it can use: {logger.last() or failure}.") from None
    kinds = tensorrt.NetworkDefinitionCreationFlag
    kind = kinds.STRONGLY_TYPED if release >= STRONGLY_TYPED else kinds.EXPLICIT_BATCH
    network = builder.create_network(1 << int(kind))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [parser.get_error(number).desc() for number in range(parser.num_errors)]
        raise Refused(_one_line(errors[0] if errors else logger.last() or "it does not say why"))
    return builder, network


def _clipped(model: bytes) -> str | None:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return clipped_rounding(onnx.load_from_string(model))
    except DecodeError:
        return None  # the parser has words for it


def serialized_engine(
    tensorrt: Any,
    release: Release,
    precision: Precision,
    builder: Any,
    network: Any,
    max_batch: int,
    cache: Path | None,
    capabilities: Sequence[str] = (),
) -> bytes:
    """The engine of a parsed network, which tells its layers.

    `cache`: file of the timing cache, made where there is none. `capabilities`: GPUs to build for, in TensorRT for RTX.
    Raises `Refused`.
    """
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE_MIB << 20)
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # what a layer computes in can be asked then
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for number, capability in enumerate(capabilities):
            kind = getattr(tensorrt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
            if kind is None or not config.set_compute_capability(kind, number):
                raise Refused(f"it has no compute capability {capability}")
    if release < STRONGLY_TYPED:
        _allow(tensorrt, release, precision, config, network)
    sound = network.get_input(0)
    if sound.shape[0] == -1:
        profile, shape = builder.create_optimization_profile(), tuple(sound.shape)[1:]
        profile.set_shape(sound.name, (1, *shape), (1, *shape), (max_batch, *shape))
        config.add_optimization_profile(profile)
    if cache is not None:
        known = cache.read_bytes() if cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused(_one_line(recorder(tensorrt).last() or "it does not say why"))
    if cache is not None:
        write_bytes(cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _allow(tensorrt: Any, release: Release, precision: Precision, config: Any, network: Any) -> None:
    """Let a weakly typed build leave float32, but for the log-mel."""
    if precision == "int8":
        config.set_flag(tensorrt.BuilderFlag.INT8)
    if precision != "fp16":
        return
    config.set_flag(tensorrt.BuilderFlag.FP16)
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    ends = [number for number, layer in enumerate(layers) if layer.name.startswith(FRONT_END)]
    if not ends:
        return
    assert language_of(release).pins  # 8.5 or later, and not yet strongly typed
    config.set_flag(tensorrt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    # Up to the last node of the log-mel, with what the parser put between, which has names of its own.
    for layer in layers[: ends[-1] + 1]:
        for number in range(layer.num_outputs):
            if layer.get_output(number).dtype == tensorrt.float32:
                layer.precision = tensorrt.float32
                layer.set_output_type(number, tensorrt.float32)


def _build(
    tensorrt: Any,
    release: Release,
    precision: Precision,
    folder: Path,
    name: str,
    max_batch: int,
    module: nn.Module | None,
) -> bytes:
    try:
        builder, network = parsed_network(tensorrt, release, (folder / name).read_bytes())
        cache = folder / TIMING_CACHE
        return serialized_engine(tensorrt, release, precision, builder, network, max_batch, cache)
    except Refused:
        if module is None or precision == "int8":  # rounding is in the graph alone
            raise
        plan = engine_of_module(module, _one_clip(folder))
        if plan is None:
            raise
        return plan


def engine_of_module(module: nn.Module, shape: tuple[int, ...]) -> bytes | None:
    """The engine that torch-tensorrt makes of `module` for an input of `shape`; None where that is not installed.

    Types are those of the module. Raises `Refused`.
    """
    try:
        torch_tensorrt: Any = import_optional("torch_tensorrt")
    except ImportError:
        return None
    import torch

    example = torch.zeros(shape, device="cuda")
    program = torch.export.export(module.eval().cuda(), (example,))
    try:
        plan: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=[example],
            use_explicit_typing=True,
            disable_tf32=True,
            workspace_size=WORKSPACE_MIB << 20,
        )
    except (RuntimeError, ValueError, TypeError, AssertionError) as failure:  # what its converters raise
        raise Refused(_one_line(f"torch-tensorrt: {failure}")) from None
    return plan


def _one_clip(folder: Path) -> tuple[int, ...]:
    """Shape of the input of the bundle's graph, for one clip."""
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    return (1, *(dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:]))


def chosen_by_runner(folder: Path) -> dict[str, Any]:
    """What `edgekd_runner.py choose` says of the engines in `folder`."""
    command = [sys.executable, "edgekd_runner.py", "choose", "--json"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    complaint = finished.stderr.strip().removeprefix("edgekd_runner: ")
    if finished.returncode == runner.DISAGREES:
        raise GateError(f"{folder}: {_one_line(complaint)}")
    if finished.returncode != 0:
        raise InputError(f"{folder}: the engines cannot be compared: {_one_line(complaint)}")
    outcome: dict[str, Any] = json.loads(finished.stdout)
    return outcome


@functools.lru_cache(maxsize=4)
def recorder(tensorrt: Any) -> Any:
    """A logger of this TensorRT module that keeps its errors, and what TensorRT for RTX says of an engine's layers.

    One for all, as the library keeps to the first.
    """

    class Recorder(tensorrt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.report = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif message.startswith(_REPORT):
                self.report = message

        def take_report(self) -> str:
            """What was said of the layers of the last engine, which is then forgotten."""
            report, self.report = self.report, ""
            return report

        def last(self) -> str:
            """The last error, which is then forgotten."""
            return self.errors.pop() if self.errors else ""

    return Recorder()


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400].rstrip(".")
