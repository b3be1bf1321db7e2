"""What runs a graph: ONNX Runtime, TensorRT by its Python module, or TensorRT by `trtexec`."""

from __future__ import annotations

import importlib
import math
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.runner.bundle import ENGINE_STEPS, Contract
from edgekd.device.runner.cuda import Cuda
from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.trtexec import DLA_CORE, Trtexec, find_trtexec

# The newest operator set of a graph, and the oldest ONNX Runtime that runs one: each was tried. 1.14 loads sets 14
# to 17 and crashes on some; 1.10 and before cannot reshape uint8.
OLDEST_ONNXRUNTIME = ((13, "1.8"), (18, "1.15"), (19, "1.16"), (20, "1.17"))
_FOR_NUMPY_2 = "1.19"  # what came before was built for numpy 1


def oldest_onnxruntime(opset: int) -> str:
    """The oldest ONNX Runtime that runs a graph in this operator set: "1.17"."""
    return next((version for newest, version in OLDEST_ONNXRUNTIME if opset <= newest), OLDEST_ONNXRUNTIME[-1][1])


def import_onnxruntime(opset: int) -> Any:
    """ONNX Runtime, new enough for a graph in this operator set. Raises `RunnerError`.

    Its version is read before it is imported: an old one under a new numpy fails in a way that does not say so.
    """
    oldest = oldest_onnxruntime(opset)
    install = f"Next: python3 -m pip install 'onnxruntime>={oldest}'"
    found = next(filter(None, map(_version_of, ("onnxruntime", "onnxruntime-gpu"))), None)
    if found is not None:
        _check_onnxruntime(found, opset)
        if _release(found) < _release(_FOR_NUMPY_2) and _release(np.__version__) >= (2, 0):
            raise RunnerError(
                f"onnxruntime {found} was built for numpy 1, and here is numpy {np.__version__}."
                f" Next: python3 -m pip install 'onnxruntime>={_FOR_NUMPY_2}', or 'numpy<2'"
            )
    try:
        import onnxruntime
    except ImportError as failure:
        if isinstance(failure.__cause__, KeyboardInterrupt):  # Ctrl-C while it is loaded
            raise failure.__cause__ from None
        if (failure.name or "").startswith("onnxruntime"):
            raise RunnerError(f"onnxruntime is not installed. {install}") from None
        reason = (str(failure).splitlines() or ["it does not say why"])[0]
        raise RunnerError(f"onnxruntime cannot be imported: {reason}. {install}") from None
    _check_onnxruntime(onnxruntime.__version__, opset)
    return onnxruntime


def _check_onnxruntime(found: str, opset: int) -> None:
    oldest = oldest_onnxruntime(opset)
    if _release(found) < _release(oldest):
        raise RunnerError(
            f"onnxruntime {found} is too old for this model, which is written in opset {opset} and needs {oldest} or"
            f" later. Next: python3 -m pip install -U 'onnxruntime>={oldest}'"
        )


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    # (1, 17) of "1.17.0"
    return tuple(map(int, version.split(".")[:2]))


def onnxruntime_failures() -> tuple[type[Exception], ...]:
    """The classes of its own that ONNX Runtime raises where it refuses a model or fails to run it."""
    from onnxruntime.capi import onnxruntime_pybind11_state as library

    return tuple(kind for kind in vars(library).values() if isinstance(kind, type) and issubclass(kind, Exception))


class Session:
    """An ONNX file in an operator set, opened in ONNX Runtime on the CPU. Raises `RunnerError`."""

    def __init__(self, model: Path, opset: int, threads: int) -> None:
        onnxruntime = import_onnxruntime(opset)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        # Without VNNI, x86 adds pairs of int8 products in 16 bits, which saturate; this asks for exact sums there.
        options.add_session_config_entry("session.x64quantprecision", "1")
        # Where it has no class of its own, a RuntimeError.
        self._refusals: tuple[type[Exception], ...] = (*onnxruntime_failures(), RuntimeError, ValueError)
        self.version: str = onnxruntime.__version__
        self._model = model
        try:
            self._session = onnxruntime.InferenceSession(_named(model), options, providers=["CPUExecutionProvider"])
        except self._refusals as failure:
            raise RunnerError(f"{model}: onnxruntime {self.version} cannot load it: {_first_line(failure)}") from None
        self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()

    def run(self, inputs: dict[str, np.ndarray], outputs: list[str] | None = None) -> list[np.ndarray]:
        """The outputs of these names, or all of them."""
        try:
            return list(self._session.run(outputs, inputs))
        except self._refusals as failure:
            raise RunnerError(
                f"{self._model}: onnxruntime {self.version} cannot run it: {_first_line(failure)}"
            ) from None


