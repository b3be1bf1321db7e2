"""TensorRT, by stand-ins for its Python module, for the CUDA runtime and for trtexec.

An engine here is the word `plan` and the ONNX file it was made from, which the stand-ins run with onnxruntime.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

import edgekd._torchaudio  # noqa: F401 - before the CUDA runtime is stood in for, which it looks for

if TYPE_CHECKING:
    from tests.device.conftest import Toy

Calls = Callable[[], list[dict[str, str]]]

MAX_BATCH = 8


@pytest.fixture
def jetson(toy: Toy, tmp_path: Path) -> Path:
    """A bundle for a Jetson, where no engine has been built yet."""
    return toy.write(tmp_path / "bundle", "jetson", alternatives=("fp16", "fp32"))


class HostCuda:
    """The CUDA runtime's calls on host memory, checking that what is used was allocated."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.synchronised = True

    def cudaMalloc(self, address: Any, size: ctypes.c_size_t) -> int:
        block = ctypes.create_string_buffer(size.value)
        self.blocks[ctypes.addressof(block)] = block
        ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.c_void_p(ctypes.addressof(block))
        return 0

    def cudaStreamCreate(self, stream: Any) -> int:
        ctypes.cast(stream, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.c_void_p(7)
        return 0

    def cudaStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        self.synchronised = stream.value == 7
        return 0

    def cudaMemcpy(self, to: ctypes.c_void_p, of: ctypes.c_void_p, size: ctypes.c_size_t, kind: ctypes.c_int) -> int:
        device = to.value if kind.value == 1 else of.value
        block = self.blocks.get(device or 0)
        if block is None or size.value > len(block) or not self.synchronised:
            return 1
        ctypes.memmove(to, of, size.value)
        return 0


class StandInEngine:
    """An engine and its execution context; with a dynamic batch its profile allows `MAX_BATCH` clips at a time."""

    def __init__(self, model: bytes, cuda: HostCuda, delay: float) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.cuda, self.delay = cuda, delay
        self.tensors = {tensor.name: tensor for tensor in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name
        self.addresses: dict[str, int] = {}
        self.batches: list[int] = []
        self.shape = self.get_tensor_shape(self.input)
        self.num_io_tensors = len(self.tensors)
        self.layers: list[Any] = []

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == self.input else "OUTPUT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self.tensors[name].shape)

    def create_execution_context(self, runtime_config: StandInKernels | None = None) -> StandInEngine:
        self.kernels = runtime_config
        return self

    def create_runtime_config(self) -> StandInKernels:
        return StandInKernels()

    def create_engine_inspector(self) -> StandInEngine:
        return self

    def get_engine_information(self, form: str) -> str:
        return json.dumps({"Layers": self.layers} if form == "json" else "")

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == (self.input, 0)
        assert self.get_tensor_shape(name)[0] == -1, "a fixed shape has no profile"
        return [(batch, *self.get_tensor_shape(name)[1:]) for batch in (1, 1, MAX_BATCH)]

    def set_tensor_address(self, name: str, address: int) -> None:
        assert name in self.tensors
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert name == self.input
        assert self.get_tensor_shape(name)[0] == -1, "a fixed shape is not set"
        self.shape = tuple(shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        time.sleep(self.delay)
        self.cuda.synchronised = False
        if getattr(self, "kernels", None) is not None:
            self.kernels.compiled = self.kernels.compiled or "anew"
        self.batches.append(self.shape[0])
        batch = np.frombuffer(self.cuda.blocks[self.addresses[self.input]], np.float32)
        scores = self.session.run(None, {self.input: batch[: np.prod(self.shape)].reshape(self.shape)})[0]
        ctypes.memmove(self.addresses[self.output], scores.ctypes.data, scores.nbytes)
        return self.shape[0] <= MAX_BATCH


class StandInKernels:
    """The settings of an execution context of TensorRT for RTX, and the cache of kernels in them."""

    def __init__(self) -> None:
        self.compiled = ""
        self.used = False

    def create_runtime_cache(self) -> StandInKernels:
        return self

    def deserialize(self, content: bytes) -> bool:
        same = content == b"kernels of this GPU"
        self.compiled = "before" if same else ""
        return same

    def set_runtime_cache(self, cache: StandInKernels) -> bool:
        self.used = cache is self
        return self.used

    def serialize(self) -> bytes:
        assert self.used
        assert self.compiled, "there are none before the first run"
        return b"kernels of this GPU"


class StandInTensorRT(types.SimpleNamespace):
    """TensorRT and CUDA as on a Jetson. `delays`: how much longer an engine of a model takes, by a part of its file."""

    def __init__(self) -> None:
        self.cuda = HostCuda()
        self.engines: list[StandInEngine] = []
        self.delays: dict[bytes, float] = {}
        self.layers: list[Any] = []  # what the inspector will say of an engine
        modes = types.SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
        forms = types.SimpleNamespace(JSON="json")
        super().__init__(
            Logger=self.Logger,
            Runtime=lambda logger: self,
            TensorIOMode=modes,
            LayerInformationFormat=forms,
            __version__="10.3.0",
        )

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None: ...

    def deserialize_cuda_engine(self, content: bytes) -> StandInEngine | None:
        if not content.startswith(b"plan"):
            return None
        delay = sum(seconds for part, seconds in self.delays.items() if part == content)
        self.engines.append(StandInEngine(content[4:], self.cuda, delay))
        self.engines[-1].layers = self.layers
        return self.engines[-1]

    def slow_down(self, bundle: Path, **delays: float) -> None:
        """Let the engines of these precisions take longer by this many seconds a run."""
        self.delays = {(bundle / f"model-{name}.engine").read_bytes(): delay for name, delay in delays.items()}


class StandInRtx(StandInTensorRT):
    """TensorRT for RTX and CUDA on a workstation."""

    def __init__(self) -> None:
        super().__init__()
        self.__version__ = "1.7.1.116"
        bits = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2}
        self.EngineInvalidityDiagnostics = types.SimpleNamespace(__members__=bits)

    def get_engine_validity(self, content: bytes) -> tuple[int, int]:
        return 2, 2 if content == b"of another GPU" else 0


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> StandInRtx:
    module = StandInRtx()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: module.cuda)
    return module


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> StandInTensorRT:
    module = StandInTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: module.cuda)
    return module


