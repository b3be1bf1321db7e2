"""Engines built here: what is asked of each TensorRT release, by a stand-in that has what that release has."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.device import runner
from edgekd.errors import GateError, InputError
from edgekd.exporting.runtimes.tensorrt import engine
from edgekd.exporting.runtimes.tensorrt.engine import build_engines

FLOAT, INT64 = "float32", "int64"
LAYERS = [  # of a parsed graph: name, type of its output
    ("frontend/conv", FLOAT),
    ("ONNXTRT_unsqueeze", FLOAT),
    ("frontend/shape", INT64),
    ("frontend/log", FLOAT),
    ("network.stem.0/conv", FLOAT),
]
RUNNER = """
import json, pathlib, sys
assert sys.argv[1:] == ["choose", "--json"]
outcome = json.loads(pathlib.Path("outcome.json").read_text())
if outcome["code"]:
    sys.exit((print("edgekd_runner: " + outcome["says"], file=sys.stderr), outcome["code"])[1])
engines = sorted(path.name for path in pathlib.Path().glob("*.engine"))
print(json.dumps({"precision": "fp16", "candidates": {name: {"agrees": True} for name in engines}}))
"""


class FakeLayer:
    def __init__(self, name: str, dtype: str) -> None:
        self.name, self.num_outputs, self.dtype = name, 1, dtype
        self.pinned: dict[str, object] = {}

    def get_output(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(dtype=self.dtype)

    def set_output_type(self, number: int, dtype: str) -> None:
        self.pinned["output"] = dtype

    @property
    def precision(self) -> object:
        return self.pinned.get("precision")

    @precision.setter
    def precision(self, dtype: str) -> None:
        self.pinned["precision"] = dtype


class FakeTensorRT:
    """The names that a TensorRT release has; whatever else is asked for is an AttributeError, as with the real one."""

    def __init__(self, version: str, batch: int = 1, refuses: str = "", gpu: bool = True) -> None:
        self.__version__ = version
        self.__spec__ = ModuleSpec("tensorrt", None)  # torch looks for it when its compiler is first imported
        release = tuple(map(int, version.split(".")))
        creation = {"EXPLICIT_BATCH": 0} if release < (11,) else {}
        creation |= {"STRONGLY_TYPED": 1} if release >= (10,) else {}
        flags = ["TF32"] + (["INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"] if release < (11,) else [])
        self.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", creation)
        self.BuilderFlag = IntEnum("BuilderFlag", {name: number for number, name in enumerate(flags)})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.ILogger = type("ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0})
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
        self.float32 = FLOAT
        self.calls: list[dict[str, Any]] = []
        self._batch, self._refuses, self._gpu = batch, refuses, gpu
        self._logger: Any = None

    def Builder(self, logger: Any) -> FakeBuilder:
        self._logger = logger
        if not self._gpu:
            logger.log(1, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return FakeBuilder(self)

    def OnnxParser(self, network: SimpleNamespace, logger: Any) -> SimpleNamespace:
        def parse(model: bytes) -> bool:
            self.calls[-1]["model"] = model
            return model.decode() != self._refuses

        error = SimpleNamespace(desc=lambda: "In node 7 (importDet):\n UNSUPPORTED_NODE: Assertion failed. ")
        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda number: error)


class FakeBuilder:
    def __init__(self, module: FakeTensorRT) -> None:
        self.module = module

    def create_network(self, flags: int) -> SimpleNamespace:
        layers = [FakeLayer(*layer) for layer in LAYERS]
        self.module.calls.append({"creation": flags, "layers": layers, "flags": set(), "cleared": set()})
        sound = SimpleNamespace(name="waveform", shape=(self.module._batch, 160))
        return SimpleNamespace(
            num_layers=len(layers), get_layer=layers.__getitem__, get_input=lambda number: sound, num_inputs=1
        )

    def create_builder_config(self) -> SimpleNamespace:
        call = self.module.calls[-1]
        cache = SimpleNamespace(serialize=lambda: b"timings")
        call["config"] = config = SimpleNamespace(
            set_flag=lambda flag: call["flags"].add(flag.name),
            clear_flag=lambda flag: call["cleared"].add(flag.name),
            set_memory_pool_limit=lambda pool, size: call.update(workspace=(pool, size)),
            create_timing_cache=lambda known: call.update(known=known) or cache,
            set_timing_cache=lambda cache, ignore_mismatch: not ignore_mismatch,
            get_timing_cache=lambda: cache,
            add_optimization_profile=lambda profile: call.update(profile=profile.shapes),
        )
        return config

    def create_optimization_profile(self) -> SimpleNamespace:
        profile = SimpleNamespace(shapes=None)
        profile.set_shape = lambda *shapes: setattr(profile, "shapes", shapes)
        return profile

    def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> bytes | None:
        model = self.module.calls[-1]["model"].decode()
        if self.module._refuses == f"builder:{model}":
            self.module._logger.log(1, "Error Code 10: Could not find any implementation for node {ForeignNode}.")
            return None
        return f"engine of {model}".encode()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A TensorRT bundle as far as building needs it: graphs, a manifest, and a stand-in for its runner."""
    return sealed(tmp_path, {})


