"""TensorRT, with stand-ins for its Python module, for the CUDA runtime and for trtexec.

An engine here is the word `plan` and the ONNX file it was made from, which the stand-ins run with onnxruntime.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile

from edgekd.device import edgekd_runner
from edgekd.device.edgekd_runner import Runner, RunnerError, WrongUsage, main

if TYPE_CHECKING:
    from tests.runtime.conftest import Toy

CLIP = 800  # of the toy classifier
MAX_BATCH = 8


def build(folder: Path, *precisions: str) -> None:
    """What build_engine.sh does, as far as these tests see it."""
    graphs = edgekd_runner.graphs(json.loads((folder / "manifest.json").read_text()))
    for precision in precisions:
        (folder / f"model-{precision}.engine").write_bytes(b"plan" + (folder / graphs[precision]).read_bytes())


@pytest.fixture
def jetson(toy: Toy, tmp_path: Path) -> Path:
    """A bundle for a Jetson, where no engine has been built yet."""
    return toy.write(tmp_path / "bundle", "jetson", alternatives=("fp16", "fp32"))


# The Python module


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

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == self.input else "OUTPUT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in self.tensors[name].shape)

    def create_execution_context(self) -> StandInEngine:
        return self

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
        self.batches.append(self.shape[0])
        batch = np.frombuffer(self.cuda.blocks[self.addresses[self.input]], np.float32)
        scores = self.session.run(None, {self.input: batch[: np.prod(self.shape)].reshape(self.shape)})[0]
        ctypes.memmove(self.addresses[self.output], scores.ctypes.data, scores.nbytes)
        return self.shape[0] <= MAX_BATCH


class StandInTensorRT(types.SimpleNamespace):
    """TensorRT and CUDA as on a Jetson. `delays`: how much longer an engine of a model takes, by a part of its file."""

    def __init__(self) -> None:
        self.cuda = HostCuda()
        self.engines: list[StandInEngine] = []
        self.delays: dict[bytes, float] = {}
        modes = types.SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
        super().__init__(Logger=self.Logger, Runtime=lambda logger: self, TensorIOMode=modes, __version__="10.3.0")

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None: ...

    def deserialize_cuda_engine(self, content: bytes) -> StandInEngine | None:
        if not content.startswith(b"plan"):
            return None
        delay = sum(seconds for part, seconds in self.delays.items() if part == content)
        self.engines.append(StandInEngine(content[4:], self.cuda, delay))
        return self.engines[-1]


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> StandInTensorRT:
    module = StandInTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: module.cuda)
    return module


def test_without_an_engine_a_jetson_bundle_runs_on_onnxruntime_and_says_so(
    jetson: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"], jetson) == 0
    shown = capsys.readouterr()
    assert "no engine here, so onnxruntime runs the int8 model on the CPU. Next: sh build_engine.sh" in shown.err
    assert "run by onnxruntime in int8" in shown.out


def test_the_engine_itself_is_verified_once_it_is_built(
    toy: Toy, tensorrt: StandInTensorRT, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = toy.write(tmp_path / "dynamic", "jetson")
    build(bundle, "int8")
    assert main(["verify"], bundle) == 0
    shown = capsys.readouterr()
    assert "run by tensorrt in int8" in shown.out
    assert not shown.err
    assert tensorrt.engines[0].batches == [8, 4]  # never more than the engine's profile allows


@pytest.mark.parametrize("source", ["waveform", "log_mel"])
@pytest.mark.parametrize("batch", ["dynamic", 1])
def test_the_engine_gives_onnxruntimes_scores(
    toy: Toy, tensorrt: StandInTensorRT, tmp_path: Path, source: str, batch: str | int
) -> None:
    bundle = toy.write(tmp_path / "bundle", "jetson", source=source, batch=batch)
    build(bundle, "int8")
    waveform = toy.noise(5_000)
    scores = Runner(bundle).predict(waveform, 11_025)
    on_cpu = Runner(bundle, cpu=True)
    assert (on_cpu.engine, on_cpu.precision) == ("onnxruntime", "int8")
    np.testing.assert_allclose(scores, on_cpu.predict(waveform, 11_025), atol=1e-6)
    assert set(tensorrt.engines[0].batches) == ({1} if batch == 1 else {8, 3})


def test_a_model_of_fixed_shape_takes_one_clip_at_a_time(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.write(tmp_path / "bundle", batch=1)
    assert Runner(bundle).verify()["agrees"]
    waveform = toy.noise(5_000)
    dynamic = Runner(toy.write(tmp_path / "dynamic"))
    np.testing.assert_allclose(Runner(bundle).predict(waveform, 8_000), dynamic.predict(waveform, 8_000), atol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
@pytest.mark.parametrize("cpu", [False, True])
def test_each_precision_is_held_to_its_own_reference(
    jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str], precision: str, cpu: bool
) -> None:
    build(jetson, "int8", "fp16", "fp32")
    assert main(["verify", "--json", "--precision", precision, *(["--cpu"] if cpu else [])], jetson) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["largest_difference"] < 1e-5  # the two references are 0.07 apart
    assert (outcome["precision"], outcome["engine"]) == (precision, "onnxruntime" if cpu else "tensorrt")


def test_a_precision_the_bundle_lacks_is_wrong_usage(jetson: Path, written: Path) -> None:
    with pytest.raises(WrongUsage, match="--precision fp8: this bundle has int8, fp16, fp32"):
        Runner(jetson, precision="fp8")
    assert main(["verify", "--precision", "fp16"], written) == 2


def test_a_precision_that_is_not_built_says_how_to(jetson: Path, tensorrt: StandInTensorRT) -> None:
    build(jetson, "int8")
    with pytest.raises(RunnerError, match=r"model-fp16\.engine: not built\. Next: sh build_engine\.sh"):
        Runner(jetson, precision="fp16")


def test_an_engine_of_another_device_is_refused(jetson: Path, tensorrt: StandInTensorRT) -> None:
    (jetson / "model-int8.engine").write_bytes(b"from elsewhere")
    with pytest.raises(RunnerError, match=r"made by another TensorRT or for another GPU\. Next: sh build_engine\.sh"):
        Runner(jetson)


def test_an_engine_of_another_model_is_refused(
    toy: Toy, jetson: Path, written_log_mel: Path, tensorrt: StandInTensorRT
) -> None:
    (jetson / "model-int8.engine").write_bytes(b"plan" + (written_log_mel / "model.onnx").read_bytes())
    with pytest.raises(RunnerError, match="made from another model"):
        Runner(jetson)
    build(jetson, "int8")
    toy.classifier(jetson, clip_samples=900)
    with pytest.raises(RunnerError, match="made from another model"):
        Runner(jetson)


def test_an_engine_may_call_its_tensors_what_it_likes(jetson: Path, tensorrt: StandInTensorRT) -> None:
    model = onnx.load(jetson / "model.onnx")
    renamed = {"waveform": "sound", "probabilities": "output0"}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for value in (*model.graph.input, *model.graph.output):
        value.name = renamed[value.name]
    (jetson / "model-int8.engine").write_bytes(b"plan" + model.SerializeToString())
    assert Runner(jetson).verify()["agrees"]


def test_an_engine_without_anything_to_run_it_says_what_to_install(
    jetson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(jetson, "int8")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunnerError, match=r"sudo apt install python3-libnvinfer, or add --cpu"):
        Runner(jetson)
    assert Runner(jetson, cpu=True).verify()["agrees"]


def test_an_engine_without_cuda_says_what_to_install(
    jetson: Path, tensorrt: StandInTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    build(jetson, "int8")
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(RunnerError, match=r"libcudart\.so not found"):
        Runner(jetson)


def test_a_failing_cuda_call_is_named(jetson: Path, tensorrt: StandInTensorRT) -> None:
    build(jetson, "int8")
    tensorrt.cuda.cudaMalloc = lambda *_: 2  # type: ignore[method-assign]
    with pytest.raises(RunnerError, match="cudaMalloc failed with CUDA error 2"):
        Runner(jetson)


# trtexec, where there is no module for this Python


TRTEXEC = """\
#!{python}
# Runs the ONNX file in an engine and writes what trtexec writes, in the form in which it does.
import json, os, sys, time
import numpy as np
import onnxruntime
options = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
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
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A trtexec on PATH, and no module; returns the file with the options of each call."""
    if os.access("/usr/src/tensorrt/bin/trtexec", os.X_OK):
        pytest.skip("the trtexec of this machine would be used")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    program, log = tmp_path / "bin" / "trtexec", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(TRTEXEC.format(python=sys.executable, log=str(log), slow=1e-3))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    yield log


def calls(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("source", ["waveform", "log_mel"])
@pytest.mark.parametrize("batch", ["dynamic", 1])
def test_trtexec_runs_the_engine_where_there_is_no_module(
    toy: Toy, trtexec: Path, tmp_path: Path, source: str, batch: str | int
) -> None:
    bundle = toy.write(tmp_path / "a bundle: the first, and only", "jetson-orin-nano", source=source, batch=batch)
    build(bundle, "int8")
    runner = Runner(bundle)
    assert (runner.engine, runner.precision) == ("trtexec", "int8")
    waveform = toy.noise(1_400)  # three windows
    np.testing.assert_allclose(
        runner.predict(waveform, 8_000), Runner(bundle, cpu=True).predict(waveform, 8_000), atol=1e-5
    )
    assert len(calls(trtexec)) == (3 if batch == 1 else 1)
    once = {"iterations": "1", "avgRuns": "1", "warmUp": "0", "duration": "0"}
    assert all(call.items() >= once.items() for call in calls(trtexec))


def test_verify_and_predict_say_once_that_trtexec_is_slow(
    toy: Toy, jetson: Path, trtexec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(jetson, "int8")
    soundfile.write(tmp_path / "low.wav", toy.tone("low", 0.1), 8_000)
    assert main(["verify"], jetson) == 0
    shown = capsys.readouterr()
    assert "run by trtexec in int8" in shown.out
    assert shown.err.count("\n") == 1
    assert "is not installed, so trtexec runs the engine" in shown.err
    assert main(["predict", str(tmp_path / "low.wav"), str(tmp_path / "low.wav")], jetson) == 0
    shown = capsys.readouterr()
    assert shown.out.split()[1] == "low"
    assert shown.err.count("\n") == 1


def test_an_older_module_is_as_good_as_none(jetson: Path, trtexec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(jetson, "int8")
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="8.2.1.8"))
    assert Runner(jetson).engine == "trtexec"


def test_trtexecs_own_error_is_told(jetson: Path, trtexec: Path) -> None:
    (jetson / "model-int8.engine").write_bytes(b"from elsewhere")
    with pytest.raises(RunnerError, match=r"trtexec cannot run it: Error\[1\]: .*tag does not match\. Next: sh"):
        Runner(jetson).verify()


def test_trtexecs_nan_is_one_line(toy: Toy, jetson: Path, trtexec: Path) -> None:
    build(jetson, "int8")
    with pytest.raises(RunnerError, match="wrote no result that can be read"):
        Runner(jetson).probabilities(np.full((1, CLIP), np.nan, np.float32))


def test_stream_refuses_trtexec(
    jetson: Path, trtexec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(jetson, "int8")
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    assert main(["stream"], jetson) == 3
    assert "stream: trtexec is too slow for a live signal. Next: " in capsys.readouterr().err


def test_bench_takes_trtexecs_own_times(jetson: Path, trtexec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(jetson, "int8")
    assert main(["bench", "--json", "--runs", "50"], jetson) == 0
    outcome = json.loads(capsys.readouterr().out)
    expected = 0.2 + 1e-3 * (jetson / "model-int8.engine").stat().st_size
    assert (outcome["engine"], outcome["runs"]) == ("trtexec", 50)
    assert outcome["p50_ms"] == pytest.approx(expected, abs=0.05)  # and the little that handing a clip over takes
    assert len(calls(trtexec)) == 1


# Choosing


def slower(tensorrt: StandInTensorRT, jetson: Path, **delays: float) -> None:
    """Let the engines of these precisions take longer by this many seconds a run."""
    tensorrt.delays = {(jetson / f"model-{name}.engine").read_bytes(): delay for name, delay in delays.items()}


def retouched(jetson: Path, toy: Toy, **biases: float) -> None:
    """Engines of the toy with another bias for the first class, which tells them apart and from the reference."""
    for precision, bias in biases.items():
        dimension = json.loads((jetson / "manifest.json").read_text())["classifier"]["batch"]
        model = toy.model(batch="batch" if dimension == "dynamic" else dimension, bias=bias)
        (jetson / f"model-{precision}.engine").write_bytes(b"plan" + model)


def test_the_fastest_engine_that_agrees_is_chosen_and_then_used(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    retouched(jetson, toy, int8=0.001, fp16=toy.FLOAT_BIAS, fp32=toy.FLOAT_BIAS + 0.001)
    slower(tensorrt, jetson, int8=0.005, fp32=0.01)
    assert main(["choose", "--json", "--runs", "10"], jetson) == 0
    choice = json.loads(capsys.readouterr().out)
    assert choice["precision"] == "fp16"
    assert choice == json.loads((jetson / "engine.json").read_text())
    assert [found["agrees"] for found in choice["candidates"].values()] == [True] * 3
    assert choice["candidates"]["fp32"]["p50_ms"] > choice["candidates"]["int8"]["p50_ms"] > 5
    assert Runner(jetson).precision == "fp16"
    assert Runner(jetson, precision="int8").precision == "int8"
    assert main(["verify"], jetson) == 0
    assert "run by tensorrt in fp16" in capsys.readouterr().out


def test_a_fast_engine_that_disagrees_is_not_chosen(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    retouched(jetson, toy, int8=20, fp16=toy.FLOAT_BIAS)
    (jetson / "model-fp32.engine").write_bytes(b"from elsewhere")
    slower(tensorrt, jetson, fp16=0.005)
    assert main(["choose", "--runs", "10"], jetson) == 0
    int8, fp16, fp32 = capsys.readouterr().out.splitlines()
    assert int8.startswith("int8  p50 ")
    assert int8.endswith("disagrees")
    assert fp16.endswith("chosen")
    assert "made by another TensorRT" in fp32
    candidates = json.loads((jetson / "engine.json").read_text())["candidates"]
    assert [candidates[name]["agrees"] for name in ("int8", "fp16", "fp32")] == [False, True, False]


def test_no_engine_that_agrees_exits_with_4_and_leaves_no_choice(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    build(jetson, "int8")
    assert main(["choose", "--runs", "5"], jetson) == 0
    retouched(jetson, toy, int8=20)
    assert main(["choose", "--runs", "5"], jetson) == 4
    assert "no engine agrees with the golden examples" in capsys.readouterr().err
    assert not (jetson / "engine.json").exists()


def test_engines_of_which_none_runs_are_no_disagreement(
    jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    (jetson / "model-int8.engine").write_bytes(b"from elsewhere")
    assert main(["choose"], jetson) == 3
    assert "model-int8.engine: made by another TensorRT" in capsys.readouterr().err


def test_choosing_in_a_damaged_bundle_is_refused(
    jetson: Path, tensorrt: StandInTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    build(jetson, "int8")
    (jetson / "model-fp16.onnx").write_bytes(b"edited")
    assert main(["choose"], jetson) == 3
    assert "model-fp16.onnx: changed since the bundle was written" in capsys.readouterr().err


def test_choosing_without_engines_says_how_to_build_them(jetson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose"], jetson) == 3
    assert "no engine has been built here. Next: sh build_engine.sh" in capsys.readouterr().err


def test_choosing_means_nothing_where_onnxruntime_runs_it(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose"], written) == 2
    assert "nothing to choose from" in capsys.readouterr().err


def test_trtexec_times_the_candidates_too(
    toy: Toy, jetson: Path, trtexec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(jetson, "int8", "fp32")
    assert main(["choose", "--runs", "10"], jetson) == 0
    assert json.loads((jetson / "engine.json").read_text())["precision"] in ("int8", "fp32")
    assert sum("exportTimes" in call for call in calls(trtexec)) == 2 * 2  # in two rounds


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"precision": "fp8"}', '{"precision": ["int8"]}', "\0\1"])
def test_a_choice_that_was_edited_by_hand_is_refused(jetson: Path, tensorrt: StandInTensorRT, content: str) -> None:
    build(jetson, "int8")
    (jetson / "engine.json").write_text(content)
    with pytest.raises(RunnerError, match=r"engine\.json: not what `choose` writes\. Next: python3 edgekd_runner\.py"):
        Runner(jetson)


def test_a_chosen_engine_that_is_gone_is_named(jetson: Path, tensorrt: StandInTensorRT) -> None:
    build(jetson, "int8")
    (jetson / "engine.json").write_text('{"precision": "fp16"}')
    with pytest.raises(RunnerError, match=r"model-fp16\.engine was chosen and is gone"):
        Runner(jetson)
    assert Runner(jetson, precision="int8").verify()["agrees"]


def test_a_choice_that_cannot_be_written_leaves_the_one_before(
    jetson: Path, tensorrt: StandInTensorRT, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(jetson, "int8")
    (jetson / "engine.json").write_text("before")

    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["choose", "--runs", "5"], jetson) == 3
    assert "engine.json: cannot be written: No space left on device" in capsys.readouterr().err
    assert (jetson / "engine.json").read_text() == "before"