TRTEXEC = """\
#!{python}
# Runs the ONNX file in an engine and writes what trtexec writes, in the form in which it does.
import json, os, sys, time
import numpy as np
import onnxruntime
options = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
number = os.environ.get("TRTEXEC_PRINTS", "v8201")
print("&&&& RUNNING TensorRT.trtexec [TensorRT " + number + "] # trtexec", *sys.argv[1:])
if "help" in options:
    sys.exit()
if not number.startswith("v11"):
    assert not {{"includeDataTransfers", "noCudaGraph"}} & set(options), "Unknown option"
with open({log!r}, "a") as log:
    print(json.dumps(options), file=log)
content = open(options["loadEngine"], "rb").read()
if not content.startswith(b"plan"):
    sys.exit("[11/22/2026-12:00:00] [E] Error[1]: [stdArchiveReader.cpp::41] Version tag does not match")
session = onnxruntime.InferenceSession(content[4:], providers=["CPUExecutionProvider"])
(source,) = session.get_inputs()
name, _, path = options["loadInputs"].partition(":")
assert name == source.name
shape = source.shape
if isinstance(shape[0], str):
    name, _, shape = options["shapes"].partition(":")
    assert name == source.name
    shape = [int(size) for size in shape.split("x")]
else:
    assert "shapes" not in options, "Static model does not take explicit shapes"
batch = np.fromfile(path, np.float32)
assert batch.size == np.prod(shape), "Number of bytes read does not match"
scores = session.run(None, {{source.name: batch.reshape(shape)}})[0]
if "exportOutput" in options:
    with open(options["exportOutput"], "w") as file:
        file.write("[\\n  {{ \\"name\\" : \\"probabilities\\"\\n  , \\"dimensions\\" : \\"")
        file.write("x".join(map(str, scores.shape)) + "\\"\\n  , \\"values\\" : [ ")
        file.write(", ".join(f"{{value:g}}" for value in scores.flatten()) + " ]\\n  }}\\n]\\n")
if "exportTimes" in options:
    rows = [{{"startComputeMs": i, "h2dMs": 0.1, "computeMs": {slow} * len(content), "d2hMs": 0.1,
             "latencyMs": 0.2 + {slow} * len(content)}} for i in range(int(options["iterations"]) + 3)]
    json.dump(rows, open(options["exportTimes"], "w"))
"""


@pytest.fixture
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A trtexec on PATH, and no module; the options of each call of it."""
    if os.access("/usr/src/tensorrt/bin/trtexec", os.X_OK):
        pytest.skip("the trtexec of this machine would be used")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    program, log = tmp_path / "bin" / "trtexec", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(TRTEXEC.format(python=sys.executable, log=str(log), slow=1e-3))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]
