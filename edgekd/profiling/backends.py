"""What runs a classifier: PyTorch, ONNX Runtime, TensorRT. Each does the same few things, so that any can be compared.

    classify(waveforms (B, S)) -> probabilities (B, K)     on the CPU on both sides, as everywhere below
    timers(example (1, S))     -> {"whole", and "front end", "network", "device" where they can be had}
    batches(waveforms, threads)   a call that classifies all of `waveforms` at once, while the context lasts
    cost(example), memory(example), layers(example)

"whole" is the path that ships: from a waveform in memory to scores in memory, copies to and from a GPU included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.device import runner
from edgekd.errors import InputError, unknown_name
from edgekd.exporting.cost import activation_bytes, graph_cost, graph_traffic, split_at_log_mel
from edgekd.exporting.graph import KNOWN_OUTPUT
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.runtimes.tensorrt import TensorRT
from edgekd.exporting.runtimes.tensorrt.rounding import PROVIDERS, clipped_rounding
from edgekd.exporting.runtimes.tensorrt_rtx import TensorRTForRTX
from edgekd.exporting.targets import Precision
from edgekd.exporting.verify import FLOATS, in_session, session
from edgekd.profiling.compilers import compiled
from edgekd.profiling.cost import module_cost
from edgekd.profiling.engine_layers import engine_layers
from edgekd.profiling.graph_layers import onnx_layers
from edgekd.profiling.latency import Timer, cuda_events, wall
from edgekd.profiling.memory import Memory, graph_memory, torch_memory
from edgekd.profiling.module_layers import torch_layers
from edgekd.report.results import Cost, Layer, PrecisionName
from edgekd.task import SINGLE, Task

Call = Callable[[], object]
FrontEnd = Callable[[NDArray["np.float32"]], NDArray["np.float32"]]
"""Clips `(B, S)` -> the log-mel `(B, 1, T, F)` of a graph that takes one."""

TORCH = "torch"
PRECISIONS: dict[Precision, PrecisionName] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
ENGINE_PRECISIONS: dict[str, PrecisionName] = dict([*PRECISIONS.items(), (runner.DLA_ENGINE, "float16")])
"""By the names that the on-device runner gives engines."""


@dataclass(frozen=True)
class RunnerEngine:
    """What the on-device runner runs a bundle by."""

    runtime: str
    on_cpu: bool


ENGINES = {  # by the names that the runner gives them
    "onnxruntime": RunnerEngine(OnnxRuntime.name, on_cpu=True),
    "tensorrt": RunnerEngine(TensorRT.name, on_cpu=False),
    "trtexec": RunnerEngine(TensorRT.name, on_cpu=False),
    "tensorrt-rtx": RunnerEngine(TensorRTForRTX.name, on_cpu=False),
}


class Model(Protocol):
    """See the module. `backend` is `torch`, one of `compilers`, or the name of a runtime."""

    backend: str
    runtime: str
    precision: PrecisionName
    threads: int | None

    def classify(self, waveforms: Tensor, /) -> Tensor: ...
    def timers(self, example: Tensor, /) -> dict[str, Timer]: ...
    def batches(self, waveforms: Tensor, threads: int, /) -> AbstractContextManager[Call]: ...
    def cost(self, example: Tensor, /) -> Cost: ...
    def memory(self, example: Tensor, /) -> Memory: ...
    def layers(self, example: Tensor, /) -> tuple[Layer, ...]: ...


class TorchModel:
    """A teacher or float student in PyTorch, as it is or compiled, on the CPU or a GPU."""

    precision: PrecisionName = "float32"

    def __init__(
        self,
        module: nn.Module,
        *,
        front_end: Callable[[Tensor], Tensor] | None,
        network: Callable[[Tensor], object] | None,
        learned: nn.Module,
        file: Path,
        device: str = "cpu",
        backend: str = TORCH,
        threads: int = 1,
        task: Task = SINGLE,
    ) -> None:
        """`module`: waveforms -> `.logits`, probabilities as `task` says. `front_end` and `network` are its two parts
        where it has them; `learned` holds the parameters that count, and `file` stores them. Raises `InputError` where
        `backend` cannot compile."""
        self._module, self._front_end, self._network = module.to(device).eval(), front_end, network
        self._learned, self._file, self._device, self._task = learned, file, torch.device(device), task
        self._compiled = backend != TORCH
        self._run, how = compiled(module, backend) if self._compiled else (module, "")
        self.backend = backend
        self.threads = threads if self._device.type == "cpu" else None
        where = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"
        version = torch.__version__.partition("+")[0]
        self.runtime = f"PyTorch {version}{', ' if how else ''}{how}, {where}"

    def classify(self, waveforms: Tensor) -> Tensor:
        with torch.inference_mode():
            try:
                logits = self._run(waveforms.to(self._device)).logits.float()
                return self._task.probabilities(logits).cpu()
            except (RuntimeError, AssertionError) as failure:
                if not self._compiled or isinstance(failure, torch.OutOfMemoryError):
                    raise
                reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
                raise InputError(f"torch.compile cannot compile it here: {reason}. Leave {self.backend} out.") from None

    def timers(self, example: Tensor) -> dict[str, Timer]:
        self.classify(example)  # compiles
        found = {"whole": wall(partial(self.classify, example))}
        on_device = example.to(self._device)
        if self._device.type == "cuda":
            found["device"] = cuda_events(self._inferring(self._run, on_device), self._device)
        if self._front_end is None or self._compiled:  # compiled, the parts are not what runs
            return found
        found["front end"] = wall(self._finished(self._inferring(self._front_end, on_device)))
        if self._network is not None:
            with torch.inference_mode():
                features = self._front_end(on_device)
            found["network"] = wall(self._finished(self._inferring(self._network, features)))
        return found

    def batches(self, waveforms: Tensor, _threads: int) -> AbstractContextManager[Call]:
        return nullcontext(partial(self.classify, waveforms))

    def cost(self, example: Tensor) -> Cost:
        example = example.to(self._device)
        return module_cost(self._module, self._front_end, self._learned, self._file.stat().st_size, example)

    def memory(self, example: Tensor) -> Memory:
        return torch_memory(partial(self.classify, example), str(self._device))

    def layers(self, example: Tensor) -> tuple[Layer, ...]:
        return torch_layers(self._module, example.to(self._device), threads=self.threads or 1)

    def _inferring(self, call: Callable[[Tensor], object], argument: Tensor) -> Call:
        def once() -> object:
            with torch.inference_mode():
                return call(argument)

        return once

    def _finished(self, call: Call) -> Call:
        """`call`, over only when the GPU is done."""
        if self._device.type != "cuda":
            return call

        def once() -> None:
            call()
            torch.cuda.synchronize(self._device)

        return once


class OnnxGraph:
    """An exported graph in ONNX Runtime."""

    backend: str = OnnxRuntime.name

    def __init__(
        self,
        model: bytes,
        precision: PrecisionName,
        *,
        parameters: int | None = None,
        outside: FrontEnd | None = None,
        provider: str = "CPUExecutionProvider",
        threads: int = 1,
    ) -> None:
        """`parameters` None: those that the graph stores. `outside` computes the log-mel `(B, 1, T, F)` of waveforms
        for a graph that takes one. Raises `GateError` where ONNX Runtime refuses the graph, and `InputError` where a
        TensorRT provider would misread it."""
        import onnxruntime

        self.model, self.precision, self._parameters, self._outside = model, precision, parameters, outside
        self._provider = provider
        self._providers = tuple(dict.fromkeys((provider, "CPUExecutionProvider")))
        on_cpu = provider in ("CPUExecutionProvider", "XnnpackExecutionProvider")
        self.threads = threads if on_cpu else None
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}, {provider.removesuffix('ExecutionProvider')}"
        if provider in PROVIDERS:
            clipped = clipped_rounding(self._graph())
            if clipped is not None:
                raise InputError(
                    f"--provider {provider}: {clipped}. Leave --provider out, or export for a TensorRT board."
                )
        self._session = self._open(model, threads)
        sound = self._session.get_inputs()[0]
        self._sound, self.shape = sound.name, tuple(sound.shape)
        self._float = FLOATS.get(sound.type, np.float32)
        tensors = None if outside is None else lambda clips: torch.from_numpy(outside(clips.numpy()))
        self._answers = in_session(self._session, tensors)
        self.tells_known = KNOWN_OUTPUT in [each.name for each in self._session.get_outputs()]

    @property
    def samples(self) -> int:
        """Of one clip, for a graph that takes waveforms."""
        return int(self.shape[1])

    def classify(self, waveforms: Tensor) -> Tensor:
        return self._answers(waveforms)[:, : -1 if self.tells_known else None]

    def known(self, waveforms: Tensor) -> Tensor:
        """How familiar each of `waveforms (B, S)` is, `(B,)`, of a graph that `tells_known`."""
        return self._answers(waveforms)[:, -1]

    def timers(self, example: Tensor) -> dict[str, Timer]:
        waveform = example.numpy()
        run, feed = self._session.run, self._feed(example)
        if self._outside is not None:
            outside = self._outside
            return {
                "whole": wall(lambda: run(None, {self._sound: outside(waveform)})),
                "front end": wall(lambda: outside(waveform)),
                "network": wall(lambda: run(None, feed)),
            }
        found = {"whole": wall(lambda: run(None, feed))}
        parts = self._parts()
        if parts is not None:
            first, second = parts
            log_mel = {second.get_inputs()[0].name: first.run(None, feed)[0]}
            found["front end"] = wall(lambda: first.run(None, feed))
            found["network"] = wall(lambda: second.run(None, log_mel))
        return found

    @contextmanager
    def batches(self, waveforms: Tensor, threads: int) -> Iterator[Call]:
        # A session of its own, closed again: the threads of an idle one would go on spinning beside what comes next.
        other = OnnxGraph(self.model, self.precision, outside=self._outside, provider=self._provider, threads=threads)
        yield partial(other.classify, waveforms)

    def cost(self, _example: Tensor) -> Cost:
        graph = self._graph()
        parts = split_at_log_mel(graph)
        costs = [graph_cost(part) for part in parts] if parts else [graph_cost(graph)]
        frontend_macs = costs[0].macs if parts else None
        traffic = graph_traffic(graph)
        return Cost(
            parameters=costs[-1].parameters if self._parameters is None else self._parameters,
            macs=costs[-1].macs,
            frontend_macs=frontend_macs,
            file_bytes=len(self.model),
            traffic_bytes=traffic,
            arithmetic_intensity=sum(cost.macs for cost in costs) / traffic,
            activation_bytes=activation_bytes(graph),
        )

    def memory(self, example: Tensor) -> Memory:
        if self.threads is None:  # what a GPU takes is not in a process's resident memory
            return Memory()
        return graph_memory(self.model, self._feed(example))

    def layers(self, example: Tensor) -> tuple[Layer, ...]:
        return onnx_layers(self.model, self._feed(example), threads=self.threads or 1, providers=self._providers)

    def _parts(self) -> tuple[Any, Any] | None:
        """Sessions of front end and network, where they can be timed apart."""
        parts = split_at_log_mel(self._graph())
        if parts is None:
            return None
        first, second = (self._open(part.SerializeToString(), self.threads or 1) for part in parts)
        return first, second

    def _graph(self) -> Any:
        import onnx

        return onnx.load_from_string(self.model)

    def _feed(self, example: Tensor) -> dict[str, NDArray[np.floating]]:
        waveform = example.numpy()
        sound = waveform if self._outside is None else self._outside(waveform)
        return {self._sound: sound.astype(self._float, copy=False)}

    def _open(self, model: bytes, threads: int) -> Any:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        if self._provider not in available:
            raise unknown_name("execution provider of the onnxruntime here", self._provider, available)
        found = session(model, threads, self._providers)
        if found.get_providers()[0] != self._provider:  # onnxruntime goes on without a provider that does not load
            raise InputError(
                f"onnxruntime {onnxruntime.__version__} has {self._provider} but cannot use it here (its libraries or "
                "its device are missing) and would compute on the CPU instead. Leave --provider out."
            )
        return found


class Engine:
    """A TensorRT engine, run by its Python module or by trtexec, as the runner does."""

    threads: int | None = None

    def __init__(
        self,
        file: Path,
        contract: runner.Contract,
        precision: PrecisionName,
        *,
        outside: FrontEnd | None = None,
        graph: OnnxGraph | None = None,
        runtime: str = TensorRT.name,
    ) -> None:
        """`graph`: the ONNX file that the engine was made of, where that is known, for parameters and MACs. `runtime`:
        the one it was built for. One for an accelerator is known by its file's name.

        Raises `InputError` where no TensorRT is, and for an engine of another model.
        """
        self._file, self.precision, self._outside, self._graph = file, precision, outside, graph
        self._on_dla = file.stem.endswith(runner.DLA_ENGINE)
        self._classes = contract.classes
        try:
            self._engine = runner.open_engine(file, contract, runtime, self._on_dla)
        except runner.RunnerError as failure:
            raise InputError(str(failure)) from None
        self.backend = runtime
        self.runtime = " ".join(filter(None, (self._engine.name, self._engine.version)))

    def classify(self, waveforms: Tensor) -> Tensor:
        try:
            return torch.from_numpy(self._engine(self._input(waveforms)))[:, : self._classes]
        except runner.RunnerError as failure:
            raise InputError(str(failure)) from None

    def timers(self, example: Tensor) -> dict[str, Timer]:
        if isinstance(self._engine, runner.Trtexec):  # it is started anew for each call, and takes the times itself
            return {"whole": _taken_by_trtexec(self._engine, self._input(example))}
        found = {"whole": wall(partial(self.classify, example))}
        if self._outside is not None:
            batch = self._input(example)
            found["front end"] = wall(lambda: self._input(example))
            found["network"] = wall(lambda: self._engine(batch))
        return found

    def batches(self, waveforms: Tensor, _threads: int) -> AbstractContextManager[Call]:
        return nullcontext(partial(self.classify, waveforms))

    def cost(self, example: Tensor) -> Cost:
        size = self._file.stat().st_size
        if self._graph is None:
            return Cost(file_bytes=size)
        return self._graph.cost(example).model_copy(update={"file_bytes": size})

    def memory(self, _example: Tensor) -> Memory:
        return Memory()

    def layers(self, _example: Tensor) -> tuple[Layer, ...]:
        if self.backend == TensorRTForRTX.name:
            raise InputError(
                f"{self._file}: trtexec times the layers of an engine, but not of one for RTX. Leave --layers out."
            )
        return engine_layers(self._file, None if self._graph is None else self._graph.model, on_dla=self._on_dla)

    def _input(self, waveforms: Tensor) -> NDArray[np.float32]:
        clips = waveforms.numpy()
        return clips if self._outside is None else self._outside(clips)


def _taken_by_trtexec(engine: runner.Trtexec, batch: NDArray[np.float32]) -> Timer:
    waiting: list[float] = []

    def next_time() -> float:
        if not waiting:
            waiting.extend(engine.latencies(batch, 100))
        return waiting.pop(0) / 1e3

    return next_time


def all_threads() -> int:
    """The CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