def sealed(folder: Path, target: dict[str, object]) -> Path:
    graphs = {"model.onnx": b"int8", "model-fp16.onnx": b"fp16", "model-fp32.onnx": b"fp32"}
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph)
    (folder / "edgekd_runner.py").write_text(RUNNER)
    (folder / "outcome.json").write_text('{"code": 0}')
    manifest: dict[str, Any] = {
        "format": 1,
        "precision": "int8",
        "alternatives": {"fp16": "model-fp16.onnx", "fp32": "model-fp32.onnx"},
        "classifier": {
            "classes": ["calm", "ship"],
            "sample_rate": 16_000,
            "clip_samples": 16_000,
            "hop_samples": 8_000,
            "padding": "repeat",
            "batch": 1,
            "input": "waveform",
            "resampler": {"lowpass_filter_width": 32, "rolloff": 0.94},
        },
        "target": {
            "name": "own",
            "memory_bytes": 1 << 30,
            "tolerance": {"probability": 0.05, "agreement": 0.98},
            "runtime": "tensorrt",
            "opset": 17,
            "tensorrt": {"version": "10.3", "max_batch": 4},
            **target,
        },
        "files": {name: runner.file_digest(folder / name) for name in graphs},
    }
    if "batch" in target:
        manifest["classifier"]["batch"] = manifest["target"].pop("batch")
    manifest["sha256"] = runner.manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeTensorRT]]:
    """Puts a TensorRT of some version where `import tensorrt` finds it."""

    def install(version: str, **behaviour: Any) -> FakeTensorRT:
        module = FakeTensorRT(version, **behaviour)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
        return module

    yield install
    engine.recorder.cache_clear()


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1", "10.3.0", "10.12.0", "11.0.0", "11.4.1"])
def test_every_precision_is_built_and_the_runner_chooses(bundle: Path, installed: Callable, version: str) -> None:
    tensorrt = installed(version)
    outcome = build_engines(bundle)
    assert outcome == {
        "precision": "fp16",
        "candidates": {f"model-{name}.engine": {"agrees": True} for name in ("fp16", "fp32", "int8")},
        "refused": {},
    }
    assert (bundle / "model-int8.engine").read_bytes() == b"engine of int8"
    assert all(call["cleared"] == {"TF32"} for call in tensorrt.calls)
    assert all(call["workspace"] == ("workspace", 256 << 20) for call in tensorrt.calls)
    assert all("profile" not in call for call in tensorrt.calls)
    assert all(call["config"].profiling_verbosity == "detailed" for call in tensorrt.calls), "layers can be asked for"