class OnnxRuntime:
    """The graph of a bundle, run by ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def __init__(self, model: Path, opset: int, contract: Contract, threads: int) -> None:
        self._session = Session(model, opset, threads)
        self.version: str = self._session.version
        self._input, self._classes, self._model = contract.input, contract.classes, model
        self._outputs = list(contract.outputs)
        self._check(contract)

    def _check(self, contract: Contract) -> None:
        """Raises `RunnerError` for the graph of another model."""
        inputs, outputs = self._session.inputs, self._session.outputs
        found = {each.name: each for each in outputs}
        wanted = {"probabilities": (contract.classes,), **({"known": ()} if contract.known else {})}
        fits = [each.name for each in inputs] == [contract.input] and set(wanted) <= set(found)
        fits = fits and _is_like(inputs[0], contract.shape)
        if not (fits and all(_is_like(found[name], shape) for name, shape in wanted.items())):
            told = ", ".join(f"{each.name} {each.type} {each.shape}" for each in (*inputs, *outputs))
            raise RunnerError(
                f"{self._model}: not the model that the manifest describes, which takes {contract.input}"
                f" {('batch', *contract.shape)} and gives probabilities {('batch', contract.classes)}: {told[:300]}"
            )

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        scores, *known = self._session.run({self._input: batch}, self._outputs)
        if scores.shape != (len(batch), self._classes):
            raise RunnerError(f"{self._model}: gives probabilities of the shape {scores.shape} for {len(batch)} clips")
        return np.column_stack([scores, *known]) if known else scores


def _is_like(tensor: Any, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of a graph is float32 `(batch, *shape)`; a length that the graph leaves open fits any."""
    found = list(tensor.shape or [])
    same = (not isinstance(length, int) or length == wanted for length, wanted in zip(found[1:], shape))
    return tensor.type == "tensor(float)" and len(found) == 1 + len(shape) and all(same)


def _named(model: Path) -> str | bytes:
    """The name of a graph's file, or what is in it where the name is not in UTF-8, which onnxruntime cannot open."""
    try:
        str(model).encode()
    except UnicodeEncodeError:
        return model.read_bytes()
    return str(model)


def _first_line(failure: BaseException) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]


