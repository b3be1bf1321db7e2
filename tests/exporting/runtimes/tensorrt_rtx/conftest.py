"""TensorRT for RTX by a stand-in: a builder that takes any graph, and a runtime that runs what it built in onnxruntime.

Its words in the log are those of release 1.7.1.116.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from edgekd.exporting.runtimes.tensorrt import engine
from edgekd.exporting.runtimes.tensorrt_rtx import build
from tests.device.runner.conftest import HostCuda, StandInRtx

CAPABILITIES = ("75", "80", "86", "89", "120", "121")
LINE = (
    "Name: {name}_U7_myl0_{number}, LayerType: correlation, Inputs: [ {{ Name: x, Dimensions: [1,4,94,64], Strides:"
    " [24064,1,256,4], StrideOrder: [3,0,2,1], Datatype: {kind}, Format: (NHWC) Channel major format }}], Constants:"
    " [ {{ Name: w, Dimensions: [16,4,3,3], Strides: [36,1,12,4], Datatype: Int8, Format: (NHWC) Channel major format"
    " }}], Outputs: [ {{ Name: y, Dimensions: [1,16], Datatype: Float }}], TacticName: __myelin_CASK_STUB, StreamId: 0,"
    " Metadata: [ONNX Layer: {name}]"
)


class Driver(HostCuda):
    """CUDA's driver beside its runtime, with one GPU, or none."""

    def __init__(self, capability: str | None) -> None:
        super().__init__()
        self.capability = capability

    def cuInit(self, flags: int) -> int:
        return 0 if self.capability else 100

    def cuDeviceGet(self, device: Any, number: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, figure: Any, attribute: int, device: Any) -> int:
        major, minor = str(self.capability).split(".")
        figure._obj.value = int({75: major, 76: minor}[attribute])
        return 0


class BuilderRtx(StandInRtx):
    """`in_float`: layers that are built in float; `refuses`: what the builder says of any graph."""

    __hash__, __eq__ = object.__hash__, object.__eq__  # as modules have them

    def __init__(self, capability: str | None) -> None:
        super().__init__()
        self.cuda = Driver(capability)
        self.in_float: tuple[str, ...] = ()
        self.refuses = ""
        self.configs: list[SimpleNamespace] = []
        self.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
        self.BuilderFlag = IntEnum("BuilderFlag", {"TF32": 0})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        self.LayerType = SimpleNamespace(QUANTIZE="QuantizeLinear")
        self.ComputeCapability = Enum("ComputeCapability", {f"SM{number}": int(number) for number in CAPABILITIES})
        self.ILogger = type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0, "VERBOSE": 4})
        self.logger: Any = None

    def Builder(self, logger: Any) -> BuilderRtx:
        self.logger = logger
        return self

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(num_layers=0)

    def OnnxParser(self, network: SimpleNamespace, logger: Any) -> SimpleNamespace:
        def parse(model: bytes) -> bool:
            graph = onnx.load_from_string(model).graph
            shape = [dim.dim_value or -1 for dim in graph.input[0].type.tensor_type.shape.dim]
            sound = SimpleNamespace(name=graph.input[0].name, shape=tuple(shape))
            kinds = [SimpleNamespace(type=node.op_type) for node in graph.node]
            network.__dict__.update(
                model=model,
                nodes=graph.node,
                num_layers=len(kinds),
                get_layer=kinds.__getitem__,
                get_input=lambda number: sound,
            )
            return True

        return SimpleNamespace(parse=parse, num_errors=0)

    def create_builder_config(self) -> SimpleNamespace:
        chosen: dict[int, Any] = {}
        config = SimpleNamespace(
            chosen=chosen,
            set_memory_pool_limit=lambda pool, size: None,
            clear_flag=lambda flag: None,
            add_optimization_profile=lambda profile: None,
            set_compute_capability=lambda kind, number: chosen.update({number: kind.name}) is None,
        )
        self.configs.append(config)
        return config

    def create_optimization_profile(self) -> SimpleNamespace:
        return SimpleNamespace(set_shape=lambda *shapes: None)

    def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> bytes | None:
        assert config.num_compute_capabilities == len(config.chosen)
        if self.refuses:
            self.logger.log(1, self.refuses)
            return None
        self.logger.log(4, "Trying to set to device type GPU")
        products = [node.name for node in network.nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
        lines = [
            LINE.format(name=name, number=number, kind="Float" if name in self.in_float else "Int8")
            for number, name in enumerate(products)
        ]
        self.logger.log(4, "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:\n Name: waveform, IOMode: Input")
        return b"plan" + network.model


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BuilderRtx]:
    """Puts TensorRT for RTX where it is imported from, beside a GPU of a compute capability or none."""

    def install(capability: str | None = None) -> BuilderRtx:
        module = BuilderRtx(capability)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: module.cuda)
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        return module

    yield install
    engine.recorder.cache_clear()
    build._engine.cache_clear()
