"""Where the time of a classifier goes: each layer's share, MACs, output and precision, the slowest first.

ONNX Runtime tells by its own profile, operator by operator after its fusions; a fused operator is given the name of the
layer that it computes. PyTorch modules are timed while they run, each without the modules in it. TensorRT engines are
asked by `trtexec --exportProfile`. Measuring each layer takes time itself, so the sum is more than a plain run takes:
shares count.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgekd.errors import InputError
from edgekd.exporting.cost import macs_by_node
from edgekd.exporting.verify import session_options
from edgekd.report.results import Layer

if TYPE_CHECKING:
    import onnx

WARMUP = 10  # runs that are not counted
BETWEEN = "(between layers)"
TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")  # where NVIDIA's packages put it, seldom on PATH

_KERNEL = "_kernel_time"
_DERIVED = re.compile(r"(?:_token_\d+|_nchwc|_d?q|/\w+)*")  # what ONNX Runtime appends to the name of a node it changes
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_PRECISIONS = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "int8": "int8", "uint8": "int8"}
# What trtexec calls a format -> precision and bytes of a number: "Half", "Row major linear FP16 format", ...
_FORMATS = (
    ("int8", "int8", 1),
    ("half|fp16", "float16", 2),
    ("bf16|bfloat", "bfloat16", 2),
    ("float|fp32", "float32", 4),
)


@dataclass
class _Time:
    """What has been measured of one layer."""

    operator: str
    ms: float = 0.0
    macs: int | None = None
    output_bytes: int | None = None
    precision: str | None = None


# --- ONNX Runtime -----------------------------------------------------------------------------------------------------


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

    graph = _named(onnx.load_from_string(model))
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
    origin = _Origins(graph.graph, _macs(graph))
    found: dict[str, _Time] = {}
    before = "the input"
    for own in executed.values():  # in the order in which they run
        name, operator, macs = origin.of(own[0]["name"].removesuffix(_KERNEL), own[0]["args"]["op_name"], before)
        before = name if origin.is_known(name) else before
        counted = own[len(own) * WARMUP // (WARMUP + runs) :]
        layer = found.setdefault(name, _Time(operator))
        layer.ms += sum(event["dur"] for event in counted) / 1e3 / runs
        layer.macs = macs if layer.macs is None else layer.macs
        layer.output_bytes = int(own[0]["args"]["output_size"])
        layer.precision = _first_type(own[0]["args"]["input_type_shape"])
    return _slowest_first(found)


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


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` in which each node has a name of its own; what has one keeps it."""
    taken: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
        taken.add(node.name)
    return model


def _macs(model: onnx.ModelProto) -> dict[str, int]:
    from onnx.shape_inference import InferenceError

    try:
        return macs_by_node(model)
    except (ValueError, InferenceError):  # a graph from elsewhere, whose shapes are known only when it runs
        return {}


def _first_type(shapes: list[dict[str, Any]]) -> str | None:
    return _PRECISIONS.get(next(iter(shapes[0]))) if shapes else None


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def torch_layers(module: nn.Module, example: Tensor, runs: int = 20, threads: int = 1) -> tuple[Layer, ...]:
    """Mean times over `runs` of the modules in `module(example)`, each without the time of the modules in it.

    On a GPU by CUDA events, so that a module takes from its first to its last kernel. What is computed between modules,
    in the `forward` of those that hold them, is a layer of its own.
    """
    names = {inner: name or BETWEEN for name, inner in module.named_modules()}
    with _threads(threads):
        found, computing = _counted(module, example, names)
        clock = _CudaClock() if example.is_cuda else _WallClock()
        for number in range(WARMUP + runs):
            spans = _spans(module, example, clock)
            if number >= WARMUP:
                for inner, ms in _without_children(spans, clock).items():
                    found[names[inner] if inner in computing else BETWEEN].ms += ms / runs
    return _slowest_first(found)


@dataclass
class _Span:
    """One call of a module."""

    module: nn.Module
    start: Any
    end: Any = None
    children: list[_Span] = field(default_factory=list)


class _WallClock:
    def now(self) -> float:
        return time.perf_counter()

    def ms(self, start: float, end: float) -> float:
        return 1e3 * (end - start)

    def finish(self) -> None:
        """All times can be read at once."""


class _CudaClock:
    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ms(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end)

    def finish(self) -> None:
        """Wait until all events have happened."""
        torch.cuda.synchronize()


def _spans(module: nn.Module, example: Tensor, clock: _WallClock | _CudaClock) -> list[_Span]:
    """Every call of a module in one `module(example)`."""
    every: list[_Span] = []
    running: list[_Span] = []

    def begins(inner: nn.Module, *_: Any) -> None:
        span = _Span(inner, clock.now())
        if running:
            running[-1].children.append(span)
        running.append(span)
        every.append(span)

    def ends(*_: Any) -> None:
        running.pop().end = clock.now()

    with _hooked(module, begins, ends):
        module(example)
    clock.finish()
    return every


def _without_children(spans: list[_Span], clock: _WallClock | _CudaClock) -> dict[nn.Module, float]:
    own: dict[nn.Module, float] = defaultdict(float)
    for span in spans:
        own[span.module] += clock.ms(span.start, span.end)
        for child in span.children:
            own[span.module] -= clock.ms(child.start, child.end)
    return own