class TensorRT:
    """An engine run by TensorRT's Python module, from 8.5 on: build_engine.sh made it on this device.

    Or one that came with the bundle, run by that of TensorRT for RTX, which compiles its kernels here when it is opened
    and keeps them beside it for the next time.
    """

    def __init__(
        self, tensorrt: Any, engine: Path, contract: Contract, name: str = "tensorrt", on_dla: bool = False
    ) -> None:
        self.name, self._module = name, tensorrt
        self._step = step = ENGINE_STEPS[name]
        self.version: str = tensorrt.__version__
        self._contract = contract
        self._cuda = Cuda()
        self._stream = self._cuda.stream()  # first: where there is no GPU it says so, and it makes the CUDA context
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        if on_dla:
            self._runtime.DLA_core = DLA_CORE
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            why = self._invalid(engine)
            raise RunnerError(
                f"{engine}: made by another TensorRT than {self.version}, or for another GPU{why}. {step}"
            )
        # Told apart by mode, not by name: torch-tensorrt gives its engines names of its own.
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        if len(names) != 1 + len(contract.outputs) or len(inputs) != 1:
            raise RunnerError(f"{engine}: made from another model: its tensors are {', '.join(names)}. {step}")
        (self._input_name,) = inputs
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        # By rank, not by name: probabilities (B, classes), then `known` (B,).
        outputs = sorted((name for name in names if name not in inputs), key=lambda name: -len(shapes[name]))
        shape, classes = shapes[self._input_name], shapes[outputs[0]][-1]
        if (
            shape[1:] != contract.shape
            or classes != contract.classes
            or any(len(shapes[name]) > 1 for name in outputs[1:])
        ):
            raise RunnerError(f"{engine}: made from another model: {shape} to {classes} classes. {step}")
        self._fixed = shape[0] != -1
        profile = None if self._fixed else self._engine.get_tensor_profile_shape(self._input_name, 0)
        self._batch = profile[2][0] if profile else shape[0]
        self._kept, self._unkept = engine.with_suffix(".kernels"), name == "tensorrt-rtx"
        self._context = self._finished() if name == "tensorrt-rtx" else self._engine.create_execution_context()
        self._input = self._cuda.allocate(self._batch * math.prod(contract.shape) * 4)
        self._context.set_tensor_address(self._input_name, self._input)
        self._outputs = []  # where each is, and how many columns it has in an answer
        for output, width in zip(outputs, contract.outputs.values()):
            self._outputs.append((self._cuda.allocate(self._batch * width * 4), width))
            self._context.set_tensor_address(output, self._outputs[-1][0])

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return np.concatenate([self._run(batch[i : i + self._batch]) for i in range(0, len(batch), self._batch)])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        batch = np.ascontiguousarray(batch, np.float32)
        self._cuda.copy(self._input, batch.ctypes.data, batch.nbytes, self._cuda.TO_DEVICE)
        if not self._fixed:
            self._context.set_input_shape(self._input_name, batch.shape)
        if not self._context.execute_async_v3(self._stream):
            raise RunnerError(f"TensorRT could not run the engine. {self._step}")
        self._cuda.wait(self._stream)
        if self._unkept:
            self._keep_kernels()
        columns = []
        for place, width in self._outputs:
            columns.append(np.empty((len(batch), width), np.float32))
            self._cuda.copy(columns[-1].ctypes.data, place, columns[-1].nbytes, self._cuda.TO_HOST)
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)

    def information(self) -> str:
        """What TensorRT's inspector says of the engine, as JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._module.LayerInformationFormat.JSON))

    def _invalid(self, engine: Path) -> str:
        """Why an engine for RTX cannot be used here, in the library's own names; nothing of others."""
        if self.name != "tensorrt-rtx":
            return ""
        _, why = self._runtime.get_engine_validity(engine.read_bytes())
        reasons = self._module.EngineInvalidityDiagnostics.__members__
        told = [name for name, bit in reasons.items() if int(bit) & int(why)]
        return f" ({', '.join(told)})" if told else ""

    def _finished(self) -> Any:
        """The execution context of an engine for RTX, with the kernels that an earlier process compiled here."""
        settings = self._settings = self._engine.create_runtime_config()
        self._kernels = settings.create_runtime_cache()  # both are held as long as the context that uses them
        with suppress(OSError):  # there are none yet, for one
            self._kernels.deserialize(self._kept.read_bytes())  # False, and nothing taken, where they are another GPU's
        settings.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(runtime_config=settings)

    def _keep_kernels(self) -> None:
        """Once, after the first run. A folder that cannot be written costs the next process the compiling again."""
        self._unkept, kernels = False, self._kernels.serialize()
        if kernels is None:
            return
        part = self._kept.with_name(f".{self._kept.name}.part")
        try:
            part.write_bytes(bytes(kernels))
            part.replace(self._kept)
        except OSError:
            with suppress(OSError):
                part.unlink()


class NotInstalled(RunnerError):
    """A runtime that is not on this machine."""


def import_rtx() -> Any:
    """The Python module of TensorRT for RTX. Raises `NotInstalled`, and `RunnerError` where it does not load."""
    names, why = ("tensorrt_rtx", "tensorrt_rtx_bindings"), ""  # with NVIDIA's package of the first name, and without
    for name in names:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as failure:  # the latter where libraries or a driver are missing
            if not (isinstance(failure, ModuleNotFoundError) and failure.name in names):
                why = _first_line(failure)
    if why:
        raise RunnerError(f"TensorRT for RTX is installed and does not load: {why}. Next: install it anew")
    raise NotInstalled(
        "TensorRT for RTX is not installed. Next: python3 -m pip install tensorrt-rtx-cu13-libs"
        " tensorrt-rtx-cu13-bindings, in the version that README.md says, or add --cpu to use onnxruntime"
    )


def open_engine(
    engine: Path, contract: Contract, runtime: str = "tensorrt", on_dla: bool = False
) -> TensorRT | Trtexec:
    """The engine in a file, by its runtime's Python module, else by trtexec; `on_dla`: with the accelerator's core 0.

    Raises `RunnerError`.
    """
    if runtime == "tensorrt-rtx":
        return TensorRT(import_rtx(), engine, contract, runtime)
    try:
        import tensorrt
    except ImportError:
        tensorrt = None
    if tensorrt is not None and tuple(map(int, tensorrt.__version__.split(".")[:2])) >= (8, 5):
        return TensorRT(tensorrt, engine, contract, on_dla=on_dla)
    program = find_trtexec()
    if program is None:
        raise RunnerError(
            "neither TensorRT's Python module (8.5 or later) nor trtexec is here."
            " Next: sudo apt install python3-libnvinfer, or add --cpu to use onnxruntime"
        )
    return Trtexec(program, engine, contract, on_dla)