@pytest.mark.parametrize("version", ["10.3.0", "10.12.0", "11.0.0"])
def test_from_10_on_types_are_the_graphs_and_no_flag_loosens_them(
    bundle: Path, installed: Callable, version: str
) -> None:
    tensorrt = installed(version)
    build_engines(bundle)
    assert [call["creation"] for call in tensorrt.calls] == [1 << 1] * 3
    assert all(call["flags"] == set() for call in tensorrt.calls)
    assert not any(layer.pinned for call in tensorrt.calls for layer in call["layers"])


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1"])
def test_before_10_each_precision_is_allowed_and_fp16_keeps_off_the_log_mel(
    bundle: Path, installed: Callable, version: str
) -> None:
    tensorrt = installed(version)
    build_engines(bundle)
    assert [call["creation"] for call in tensorrt.calls] == [1 << 0] * 3
    assert [call["flags"] for call in tensorrt.calls] == [{"INT8"}, {"FP16", "OBEY_PRECISION_CONSTRAINTS"}, set()]
    pinned = [[layer.name for layer in call["layers"] if layer.pinned] for call in tensorrt.calls]
    # What the parser puts between two nodes of the log-mel is held too; what computes shapes is not.
    assert pinned == [[], ["frontend/conv", "ONNXTRT_unsqueeze", "frontend/log"], []]
    assert tensorrt.calls[1]["layers"][0].pinned == {"precision": FLOAT, "output": FLOAT}


def test_timings_of_one_engine_serve_the_next(bundle: Path, installed: Callable) -> None:
    tensorrt = installed("10.3.0")
    build_engines(bundle)
    assert [call["known"] for call in tensorrt.calls] == [b"", b"timings", b"timings"]


def test_a_dynamic_batch_gets_a_profile_from_one_clip_to_the_targets_largest_batch(
    tmp_path: Path, installed: Callable
) -> None:
    tensorrt = installed("10.3.0", batch=-1)
    build_engines(sealed(tmp_path, {"batch": "dynamic"}))
    assert tensorrt.calls[0]["profile"] == ("waveform", (1, 160), (1, 160), (4, 160))


@pytest.mark.parametrize(
    ("refuses", "why"),
    [
        ("fp16", "In node 7 (importDet): UNSUPPORTED_NODE: Assertion failed"),
        ("builder:fp16", "Error Code 10: Could not find any implementation for node {ForeignNode}"),
    ],
)
def test_a_precision_that_tensorrt_refuses_is_left_out_with_its_words(
    bundle: Path, installed: Callable, refuses: str, why: str
) -> None:
    (bundle / "model-fp16.engine").write_bytes(b"of last year")
    installed("10.3.0", refuses=refuses)
    outcome = build_engines(bundle)
    assert outcome["refused"] == {"fp16": why}
    assert sorted(outcome["candidates"]) == ["model-fp32.engine", "model-int8.engine"]