def _counted(
    module: nn.Module, example: Tensor, names: Mapping[nn.Module, str]
) -> tuple[dict[str, _Time], set[nn.Module]]:
    """Layers without their times, and the modules that compute something themselves."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    computing: set[nn.Module] = set()
    running: list[nn.Module] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
        ) -> Any:
            if running and not operator.is_view:
                computing.add(running[-1])
            return operator(*arguments, **(keywords or {}))

    found: dict[str, _Time] = {BETWEEN: _Time(type(module).__name__)}
    flops: dict[str, int] = defaultdict(int)
    counter = FlopCounterMode(display=False)
    marks = [0]

    def account() -> None:
        """What has been computed since the last mark belongs to the module that is running."""
        total = counter.get_total_flops()
        if running:
            flops[names[running[-1]]] += total - marks[0]
        marks[0] = total

    def begins(inner: nn.Module, *_: Any) -> None:
        account()
        running.append(inner)

    def ends(inner: nn.Module, _: Any, output: Any) -> None:
        account()
        running.pop()
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        layer = found.setdefault(names[inner], _Time(type(inner).__name__))
        layer.output_bytes = sum(tensor.nbytes for tensor in tensors)
        layer.precision = str(tensors[0].dtype).removeprefix("torch.") if tensors else None

    # The counter has no formula for the CPU's fused attention; the plain one is matrix products.
    with _hooked(module, begins, ends), sdpa_kernel(SDPBackend.MATH), counter, Watch():
        module(example)
    for name, layer in found.items():
        layer.macs = flops[name] // 2 or None
    kept = {names[inner] for inner in computing} | {BETWEEN}
    return {name: layer for name, layer in found.items() if name in kept}, computing


@contextmanager
def _hooked(module: nn.Module, begins: Any, ends: Any) -> Iterator[None]:
    handles = [inner.register_forward_pre_hook(begins) for inner in module.modules()]
    handles += [inner.register_forward_hook(ends) for inner in module.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- TensorRT ---------------------------------------------------------------------------------------------------------


def engine_layers(engine: Path, model: bytes | None = None) -> tuple[Layer, ...]:
    """The layers of a TensorRT engine, timed by trtexec. `model`: the ONNX file it was built from, for the MACs.

    Raises `InputError` where there is no trtexec, and where it cannot run the engine.
    """
    program = str(TRTEXEC) if os.access(TRTEXEC, os.X_OK) else shutil.which("trtexec")
    if program is None:
        raise InputError(
            f"{engine}: no trtexec in {TRTEXEC.parent} or on PATH, which times the layers of an engine."
            " Next: sudo apt install nvidia-jetpack on a Jetson, or leave --layers out."
        )
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        command = [program, f"--loadEngine={engine.resolve()}", "--exportProfile=profile.json"]
        command += ["--exportLayerInfo=layers.json", "--dumpProfile", "--separateProfileRun"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
            reason = errors[0].partition("[E]")[2].strip() if errors else f"exit code {done.returncode}"
            raise InputError(f"{engine}: trtexec cannot run it: {reason}. Build it again on this device.")
        try:
            profile = Path(folder, "profile.json").read_text(encoding="utf-8")
        except OSError:
            raise InputError(f"{engine}: trtexec wrote no profile. Leave --layers out.") from None
        info = Path(folder, "layers.json")
        return trtexec_layers(profile, info.read_text(encoding="utf-8") if info.exists() else None, model)


def trtexec_layers(profile: str, info: str | None = None, model: bytes | None = None) -> tuple[Layer, ...]:
    """What `trtexec --exportProfile` wrote, with what `--exportLayerInfo` did where that is at hand.

    Operator, output and precision are in the latter, if the engine was built with `--profilingVerbosity=detailed`.
    `model`: the ONNX file, for the MACs. Raises `InputError` for text that is none of these.
    """
    try:
        rows = [row for row in json.loads(profile) if "averageMs" in row]
        details = {row["Name"]: row for row in json.loads(info or "{}").get("Layers", []) if isinstance(row, dict)}
        found: dict[str, _Time] = {}
        for row in rows:
            detail = details.get(row["name"], {})
            layer = found.setdefault(row["name"], _Time(detail.get("LayerType", "")))
            layer.ms += float(row["averageMs"])
            layer.precision, layer.output_bytes = _output(detail)
        if not found:
            raise ValueError("no layers")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError("trtexec: its profile is not the JSON that --exportProfile writes.") from None
    if model is not None:
        import onnx

        macs = _macs(_named(onnx.load_from_string(model)))
        for name, layer in found.items():  # "a + b" is a and b in one kernel
            layer.macs = sum(macs.get(part.strip(), 0) for part in name.split(" + ")) or None
    return _slowest_first(found)


def _output(detail: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Precision and bytes of a layer's first output, as far as they are told."""
    outputs = detail.get("Outputs") or [{}]
    kind = str(outputs[0].get("Format/Datatype", ""))
    for pattern, precision, size in _FORMATS:
        if re.search(pattern, kind, re.IGNORECASE):
            dimensions = outputs[0].get("Dimensions")
            return precision, int(np.prod(dimensions)) * size if dimensions else None
    return None, None


def _slowest_first(found: Mapping[str, _Time]) -> tuple[Layer, ...]:
    total = sum(layer.ms for layer in found.values()) or 1.0
    ordered = sorted(found.items(), key=lambda item: -item[1].ms)
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
