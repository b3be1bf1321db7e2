"""What runs a bundle here, by the runtime of its board.

For ONNX Runtime that is the graph. For TensorRT, also for RTX, it is the engine that the bundle's runner would use,
where one was built, and the graph in ONNX Runtime beside it or in its place. A bundle of any other runtime is run as
that opens it, and timed as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from edgekd.config import ProfileConfig
from edgekd.device import runner
from edgekd.errors import InputError
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.runtimes.plain_c import PlainC
from edgekd.exporting.runtimes.tensorrt import TensorRT
from edgekd.exporting.runtimes.tensorrt_rtx import TensorRTForRTX
from edgekd.microcontrollers.c.model import HEADER, sizes_of
from edgekd.microcontrollers.c.packages import find
from edgekd.profiling.backends import ENGINE_PRECISIONS, PRECISIONS, Call, Engine, FrontEnd, Model, OnnxGraph
from edgekd.profiling.latency import Timer, wall
from edgekd.profiling.memory import Memory
from edgekd.report.results import Cost, Layer

Models = tuple[list[Model], list[str]]
"""What runs a bundle, and what a reader should know of that."""


def models_of(bundle: Bundle, config: ProfileConfig) -> Models:
    """What runs `bundle` here, of the back ends that `config` names where there are several.

    Raises `InputError` where nothing here can run it.
    """
    return _OF_RUNTIME.get(bundle.manifest.target.runtime, _as_it_opens)(bundle, config)


class OpenedBundle:
    """A bundle as its runtime opens it."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle, self._runtime = bundle, RUNTIMES[bundle.manifest.target.runtime]
        self._classify = self._runtime.open(bundle.folder, threads)
        self.backend: str = self._runtime.name
        self.runtime = self._runtime.describe(bundle.manifest.target)
        self.precision = PRECISIONS[bundle.manifest.precision]
        self.threads: int | None = threads

    def classify(self, waveforms: Tensor) -> Tensor:
        classes = len(self._bundle.manifest.classifier.classes)
        return torch.from_numpy(self._classify(waveforms.numpy())[:, :classes])

    def timers(self, example: Tensor) -> dict[str, Timer]:
        return {"whole": wall(partial(self.classify, example))}

    @contextmanager
    def batches(self, waveforms: Tensor, threads: int) -> Iterator[Call]:
        yield partial(OpenedBundle(self._bundle, threads).classify, waveforms)

    def cost(self, _example: Tensor) -> Cost:
        return Cost(file_bytes=self._bundle.model.stat().st_size)

    def memory(self, _example: Tensor) -> Memory:
        return Memory()

    def layers(self, _example: Tensor) -> tuple[Layer, ...]:
        return ()


class BundleOfC(OpenedBundle):
    """A bundle of C, compiled for this machine. Its constants are text in the bundle: its `file` is what they take."""

    def cost(self, _example: Tensor) -> Cost:
        sizes = sizes_of(find(self._bundle.folder, HEADER).read_text(encoding="utf-8"))
        return Cost(file_bytes=sizes["CONSTANT_BYTES"], parameters=sizes["PARAMETERS"], macs=sizes["MACS"])


def _as_it_opens(bundle: Bundle, config: ProfileConfig) -> Models:
    return [OpenedBundle(bundle, config.threads)], []


def _in_c(bundle: Bundle, config: ProfileConfig) -> Models:
    return [BundleOfC(bundle, config.threads)], []


def _in_onnxruntime(bundle: Bundle, config: ProfileConfig) -> Models:
    return [_graph(bundle, config, _front_end(bundle))], []


def _in_tensorrt(bundle: Bundle, config: ProfileConfig) -> Models:
    front_end = _front_end(bundle)
    graph = _graph(bundle, config, front_end)
    engine = _built_engine(bundle, front_end, graph)
    if not isinstance(engine, Engine):
        return [graph], [engine]
    models: list[Model] = [engine, graph]
    return [model for model in models if model.backend in config.backends] or [engine], []


_OF_RUNTIME: dict[str, Callable[[Bundle, ProfileConfig], Models]] = {
    OnnxRuntime.name: _in_onnxruntime,
    TensorRT.name: _in_tensorrt,
    TensorRTForRTX.name: _in_tensorrt,
    PlainC.name: _in_c,
}


def _front_end(bundle: Bundle) -> FrontEnd | None:
    """What computes the log-mel of a graph that takes one: the path that ships."""
    if bundle.manifest.classifier.input == "waveform":
        return None
    return runner.Runner(bundle.folder, cpu=True).graph_input


def _graph(bundle: Bundle, config: ProfileConfig, front_end: FrontEnd | None) -> OnnxGraph:
    return OnnxGraph(
        bundle.model.read_bytes(),
        PRECISIONS[bundle.manifest.precision],
        outside=front_end,
        provider=config.provider,
        threads=config.threads,
    )


def _built_engine(bundle: Bundle, front_end: FrontEnd | None, graph: OnnxGraph) -> Engine | str:
    """The engine that the runner would use, or why there is none."""
    folder, manifest = bundle.folder, bundle.manifest
    target = manifest.target
    title = RUNTIMES[target.runtime].title
    instead = f"{folder} is made for {title} on {target.title} and was timed in ONNX Runtime here"
    try:
        contents = runner.read_manifest(folder)
        built = runner.built_engines(folder, contents)
        if not built:
            return f"{instead}: no engine has been built in it."
        precision = runner.chosen_engine(folder, contents) or built[0]
        classifier = manifest.classifier
        shape = graph.shape[1:]
        settings = target.tensorrt or target.tensorrt_rtx
        largest = 1 if classifier.batch == 1 or settings is None else settings.max_batch
        known = manifest.detection.reject is not None
        contract = runner.Contract(classifier.input, shape, len(classifier.classes), largest, known)
        file = runner.engine_file(folder, precision)
        told = ENGINE_PRECISIONS[precision]
        return Engine(file, contract, told, outside=front_end, graph=graph, runtime=target.runtime)
    except (runner.RunnerError, InputError) as failure:
        return f"{instead}: {failure}"