def test_where_no_precision_is_built_every_reason_is_in_one_line(tmp_path: Path, installed: Callable) -> None:
    sealed(tmp_path, {})
    for name in ("model.onnx", "model-fp16.onnx", "model-fp32.onnx"):
        (tmp_path / name).write_bytes(b"same")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"] = {name: runner.file_digest(tmp_path / name) for name in manifest["files"]}
    manifest["sha256"] = runner.manifest_digest(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    installed("10.3.0", refuses="same")
    with pytest.raises(GateError, match=r"builds no engine .*int8: In node 7.*; fp16: .*; fp32: ") as refusal:
        build_engines(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("code", "says", "error"),
    [
        (4, "no engine agrees with the golden examples: do not rely on them.", GateError),
        (3, "libcudart.so not found.", InputError),
    ],
)
def test_the_runners_verdict_is_passed_on(
    bundle: Path, installed: Callable, code: int, says: str, error: type[Exception]
) -> None:
    installed("10.3.0")
    (bundle / "outcome.json").write_text(json.dumps({"code": code, "says": says}))
    with pytest.raises(error, match=says.rstrip(".")):
        build_engines(bundle)


class TorchTensorRT:
    """Stands in for torch-tensorrt: records what it is asked, and makes or refuses an engine."""

    def __init__(self, refuses: bool = False) -> None:
        self.asked: dict[str, Any] = {}
        self._refuses = refuses
        self.dynamo = SimpleNamespace(convert_exported_program_to_serialized_trt_engine=self._convert)

    def _convert(self, program: Any, **settings: Any) -> bytes:
        self.asked = {"program": program, **settings}
        if self._refuses:
            raise RuntimeError("no converter for\naten.det")
        return b"engine of a module"


@pytest.fixture
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda()` and `device="cuda"` stay on the CPU."""
    import torch

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda shape, device=None: zeros(shape))
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda module: module)
    monkeypatch.setattr(engine, "_one_clip", lambda folder: (1, 160))


def test_what_the_parser_refuses_torch_tensorrt_is_asked(
    bundle: Path, installed: Callable, monkeypatch: pytest.MonkeyPatch, without_a_gpu: None
) -> None:
    import torch

    installed("10.3.0", refuses="fp32")
    other = TorchTensorRT()
    monkeypatch.setitem(sys.modules, "torch_tensorrt", other)
    outcome = build_engines(bundle, {"fp32": torch.nn.Linear(160, 3)})
    assert outcome["refused"] == {}
    assert (bundle / "model-fp32.engine").read_bytes() == b"engine of a module"
    assert (bundle / "model-int8.engine").read_bytes() == b"engine of int8"
    assert isinstance(other.asked["program"], torch.export.ExportedProgram)
    assert (other.asked["use_explicit_typing"], other.asked["disable_tf32"]) == (True, True)


def test_what_torch_tensorrt_refuses_too_is_left_out_in_its_words(
    bundle: Path, installed: Callable, monkeypatch: pytest.MonkeyPatch, without_a_gpu: None
) -> None:
    import torch

    installed("10.3.0", refuses="fp32")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", TorchTensorRT(refuses=True))
    outcome = build_engines(bundle, {"fp32": torch.nn.Linear(160, 3)})
    assert outcome["refused"] == {"fp32": "torch-tensorrt: no converter for aten.det"}


def test_a_bundle_for_another_runtime_has_no_engine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"made for 'own', which runs onnxruntime"):
        build_engines(sealed(tmp_path, {"runtime": "onnxruntime"}))


def test_a_changed_bundle_is_refused_before_anything_is_built(bundle: Path) -> None:
    (bundle / "model-fp16.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match=r"model-fp16\.onnx: changed since the bundle was written"):
        build_engines(bundle)
    with pytest.raises(InputError, match=r"manifest\.json"):
        build_engines(bundle / "nowhere")


def test_without_tensorrt_it_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InputError, match=r"pip install 'edgekd\[tensorrt\]'.*build_engine\.sh") as refusal:
        build_engines(bundle)
    assert "\n" not in str(refusal.value)


def test_a_tensorrt_that_cannot_read_the_graph_is_refused(tmp_path: Path, installed: Callable, bundle: Path) -> None:
    installed("8.4.1")
    with pytest.raises(InputError, match=r"TensorRT 8.4.1 is too old"):
        build_engines(bundle)
    installed("8.6.1")
    with pytest.raises(InputError, match=r"opset 20, which TensorRT 8.6.1 here does not read.*opset = 17"):
        build_engines(sealed(tmp_path, {"opset": 20}))


def test_without_a_gpu_tensorrts_own_words_are_shown(bundle: Path, installed: Callable) -> None:
    installed("10.3.0", gpu=False)
    with pytest.raises(InputError, match=r"finds no GPU it can use: CUDA initialization failure"):
        build_engines(bundle)


def test_the_real_library_builds_what_it_says_it_builds(tmp_path: Path) -> None:
    tensorrt = pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("TensorRT needs a GPU")
    import onnx

    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Exp", ["x"], ["y"], name="frontend/exp")],
        "test",
        [value("x", onnx.TensorProto.FLOAT, [1, 160])],
        [value("y", onnx.TensorProto.FLOAT, [1, 160])],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    release = engine.release_of(tensorrt)
    builder, network = engine.parsed_network(tensorrt, release, model)
    plan = engine.serialized_engine(tensorrt, release, "fp32", builder, network, 1, tmp_path / "timing.cache")
    assert tensorrt.Runtime(engine.recorder(tensorrt)).deserialize_cuda_engine(plan) is not None
