"""A bundle, ready to classify: waveforms of any rate and length, its golden examples, and how long it takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Iterable, Iterator

import numpy as np

from edgekd.device.runner.answers import SEVERAL, same_answers
from edgekd.device.runner.arrays import read_golden
from edgekd.device.runner.bundle import (
    DLA_ENGINE,
    ENGINE_STEPS,
    Contract,
    built_engines,
    check_files,
    chosen_engine,
    engine_file,
    engine_step,
    engines,
    graphs,
    read_manifest,
)
from edgekd.device.runner.detection import rule_of
from edgekd.device.runner.engine_layers import layer_types
from edgekd.device.runner.engines import OnnxRuntime, TensorRT, open_engine
from edgekd.device.runner.errors import BadSamples, RunnerError, WrongUsage, complain
from edgekd.device.runner.level import HIGHEST_PEAK, Stretches, largest
from edgekd.device.runner.log_mel import LogMel
from edgekd.device.runner.resample import resample_pieces
from edgekd.device.runner.steps import StepGraphs
from edgekd.device.runner.trtexec import Trtexec

NOT_FINITE = "the model's output is not finite; is the waveform's full scale 1?"
BATCH = 8  # windows of a long file that are classified together


def windows(
    pieces: Iterable[np.ndarray],
    clip_samples: int,
    hop_samples: int,
    padding: str,
    trimmed: Stretches | None = None,
) -> Iterator[np.ndarray]:
    """A waveform that comes in `pieces` `(samples,)`, as batches of clips `(B, clip_samples)`.

    A longer one is cut every `hop_samples`, the last clip flush with its end; a shorter one is filled up by `padding`:
    "repeat" or "zeros". Of the waveform as much is held as a batch and a piece need. `trimmed` knows the digital
    silence at the ends of clips, which is not used: they are filled up, too.
    """
    held, first, total, start = np.zeros(0, np.float32), 0, 0, 0  # held[0] is sample `first` of `total` so far
    batch: list[np.ndarray] = []
    for piece in pieces:
        held = np.concatenate([held, piece]) if len(held) else piece
        total += len(piece)
        while start + clip_samples < total:  # more follows, so it is not the last
            clip = held[start - first : start - first + clip_samples]
            batch.append(fit(_without_silence(clip, start, trimmed), clip_samples, padding))
            start += hop_samples
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []
        needed = max(first, min(start, total - clip_samples))
        held, first = held[needed - first :], needed
    last = _without_silence(held[-clip_samples:], max(0, total - clip_samples), trimmed)
    yield np.stack([*batch, fit(last, clip_samples, padding)])


def _without_silence(clip: np.ndarray, start: int, trimmed: Stretches | None) -> np.ndarray:
    """What is left of a clip `(samples,)` that begins at `start`."""
    if trimmed is None:
        return clip
    _, first, stop = trimmed.window(start, len(clip))
    return clip[first:stop]


def fit(clip: np.ndarray, clip_samples: int, padding: str) -> np.ndarray:
    """`clip (samples,)` cut to `(clip_samples,)`, or filled up at its end by "repeat" or "zeros"."""
    missing = clip_samples - len(clip)
    if missing <= 0:
        return clip[:clip_samples]
    return np.resize(clip, clip_samples) if padding == "repeat" else np.pad(clip, (0, missing))


class Runner:
    """The classifier of a bundle folder, every file of which is compared with the manifest first.

    `engine` tells what runs it: "tensorrt", "trtexec" or "tensorrt-rtx" where the target runs TensorRT and an engine
    is there, else "onnxruntime"; `cpu` asks for the latter. `precision` is the one that `choose` has chosen, or the
    bundle's first, unless it is asked for. Raises `RunnerError`.
    """

    def __init__(self, folder: Path, threads: int = 1, precision: str | None = None, cpu: bool = False) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        check_files(self.folder, self.manifest)
        classifier = self.manifest["classifier"]
        self.classes: list[str] = classifier["classes"]
        self.activation: str = classifier.get("activation", "softmax")  # older bundles have none
        self.thresholds = rule_of(self.manifest).open
        self.sample_rate: int = classifier["sample_rate"]
        self.clip_samples: int = classifier["clip_samples"]
        self.hop_samples: int = classifier["hop_samples"]
        self.padding: str = classifier["padding"]
        self.channel: int | str = classifier.get("channel", "mean")  # older bundles have none of these three
        self.full_scale: float = classifier.get("full_scale", 1.0)
        self.trim_silence: bool = classifier.get("trim_silence", False)
        self.resampler: dict[str, Any] = classifier["resampler"]
        self.reject: dict[str, Any] | None = (self.manifest.get("detection") or {}).get("reject")
        self._batch: int = BATCH if classifier["batch"] == "dynamic" else classifier["batch"]
        self.log_mel: LogMel | None = None  # where the graph does not compute it
        shape: tuple[int, ...] = (self.clip_samples,)
        if classifier["input"] == "log_mel":
            self.log_mel = LogMel(**classifier["frontend"], sample_rate=self.sample_rate, gain=classifier["gain"])
            shape = (1, *self.log_mel.shape(self.clip_samples))
        self.precision, built = self._choice(precision, cpu)
        target = self.manifest["target"]
        table = target.get("tensorrt") or target.get("tensorrt_rtx") or {}
        largest = 1 if self._batch == 1 else table.get("max_batch", 1)
        contract = Contract(classifier["input"], shape, len(self.classes), largest, self.reject is not None)
        self._engine: OnnxRuntime | TensorRT | Trtexec
        if built:
            on_dla = self.precision == DLA_ENGINE
            self._engine = open_engine(engine_file(self.folder, self.precision), contract, target["runtime"], on_dla)
        else:
            model, opset = self.folder / graphs(self.manifest)[self.precision], target["opset"]
            self._engine = OnnxRuntime(model, opset, contract, threads)
        self.engine, self.engine_version = self._engine.name, self._engine.version
        self._threads = threads
        self._steps: StepGraphs | None = None

    def _choice(self, precision: str | None, cpu: bool) -> tuple[str, bool]:
        """The precision, and whether its engine runs it."""
        known = list(graphs(self.manifest))
        possible = list(dict.fromkeys([*known, *([] if cpu else engines(self.manifest))]))
        if precision is not None and precision not in possible:
            raise WrongUsage(f"--precision {precision}: this bundle has {', '.join(possible)}")
        built = [] if cpu else built_engines(self.folder, self.manifest)
        if not built and precision in (None, *known):
            return precision or known[0], False
        if precision is not None and precision not in built:
            raise RunnerError(
                f"{engine_file(self.folder, precision)}: not built. {engine_step(self.manifest, precision)}"
            )
        return precision or chosen_engine(self.folder, self.manifest) or built[0], True

    def graph_input(self, clips: np.ndarray) -> np.ndarray:
        """What the graph takes for clips `(B, clip_samples)`: these, or their log-mel `(B, 1, T, F)`."""
        return clips if self.log_mel is None else self.log_mel(clips)

    def probabilities(self, clips: np.ndarray) -> np.ndarray:
        """Class probabilities `(B, K)` of clips `(B, clip_samples)` at the bundle's sample rate."""
        return self.answers(clips)[:, : len(self.classes)]

    def answers(self, clips: np.ndarray) -> np.ndarray:
        """`probabilities`, and in one more column how familiar each clip is, where the bundle rejects the unknown."""
        batches = (clips[i : i + self._batch] for i in range(0, len(clips), self._batch))
        scores = np.concatenate([self._engine(self.graph_input(batch)) for batch in batches])
        if not np.isfinite(scores).all():
            raise BadSamples(NOT_FINITE)
        return scores

    def told(self, answer: np.ndarray) -> dict[str, Any]:
        """`known`, how familiar what was answered so `(K + 1,)` is, and whether it is `unknown`; empty where the bundle
        rejects nothing."""
        if self.reject is None:
            return {}
        known = float(answer[len(self.classes)])
        return {"known": round(known, 6), "unknown": known < self.reject["threshold"]}

    def step_graphs(self) -> StepGraphs | None:
        """The graphs by which windows that overlap are computed; None where the bundle has none for what runs here."""
        described = self.manifest.get("steps")  # older bundles have none
        if described is None or self.engine != "onnxruntime" or self.precision != self.manifest["precision"]:
            return None
        if self._steps is None:
            classifier, opset = self.manifest["classifier"], self.manifest["target"]["opset"]
            self._steps = StepGraphs(self.folder, described, classifier, opset, self._threads)
        return self._steps

    @property
    def answers_several(self) -> bool:
        """Whether each class is answered for itself, so that a clip may be of several, or of none."""
        return self.activation == SEVERAL

    def answered(self, scores: np.ndarray) -> list[str]:
        """Of scores `(K,)`, the classes that reach their thresholds, the most probable first."""
        return [self.classes[k] for k in np.argsort(-scores, kind="stable") if scores[k] >= self.thresholds[k]]

    def predict(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Class probabilities `(K,)` of a mono waveform `(samples,)` with full scale 1, of any length and rate.

        Longer than a clip: the mean over windows every `hop_samples`, the last one flush with the end. Shorter: padded.
        """
        waveform = np.asarray(waveform, np.float32)
        if waveform.ndim != 1 or not waveform.size:
            raise RunnerError(f"expected a mono waveform, got an array of shape {waveform.shape}")
        return self.predict_pieces([waveform], sample_rate)

    def predict_pieces(self, pieces: Iterable[np.ndarray], sample_rate: int) -> np.ndarray:
        """`predict` of a waveform that comes in pieces `(samples,)`, to the same numbers: a file of any length takes
        little memory."""
        return self.hear(pieces, sample_rate)[0][: len(self.classes)]

    def hear(self, pieces: Iterable[np.ndarray], sample_rate: int) -> tuple[np.ndarray, bool]:
        """What is answered of a waveform in pieces, as `answers` has it, and whether there was nothing to hear: every
        sample had one value."""
        width, rolloff = self.resampler["lowpass_filter_width"], self.resampler["rolloff"]
        stretches = Stretches(sample_rate, self.sample_rate)
        resampled = resample_pieces(_known(pieces, stretches), sample_rate, self.sample_rate, width, rolloff)
        trimmed = stretches if self.trim_silence else None
        clips = windows(resampled, self.clip_samples, self.hop_samples, self.padding, trimmed)
        scores = [self.answers(batch) for batch in clips]
        return np.concatenate(scores).mean(axis=0), stretches.flat

    def golden_clips(self) -> tuple[np.ndarray, np.ndarray]:
        """The golden examples: clips `(N, clip_samples)` and the `answers` expected of them.

        int8 is held to what the int8 model said when it was exported, other precisions to what the float student said.
        """
        prefix, rejects = "" if self.precision == "int8" else "float_", self.reject is not None
        golden = read_golden(self.folder / "golden.npz", self.clip_samples, len(self.classes), known=rejects)
        scale = golden["scale"].astype(np.float32)[:, None] / np.float32(32767)
        expected = golden.get(f"{prefix}probabilities", golden["probabilities"])
        if rejects:
            expected = np.column_stack([expected, golden[f"{prefix}known"]])
        return golden["waveform"].astype(np.float32) * scale, expected

    def verify(self) -> dict[str, Any]:
        """Run the golden examples: `agrees`, and the figures it is decided by.

        Of an int8 engine also `layers_in_float`: those that are to compute on integers, and do not.
        """
        clips, expected = self.golden_clips()
        scores, classes = self.answers(clips), len(self.classes)
        agreement = same_answers(scores[:, :classes], expected[:, :classes], self.activation)
        apart = np.abs(scores - expected)
        difference = float(apart[:, :classes].max())
        known: dict[str, float] = {}
        if self.reject is not None:
            known = {"known_difference": float(apart[:, classes].max() / self.reject["span"])}
        tolerance = self.manifest["target"]["tolerance"]
        return {
            "agrees": agreement >= tolerance["agreement"]
            and max((difference, *known.values())) <= tolerance["probability"],
            "clips": len(clips),
            "agreement": agreement,
            "largest_difference": difference,
            **known,
            "tolerance": tolerance,
            "engine": self.engine,
            "precision": self.precision,
            **self._layers_in_float(),
        }

    def _layers_in_float(self) -> dict[str, list[str]]:
        """Empty where nothing is known: older bundles do not name their int8 layers, nor trtexec an engine's."""
        named = (self.manifest.get("float_operators") or {}).get("on_integers")
        if self.precision != "int8" or not named or not isinstance(self._engine, TensorRT):
            return {}
        types = layer_types(self._engine.information(), named)
        return {"layers_in_float": [name for name in named if types.get(name, "int8") != "int8"]} if types else {}

    def time(self, clip: np.ndarray, runs: int) -> np.ndarray:
        """Wall times `(runs, 2)` in ms, of front end (0 where it is in the graph) and engine, for one clip `(1, S)`."""
        times = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            batch = self.graph_input(clip)
            between = time.perf_counter()
            if not isinstance(self._engine, Trtexec):
                self._engine(batch)
            times.append((between - start, time.perf_counter() - between))
        milliseconds = 1e3 * np.array(times[1:])  # the first brings code and weights back into the caches
        if isinstance(self._engine, Trtexec):
            milliseconds[:, 1] = self._engine.latencies(batch, runs)
        return milliseconds


def _known(pieces: Iterable[np.ndarray], stretches: Stretches) -> Iterator[np.ndarray]:
    """The `pieces` when they have been found to be sound, and `stretches` knows them."""
    for piece in pieces:
        require_sound(piece)
        stretches.push(piece)
        yield piece


def require_sound(waveform: np.ndarray) -> None:
    """Raises `BadSamples` for a waveform with NaN or infinite samples, or such as no recorder with full scale 1 has."""
    if not np.isfinite(waveform).all():
        raise BadSamples("some samples are NaN or infinite")
    if (peak := largest(waveform)) > HIGHEST_PEAK:
        raise BadSamples(
            f"samples reach {peak:.4g} times full scale: floats of another unit? Export with data.full_scale set to it"
        )


def open_runner(folder: Path, threads: int, precision: str | None, cpu: bool) -> Runner:
    """A `Runner`, and on standard error what it is run by where that is not what its board was chosen for."""
    runner = Runner(folder, threads, precision, cpu)
    if runner.engine == "trtexec":
        running = "so trtexec runs the engine, seconds a call. Next:"
        if (runner.engine_version or "").startswith("8.2."):  # whose module is for the Python 3.6 of its JetPack
            complain(f"TensorRT {runner.engine_version} has no module for this Python, {running} --cpu may be faster")
        else:
            complain(
                f"TensorRT's Python module (8.5 or later) is not installed, {running} sudo apt install"
                " python3-libnvinfer (a virtual environment needs --system-site-packages)"
            )
    elif runner.manifest["target"]["runtime"] in ENGINE_STEPS and runner.engine == "onnxruntime" and not cpu:
        step = engine_step(runner.manifest)
        complain(f"no engine here, so onnxruntime runs the {runner.precision} model on the CPU. {step}")
    return runner
