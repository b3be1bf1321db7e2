#!/usr/bin/env python3
"""Run the classifier in this folder: check it, classify WAV files, time it.

    python3 edgekd_runner.py verify
    python3 edgekd_runner.py predict FILE... [--top K] [--json]
    python3 edgekd_runner.py bench [--threads N] [--json]

Needs Python 3.8 or later, numpy 1.20 or later, and onnxruntime; or TensorRT's Python module where `model.engine` has
been built. Everything else it needs to know is in `manifest.json`.

Exit codes: 0 done; 1 an unforeseen failure; 2 wrong usage; 3 a bad or missing file, or a bundle that has been changed;
4 this device does not agree with the golden examples. `EDGEKD_DEBUG=1` shows where an error came from.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import os
import resource
import struct
import sys
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence  # noqa: UP035 - collections.abc cannot be subscripted on 3.8

try:
    import numpy as np
except ImportError:
    print("edgekd_runner: numpy is not installed. Next: python3 -m pip install numpy onnxruntime", file=sys.stderr)
    raise SystemExit(3) from None

FORMAT = 1  # of manifest.json
BATCH = 8  # windows of a long file that are classified together
BAD_INPUT, DISAGREES = 3, 4
PLAUSIBLE_RATES = range(1_000, 768_001)  # Hz; outside, a header is damaged and resampling could fill the memory

_AGAIN = "Copy or export the bundle again."

Classify = Callable[["np.ndarray"], "np.ndarray"]


class RunnerError(Exception):
    """What is wrong, where, and what to do next, in one line."""

    exit_code = BAD_INPUT


# --- The bundle -------------------------------------------------------------------------------------------------------


def manifest_digest(manifest: dict[str, Any]) -> str:
    """sha256 of a manifest without its own `sha256` entry: it shows damage and careless edits, not an attacker."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of `manifest.json`, unchanged since it was written. Raises `RunnerError`."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as failure:
        raise RunnerError(f"{path}: {failure.strerror}. A bundle is a folder with a manifest.json.") from None
    except ValueError:  # also a UnicodeDecodeError
        raise RunnerError(f"{path}: not valid JSON. Copy the bundle again.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise RunnerError(f"{path}: not the manifest of a bundle.")
    if manifest["format"] != FORMAT:
        found = manifest["format"]
        raise RunnerError(f"{path}: format {found}, this runner reads {FORMAT}. Use the bundle's own runner.")
    if manifest.get("sha256") != manifest_digest(manifest):
        raise RunnerError(f"{path}: changed since the bundle was written. {_AGAIN}")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file the manifest lists with its sha256. Raises `RunnerError` naming the first that differs."""
    for name, expected in manifest["files"].items():
        try:
            found = file_digest(folder / name)
        except OSError as failure:
            raise RunnerError(f"{folder / name}: {failure.strerror}. {_AGAIN}") from None
        if found != expected:
            raise RunnerError(f"{folder / name}: changed since the bundle was written. {_AGAIN}")


# --- Audio ------------------------------------------------------------------------------------------------------------


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Mono waveform `(samples,)`, float32, full scale 1, and the sample rate in Hz, from a RIFF/WAVE file.

    PCM of 8, 16, 24 and 32 bits and float of 32 and 64 bits, plain or WAVE_FORMAT_EXTENSIBLE; channels are averaged.
    Raises `RunnerError` (without the file's name) for anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise RunnerError((failure.strerror or "cannot be read").lower()) from None
    if not content:
        raise RunnerError("the file is empty")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise RunnerError("not a WAV file; convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav")
    layout: bytes | None = None
    position = 12
    while position + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if kind == b"fmt ":
            layout = content[position : position + size]
        elif kind == b"data":
            if layout is None or len(layout) < 16:
                raise RunnerError("damaged WAV: no format before the samples")
            follow = len(content) - position
            if size >= 0x7FFFF000:  # a recorder that writes to a pipe cannot know the size and puts in a limit instead
                size = follow
            if size > follow:
                raise RunnerError(f"truncated: the header promises {size} bytes of samples, {follow} follow")
            return _decode(content[position : position + size], layout)
        position += size + size % 2  # chunks are padded to even lengths
    raise RunnerError("truncated: the header is there, the samples are not")


def _decode(data: bytes, layout: bytes) -> tuple[np.ndarray, int]:
    encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if encoding == 0xFFFE and len(layout) >= 26:  # EXTENSIBLE: the encoding opens the sub-format GUID
        (encoding,) = struct.unpack_from("<H", layout, 24)
    if channels == 0 or rate not in PLAUSIBLE_RATES:
        raise RunnerError(f"damaged WAV: {channels} channels at {rate} Hz")
    convert = _ENCODINGS.get((encoding, bits))
    if convert is None:
        raise RunnerError(
            f"WAV encoding {encoding:#06x} of {bits} bits is not supported;"
            " convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav"
        )
    frame = channels * bits // 8
    if len(data) < frame:
        raise RunnerError("no samples in it")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by `Runner.predict`
        samples = convert(data[: len(data) // frame * frame])
        return samples.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def _pcm24(data: bytes) -> np.ndarray:
    # Three bytes become the upper three of a 32-bit integer, which keeps the sign.
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


PCM, FLOAT = 1, 3
_ENCODINGS: dict[tuple[int, int], Callable[[bytes], np.ndarray]] = {
    (PCM, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (PCM, 16): lambda data: np.frombuffer(data, "<i2").astype(np.float32) / 2**15,
    (PCM, 24): _pcm24,
    (PCM, 32): lambda data: (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32),
    (FLOAT, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    (FLOAT, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
}


def resample(waveform: np.ndarray, source: int, target: int, width: int, rolloff: float) -> np.ndarray:
    """`(samples,)` at `source` Hz -> `(ceil(samples * target / source),)` at `target` Hz.

    Band-limited interpolation with a Hann-windowed sinc of `width` zero crossings a side and a cut-off at `rolloff` of
    the lower Nyquist frequency (J. O. Smith, "Digital Audio Resampling", ccrma.stanford.edu/~jos/resample): the numbers
    of `torchaudio.functional.resample`, and of the training data.
    """
    if source == target:
        return waveform
    advance, reach, blocks = _sinc_blocks(source, target, width, rolloff)
    columns = sum(weights.shape[1] for _, weights in blocks)
    length = -(-len(waveform) * target // source)
    frames = -(-length // columns)
    padded = np.zeros(frames * advance + 2 * reach + 2, np.float32)
    padded[reach : reach + len(waveform)] = waveform
    output = np.empty((frames, columns), np.float32)
    column = 0
    for first, weights in blocks:
        taps, outputs = weights.shape
        windows = np.lib.stride_tricks.sliding_window_view(padded, taps)[first::advance]
        for start in range(0, frames, 4096):  # in pieces: windows overlap, so a copy of all of them is large
            part = slice(start, min(start + 4096, frames))
            output[part, column : column + outputs] = np.ascontiguousarray(windows[part]) @ weights
        column += outputs
    return output.reshape(-1)[:length]


@lru_cache(maxsize=8)
def _sinc_blocks(source: int, target: int, width: int, rolloff: float) -> tuple[int, int, list[tuple[int, np.ndarray]]]:
    # Output n lies at n * source / target input samples, so the filter repeats every `target / gcd` outputs. A frame is
    # one or more such periods and starts `advance` inputs after the one before. Its outputs are cut into blocks of up
    # to 32, each with the first input it needs (`reach` zeros precede the frame) and its weights `(taps, outputs)`:
    # dense products of a size BLAS likes, where the whole filter as one matrix would be nearly all zeros.
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    cutoff = min(source, target) * rolloff
    reach = math.ceil(width * source / cutoff)
    periods = -(-32 // target)
    blocks = []
    for start in range(0, target * periods, 32):
        output = np.arange(start, min(start + 32, target * periods))
        first, last = int(output[0]) * source // target, int(output[-1]) * source // target
        sample = np.arange(first - reach, last + reach + 2)[:, None]
        zeros = (sample * target - output * source) / (source * target) * cutoff  # distance in zero crossings
        window = np.cos(np.clip(zeros / width, -1, 1) * math.pi / 2) ** 2
        blocks.append((first, (np.sinc(zeros) * window * cutoff / source).astype(np.float32)))
    return source * periods, reach, blocks


# --- The model --------------------------------------------------------------------------------------------------------


def _open_onnxruntime(model: Path, threads: int) -> Classify:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as failures
    except ImportError:
        raise RunnerError("onnxruntime is not installed. Next: python3 -m pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    # Without VNNI, x86 adds pairs of int8 products in 16 bits, which saturate; this asks for exact sums there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    refusals = (failures.Fail, failures.InvalidGraph, failures.InvalidProtobuf, failures.NotImplemented)
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except refusals as failure:
        reason = str(failure).splitlines()[0]
        raise RunnerError(f"{model}: onnxruntime {onnxruntime.__version__} cannot load it: {reason}") from None
    return lambda clips: session.run(["probabilities"], {"waveform": clips})[0]


class _Cuda:
    # The four calls of the CUDA runtime that are needed, by ctypes: JetPack has no CUDA module for Python.
    TO_DEVICE, TO_HOST = 1, 2

    def __init__(self) -> None:
        for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "/usr/local/cuda/lib64/libcudart.so"):
            try:
                self._library = ctypes.CDLL(name)
                return
            except OSError:
                continue
        raise RunnerError("libcudart.so not found. Next: sudo apt install nvidia-jetpack, or delete model.engine")

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise RunnerError(f"{function} failed with CUDA error {status}")

    def allocate(self, size: int) -> int:
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value or 0

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def copy(self, destination: int, source: int, size: int, kind: int) -> None:
        pointers = ctypes.c_void_p(destination), ctypes.c_void_p(source)
        self._call("cudaMemcpy", *pointers, ctypes.c_size_t(size), ctypes.c_int(kind))

    def wait(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))


class _TensorRT:
    # An engine that build_engine.sh made on this device; clips (B, S) in, probabilities (B, K) out.
    def __init__(self, engine: Path, clip_samples: int, num_classes: int) -> None:
        try:
            import tensorrt
        except ImportError:
            raise RunnerError(
                "TensorRT's Python module is not installed. Next: sudo apt install python3-libnvinfer,"
                " or delete model.engine to use onnxruntime"
            ) from None
        self._cuda = _Cuda()
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise RunnerError(f"{engine}: made by another TensorRT or for another GPU. Next: sh build_engine.sh")
        self._context = self._engine.create_execution_context()
        self._batch = self._engine.get_tensor_profile_shape("waveform", 0)[2][0]
        self._num_classes = num_classes
        self._stream = self._cuda.stream()
        self._input = self._cuda.allocate(self._batch * clip_samples * 4)
        self._output = self._cuda.allocate(self._batch * num_classes * 4)
        self._context.set_tensor_address("waveform", self._input)
        self._context.set_tensor_address("probabilities", self._output)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        return np.concatenate([self._run(clips[i : i + self._batch]) for i in range(0, len(clips), self._batch)])

    def _run(self, clips: np.ndarray) -> np.ndarray:
        clips = np.ascontiguousarray(clips, np.float32)
        scores = np.empty((len(clips), self._num_classes), np.float32)
        self._cuda.copy(self._input, clips.ctypes.data, clips.nbytes, self._cuda.TO_DEVICE)
        self._context.set_input_shape("waveform", clips.shape)
        if not self._context.execute_async_v3(self._stream):
            raise RunnerError("TensorRT could not run the engine. Next: sh build_engine.sh")
        self._cuda.wait(self._stream)
        self._cuda.copy(scores.ctypes.data, self._output, scores.nbytes, self._cuda.TO_HOST)
        return scores


def windows(waveform: np.ndarray, clip_samples: int, hop_samples: int, padding: str) -> Iterator[np.ndarray]:
    """A waveform `(samples,)` as batches of clips `(B, clip_samples)`.

    A longer one is cut every `hop_samples`, the last clip flush with its end; a shorter one is filled up by `padding`:
    "repeat" or "zeros".
    """
    missing = clip_samples - len(waveform)
    if missing > 0:
        repeated = np.resize(waveform, clip_samples)  # numpy fills a larger size with copies
        yield (repeated if padding == "repeat" else np.pad(waveform, (0, missing)))[None]
        return
    last = len(waveform) - clip_samples
    starts = [*range(0, last, hop_samples), last]
    for i in range(0, len(starts), BATCH):
        yield np.stack([waveform[start : start + clip_samples] for start in starts[i : i + BATCH]])


class Runner:
    """The classifier of a bundle folder, every file of which is compared with the manifest first.

    `engine` tells what runs it: "onnxruntime", or "tensorrt" where the target is a TensorRT one and `model.engine` is
    there. Raises `RunnerError`.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        check_files(self.folder, self.manifest)
        classifier = self.manifest["classifier"]
        self.classes: list[str] = classifier["classes"]
        self.sample_rate: int = classifier["sample_rate"]
        self.clip_samples: int = classifier["clip_samples"]
        self.hop_samples: int = classifier["hop_samples"]
        self.padding: str = classifier["padding"]
        self.resampler: dict[str, Any] = classifier["resampler"]
        built = self.folder / "model.engine"
        if self.manifest["target"]["runtime"] == "tensorrt" and built.exists():
            self.engine = "tensorrt"
            self._classify: Classify = _TensorRT(built, self.clip_samples, len(self.classes))
        else:
            self.engine = "onnxruntime"
            self._classify = _open_onnxruntime(self.folder / "model.onnx", threads)

    def probabilities(self, clips: np.ndarray) -> np.ndarray:
        """Class probabilities `(B, K)` of clips `(B, clip_samples)` at the bundle's sample rate."""
        batches = [self._classify(clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)]
        scores = np.concatenate(batches)
        if not np.isfinite(scores).all():
            raise RunnerError("the model's output is not finite; is the waveform's full scale 1?")
        return scores

    def predict(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Class probabilities `(K,)` of a mono waveform `(samples,)` with full scale 1, of any length and rate.

        Longer than a clip: the mean over windows every `hop_samples`, the last one flush with the end. Shorter: padded.
        """
        waveform = np.asarray(waveform, np.float32)
        if waveform.ndim != 1 or not waveform.size:
            raise RunnerError(f"expected a mono waveform, got an array of shape {waveform.shape}")
        if not np.isfinite(waveform).all():
            raise RunnerError("some samples are NaN or infinite")
        width, rolloff = self.resampler["lowpass_filter_width"], self.resampler["rolloff"]
        resampled = resample(waveform, sample_rate, self.sample_rate, width, rolloff)
        clips = windows(resampled, self.clip_samples, self.hop_samples, self.padding)
        scores = [self.probabilities(batch) for batch in clips]
        return np.concatenate(scores).mean(axis=0)

    def golden_clips(self) -> tuple[np.ndarray, np.ndarray]:
        """The golden examples: clips `(N, clip_samples)` and the probabilities `(N, K)` expected of them."""
        with np.load(self.folder / "golden.npz", allow_pickle=False) as golden:
            scale = golden["scale"].astype(np.float32)[:, None] / np.float32(32767)
            return golden["waveform"].astype(np.float32) * scale, golden["probabilities"]

    def verify(self) -> dict[str, Any]:
        """Run the golden examples: `agrees`, and the figures it is decided by."""
        clips, expected = self.golden_clips()
        scores = self.probabilities(clips)
        agreement = float((scores.argmax(axis=1) == expected.argmax(axis=1)).mean())
        difference = float(np.abs(scores - expected).max())
        tolerance = self.manifest["target"]["tolerance"]
        return {
            "agrees": agreement >= tolerance["agreement"] and difference <= tolerance["probability"],
            "clips": len(clips),
            "agreement": agreement,
            "largest_difference": difference,
            "tolerance": tolerance,
            "engine": self.engine,
        }


# --- Commands ---------------------------------------------------------------------------------------------------------


def _verify(runner: Runner, options: argparse.Namespace) -> int:
    outcome = runner.verify()
    if options.json:
        print(json.dumps({"files": len(runner.manifest["files"]) + 1, **outcome}))
    else:
        tolerance = outcome["tolerance"]
        print(f"files               {len(runner.manifest['files']) + 1} unchanged")
        print(f"golden examples     {outcome['clips']}, run by {runner.engine}")
        print(f"same top class      {outcome['agreement']:.1%}   (at least {tolerance['agreement']:.1%})")
        print(f"largest difference  {outcome['largest_difference']:.2g}   (at most {tolerance['probability']:g})")
    if outcome["agrees"]:
        return 0
    _complain("this device does not agree with the golden examples: do not rely on its answers.")
    return DISAGREES


def _predict(runner: Runner, options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    width = max(len(str(path)) for path in options.files)
    exit_code = 0
    for path in options.files:
        try:
            waveform, rate = read_wav(path)
            scores = runner.predict(waveform, rate)
        except RunnerError as failure:
            _complain(f"{path}: {failure}", failure)
            rows.append({"file": str(path), "error": str(failure)})
            exit_code = BAD_INPUT
            continue
        best = np.argsort(-scores, kind="stable")[: options.top]
        top = [{"class": runner.classes[k], "score": round(float(scores[k]), 6)} for k in best]
        rows.append({"file": str(path), "seconds": round(len(waveform) / rate, 3), "top": top})
        if not options.json:
            print(f"{path!s:<{width}}  " + "   ".join(f"{row['class']} {row['score']:.3f}" for row in top), flush=True)
    if options.json:
        print(json.dumps({"files": rows}))
    return exit_code


def _bench(runner: Runner, options: argparse.Namespace) -> int:
    clip = runner.golden_clips()[0][:1]
    for _ in range(options.warmup):
        runner.probabilities(clip)
    times = []
    for _ in range(options.runs):
        start = time.perf_counter()
        runner.probabilities(clip)
        times.append((time.perf_counter() - start) * 1e3)
    p50, p95, p99 = (round(float(value), 4) for value in np.percentile(times, (50, 95, 99)))
    clip_ms = runner.clip_samples / runner.sample_rate * 1e3
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes; Linux counts in KiB
    outcome = {
        "engine": runner.engine,
        "threads": options.threads,
        "runs": options.runs,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "real_time_factor": round(p50 / clip_ms, 6),
        "peak_memory_bytes": memory,
        "memory_budget_bytes": runner.manifest["target"]["memory_bytes"],
    }
    if options.json:
        print(json.dumps(outcome))
    else:
        print(f"{runner.engine}, threads: {options.threads}, one clip of {clip_ms / 1e3:g} s, waveform to scores")
        print(f"p50 {p50:.2f} ms   p95 {p95:.2f} ms   p99 {p99:.2f} ms   real-time factor {p50 / clip_ms:.2g}")
        print(f"peak memory {memory / 2**20:.0f} MiB of a budget of {outcome['memory_budget_bytes'] / 2**20:.0f} MiB")
    return 0


def _complain(message: str, failure: RunnerError | None = None) -> None:
    if failure is not None and os.environ.get("EDGEKD_DEBUG") == "1":
        traceback.print_exception(type(failure), failure, failure.__traceback__)
    print(f"edgekd_runner: {message}", file=sys.stderr)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="the result as one JSON object")
    common.add_argument("--threads", type=_positive, default=1, metavar="N", help="CPU threads for onnxruntime (1)")
    parser = argparse.ArgumentParser(prog="edgekd_runner.py", description="Run the classifier in this folder.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="verify|predict|bench")
    verify = commands.add_parser("verify", parents=[common], help="is the bundle whole, and does this device agree")
    verify.set_defaults(run=_verify)
    predict = commands.add_parser("predict", parents=[common], help="classify WAV files of any rate and length")
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE")
    predict.add_argument("--top", type=_positive, default=1, metavar="K", help="how many classes to show (1)")
    predict.set_defaults(run=_predict)
    bench = commands.add_parser("bench", parents=[common], help="latency of one clip, and memory")
    bench.add_argument("--runs", type=_positive, default=200, metavar="N", help="timed runs (200)")
    bench.add_argument("--warmup", type=_positive, default=20, metavar="N", help="runs before them (20)")
    bench.set_defaults(run=_bench)
    return parser


def main(arguments: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Run a command on the bundle in `folder` (where this file is) and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        runner = Runner(folder or Path(__file__).resolve().parent, threads=options.threads)
        if runner.engine == "onnxruntime" and runner.manifest["target"]["runtime"] == "tensorrt":
            _complain("no model.engine here, so onnxruntime runs model.onnx on the CPU. Next: sh build_engine.sh")
        return options.run(runner, options)
    except RunnerError as failure:
        _complain(str(failure), failure)
        return failure.exit_code


def _one_line(kind: type[BaseException], failure: BaseException, _: Any) -> None:
    _complain(f"unforeseen failure: {kind.__name__}: {failure}. EDGEKD_DEBUG=1 shows where.")


if __name__ == "__main__":
    if os.environ.get("EDGEKD_DEBUG") != "1":
        sys.excepthook = _one_line
    sys.exit(main())
