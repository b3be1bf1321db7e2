#!/usr/bin/env python3
"""Run the classifier in this folder: check it, classify WAV files or a live signal, time it.

    python3 edgekd_runner.py verify
    python3 edgekd_runner.py predict FILE... [--top K] [--json]
    python3 edgekd_runner.py detect FILE... [--out TABLE] [--threshold [CLASS=]SCORE]
    arecord -q -f S16_LE -r 32000 -t raw | python3 edgekd_runner.py stream [--events] [--hop SECONDS]
    python3 edgekd_runner.py bench [--threads N] [--json]
    python3 edgekd_runner.py choose

Needs Python 3.8 or later, numpy 1.20 or later, and onnxruntime (1.17 or later for a model in opset 20, as README.md
says); or TensorRT's Python module (8.5 or later) where `build_engine.sh` has built engines; or TensorRT for RTX where
the bundle holds them. Everything else it needs to know is in `manifest.json`.

Exit codes: 0 done; 1 an unforeseen failure; 2 wrong usage; 3 a bad or missing file, or a bundle that has been changed;
4 this device does not agree with the golden examples; 130 interrupted. `EDGEKD_DEBUG=1` shows where an error came from.
"""

# Joined from the modules of edgekd/device/runner by edgekd/device/join.py: to change it, change those.

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # a numpy.py beside this file, or where it is started, is not numpy
    _beside = ("", os.path.dirname(os.path.realpath(__file__)), os.path.realpath("/proc/self/cwd"))  # noqa: PTH120
    sys.path[:] = [_folder for _folder in sys.path if (_folder and os.path.realpath(_folder)) not in _beside]

import argparse
import csv
import ctypes
import fcntl
import hashlib
import importlib
import io
import json
import math
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import threading
import time
import tokenize
import traceback
import zipfile
import zlib
from collections import deque
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterable, Iterator, NamedTuple, Optional, Sequence, TextIO, Tuple

try:
    import numpy as np
except ImportError:
    print("edgekd_runner: numpy is not installed. Next: python3 -m pip install numpy onnxruntime", file=sys.stderr)
    raise SystemExit(3) from None


# --- Errors -----------------------------------------------------------------------------------------------------------
# What is wrong, where, and what to do next: one line for a person, and an exit code for a program.


WRONG_USAGE, BAD_INPUT, DISAGREES, INTERRUPTED = 2, 3, 4, 130


class RunnerError(Exception):
    """What is wrong, where, and what to do next, in one line."""

    exit_code = BAD_INPUT


class WrongUsage(RunnerError):
    """Asked for in a way that cannot be done."""

    exit_code = WRONG_USAGE


class BadSamples(RunnerError):
    """These samples cannot be classified; others may."""


def plain(text: object) -> str:
    """One line for a terminal: what is in names and files neither ends it nor moves the cursor."""
    spaced = re.sub("[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]", " ", str(text))
    codes = "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
    return re.sub(codes, lambda found: f"\\u{ord(found[0]):04x}", spaced)


def complain(message: str, failure: RunnerError | None = None) -> None:
    """A line on standard error; with `EDGEKD_DEBUG=1` also where `failure` came from."""
    if failure is not None and os.environ.get("EDGEKD_DEBUG") == "1":
        traceback.print_exception(type(failure), failure, failure.__traceback__)
    print(f"edgekd_runner: {plain(message)}", file=sys.stderr, flush=True)


# --- The manifest -----------------------------------------------------------------------------------------------------
# What `manifest.json` must hold to be used here: every entry that is read, its type and its bounds, checked once.


LONGEST_CLIP = 1 << 26  # samples: a minute at 192 kHz is a sixth of it
PRECISIONS = ("int8", "fp16", "fp32")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # no folder in it: nothing outside the bundle is read
MOST_FOLDERS = 8  # one in the other

Wanted = Tuple[Callable[[Any], bool], str]  # whether a value will do, and what would


def shown(value: Any) -> str:
    """A value in a message: on one line, and only how it begins where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python prints no integer of more than 4,300 digits
        return f"a value too large to print ({type(value).__name__})"
    return text if len(text) <= 80 else text[:80] + "..."


def check_manifest(manifest: dict[str, Any], where: str) -> None:
    """Raises `RunnerError`, which begins with `where`, for the first entry that is missing or of another type."""
    _check_entries(manifest, _MANIFEST, where)
    for name in manifest["files"]:
        parts = name.split("/")
        if len(parts) > MOST_FOLDERS or not all(map(PLAIN_NAME.fullmatch, parts)):
            raise RunnerError(f"{where}: files.{shown(name)}: not the name of a file in the bundle")
    classifier, target = manifest["classifier"], manifest["target"]
    if classifier["input"] == "log_mel":
        _check_entries(manifest, _LOG_MEL, where)
        unknown = set(classifier["frontend"]) - _FRONTEND
        if unknown:
            raise RunnerError(
                f"{where}: classifier.frontend has {shown(min(unknown))}, which this program does not know"
            )
    if manifest.get("steps") is not None:
        _check_entries(manifest, _LOG_MEL, where)
        _check_entries(manifest, _STEPS, where)
        names = [manifest["steps"]["end"], *(part["file"] for part in manifest["steps"]["parts"])]
        if any(name not in manifest["files"] for name in names):
            raise RunnerError(f"{where}: steps names a file that the bundle does not have. Export the bundle again")
    for table in ("tensorrt", "tensorrt_rtx"):
        if target.get(table) is not None:
            within = {f"target.{table}.max_batch": _whole(1, 1 << 16), f"target.{table}.dla": _one_of(True, False)}
            _check_entries(manifest, {f"target.{table}": _TABLE}, where)
            _check_entries(manifest, within, where, optional=True)
    if manifest.get("detection") is not None:  # older bundles have none
        _check_entries(manifest, {"detection": _TABLE}, where)
        _check_entries(manifest, _detection(classifier["classes"]), where, optional=True)
        if manifest["detection"].get("reject") is not None:
            _check_entries(manifest, _REJECT, where)
    if manifest.get("float_operators") is not None:
        _check_entries(manifest, {"float_operators": _TABLE}, where)
        _check_entries(manifest, {"float_operators.on_integers": (_nodes, "names")}, where, optional=True)


def _check_entries(manifest: dict[str, Any], wanted: dict[str, Wanted], where: str, optional: bool = False) -> None:
    for place, (fits, description) in wanted.items():
        value: Any = manifest
        *folders, name = place.split(".")
        for folder in folders:
            value = value[folder]  # that it is a table has been asked before
        if name not in value:
            if optional or place in _OPTIONAL:
                continue
            raise RunnerError(f"{where}: {place} is missing. Export the bundle again")
        if not fits(value[name]):
            raise RunnerError(f"{where}: {place} = {shown(value[name])}: not {description}. Export the bundle again")


def _whole(least: int, most: int) -> Wanted:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def _within(least: float, most: float) -> Wanted:
    def fits(value: Any) -> bool:
        return type(value) in (int, float) and least <= value <= most  # NaN is in no range

    return fits, f"a number from {least:g} to {most:g}"


def _one_of(*values: Any) -> Wanted:
    def fits(value: Any) -> bool:
        return any(type(value) is type(other) and value == other for other in values)

    return fits, " or ".join(map(repr, values))


def _channel(value: Any) -> bool:
    return value == "mean" or (type(value) is int and 0 <= value < 1024)


def _names(value: Any) -> bool:
    named = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    return named and len(value) > 1 and len(set(value)) == len(value)


def _nodes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _files(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values())


def _graphs(value: Any) -> bool:
    return isinstance(value, dict) and all(
        precision in PRECISIONS and isinstance(name, str) and PLAIN_NAME.fullmatch(name)
        for precision, name in value.items()
    )


def _parts(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 16 and all(isinstance(part, dict) and _part(part) for part in value)


def _part(part: dict[str, Any]) -> bool:
    file, maps = part.get("file"), part.get("maps")
    if set(part) != {"file", "lead", "maps"} or not isinstance(file, str) or not PLAIN_NAME.fullmatch(file):
        return False
    return _count(part["lead"], 0) and isinstance(maps, list) and 0 < len(maps) < 16 and all(map(_map, maps))


def _map(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"columns", "stride", "left", "right", "reach"}:
        return False
    at_least = {"columns": 1, "stride": 1, "left": 0, "right": 0, "reach": 0}
    return all(_count(value[name], least) for name, least in at_least.items())


def _count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= 1 << 24


def _detection(classes: list[str]) -> dict[str, Wanted]:
    def scores(value: Any) -> bool:
        fits = _within(0, 1)[0]
        return isinstance(value, dict) and all(name in classes and fits(score) for name, score in value.items())

    def periods(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= 64 and all(hop(each) for each in value)

    hop, described = _whole(1, LONGEST_CLIP)
    wanted: dict[str, Wanted] = {
        "hop_samples": (lambda value: value is None or hop(value), described),
        "shared_samples": (periods, "whole numbers of samples"),
        **dict.fromkeys(("open", "close"), (scores, "classes, and a number from 0 to 1 for each")),
        **dict.fromkeys(("minimum_s", "gap_s"), _within(0, 1e6)),
        "exclusive": _one_of(True, False),
        "background": _one_of(None, *classes),
    }
    return {f"detection.{name}": each for name, each in wanted.items()}


_TABLE: Wanted = (lambda value: isinstance(value, dict), "a table")
_MANIFEST: dict[str, Wanted] = {
    "files": (_files, "names of files, and the digest of each"),
    "precision": _one_of(*PRECISIONS),
    "alternatives": (_graphs, "precisions, and the name of a file for each"),
    "classifier": _TABLE,
    "classifier.classes": (_names, "the names of two classes or more, none twice"),
    "classifier.activation": _one_of("softmax", "sigmoid"),
    "classifier.sample_rate": _whole(1, 10_000_000),
    "classifier.clip_samples": _whole(1, LONGEST_CLIP),
    "classifier.hop_samples": _whole(1, LONGEST_CLIP),
    "classifier.padding": _one_of("repeat", "zeros"),
    "classifier.channel": (_channel, "'mean' or a whole number from 0 to 1023"),
    "classifier.full_scale": _within(1e-300, 1e300),
    "classifier.trim_silence": _one_of(True, False),
    "classifier.input": _one_of("waveform", "log_mel"),
    "classifier.batch": _one_of("dynamic", 1),
    "classifier.resampler": _TABLE,
    "classifier.resampler.lowpass_filter_width": _whole(1, 256),
    "classifier.resampler.rolloff": _within(1e-3, 1),
    "target": _TABLE,
    "target.runtime": (lambda value: isinstance(value, str), "the name of a runtime"),
    "target.opset": _whole(1, 1000),
    "target.memory_bytes": _whole(1, 1 << 50),
    "target.tolerance": _TABLE,
    "target.tolerance.probability": _within(0, 1),
    "target.tolerance.agreement": _within(0, 1),
}
_REJECT: dict[str, Wanted] = {
    "detection.reject": _TABLE,
    "detection.reject.threshold": _within(-1e30, 1e30),
    "detection.reject.span": _within(1e-30, 1e30),
}
_LOG_MEL: dict[str, Wanted] = {
    "classifier.gain": _within(1e-30, 1e30),
    "classifier.frontend": _TABLE,
    "classifier.frontend.convention": _one_of("panns", "yamnet"),
    "classifier.frontend.n_fft": _whole(2, 1 << 16),
    "classifier.frontend.window_length": _whole(0, 1 << 16),
    "classifier.frontend.hop_length": _whole(1, 1 << 20),
    "classifier.frontend.n_mels": _whole(1, 4096),
    "classifier.frontend.f_min": _within(0, 1e7),
    "classifier.frontend.f_max": _within(1e-3, 1e7),
    "classifier.frontend.frames_per_step": _whole(1, 1 << 16),
    "classifier.frontend.bins_per_step": _whole(1, 4096),
}
_STEPS: dict[str, Wanted] = {
    "steps": _TABLE,
    "steps.parts": (_parts, "parts of a graph, each with its file, what leads it and its maps"),
    "steps.end": (lambda value: isinstance(value, str) and bool(PLAIN_NAME.fullmatch(value)), "the name of a file"),
}
_FRONTEND = {place.rpartition(".")[2] for place in _LOG_MEL if place.startswith("classifier.frontend.")}
# What bundles of earlier versions lack, and `LogMel` or `Runner` has a value for.
_OPTIONAL = {
    *(f"classifier.frontend.{name}" for name in ("convention", "window_length", "frames_per_step", "bins_per_step")),
    *(f"classifier.{name}" for name in ("activation", "channel", "full_scale", "trim_silence")),
}


# --- Arrays -----------------------------------------------------------------------------------------------------------
# Arrays in `.npz` files: what each promises to be is looked at before any memory is taken for it.


# What a file that is cut short, or is something else under this name, makes `zipfile` and numpy raise.
ARRAY_DAMAGE = (
    *(EOFError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, AssertionError, MemoryError),
    *(RuntimeError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error),
)
MOST_CLIPS = 4096  # of the golden examples
GOLDEN_AGAIN = "Copy or export the bundle again"

Shape = Tuple[Optional[int], ...]  # None: any, and the same number in all arrays


def array_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array in an `.npz`, of which nothing more is read.

    Raises `ValueError` for an array that is not as long as its shape says, or holds objects, and one of `ARRAY_DAMAGE`
    for what is no such file.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename[:-4] if member.filename.endswith(".npy") else member.filename
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version not in readers:
                    raise ValueError(f"{name} is an array of version {version}")
                shape, _, dtype = readers[version](file)
                if dtype.hasobject:
                    raise ValueError(f"{name} holds Python objects, which allow_pickle=False refuses")
                if any(type(length) is not int or length < 0 for length in shape):
                    raise ValueError(f"{name} has the shape {shown(shape)}")
                promised, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
                if promised != held:
                    raise ValueError(
                        f"{name} of the shape {shown(shape)} has {shown(promised)} bytes, and holds {held}"
                    )
            headers[name] = shape, dtype
    return headers


def read_golden(
    path: Path, clip_samples: int, classes: int, labelled: bool = False, known: bool = False
) -> dict[str, np.ndarray]:
    """The golden examples of a bundle, by name: N clips and what is expected of them.

    `waveform` int16 `(N, clip_samples)` and `scale` float `(N,)`: sample values are `waveform * scale / 32767`;
    `probabilities` and `float_probabilities` float `(N, classes)`, from 0 to 1; `labels` integers `(N,)`, or 0 and 1
    for each class `(N, classes)`, where they are there or, with `labelled`, always; with `known` also `known` and
    `float_known` float `(N,)`. Raises `RunnerError` for a file that holds anything else.
    """
    wanted: dict[str, tuple[str, Shape]] = {
        "waveform": ("i", (None, clip_samples)),
        "scale": ("f", (None,)),
        "probabilities": ("f", (None, classes)),
        "float_probabilities": ("f", (None, classes)),
        "labels": ("iu", (None,)),
        **({"known": ("f", (None,)), "float_known": ("f", (None,))} if known else {}),
    }
    try:
        headers = array_headers(path)
        if "float_probabilities" not in headers:  # of bundles of before, whose model is the float student
            del wanted["float_probabilities"]
        if "labels" not in headers and not labelled:
            del wanted["labels"]
        elif len(headers.get("labels", ((0,), None))[0]) == 2:
            wanted["labels"] = ("iu", (None, classes))
        _check_headers(headers, wanted)
        with np.load(str(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in wanted}
        _check_values(arrays, classes)
    except OSError as failure:
        raise RunnerError(f"{path}: {failure.strerror or failure}. {GOLDEN_AGAIN}") from None
    except ARRAY_DAMAGE as failure:
        reason = (str(failure).splitlines() or ["it ends too early"])[0].rstrip(".")
        raise RunnerError(f"{path}: not the golden examples of this model: {reason[:200]}. {GOLDEN_AGAIN}") from None
    return arrays


def _check_headers(headers: dict[str, tuple[tuple[int, ...], np.dtype]], wanted: dict[str, tuple[str, Shape]]) -> None:
    for name, (kinds, shape) in wanted.items():
        if name not in headers:
            raise ValueError(f"{name} is missing")
        found, dtype = headers[name]
        clips = headers["waveform"][0][:1]
        if dtype.kind not in kinds or len(found) != len(shape) or found[:1] != clips or found[1:] != shape[1:]:
            raise ValueError(f"{name} is {dtype} of the shape {shown(found)}, not of {shown(clips + shape[1:])}")
        if not 1 <= found[0] <= MOST_CLIPS:
            raise ValueError(f"{found[0]} clips, not 1 to {MOST_CLIPS}")


def _check_values(arrays: dict[str, np.ndarray], classes: int) -> None:
    for name in ("scale", "probabilities", "float_probabilities"):
        values = arrays.get(name, arrays["probabilities"])
        if not np.isfinite(values).all() or (values < -1e-4).any():
            raise ValueError(f"{name} has values that are negative, NaN or infinite")
        if name != "scale" and (values > 1 + 1e-4).any():
            raise ValueError(f"{name} has values above 1")
    for name in ("known", "float_known"):
        if not np.isfinite(arrays.get(name, np.zeros(1))).all():
            raise ValueError(f"{name} has values that are NaN or infinite")
    labels = arrays.get("labels", np.zeros(1, np.int64))
    most = classes - 1 if labels.ndim == 1 else 1
    if labels.min() < 0 or labels.max() > most:
        raise ValueError(f"labels has {'classes' if labels.ndim == 1 else 'values'} outside 0 to {most}")


# --- The bundle -------------------------------------------------------------------------------------------------------
# The folder that was exported: its manifest, its files and their sha256, and the engines built in it.


FORMAT = 1  # of manifest.json
COPY_AGAIN = "Copy or export the bundle again."
BUILD_STEP = "Next: sh build_engine.sh"
# The runtimes that run engines, and what to do where one cannot be run: those for RTX come with the bundle.
ENGINE_STEPS = {
    "tensorrt": BUILD_STEP,
    "tensorrt-rtx": "Next: export the bundle again, for this GPU and this TensorRT for RTX; or add --cpu",
}
DLA_ENGINE = "fp16-dla"  # the float16 graph on an accelerator: a precision, to whoever asks for one


class Contract(NamedTuple):
    """What goes into a graph and what comes out: `input` (B, *shape) -> `probabilities` (B, classes), and `known` (B,)
    where there is such an output; all float32."""

    input: str
    shape: tuple[int, ...]
    classes: int
    max_batch: int
    known: bool = False

    @property
    def outputs(self) -> dict[str, int]:
        """What comes out, and how many columns each has in an answer."""
        return {"probabilities": self.classes, **({"known": 1} if self.known else {})}


def manifest_digest(manifest: dict[str, Any]) -> str:
    """sha256 of a manifest without its own `sha256` entry: it shows damage and careless edits, not an attacker."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The contents of `manifest.json`, unchanged since it was written, every entry that is used of the type and within
    the bounds that it is to have. Raises `RunnerError`."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as failure:
        raise RunnerError(f"{path}: {failure.strerror}. A bundle is a folder with a manifest.json.") from None
    except (ValueError, RecursionError):  # also a UnicodeDecodeError, and an integer of more than 4,300 digits
        raise RunnerError(f"{path}: not valid JSON. Copy the bundle again.") from None
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int:
        raise RunnerError(f"{path}: not the manifest of a bundle.")
    if manifest["format"] != FORMAT:
        version = shown(manifest["format"])
        raise RunnerError(f"{path}: format {version}, this runner reads {FORMAT}. Use the bundle's own runner.")
    try:
        unchanged = manifest.get("sha256") == manifest_digest(manifest)
    except (ValueError, RecursionError):  # what cannot be written as JSON again
        unchanged = False
    if not unchanged:
        raise RunnerError(f"{path}: changed since the bundle was written. {COPY_AGAIN}")
    check_manifest(manifest, str(path))
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file the manifest lists with its sha256. Raises `RunnerError` naming the first that differs."""
    for name, expected in manifest["files"].items():
        try:
            digest = file_digest(folder / name)
        except OSError as failure:
            raise RunnerError(f"{folder / name}: {failure.strerror}. {COPY_AGAIN}") from None
        if digest != expected:
            raise RunnerError(f"{folder / name}: changed since the bundle was written. {COPY_AGAIN}")


def graphs(manifest: dict[str, Any]) -> dict[str, str]:
    """The bundle's ONNX files by precision, the one that was exported as `model.onnx` first."""
    return {manifest["precision"]: "model.onnx", **manifest["alternatives"]}


def engine_file(folder: Path, precision: str) -> Path:
    """Where the TensorRT engine of a precision is: `build_engine.sh` puts it there, or it came with the bundle."""
    return folder / f"model-{precision}.engine"


def engine_step(manifest: dict[str, Any], engine: str | None = None) -> str:
    """What to do where a bundle's engine, or the one of that name, is missing or cannot be run."""
    step = ENGINE_STEPS[manifest["target"]["runtime"]]
    return f"{step} --dla" if engine == DLA_ENGINE else step


def engines(manifest: dict[str, Any]) -> list[str]:
    """What engines there may be: one for each precision, and `DLA_ENGINE`; none where the target does not run
    TensorRT."""
    if manifest["target"]["runtime"] not in ENGINE_STEPS:
        return []
    has_dla = (manifest["target"].get("tensorrt") or {}).get("dla", False)  # older bundles do not know of it
    takes_it = manifest["classifier"]["batch"] == 1 and "fp16" in graphs(manifest)
    return [*graphs(manifest), *([DLA_ENGINE] if has_dla and takes_it else [])]


def built_engines(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Those of `engines` that are there."""
    return [precision for precision in engines(manifest) if engine_file(folder, precision).exists()]


def chosen_engine(folder: Path, manifest: dict[str, Any]) -> str | None:
    """The precision that `choose` wrote to `engine.json`, None before that. Raises `RunnerError`."""
    path = folder / "engine.json"
    try:
        precision = json.loads(path.read_bytes())["precision"]
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise RunnerError(f"{path}: {failure.strerror}. Next: python3 edgekd_runner.py choose") from None
    except (ValueError, TypeError, LookupError, RecursionError):
        precision = None
    if precision not in engines(manifest):
        raise RunnerError(f"{path}: not what `choose` writes. Next: python3 edgekd_runner.py choose")
    if not engine_file(folder, precision).exists():
        raise RunnerError(
            f"{path}: {engine_file(folder, precision).name} was chosen and is gone. {engine_step(manifest, precision)}"
        )
    return str(precision)


# --- What is no sound -------------------------------------------------------------------------------------------------
# Where a recording is no sound: digital silence, one value throughout, samples of another unit.


HIGHEST_PEAK = 16.0  # 24 dB over full scale: no recorder's headroom, but samples of another unit
LEAST_SILENCE = 0.01  # s: a shorter run of zeros at an end may be sound


def largest(samples: np.ndarray) -> float:
    """The largest magnitude of any sample."""
    return float(max(samples.max(), -samples.min())) if samples.size else 0.0


def zeros_at_ends(samples: np.ndarray, rate: int) -> tuple[int, int]:
    """How many samples of digital silence `samples (S,)` begin and end with, where that is `LEAST_SILENCE` or more.

    All of it silent: (0, 0), for there is nothing else to hear.
    """
    sound = np.flatnonzero(samples)
    if not len(sound):
        return 0, 0
    least = LEAST_SILENCE * rate
    first, last = int(sound[0]), len(samples) - 1 - int(sound[-1])
    return (first if first >= least else 0), (last if last >= least else 0)


def zeros_in_runs(samples: np.ndarray, rate: int) -> int:
    """How many of `samples (S,)` are digital silence, in runs of `LEAST_SILENCE` or more."""
    edges = np.flatnonzero(np.diff(samples == 0, prepend=False, append=False))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= LEAST_SILENCE * rate].sum())


class Stretches:
    """Where a signal that comes in pieces keeps one value for `LEAST_SILENCE` or more, and what that leaves of windows
    of it at another rate.

    `source` and `target` in Hz. The windows come in order: those a clip and more before the last are forgotten.
    """

    def __init__(self, source: int, target: int) -> None:
        self._source, self._target = source, target
        self._least = LEAST_SILENCE * source
        self._ended: deque[tuple[int, int, float]] = deque()  # first sample, one after the last, value
        self._last: tuple[int, int, float] | None = None  # the stretch, of any length, that may go on
        self._position = 0

    @property
    def flat(self) -> bool:
        """Whether all that has come has one value."""
        return self._last is None or self._last[0] == 0

    def push(self, samples: np.ndarray) -> None:
        """The next `samples (S,)`."""
        if not len(samples):
            return
        if self._is_lively(samples):
            self._push_lively(samples)
            return
        changes = np.flatnonzero(samples[1:] != samples[:-1]) + 1
        starts = np.concatenate([[0], changes]) + self._position
        stops = np.concatenate([changes, [len(samples)]]) + self._position
        if self._last is not None:
            if self._last[2] == samples[0]:
                starts[0] = self._last[0]
            elif self._last[1] - self._last[0] >= self._least:
                self._ended.append(self._last)
        for number in np.flatnonzero(stops[:-1] - starts[:-1] >= self._least):
            value = float(samples[int(stops[number]) - 1 - self._position])
            self._ended.append((int(starts[number]), int(stops[number]), value))
        self._last = (int(starts[-1]), int(stops[-1]), float(samples[-1]))
        self._position += len(samples)

    def _is_lively(self, samples: np.ndarray) -> bool:
        """Whether no stretch of one value in `samples (S,)` is as long as those that count: each of those has in it a
        whole block of half that length, and of such blocks eight samples are looked at. False where that leaves it
        open."""
        half = int(self._least) // 2
        blocks = len(samples) // half if half >= 8 else 0
        if blocks < 4:
            return False
        seen = samples[: blocks * half].reshape(blocks, half)[:, :: half // 8]
        return not (seen == seen[:, :1]).all(axis=1).any()

    def _push_lively(self, samples: np.ndarray) -> None:
        """The next `samples`, of which the stretches at both ends alone may count, together with what is beyond."""
        most = 2 * (int(self._least) // 2)
        first = int((samples[:most] != samples[0]).argmax())
        last = len(samples) - int((samples[: -most - 1 : -1] != samples[-1]).argmax())
        if self._last is not None:
            begin, end, value = self._last
            end = self._position + first if value == samples[0] else end
            if end - begin >= self._least:
                self._ended.append((begin, end, value))
        self._last = (self._position + last, self._position + len(samples), float(samples[-1]))
        self._position += len(samples)

    def window(self, first: int, count: int) -> tuple[bool, int, int]:
        """Of the `count` samples from `first`, at the target rate: whether they have one value; and the first, and the
        one after the last, that are left without the digital silence at their ends, counted from `first`."""
        start, stop = (
            min(self._position, -(-place * self._source // self._target)) for place in (first, first + count)
        )
        while self._ended and self._ended[0][1] <= 2 * start - stop:
            self._ended.popleft()
        heard_from, heard_to = start, stop
        for begin, end, value in (*self._ended, *((self._last,) if self._last is not None else ())):
            if begin <= start and end >= stop:
                return True, 0, count
            if value == 0 and begin <= start < end and end - start >= self._least:
                heard_from = end
            if value == 0 and begin < stop <= end and stop - begin >= self._least:
                heard_to = begin
        left = [-(-place * self._target // self._source) - first for place in (heard_from, heard_to)]
        return False, left[0] if heard_from > start else 0, min(count, left[1]) if heard_to < stop else count


def is_flat(samples: np.ndarray) -> bool:
    """Whether all of `samples (S,)` have one value: digital silence, a constant, a converter that is stuck."""
    return bool((samples == samples[:1]).all())


# --- Events -----------------------------------------------------------------------------------------------------------
# From the scores of windows to events: what was heard, from when to when, how surely.
#
# Windows overlap, so each moment is scored by all that cover it: from where one begins or ends to where the next one
# does is a *cell*, and what a class scores there is the mean over the windows that cover it. Neighbours are not always
# of one mind, and their mean is steadier than any of them. A window without scores counts as one that hears nothing.
#
# A class has an event where cells in a row score `close` or more, and one of them `open` or more: hysteresis, alike in
# both directions of time. Events of a class no further apart than `gap` are one; one shorter than `minimum` is left
# out. An event's score is the highest of its cells. A window that the classifier does not know opens none.


DEFAULT_OPEN = 0.5  # where nobody has chosen a threshold: more than all other classes of a softmax together
CLOSE_SHARE = 0.8  # of `open`, where nobody has chosen `close`
HOP_SLACK = 0.05  # how far a hop that is asked for may be moved, as a share of it
HOPS_A_CLIP = 4  # where nobody has chosen a hop
BACKGROUND = "background"  # in any case: the class that is never an event, in bundles that do not say


class Rule(NamedTuple):
    """What makes an event. `open` and `close` `(K,)` are thresholds of the classes, infinite for the background; the
    others are in samples at `rate` Hz. `exclusive`: of several classes the one furthest over its threshold is meant."""

    classes: tuple[str, ...]
    rate: int
    hop: int
    open: np.ndarray
    close: np.ndarray
    minimum: int
    gap: int
    exclusive: bool

    def settings(self) -> dict[str, Any]:
        """What decides the events, as JSON can hold it."""
        heard = {name: k for k, name in enumerate(self.classes) if np.isfinite(self.open[k])}
        return {
            "hop_samples": self.hop,
            "open": {name: round(float(self.open[k]), 9) for name, k in heard.items()},
            "close": {name: round(float(self.close[k]), 9) for name, k in heard.items()},
            "minimum_samples": self.minimum,
            "gap_samples": self.gap,
            "exclusive": self.exclusive,
        }


class Detection(NamedTuple):
    """An event of the class with this number, from sample `start` up to, and without, `stop`."""

    label: int
    start: int
    stop: int
    score: float


def event_line(event: Detection, rule: Rule, seconds: float, recording: str | None = None) -> dict[str, Any]:
    """An event as a line of JSON or CSV has it, in seconds to the microsecond; `seconds` is how long the signal is, of
    which resampling may have made a fraction of a sample more."""
    named: dict[str, Any] = {} if recording is None else {"audio_file": recording}
    return {
        **named,
        "annotation": rule.classes[event.label],
        "start_time": round(event.start / rule.rate, 6),
        "end_time": round(min(event.stop / rule.rate, seconds), 6),
        "score": round(event.score, 6),
    }


def rule_of(
    manifest: dict[str, Any],
    *,
    hop_s: float | None = None,
    thresholds: Sequence[tuple[str | None, float]] = (),
    minimum_s: float | None = None,
    gap_s: float | None = None,
    exclusive: bool | None = None,
) -> Rule:
    """The rule of a bundle's manifest, where it has a `detection`, with what is asked for instead (None: as there).

    `thresholds` are of a class, or for None of all; its share of `close` is kept. Raises `WrongUsage` for classes that
    are not there, and for windows that would leave out what is between them.
    """
    classifier, found = manifest["classifier"], manifest.get("detection") or {}
    classes, rate = tuple(classifier["classes"]), classifier["sample_rate"]
    nothing = next((name for name in classes if name.casefold() == BACKGROUND), None)  # as older bundles have it
    background = found.get("background") if found else nothing
    known = {**_of_all(DEFAULT_OPEN, classes), **(found.get("open") or {})}
    asked: dict[str, float] = {}
    heard = [name for name in classes if name != background]
    for name, score in thresholds:
        if not 0 <= score <= 1:
            raise WrongUsage(f"--threshold {shown(score)}: scores are from 0 to 1")
        if name is not None and name not in heard:
            why = "is the background, which is no event" if name == background else "is not there"
            raise WrongUsage(f"--threshold {shown(name)}: this class {why}; there are {', '.join(heard)}")
        asked.update(_of_all(score, classes) if name is None else {})
    asked.update({name: score for name, score in thresholds if name is not None})
    opens, closes = np.full(len(classes), np.inf), np.full(len(classes), np.inf)
    for k, name in enumerate(classes):
        if name != background:
            share = (found.get("close") or {}).get(name, CLOSE_SHARE * known[name]) / max(known[name], 1e-9)
            opens[k] = asked.get(name, known[name])
            closes[k] = min(1.0, share) * opens[k]
    hop = hop_of(manifest, hop_s)
    if hop > classifier["clip_samples"]:
        raise WrongUsage(
            f"--hop {hop / rate:g}: windows are {classifier['clip_samples'] / rate:g} s, so what is between them would"
            " not be heard; give that at most"
        )
    return Rule(
        classes,
        rate,
        hop,
        opens,
        closes,
        round((found.get("minimum_s", 0) if minimum_s is None else minimum_s) * rate),
        round((found.get("gap_s", 0) if gap_s is None else gap_s) * rate),
        bool(found.get("exclusive", False) if exclusive is None else exclusive),
    )


def hop_of(manifest: dict[str, Any], hop_s: float | None) -> int:
    """Samples from one window to the next: the bundle's, or `hop_s` as `moved_hop` has it."""
    classifier, found = manifest["classifier"], manifest.get("detection") or {}
    if hop_s is None:
        return int(found.get("hop_samples") or default_hop(classifier["clip_samples"]))
    asked = max(1, round(hop_s * classifier["sample_rate"]))
    return moved_hop(asked, classifier["clip_samples"], found.get("shared_samples") or ())


def moved_hop(hop_samples: int, clip_samples: int, shared_samples: Sequence[int]) -> int:
    """The hop at which windows share most of their work, of those that are `HOP_SLACK` of `hop_samples` away at most:
    a multiple of one of `shared_samples`, of the largest that has such a one; that itself where none has."""
    for period in sorted(shared_samples, reverse=True):
        hop = max(1, round(hop_samples / period)) * period
        if abs(hop - hop_samples) <= HOP_SLACK * hop_samples and hop <= clip_samples:
            return hop
    return hop_samples


def hop_note(asked_s: float | None, hop_s: float) -> str:
    """In words, that windows come every `hop_s` and not as they were asked for; empty where they do."""
    if asked_s is None or abs(hop_s - asked_s) <= 1e-3 * asked_s:
        return ""
    return f"--hop {asked_s:g}: windows come every {hop_s:g} s, where this model's windows share more of their work"


def default_hop(clip_samples: int) -> int:
    """Samples from one window to the next where nobody has chosen them: a quarter of a clip."""
    return max(1, clip_samples // HOPS_A_CLIP)


def opening_nothing(scores: np.ndarray, rule: Rule) -> np.ndarray:
    """The scores `(K,)` of an unknown window: it opens no event, though one that others open may reach over it."""
    return np.minimum(scores, np.nextafter(rule.open, -1))


def _of_all(score: float, classes: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(classes, score)


class EventFinder:
    """Turns the windows of one signal, in order, into its events, each as soon as nothing can change it any more: when
    a window begins behind it.

    Positions are counted in whole samples, so they are exact for ever. Of the past no more is kept than the windows
    that reach into what is to come, and an event a class.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._windows: deque[tuple[int, int, np.ndarray | None]] = deque()  # that reach beyond `_position`
        self._position = 0  # up to which all cells have been looked at
        self._run: dict[int, Detection] = {}  # by class, cells in a row that score `close` or more
        self._waiting: dict[int, Detection] = {}  # events that another one may still join

    def push(self, start: int, stop: int, scores: np.ndarray | None) -> Iterator[Detection]:
        """The next window, samples `start` to `stop`, with its class scores `(K,)`; None: it has none."""
        yield from self._up_to(start)
        self._windows.append((start, stop, scores))

    def finish(self) -> Iterator[Detection]:
        """The events that the end of the signal ends."""
        yield from self._up_to(self._windows[-1][1] if self._windows else self._position)
        for run in list(self._run.values()):
            yield from self._joined(run)
        yield from self._told(list(self._waiting))
        self._run.clear()

    def _up_to(self, position: int) -> Iterator[Detection]:
        """The cells before `position`, where the next window begins or there is none."""
        while self._windows and self._position < position:
            begin = self._position
            end = min(position, self._windows[0][1])
            scored = [scores for _, _, scores in self._windows if scores is not None]
            yield from self._cell(begin, end, np.sum(scored, axis=0) / len(self._windows) if scored else None)
            self._position = end
            while self._windows and self._windows[0][1] <= end:
                self._windows.popleft()
        self._position = max(self._position, position)

    def _cell(self, begin: int, end: int, scores: np.ndarray | None) -> Iterator[Detection]:
        rule = self._rule
        above: list[int] = []
        if scores is not None:
            above = np.flatnonzero(scores >= rule.close).tolist()
            if rule.exclusive and len(above) > 1:
                above = [max(above, key=lambda k: scores[k] / max(rule.open[k], 1e-9))]
        for k in [k for k in self._run if k not in above or self._run[k].stop < begin]:
            yield from self._joined(self._run.pop(k))
        for k in above:
            assert scores is not None
            run = self._run.get(k, Detection(k, begin, end, 0.0))
            run = self._run[k] = Detection(k, run.start, end, max(run.score, float(scores[k])))
            if run.score >= rule.open[k] and rule.exclusive:
                yield from self._told([other for other in self._waiting if other != k])
        # A run that begins with the next cell is the nearest that may still join them, if none has begun by now.
        begins = {k: self._run[k].start if k in self._run else end for k in self._waiting}
        yield from self._told([k for k, event in self._waiting.items() if begins[k] - event.stop > rule.gap])

    def _joined(self, run: Detection) -> Iterator[Detection]:
        """A run has ended: it is an event, or the rest of one, if it has been over `open`."""
        if run.score < self._rule.open[run.label]:
            return
        before = self._waiting.get(run.label)
        if before is not None and run.start - before.stop <= self._rule.gap:
            run = Detection(run.label, before.start, run.stop, max(before.score, run.score))
        elif before is not None:
            yield from self._told([run.label])
        self._waiting[run.label] = run

    def _told(self, labels: Sequence[int]) -> Iterator[Detection]:
        for label in labels:
            event = self._waiting.pop(label)
            if event.stop - event.start >= self._rule.minimum:
                yield event


# --- What scores answer -----------------------------------------------------------------------------------------------
# What probabilities answer: the most probable class or, where a clip may be of several, all that reach a threshold.


SEVERAL = "sigmoid"  # the activation of a classifier that answers each class for itself


def same_answers(found: np.ndarray, expected: np.ndarray, activation: str) -> float:
    """The share of answers that are the same in two sets of scores `(N, K)`: the winning classes of clips or, where
    each class is answered for itself, whether it reaches `DEFAULT_OPEN`."""
    if activation == SEVERAL:
        return float(((found >= DEFAULT_OPEN) == (expected >= DEFAULT_OPEN)).mean())
    return float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())


# --- The header of a WAV file -----------------------------------------------------------------------------------------
# The header of a WAV file: what the samples are, and which bytes of the file hold them.
#
# RIFF, RIFX (big-endian), and RF64 or BW64, whose sizes have 64 bits (EBU Tech 3306, ITU-R BS.2088). A size that a
# recorder could not know, or never wrote because it lost power, is told from one that a cut file falls short of.


RATES = range(100, 768_001)  # Hz; outside, a header is damaged, and resampling could fill the memory
MOST_CHANNELS = 1024
PCM, FLOAT, ALAW, ULAW = 1, 3, 6, 7  # encodings of the format chunk
EXTENSIBLE = 0xFFFE

# Byte orders by the first four bytes.
_ORDERS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_KNOWN = (
    *(b"fmt ", b"data", b"fact", b"LIST", b"JUNK", b"junk", b"PAD ", b"FLLR", b"bext", b"iXML", b"_PMX", b"axml"),
    *(b"chna", b"cue ", b"plst", b"smpl", b"inst", b"id3 ", b"ID3 ", b"PEAK", b"afsp", b"DISP", b"guan", b"wamd"),
    *(b"cart", b"levl", b"umid", b"minf", b"elm1", b"regn", b"acid", b"strc", b"LGWV", b"note", b"labl"),
)
_TAGS = (b"TAG", b"ID3", b"3DI", b"APETAGEX", b"LYRICSBEGIN")  # of music players, behind the last chunk
_MOST_CHUNKS = 4096
_SLACK = 1 << 16  # bytes; so many zeros behind the samples are a disk's padding
_4_GIB = 1 << 32


class NotWav(RunnerError):
    """The file is of another kind."""


class WavHeader(NamedTuple):
    """What the format chunk says, and where the samples are.

    `rate` in Hz; a sample of one channel has `bits` bits in `container` bytes (0 where it has no place of its own:
    `encoding` is a compressed one). `extents` are offsets and lengths in bytes; `fact` is the number of samples of a
    channel that the chunk of this name promises. `layout` is the format chunk.
    """

    order: str
    encoding: int
    channels: int
    rate: int
    container: int
    bits: int
    extents: tuple[tuple[int, int], ...]
    fact: int | None
    layout: bytes

    @property
    def data_bytes(self) -> int:
        return sum(length for _, length in self.extents)


def read_header(file: BinaryIO) -> WavHeader:
    """The header of an open WAV file.

    Raises `NotWav` for another kind of file, `RunnerError` (without the file's name) for one that is damaged, or holds
    another number of bytes than its header promises, with both numbers.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(12)
    if not size:
        raise NotWav("the file is empty")
    order = _ORDERS.get(magic[:4])
    if order is None or magic[8:] != b"WAVE":
        raise NotWav("not a WAV file; convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav")
    layout, extents, fact = _walk(_Chunks(file, size, order, wide=magic[:2] != b"RI"))
    return interpret(order, layout, extents, fact)


class _Chunks:
    """The file with the size of it, and what its form says of sizes."""

    def __init__(self, file: BinaryIO, size: int, order: str, wide: bool) -> None:
        self._file, self.size, self.order, self.wide = file, size, order, wide

    def at(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        return self._file.read(length)

    def header(self, position: int) -> tuple[bytes, int] | None:
        """Name and size of the chunk at `position`; None where there is none."""
        head = self.at(position, 8)
        if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
            return None
        return head[:4], struct.unpack(self.order + "I", head[4:])[0]

    def after(self, position: int, size: int) -> int:
        """Where the chunk behind one of `size` bytes at `position` begins: chunks are padded to even lengths, but by
        some programs."""
        end = position + size
        if size % 2 and self.at(end, 4) in _KNOWN and self.at(end + 1, 4) not in _KNOWN:
            return end
        return end + size % 2

    def follow(self, position: int) -> bool:
        """Whether there are chunks from `position` to the end of the file, or one by a name that is known."""
        for _ in range(_MOST_CHUNKS):
            found = self.header(position)
            if found is None:
                return False
            if found[0] in _KNOWN or (position := self.after(position + 8, found[1])) in (self.size, self.size + 1):
                return True
        return False

    def tail(self, position: int) -> int:
        """Where the samples that begin at `position` and have no known end do end: before chunks at the end of the
        file, if there are some."""
        begin = max(position, self.size - _SLACK)
        last = self.at(begin, _SLACK)
        places = (begin + place for name in _KNOWN for place in _places(last, name))
        return min((place for place in places if self._ends_file(place)), default=self.size)

    def _ends_file(self, position: int) -> bool:
        for _ in range(_MOST_CHUNKS):
            found = self.header(position)
            if found is None or found[0] not in _KNOWN:
                return False
            position = self.after(position + 8, found[1])
            if position in (self.size, self.size + 1):
                return True
        return False

    def silent(self, position: int) -> bool:
        """Whether nothing but a little padding follows from `position`."""
        return self.size - position <= _SLACK and not any(self.at(position, _SLACK))


def _places(text: bytes, part: bytes) -> list[int]:
    found, place = [], text.find(part)
    while place >= 0:
        found.append(place)
        place = text.find(part, place + 1)
    return found


def _walk(chunks: _Chunks) -> tuple[bytes, list[tuple[int, int]], int | None]:
    """The format chunk, where the samples are, and what the fact chunk says."""
    layout: bytes | None = None
    extents: list[tuple[int, int]] = []
    fact: int | None = None
    wide: int | None = None
    position, ended = 12, False
    for _ in range(_MOST_CHUNKS):
        found = None if ended else chunks.header(position)
        if found is None:
            break
        (name, size), begin = found, position + 8
        if name == b"ds64" and size >= 24:
            _, wide, wide_fact = struct.unpack("<QQQ", chunks.at(begin, 24).ljust(24, b"\0"))
            fact = wide_fact or fact
        elif name == b"fmt " and layout is None:
            layout = chunks.at(begin, min(size, 256))
        elif name == b"fact" and size >= 4 and fact is None:
            (fact,) = struct.unpack(chunks.order + "I", chunks.at(begin, 4).ljust(4, b"\0"))
        elif name == b"data":
            declared = wide if wide is not None and size == 0xFFFFFFFF else size
            frame = struct.unpack_from(chunks.order + "H", layout, 12)[0] if layout and len(layout) >= 14 else 1
            size, ended = _data_size(chunks, begin, declared, max(1, frame), wide is not None)
            extents.append((begin, size))
        position = chunks.after(begin, size)
    if not extents:
        if position >= chunks.size:
            raise RunnerError("truncated: the header is there, the samples are not")
        raise RunnerError(f"damaged WAV: no chunk at byte {position}, where one must begin, and no samples before it")
    if layout is None or len(layout) < 16:
        raise RunnerError("damaged WAV: no format chunk with the samples")
    return layout, [extent for extent in extents if extent[1]], fact


def _data_size(chunks: _Chunks, begin: int, declared: int, frame: int, wide: bool) -> tuple[int, bool]:
    """How many bytes of samples there are from `begin`, where a header says `declared`; whether nothing follows."""
    held = chunks.size - begin
    if declared > held:
        unknown = 0x7FFF0000 <= declared <= 0x80001000 or declared >= 0xFFFFF000  # what goes to a pipe has no size
        # Some recorders write the file's size for that of the samples.
        if (unknown and not wide) or declared in (0xFFFFFFFF, chunks.size, chunks.size - 8):
            return chunks.tail(begin) - begin, True
        raise RunnerError(f"truncated: the header promises {declared} bytes of samples, {held} follow")
    end = begin + declared
    rest = held - declared
    if rest <= 1 or chunks.follow(chunks.after(begin, declared)):
        return declared, False
    if not wide and rest >= _4_GIB:  # 32 bits could not hold the size
        declared += rest // _4_GIB * _4_GIB
        rest %= _4_GIB
        end = begin + declared
        if rest <= 1 or chunks.follow(chunks.after(begin, declared)):
            return declared, False
    if rest > declared and not (declared and chunks.silent(end)):  # the size was never brought up to date
        return chunks.tail(begin) - begin, True
    if rest < frame or chunks.silent(end) or chunks.at(end, 16).startswith(_TAGS):
        return declared, True
    raise RunnerError(
        f"damaged WAV: the header promises {declared} bytes of samples, {held} follow, and what is behind the promised"
        " ones is no chunk"
    )


def interpret(order: str, layout: bytes, extents: list[tuple[int, int]], fact: int | None) -> WavHeader:
    """What the format chunk `layout` of a file in this byte `order` says of samples that are in `extents`."""
    encoding, channels, rate, speed, align, bits = struct.unpack_from(order + "HHIIHH", layout)
    if encoding == EXTENSIBLE and len(layout) >= 26:  # the encoding opens the GUID of the sub-format
        (encoding,) = struct.unpack_from(order + "H", layout, 24)
    if not 1 <= channels <= MOST_CHANNELS or rate not in RATES:
        raise RunnerError(f"damaged WAV: {channels} channels at {rate} Hz ({said_bounds()})")
    container = 0
    if encoding in (PCM, FLOAT, ALAW, ULAW):
        container = -(-bits // 8)
        block, odd = divmod(align, channels)
        # Samples may lie in more bytes than they have bits for.
        if not odd and block > container and (speed == rate * align or (bits, block) == (24, 4)):
            container = block
    header = WavHeader(order, encoding, channels, rate, container, bits, tuple(extents), fact, layout)
    if header.data_bytes < max(1, container * channels):
        raise RunnerError("holds no samples")
    return header


def said_bounds() -> str:
    """The rates and numbers of channels that are taken, in words."""
    return f"{RATES[0]} to {RATES[-1]} Hz and up to {MOST_CHANNELS} channels are read"


# --- WAV files --------------------------------------------------------------------------------------------------------
# WAV files to waveforms, with numpy alone, a block at a time.


_SCALE_32 = np.float32(2.0**-31)
BLOCK_BYTES = 1 << 21  # of samples decoded at a time: bounds the memory that a file of any length takes


class WavFile:
    """The samples of an open WAV file: PCM (8, 16, 24, 32 bits), float (32, 64 bits), A-law or u-law.

    `rate` in Hz, `frames` samples of each of `channels`. Raises `RunnerError` (without the file's name) for another
    encoding.
    """

    def __init__(self, file: BinaryIO, header: WavHeader) -> None:
        self._file, self._extents = file, header.extents
        self.rate, self.channels = header.rate, header.channels
        self.floats = header.encoding == FLOAT  # which may be of any scale
        self._frame = header.container * header.channels
        self._convert = decoder(header, self._bytes)
        self.frames = header.data_bytes // self._frame

    def read(self, start: int, frames: int) -> np.ndarray:
        """`(frames, channels)` float32 with full scale 1, from sample `start`; fewer at the end."""
        frames = min(frames, self.frames - start)
        data = self._bytes(start * self._frame, frames * self._frame)
        if len(data) < frames * self._frame:
            there = start + len(data) // self._frame
            raise RunnerError(f"truncated: {there} samples of the {self.frames} that were there when it was opened")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is classified
            return self._convert(data).reshape(-1, self.channels)

    def blocks(self, channel: int | str = "mean", full_scale: float = 1.0) -> Iterator[np.ndarray]:
        """The whole file as it is heard, in pieces `(samples,)`: of its channels the mean or the one with a number,
        floats divided by their full scale. Raises `RunnerError` for a channel that is not there."""
        if channel != "mean" and int(channel) >= self.channels:
            raise RunnerError(f"has {self.channels} channel(s), counted from 0, and the bundle hears number {channel}")
        step, scale = max(1, BLOCK_BYTES // self._frame), full_scale if self.floats else 1.0
        for start in range(0, self.frames, step):
            piece = mix_down(self.read(start, step), channel)
            yield piece if scale == 1 else piece / np.float32(scale)

    def _bytes(self, start: int, count: int) -> bytes:
        """So many bytes of the samples, wherever in the file they are."""
        parts = []
        for begin, length in self._extents:
            if count > 0 and start < length:
                self._file.seek(begin + start, os.SEEK_SET)
                parts.append(self._file.read(min(count, length - start)))
                count -= len(parts[-1])
            start = max(0, start - length)
        return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def open_wav(path: Path) -> Iterator[WavFile]:
    """The WAV file at `path`, open. Raises `RunnerError` (without the file's name) for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            yield WavFile(file, read_header(file))
    except OSError as failure:
        raise RunnerError((failure.strerror or "cannot be read").lower()) from None


def mix_down(channels: np.ndarray, channel: int | str = "mean") -> np.ndarray:
    """Where channels become one: `(S, C)` float32 -> `(S,)`, their mean, or the one with a number."""
    if channel != "mean" or channels.shape[1] == 1:
        return channels[:, 0 if channel == "mean" else int(channel)]
    with np.errstate(over="ignore", invalid="ignore"):
        return channels.mean(axis=1, dtype=np.float32)


def to_mono(
    data: bytes, channels: int, convert: Callable[[bytes], np.ndarray], channel: int | str = "mean"
) -> np.ndarray:
    """Samples `(S,)` of PCM `data`, its interleaved channels mixed; `convert` is an entry of `DECODERS`."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is classified
        return mix_down(convert(data).reshape(-1, channels), channel)


# Samples


def decodable(header: WavHeader) -> bool:
    """Whether the samples need no codec that is not here."""
    whole = header.encoding != FLOAT or header.bits == 8 * header.container
    return whole and (header.encoding, 8 * header.container) in DECODERS


def decoder(header: WavHeader, samples: Callable[[int, int], bytes]) -> Callable[[bytes], np.ndarray]:
    """What turns the bytes of a file into samples; `samples` reads some, from an offset. Raises `RunnerError`."""
    encoding, container = header.encoding, header.container
    if encoding == PCM and (container, header.bits) == (4, 24) and _low_justified(header, samples):
        return lambda data: _pcm24_low(_in_order(data, 4, header.order))
    if not decodable(header):
        raise RunnerError(
            f"WAV encoding {encoding:#06x} of {header.bits} bits is not supported;"
            " convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav"
        )
    convert = DECODERS[encoding, 8 * container]
    return lambda data: convert(_in_order(data, container, header.order))


def _in_order(data: bytes, container: int, order: str) -> bytes:
    if order == "<" or container == 1:
        return data
    return np.frombuffer(data, np.uint8).reshape(-1, container)[:, ::-1].tobytes()


def _low_justified(header: WavHeader, samples: Callable[[int, int], bytes]) -> bool:
    """Whether samples of 24 bits lie in the lower three of their four bytes, as ALSA's S24_LE does.

    By the format they lie in the upper three and the lowest byte is 0 (Multimedia Programming Interface and Data
    Specifications 1.0, 1991). Where it is not, and the highest only repeats the sign or is 0, it is the other way.
    """
    places = np.linspace(0, max(0, header.data_bytes - 4096) // 4, 64).astype(np.int64) * 4
    pieces = [samples(int(place), 4096) for place in np.unique(places)]
    data = _in_order(b"".join(piece[: len(piece) // 4 * 4] for piece in pieces), 4, header.order)
    quarters = np.frombuffer(data, np.uint8).reshape(-1, 4)
    sign = np.where(quarters[:, 2] >= 128, 255, 0)
    top = quarters[:, 3]
    return bool(quarters[:, 0].any() and ((top == sign).all() or not top.any()))


def _pcm24(data: bytes) -> np.ndarray:
    # Three bytes and the one before them, as the upper three of a 32-bit integer, which keeps the sign.
    wide = np.ndarray(len(data) // 3, "<i4", b"\0" + data, 0, (3,))
    return (wide & np.int32(-256)).astype(np.float32) * _SCALE_32


def _pcm24_low(data: bytes) -> np.ndarray:
    return np.left_shift(np.frombuffer(data, "<u4"), 8).view("<i4").astype(np.float32) * _SCALE_32


def _ulaw_table() -> np.ndarray:
    """ITU-T G.711: a sign, an exponent and a mantissa, all bits inverted."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 15).astype(np.int32) << 3) + 132 << (code >> 4 & 7)) - 132
    return (np.where(code & 128, -magnitude, magnitude) / 2**15).astype(np.float32)


def _alaw_table() -> np.ndarray:
    """ITU-T G.711: a sign, an exponent and a mantissa, every other bit inverted."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = (code >> 4 & 7).astype(np.int32)
    magnitude = ((code & 15).astype(np.int32) << 4) + 8
    magnitude = np.where(exponent, magnitude + 256 << np.maximum(exponent - 1, 0), magnitude)
    return (np.where(code & 128, magnitude, -magnitude) / 2**15).astype(np.float32)


DECODERS: dict[tuple[int, int], Callable[[bytes], Any]] = {  # by encoding and bits of a container
    (PCM, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (PCM, 16): lambda data: np.frombuffer(data, "<i2").astype(np.float32) / 2**15,
    (PCM, 24): _pcm24,
    (PCM, 32): lambda data: np.frombuffer(data, "<i4").astype(np.float32) * _SCALE_32,
    (FLOAT, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    (FLOAT, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
    (ALAW, 8): lambda data: _alaw_table()[np.frombuffer(data, np.uint8)],
    (ULAW, 8): lambda data: _ulaw_table()[np.frombuffer(data, np.uint8)],
}


# --- Sample rates -----------------------------------------------------------------------------------------------------
# Any sample rate to any other: band-limited interpolation with a Hann-windowed sinc.
#
# Output n is the sum over inputs k of x[k] h(b (k / f - n / g)), at rates of f and g Hz, with
#
#     h(t) = b / f cos(pi t / 2W)^2 sinc(t)  for |t| < W, else 0;    b = R min(f, g)
#
# where `width` W counts zero crossings a side and `rolloff` R is the cut-off as a share of the lower Nyquist frequency
# (J. O. Smith, "Digital Audio Resampling", ccrma.stanford.edu/~jos/resample): the numbers of
# `torchaudio.functional.resample`. That holds the filter as one matrix, which for two rates with a small common divisor
# (52 734 Hz, common in ship recordings, and 32 kHz) is gigabytes; here it is cut into narrow blocks.


# Rows and columns of one matrix product: wide enough for BLAS, narrow enough to hold few zeros, and small enough that
# BLAS stays on one thread. Its threads make products of this size slower, up to 20 times where the caller has some too.
_BLOCK = 32
_LONGEST = 1 << 22  # inputs held until they are computed together


class Resampler:
    """Changes the rate of a signal that arrives in pieces: `push` as they come, `finish` at the end.

    Silence is assumed before and after. Output comes in frames of `source / gcd` inputs: with 44 100 to 32 000 Hz every
    10 ms. Rates without a large common divisor make longer frames, of up to a second, which delay a live signal and
    change no sample of it. `at_once` frames are computed together (fewer at the end).
    """

    def __init__(self, source: int, target: int, width: int, rolloff: float, at_once: int = 1) -> None:
        self._source, self._target, self._at_once = source, target, at_once
        self._filter = _sinc_filter(source, target, width, rolloff)
        self._held = np.zeros(self._filter.reach, np.float32)
        self._inputs = self._outputs = 0  # so far

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next input samples; returns the outputs that are certain now."""
        held = np.concatenate([self._held, samples])
        frames = self._filter.frames_in(len(held)) // self._at_once * self._at_once
        self._held = held[frames * self._filter.advance :].copy()
        self._inputs += len(samples)
        self._outputs += frames * self._filter.outputs
        return self._filter.apply(held, frames)

    def finish(self) -> np.ndarray:
        """The rest, so that n inputs have made `ceil(n * target / source)` outputs."""
        missing = -(-self._inputs * self._target // self._source) - self._outputs
        frames = -(-missing // self._filter.outputs)
        silence = np.zeros(max(0, self._filter.inputs_of(frames) - len(self._held)), np.float32)
        return self._filter.apply(np.concatenate([self._held, silence]), frames)[:missing]


def resample(
    waveform: np.ndarray,
    source: int,
    target: int,
    width: int,
    rolloff: float,
    first: int = 0,
    outputs: int | None = None,
) -> np.ndarray:
    """`waveform (S,)` at `source` Hz -> `(outputs,)`, float32, at `target` Hz, the first of them at `waveform[first]`.

    `outputs` None: up to its end, `ceil((S - first) * target / source)`. Silence is assumed before it and after it; of
    what comes before `first`, only `reach` samples matter.
    """
    if outputs is None:
        outputs = -(-(len(waveform) - first) * target // source)
    if source == target:
        return waveform[first : first + outputs]
    sinc = _sinc_filter(source, target, width, rolloff)
    frames = -(-outputs // sinc.outputs)
    padded = np.zeros(sinc.inputs_of(frames), np.float32)
    silence = max(0, sinc.reach - first)
    part = waveform[max(0, first - sinc.reach) :][: len(padded) - silence]
    padded[silence : silence + len(part)] = part
    return sinc.apply(padded, frames)[:outputs]


def resample_pieces(
    pieces: Iterable[np.ndarray], source: int, target: int, width: int, rolloff: float
) -> Iterator[np.ndarray]:
    """`resample` of a waveform that comes in pieces, to the same numbers, in pieces."""
    if source == target:
        yield from pieces
        return
    # Products of the same shapes as of the whole waveform; but not of half a minute, where frames are long.
    frames = _BLOCK if _BLOCK * source // math.gcd(source, target) <= _LONGEST else 1
    resampler = Resampler(source, target, width, rolloff, frames)
    for piece in pieces:
        yield resampler.push(piece)
    yield resampler.finish()


def reach(source: int, target: int, width: int, rolloff: float) -> int:
    """How many input samples before it, and after it, an output is made of."""
    return 0 if source == target else math.ceil(width * source / (rolloff * min(source, target)))


class _SincFilter(NamedTuple):
    # Output n lies at n * source / target input samples, so the filter repeats every `target / gcd` outputs. A frame is
    # one or more such periods: `inputs`, the first `reach` of them before its first output, make `outputs`, and the
    # next begins `advance` inputs later. It is cut into blocks of outputs, each with the first input it needs and its
    # weights `(taps, columns)`: dense products, where the whole filter as one matrix would be nearly all zeros.
    reach: int
    advance: int
    inputs: int
    outputs: int
    blocks: list[tuple[int, np.ndarray]]

    def frames_in(self, inputs: int) -> int:
        return max(0, (inputs - self.inputs) // self.advance + 1)

    def inputs_of(self, frames: int) -> int:
        return max(0, (frames - 1) * self.advance + self.inputs)

    def apply(self, samples: np.ndarray, frames: int) -> np.ndarray:
        resampled = np.empty((frames, self.outputs), np.float32)
        column = 0
        for first, weights in self.blocks if frames else []:
            taps, columns = weights.shape
            windows = np.lib.stride_tricks.sliding_window_view(samples, taps)[first :: self.advance][:frames]
            for row in range(0, frames, _BLOCK):  # windows overlap, so a copy of all of them would be large
                product = np.ascontiguousarray(windows[row : row + _BLOCK]) @ weights
                resampled[row : row + _BLOCK, column : column + columns] = product
            column += columns
        return resampled.reshape(-1)


@lru_cache(maxsize=4)
def _sinc_filter(source: int, target: int, width: int, rolloff: float) -> _SincFilter:
    before = reach(source, target, width, rolloff)
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    cutoff = min(source, target) * rolloff
    periods = -(-_BLOCK // target)
    blocks = []
    for start in range(0, target * periods, _BLOCK):
        output = np.arange(start, min(start + _BLOCK, target * periods))
        first, last = int(output[0]) * source // target, int(output[-1]) * source // target
        sample = np.arange(first - before, last + before + 2)[:, None]
        # Whole numbers up to the division: the difference of two large times would lose digits.
        zeros = (sample * target - output * source) / (source * target) * cutoff  # distance in zero crossings
        window = np.cos(np.clip(zeros / width, -1, 1) * math.pi / 2) ** 2
        blocks.append((first, (np.sinc(zeros) * window * cutoff / source).astype(np.float32)))
    inputs = max(first + len(weights) for first, weights in blocks)
    return _SincFilter(before, source * periods, inputs, target * periods, blocks)


# --- The log-mel ------------------------------------------------------------------------------------------------------
# The front end of bundles whose graph has none of its own.


_CACHED = 1 << 16  # samples of frames that are transformed together and stay in the cache: three times as fast
_FFT_INTO = int(np.__version__.split(".")[0]) >= 2  # before, numpy's FFT took no array to write into


class LogMel:
    """Log-mel: clips `(B, S)` -> `(B, 1, T, F)`, float32: the numbers of training.

    Convention "panns": `10 log10(max(M |STFT(gain x)|^2, 1e-10))` with centred frames, reflected borders, and
    Slaney-scale mel filters of unit area (M. Slaney, "Auditory Toolbox", 1998). Convention "yamnet": `log(M |STFT(gain
    x)| + 0.001)` with frames from the first sample on, zeros at the end of each, and mel filters of height 1. Both have
    a periodic Hann window, and average frames and bins in steps.
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float,
        f_max: float,
        convention: str = "panns",
        window_length: int = 0,
        frames_per_step: int = 1,
        bins_per_step: int = 1,
        *,
        sample_rate: int,
        gain: float,
    ) -> None:
        if convention not in ("panns", "yamnet"):
            raise RunnerError(f"the manifest's log-mel has convention '{convention}', which this program does not know")
        window_length = window_length or n_fft
        self._n_fft, self._hop_length = n_fft, hop_length
        self._magnitudes = convention == "yamnet"
        self._window = gain * np.sin(np.pi * np.arange(window_length) / window_length) ** 2
        filters = height_1_filters if self._magnitudes else mel_filters
        self._mels = n_mels
        self._blocks = _blocks(filters(n_fft, n_mels, f_min, f_max, sample_rate), 1 if self._magnitudes else 2)
        self._steps = frames_per_step, bins_per_step
        # Used again and again: memory that is new to a process costs as much as the transform.
        bins = n_fft // 2 + 1
        self._group = max(1, min(64, _CACHED // n_fft))
        self._frames = np.empty((self._group, window_length))
        self._spectrum = np.empty((self._group, bins), np.complex128)
        self._found = np.empty((self._group, bins * (1 if self._magnitudes else 2)), np.float32)

    def shape(self, samples: int) -> tuple[int, int]:
        """`(T, F)` of a clip of so many samples."""
        heard = samples - len(self._window) if self._magnitudes else samples
        frames, bins = self._steps
        return (heard // self._hop_length + 1) // frames, self._mels // bins

    @property
    def step_samples(self) -> int:
        """Samples from one step of the log-mel to the next."""
        return self._hop_length * self._steps[0]

    def at_borders(self, samples: int) -> tuple[int, int]:
        """How many steps at the beginning and at the end of a clip of so many samples are made of its reflection, too:
        those of a clip that begins a step later are the others, and one more."""
        if self._magnitudes:
            return 0, 0
        frames, half = self._steps[0], self._n_fft // 2
        steps, _ = self.shape(samples)
        first = -(-half // self._hop_length)  # frame that is the first without
        last = (samples - self._n_fft + half) // self._hop_length  # and the last
        return min(steps, -(-first // frames)), max(0, steps - (last + 1) // frames)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        return np.stack([self.steps(clip, (0, self.shape(len(clip))[0])) for clip in clips])[:, None]

    def steps(self, clip: np.ndarray, *ranges: tuple[int, int]) -> np.ndarray:
        """Of the log-mel of a clip `(samples,)` those steps alone that are in `ranges`, from one to before another:
        `(steps, F)`."""
        each, bins = self._steps
        clip = np.ascontiguousarray(clip)
        mel = np.empty((each * sum(stop - first for first, stop in ranges), self._mels))
        done = filled = 0
        for step, last in ranges:
            frame, stop = step * each, last * each
            while frame < stop:
                end = min(stop, frame + self._group - filled)
                self._window_into(self._frames[filled : filled + end - frame], clip, frame)
                frame, filled = end, filled + end - frame
                if filled == self._group:
                    self._mel(filled, mel[done : done + filled])
                    done, filled = done + filled, 0
        if filled:
            self._mel(filled, mel[done:])
        log_mel = np.log(mel + 0.001 if self._magnitudes else np.maximum(mel, 1e-10))
        if not self._magnitudes:
            log_mel *= 10 / math.log(10)
        if (each, bins) != (1, 1):
            cells = log_mel[:, : self._mels // bins * bins].reshape(len(mel) // each, each, -1, bins)
            log_mel = cells.mean(axis=(1, 3))
        return log_mel.astype(np.float32)

    def _window_into(self, frames: np.ndarray, clip: np.ndarray, first: int) -> None:
        """Write frame `first` of a clip, and those after it, into `frames (n, window)`."""
        hop, length, before = self._hop_length, len(self._window), 0 if self._magnitudes else self._n_fft // 2
        stop = first + len(frames)
        low = min(stop, max(first, -(-before // hop)))
        high = max(low, min(stop, (len(clip) + before - length) // hop + 1))
        for begin, end in ((first, low), (low, high), (high, stop)):
            if begin == end:
                continue
            start, samples = begin * hop - before, clip
            if (begin, end) != (low, high):  # at a border, where the clip is reflected
                places = np.abs(np.arange(start, start + (end - begin - 1) * hop + length))
                start, samples = 0, clip[len(clip) - 1 - np.abs(len(clip) - 1 - places)]
            size = samples.itemsize
            view = np.ndarray((end - begin, length), samples.dtype, samples, start * size, (hop * size, size))
            np.multiply(view, self._window, out=frames[begin - first : end - first])

    def _mel(self, count: int, mel: np.ndarray) -> None:
        """The mel bins of so many of the frames, before the logarithm, into `mel (count, mels)`."""
        frames, spectrum, found = self._frames[:count], self._spectrum[:count], self._found[:count]
        if _FFT_INTO:
            np.fft.rfft(frames, self._n_fft, out=spectrum)
        else:
            spectrum = np.fft.rfft(frames, self._n_fft)
        if self._magnitudes:
            found[:] = np.abs(spectrum)
        else:  # both squares whose sum is the power
            parts = spectrum.view(np.float64)
            np.multiply(parts, parts, out=found, casting="same_kind")
        column, each = 0, 1 if self._magnitudes else 2
        for first, weights in self._blocks:
            rows, columns = weights.shape
            mel[:, column : column + columns] = found[:, each * first : each * first + rows] @ weights
            column += columns


def _blocks(filters: np.ndarray, parts: int) -> list[tuple[int, np.ndarray]]:
    """Mel filters `(bins, mels)`, 8 at a time: the first bin that they touch, and their weights from there on, for
    each of the `parts` of a bin."""
    blocks = []
    for start in range(0, filters.shape[1], 8):
        touched = np.flatnonzero(filters[:, start : start + 8].any(axis=1))
        first, stop = (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, 1)
        weights = np.repeat(filters[first:stop, start : start + 8], parts, axis=0)
        blocks.append((first, np.ascontiguousarray(weights, np.float32)))
    return blocks


def height_1_filters(n_fft: int, n_mels: int, f_min: float, f_max: float, sample_rate: int) -> np.ndarray:
    """Triangular mel filters `(n_fft / 2 + 1, n_mels)` of height 1 on the scale `1127 ln(1 + f / 700)`."""
    mels = 1127 * np.log(1 + np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None] / 700)
    low, high = (1127 * math.log(1 + f / 700) for f in (f_min, f_max))
    edges = np.linspace(low, high, n_mels + 2)
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def mel_filters(n_fft: int, n_mels: int, f_min: float, f_max: float, sample_rate: int) -> np.ndarray:
    """Triangular mel filters `(n_fft / 2 + 1, n_mels)`, each of unit area."""
    # The mel scale: linear to 1 kHz, 200 / 3 Hz a step; logarithmic above, 27 steps for a factor of 6.4.
    low, high = (f / (200 / 3) if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4) for f in (f_min, f_max))
    mels = np.linspace(low, high, n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = np.linspace(0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


# --- The layers of an engine ------------------------------------------------------------------------------------------
# What an engine computes its layers in, by what TensorRT's inspector says of one that was built to tell.
#
# A layer has a name of its own, which begins with that of an ONNX node, `network.stem.0/conv_U104_myl0_11`, or joins
# those of several, `a + b`; and newer releases list the nodes that it comes from, `[ONNX Layer: network.stem.0/conv]`.


_PRODUCTS = re.compile(r"conv|correlation|gemm|matmul|matrix|fully", re.IGNORECASE)
_SUFFIX = re.compile(r"(_U\d+)?(_myl\d+_\d+)?$")  # what the compiler inside TensorRT appends


def layer_types(information: str, names: Iterable[str]) -> dict[str, str]:
    """ONNX node -> "int8" or "float", of what it reads; of `names` those that the `information` (JSON) tells of."""
    try:
        layers = [layer for layer in json.loads(information)["Layers"] if isinstance(layer, dict)]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}  # without names, layers are numbers or plain text
    return types_of(layers, names)


def types_of(layers: Iterable[dict[str, Any]], names: Iterable[str]) -> dict[str, str]:
    """`layer_types` of the inspector's layers."""
    own: dict[str, str] = {}
    listed: dict[str, str] = {}
    for layer in layers:
        kind = _reads(layer)
        if kind is None:
            continue
        for part in str(layer.get("Name", "")).split(" + "):
            own.setdefault(_SUFFIX.sub("", part.strip()), kind)
        if _PRODUCTS.search(str(layer.get("LayerType", ""))):  # others list the nodes whose scales they took over
            for node in re.findall(r"\[ONNX Layer: (.*?)\]", str(layer.get("Metadata", ""))):
                listed.setdefault(node, kind)
    found = {name: own.get(name, listed.get(name)) for name in names}
    return {name: kind for name, kind in found.items() if kind is not None}


def _reads(layer: dict[str, Any]) -> str | None:
    """The type of a layer's first input, of its activations; None where that is not told."""
    inputs = layer.get("Inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    if not isinstance(first, dict):
        return None
    told = str(first.get("Format/Datatype") or first.get("Datatype") or "")
    return ("int8" if "int8" in told.lower() else "float") if told else None


# --- CUDA -------------------------------------------------------------------------------------------------------------
# The CUDA runtime, by ctypes: JetPack has no CUDA module for Python.


_MEANING = {35: "the NVIDIA driver is missing here, or too old", 100: "there is no NVIDIA GPU here"}


class Cuda:
    """The calls of the CUDA runtime that are needed. Raises `RunnerError`."""

    TO_DEVICE, TO_HOST = 1, 2

    def __init__(self) -> None:
        for name in cuda_runtimes():
            try:
                self._library = ctypes.CDLL(name)
                return
            except OSError:
                continue
        raise RunnerError(
            "libcudart.so not found. Next: sudo apt install nvidia-jetpack on a Jetson, python3 -m pip install"
            " nvidia-cuda-runtime elsewhere, or add --cpu"
        )

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            why = _MEANING.get(status, f"{function} failed with CUDA error {status}")
            raise RunnerError(f"{why}. Next: add --cpu to use onnxruntime" if status in _MEANING else why)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value or 0

    def stream(self) -> int:
        """A new stream."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def copy(self, destination: int, source: int, size: int, kind: int) -> None:
        """Copy bytes, `TO_DEVICE` or `TO_HOST`."""
        pointers = ctypes.c_void_p(destination), ctypes.c_void_p(source)
        self._call("cudaMemcpy", *pointers, ctypes.c_size_t(size), ctypes.c_int(kind))

    def wait(self, stream: int) -> None:
        """Until all that was put into a stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))


def cuda_runtimes() -> Iterator[str]:
    """Names and paths under which it may be."""
    yield from ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "/usr/local/cuda/lib64/libcudart.so")
    for folder in sys.path:  # where pip puts it, which the loader does not know
        yield from sorted(map(str, Path(folder).glob("nvidia/cu*/lib/libcudart.so.*")))


# --- Engines by trtexec -----------------------------------------------------------------------------------------------
# TensorRT's engines by `trtexec`, NVIDIA's command line tool, where there is no module for this Python.


TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where NVIDIA's packages put it, seldom on PATH
DLA_CORE = 0


class Trtexec:
    """An engine that build_engine.sh made on this device, run by trtexec, as on JetPack 4.6.

    Each call starts it anew, which takes seconds.
    """

    name = "trtexec"

    def __init__(self, program: str, engine: Path, contract: Contract, on_dla: bool = False) -> None:
        self._command = [program, f"--loadEngine={engine.resolve()}"]
        if on_dla:
            self._command.append(f"--useDLACore={DLA_CORE}")
        self._contract = contract
        release = trtexec_release(program)
        self.version: str | None = ".".join(map(str, release)) or None
        # 11 leaves copies out and replays a CUDA graph, unless told: others would seem slower beside it.
        self._as_ever = ("--includeDataTransfers", "--noCudaGraph") if release >= (11,) else ()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        step = self._contract.max_batch
        return np.concatenate([self._run(batch[i : i + step]) for i in range(0, len(batch), step)])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        once = ("--iterations=1", "--avgRuns=1", "--warmUp=0", "--duration=0")
        found = self._trtexec(batch, "--exportOutput=result.json", *once)
        tensors = {tensor["name"]: np.array(tensor["values"], np.float32) for tensor in found}
        columns = []
        for name, width in self._contract.outputs.items():
            if name not in tensors:
                raise RunnerError(f"{self._command[1]}: the engine has no output `{name}`. {BUILD_STEP}")
            columns.append(tensors[name].reshape(len(batch), width))
        return np.concatenate(columns, axis=1)

    def latencies(self, batch: np.ndarray, runs: int) -> list[float]:
        """Times in ms of copying in, computing and copying out, as trtexec takes them, after its own warm-up."""
        enough = (f"--iterations={runs}", "--duration=0", *self._as_ever)
        trace = self._trtexec(batch, "--exportTimes=result.json", *enough)
        return [float(row["latencyMs"]) for row in trace][-runs:]

    def _trtexec(self, batch: np.ndarray, *arguments: str) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:  # its options cannot hold every path
            np.ascontiguousarray(batch, np.float32).tofile(Path(folder, "input.bin"))
            command = [*self._command, f"--loadInputs={self._contract.input}:input.bin", *arguments]
            if self._contract.max_batch > 1:  # it refuses shapes where the engine's are fixed
                command.append(f"--shapes={self._contract.input}:{'x'.join(map(str, batch.shape))}")
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
                reason = errors[0].partition("[E]")[2].strip() if errors else f"exit code {done.returncode}"
                raise RunnerError(f"{command[1]}: trtexec cannot run it: {reason}. {BUILD_STEP}")
            try:
                return json.loads(Path(folder, "result.json").read_bytes())
            except (OSError, ValueError):  # it writes NaN in a way that is no JSON
                raise RunnerError(f"{command[1]}: trtexec wrote no result that can be read") from None


def find_trtexec() -> str | None:
    """The one on PATH, which was put there on purpose, else that of NVIDIA's packages."""
    return shutil.which("trtexec") or (TRTEXEC if os.access(TRTEXEC, os.X_OK) else None)


def trtexec_release(program: str) -> tuple[int, ...]:
    """Which TensorRT a trtexec is of, `(11, 4, 1)`, by the number that it prints first; `()` where it prints none."""
    try:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return ()
    found = re.search(r"TensorRT v([1-9]\d{3,5})\b", done.stdout + done.stderr)
    if found is None:
        return ()
    major, rest = divmod(int(found[1]), 1000 if len(found[1]) == 4 else 10000)  # v8502, v110401
    return (major, *divmod(rest, 100))


# --- Engines ----------------------------------------------------------------------------------------------------------
# What runs a graph: ONNX Runtime, TensorRT by its Python module, or TensorRT by `trtexec`.


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


# --- Windows that overlap ---------------------------------------------------------------------------------------------
# Windows that overlap, and what they have in common computed once.
#
# The graph of a bundle is there a second time, in parts that follow one another: from the log-mel to a map, from that
# to another one, and from the last maps to the probabilities. A column of a map is made of a stretch of the signal.
# All but the few at its ends, which feel the border of the window, are those of the window before, further to the left:
# they are kept, and a part is run for the new ones and those at the ends alone. That is exact where windows lie a
# multiple of the part's stride apart; where they do not, the window a few hops earlier is taken for which they do.


Run = Callable[[Sequence[np.ndarray]], "list[np.ndarray]"]  # a part of the graph: its inputs (B, ...) -> its outputs


class Map(NamedTuple):
    """What a part makes of its input, as the manifest has it.

    Of a window it has `columns`, one every `stride` columns of the part's input; `left` of them at its beginning and
    `right` at its end feel the border of the window, and `reach` do so at the beginning of a stretch of it.
    """

    columns: int
    stride: int
    left: int
    right: int
    reach: int

    def first_new(self, moved: int) -> int:
        """The first column, after those on the left, that is not in the map of a window that began `moved` columns of
        the input before."""
        return max(self.left, self.columns - self.right - moved // self.stride)


class _Sliding:
    """A map of the newest window of a phase, `(columns, ...)`, in memory for two: the next is a few columns further."""

    def __init__(self, described: Map, columns: np.ndarray) -> None:
        self._map, self._first = described, 0
        self._held = np.empty((2 * described.columns, *columns.shape[1:]), columns.dtype)
        self._held[: described.columns] = columns

    @property
    def columns(self) -> np.ndarray:
        """`(columns, ...)`, good until the next move."""
        return self._held[self._first : self._first + self._map.columns]

    def move(self, moved: int, left: np.ndarray, new: np.ndarray) -> None:
        """To a window that begins `moved` columns of the input later, given what is not in this one: the columns on the
        `left`, and the `new` ones."""
        first, kept = self._first + moved // self._map.stride, self._map.columns - len(new)
        if first + self._map.columns > len(self._held):
            self._held[:kept] = self._held[first : first + kept].copy()
            first = 0
        self._first = first
        self._held[first : first + len(left)] = left
        self._held[first + kept : first + self._map.columns] = new


class _Phases:
    """Something of the newest window of each phase, which is its `start` modulo `period`, both in samples."""

    def __init__(self, period: int, samples: int) -> None:
        self._period, self._samples = period, samples
        self._windows: dict[int, tuple[int, Any]] = {}

    def before(self, start: int) -> tuple[int, Any] | None:
        """By how many samples the last window of the phase of the one at `start` began earlier, and what is kept of it;
        None where they have nothing in common."""
        found = self._windows.get(start % self._period)
        return (start - found[0], found[1]) if found is not None and 0 < start - found[0] < self._samples else None

    def keep(self, start: int, kept: Any) -> None:
        """And forget windows that have nothing in common with what follows."""
        if len(self._windows) > 1:
            for phase in [phase for phase, (begun, _) in self._windows.items() if start - begun >= self._samples]:
                del self._windows[phase]
        self._windows[start % self._period] = start, kept


class _Asked(NamedTuple):
    """What a part is to be run on for a window: all columns of its input, or those at its ends, the right ones from
    `first` on, where a window `moved` columns before is kept."""

    start: int
    columns: np.ndarray
    moved: int
    first: int


class Part:
    """A part of the graph on windows of `samples` that follow one another, with one column of its input every `unit`
    samples. The first `lead` of them make what feels the beginning of a window."""

    def __init__(self, run: Run, maps: Sequence[Map], lead: int, unit: int, samples: int) -> None:
        self._run, self._maps, self._lead, self._unit = run, maps, lead, unit
        self._stride = max(each.stride for each in maps)
        self._starts = _Phases(self._stride * unit, samples)  # of those that were asked for
        self._kept = _Phases(self._stride * unit, samples)  # of those that are done
        self._asked: list[_Asked] = []
        self._firsts: dict[int, int] = {}  # of the columns to be run, by how many were moved

    def ask(self, start: int, columns: np.ndarray) -> None:
        """For the maps of the window at sample `start`, given the input `(columns, ...)`."""
        before = self._starts.before(start)
        moved = 0 if before is None else before[0] // self._unit
        if moved not in self._firsts:
            needed = min(each.stride * (each.first_new(moved) - each.reach) for each in self._maps)
            self._firsts[moved] = needed // self._stride * self._stride
        first = self._firsts[moved]
        if before is None or first <= self._lead:  # nothing would be saved
            moved, first, columns = 0, 0, columns.copy()
        else:
            columns = np.concatenate((columns[: self._lead], columns[first:]))
        self._starts.keep(start, None)
        self._asked.append(_Asked(start, columns, moved, first))

    def run(self, give: Callable[[int, list[np.ndarray]], None]) -> None:
        """Call `give` with each window that was asked for: its start, its maps `(columns, ...)`, good within the
        call."""
        found: dict[int, list[np.ndarray]] = {}
        for length in {len(each.columns) for each in self._asked}:
            alike = [number for number, each in enumerate(self._asked) if len(each.columns) == length]
            batch = self._run([np.stack([self._asked[number].columns for number in alike])])
            found.update((number, [each[place] for each in batch]) for place, number in enumerate(alike))
        for number, (start, _, moved, first) in enumerate(self._asked):
            before = self._kept.before(start) if moved else None
            if before is None:
                maps = [_Sliding(each, made) for each, made in zip(self._maps, found[number])]
            else:
                maps = before[1]
                for each, sliding, made in zip(self._maps, maps, found[number]):
                    new = (self._lead - first) // each.stride + each.first_new(moved)
                    sliding.move(moved, made[: each.left], made[new:])
            self._kept.keep(start, maps)
            give(start, [each.columns for each in maps])
        self._asked.clear()


class Steps:
    """Class probabilities of the windows of one signal, of `samples` each: `ask` for each in its turn, then `take`.

    `parts` follow one another; `end` makes probabilities `(B, K)` of the maps of the last one, or of the log-mel where
    there is none.
    """

    def __init__(self, log_mel: LogMel, samples: int, parts: Sequence[Part], end: Run) -> None:
        steps, _ = log_mel.shape(samples)
        self._log_mel, self._parts, self._end = log_mel, parts, end
        self._map = Map(steps, 1, *log_mel.at_borders(samples), 0)
        self._kept = _Phases(log_mel.step_samples, samples)
        self._last: list[list[np.ndarray]] = []  # the maps of each window that its scores are made of

    def ask(self, start: int, clip: np.ndarray) -> None:
        """For the scores of the window `clip (samples,)` that begins at sample `start` of the signal."""
        log_mel = self._log_mels(start, clip)
        if self._parts:
            self._parts[0].ask(start, log_mel)
        else:
            self._add(start, [log_mel])

    def take(self) -> np.ndarray:
        """Class probabilities `(B, K)` of the windows that were asked for since."""
        for part, following in zip(self._parts, [*self._parts[1:], None]):
            part.run(self._add if following is None else _first_to(following))
        scores = self._end([np.stack(each) for each in zip(*self._last)])[0]
        self._last.clear()
        return scores

    def _add(self, _start: int, maps: list[np.ndarray]) -> None:
        self._last.append([each.copy() for each in maps])

    def _log_mels(self, start: int, clip: np.ndarray) -> np.ndarray:
        """`(T, F, 1)`, good until the next call."""
        before = self._kept.before(start)
        left, columns = self._map.left, self._map.columns
        if before is None:
            log_mel = _Sliding(self._map, self._log_mel.steps(clip, (0, columns))[:, :, None])
        else:
            moved, log_mel = before[0] // self._log_mel.step_samples, before[1]
            new = self._log_mel.steps(clip, (0, left), (self._map.first_new(moved), columns))[:, :, None]
            log_mel.move(moved, new[:left], new[left:])
        self._kept.keep(start, log_mel)
        return log_mel.columns


def _first_to(part: Part) -> Callable[[int, list[np.ndarray]], None]:
    return lambda start, maps: part.ask(start, maps[0])


class StepGraphs:
    """The graphs of a bundle's `steps`, opened once for any number of signals. Raises `RunnerError`.

    `described` is that section of the manifest, `classifier` the one of this name.
    """

    def __init__(
        self, folder: Path, described: dict[str, Any], classifier: dict[str, Any], opset: int, threads: int
    ) -> None:
        self._log_mel = LogMel(**classifier["frontend"], sample_rate=classifier["sample_rate"], gain=classifier["gain"])
        self._samples: int = classifier["clip_samples"]
        self._parts = [
            (_opened(folder / part["file"], opset, threads, len(part["maps"])), part) for part in described["parts"]
        ]
        self._end = _opened(folder / described["end"], opset, threads, 1)
        self.step_samples = self._log_mel.step_samples
        self.strides = [max(each["stride"] for each in part["maps"]) for part in described["parts"]]

    def of_signal(self) -> Steps:
        """For the windows of one signal."""
        parts, unit = [], self.step_samples
        for run, part in self._parts:
            maps = [Map(**each) for each in part["maps"]]
            parts.append(Part(run, maps, part["lead"], unit, self._samples))
            unit *= maps[0].stride
        return Steps(self._log_mel, self._samples, parts, self._end)


def _opened(model: Path, opset: int, threads: int, outputs: int) -> Run:
    session = Session(model, opset, threads)
    names = [each.name for each in session.inputs]
    if len(session.outputs) != outputs:
        raise RunnerError(f"{model}: not the graph that the manifest describes. Copy or export the bundle again")
    return lambda inputs: session.run(dict(zip(names, inputs)))


# --- The classifier ---------------------------------------------------------------------------------------------------
# A bundle, ready to classify: waveforms of any rate and length, its golden examples, and how long it takes.


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


# --- Windows on their way to the classifier ---------------------------------------------------------------------------
# The windows of a signal on their way to a classifier, a few at a time.


class Row(NamedTuple):
    """The window from sample `start` to `stop`, at the classifier's rate, with its class scores `(K,)`, and how
    familiar it is after them where the classifier rejects the unknown.

    None, with `error`, for samples that cannot be classified. `silent`: all have one value, and then None where such
    windows are not scored."""

    start: int
    stop: int
    scores: np.ndarray | None
    silent: bool = False
    error: str | None = None


class Scorer:
    """Scores windows of one signal: `heard` what comes, `add` each window, `take` the rows of those that were added.

    `classifier` is a `Runner`, or what has its `clip_samples`, `padding`, `trim_silence`, `answers` and `step_graphs`;
    `stretches` knows the signal. Where the classifier has graphs for windows that overlap, those are used for all that
    are seen as they are; what is filled up goes through the whole graph.
    """

    def __init__(self, classifier: Any, stretches: Stretches, silent_too: bool) -> None:
        self._classifier, self._stretches, self._silent_too = classifier, stretches, silent_too
        graphs = classifier.step_graphs()
        self._steps = None if graphs is None else graphs.of_signal()
        self._rows: list[Row] = []
        self._asked: list[int] = []  # the rows whose scores the steps have
        self._position = self._suspect = 0  # samples so far, and up to where they may be unsound

    @property
    def is_full(self) -> bool:
        """Whether the rows should be taken."""
        return len(self._rows) >= (1 if self._steps is None else BATCH)

    def heard(self, samples: np.ndarray) -> None:
        """The next `samples (S,)` at the classifier's rate; each is looked at once."""
        if not largest(samples) <= HIGHEST_PEAK:  # of NaN it is NaN
            odd = np.flatnonzero(~(np.abs(samples) <= HIGHEST_PEAK))
            self._suspect = self._position + int(odd[-1]) + 1
        self._position += len(samples)

    def add(self, start: int, clip: np.ndarray) -> None:
        """The next window, which begins at sample `start`: `clip (samples,)`, shorter than others where it is the whole
        signal."""
        stop = start + len(clip)
        silent, scores = False, None
        try:
            if start < self._suspect:
                require_sound(clip)
            silent, first, last = self._stretches.window(start, len(clip))
            whole = last - first == self._classifier.clip_samples or not self._classifier.trim_silence
            if silent and not self._silent_too:
                pass
            elif self._steps is not None and whole and len(clip) == self._classifier.clip_samples:
                self._steps.ask(start, clip)
                self._asked.append(len(self._rows))
            else:
                clip = clip[first:last] if self._classifier.trim_silence else clip
                filled = fit(clip, self._classifier.clip_samples, self._classifier.padding)
                scores = self._classifier.answers(filled[None])[0]
            self._rows.append(Row(start, stop, scores, silent))
        except BadSamples as failure:
            self._rows.append(Row(start, stop, None, error=str(failure)))

    def take(self) -> list[Row]:
        """The rows of all windows that were added since, in their order."""
        rows = self._rows
        if self._steps is not None and self._asked:
            for number, scores in zip(self._asked, self._steps.take()):
                found: dict[str, Any] = {"scores": scores} if np.isfinite(scores).all() else {"error": NOT_FINITE}
                rows[number] = rows[number]._replace(**found)
        self._rows, self._asked = [], []
        return rows


# --- A live signal ----------------------------------------------------------------------------------------------------
# An endless signal, cut into windows and classified as it comes.


STREAM_FORMATS = {"s16": (PCM, 16), "s24": (PCM, 24), "s32": (PCM, 32), "u8": (PCM, 8), "f32": (FLOAT, 32)}
PATIENCE = 0.5  # s that a window may have waited in any case before it is left out for a newer one


class Cutter:
    """Cuts an endless signal into clips every `hop_samples`, holding up to three clips' worth of it, the last in any
    case.

    Positions are counted in whole samples, so they are exact for ever.
    """

    def __init__(self, clip_samples: int, hop_samples: int) -> None:
        self._clip, self._hop = clip_samples, hop_samples
        self._buffer = np.empty(3 * clip_samples, np.float32)
        self._first = self._last = 0  # what is held lies between them in the buffer
        self._gap = 0  # samples to leave out first, where windows do not touch
        self.position = 0  # of the next window in the signal

    def completed_by(self, samples: int) -> int:
        """How many windows that many samples more will complete."""
        return max(0, 1 + (samples - self._gap - self._clip + self._last - self._first) // self._hop)

    def push(self, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Position and samples of each window that is complete now; the samples are good until the next."""
        while len(samples):
            held, left_out = self._last - self._first, min(self._gap, len(samples))
            taken = min(self._clip - held, len(samples) - left_out)
            if self._last + taken > len(self._buffer):
                kept = min(self._last, self._clip)  # with what `last` may need
                self._buffer[:kept] = self._buffer[self._last - kept : self._last]
                self._first, self._last = kept - held, kept
            self._buffer[self._last : self._last + taken] = samples[left_out : left_out + taken]
            self._gap, self._last, samples = self._gap - left_out, self._last + taken, samples[left_out + taken :]
            if held + taken == self._clip:
                yield self.position, self._buffer[self._first : self._last]
                self.position += self._hop
                self._first += min(self._hop, self._clip)
                self._gap = max(0, self._hop - self._clip)

    def last(self) -> tuple[int, np.ndarray] | None:
        """At the end of the signal, where windows touch: position and samples of a window flush with it, which is the
        whole signal where that is shorter; None where the last window was so already."""
        held = self._last - self._first
        if not self.position:
            return (0, self._buffer[self._first : self._last]) if held else None
        if self._hop - self._clip + held == 0:
            return None
        return self.position + held - self._clip, self._buffer[self._last - self._clip : self._last]


class Stream:
    """Classifies the windows of an endless PCM signal; `push` takes its bytes as they come, `finish` ends it.

    Both give a row for each window: `start_s` and `end_s` in the signal, `class`, `score` and `scores` (the mean of the
    last `smooth` windows), `silent` (all samples alike), or `error`; where the bundle rejects the unknown also `known`
    and `unknown`, and "unknown" for a class; `latency_ms` of the classification, `late_s` since
    its last sample was read, and `skipped` windows so far. Where `may_skip()`, a window that has waited for longer than
    a hop (and `PATIENCE`) is skipped unless it is the newest: `more_waits()` tells of bytes to come.

    With a `rule` rows also have `events`, those that are certain now as `event_line` tells them; the hop is the rule's,
    and `finish` gives a window flush with the end, as a recording has it.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        rate: int,
        encoding: tuple[int, int] = (PCM, 16),
        channels: int = 1,
        hop_samples: int | None = None,
        smooth: int = 1,
        rule: Rule | None = None,
        may_skip: Callable[[], bool] = lambda: False,
        more_waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runner, self._may_skip, self._more_waits = runner, may_skip, more_waits
        self._channels, self._convert, self.frame_bytes = channels, DECODERS[encoding], channels * encoding[1] // 8
        if runner.channel != "mean" and int(runner.channel) >= channels:
            raise WrongUsage(f"--channels {channels}: the bundle hears channel {runner.channel}, counted from 0")
        self._scale = runner.full_scale if encoding[0] == FLOAT else 1.0
        self._stretches = Stretches(rate, runner.sample_rate)
        self._rate, self._rule = rate, rule
        self._finder = None if rule is None else EventFinder(rule)
        hop_samples = rule.hop if rule is not None else hop_samples or runner.hop_samples
        self._cutter = Cutter(runner.clip_samples, hop_samples)
        self._resampler: Resampler | None = None
        if rate != runner.sample_rate:
            width, rolloff = runner.resampler["lowpass_filter_width"], runner.resampler["rolloff"]
            self._resampler = Resampler(rate, runner.sample_rate, width, rolloff)
        self._scorer = Scorer(runner, self._stretches, silent_too=True)
        self._recent: deque[np.ndarray] = deque(maxlen=smooth)
        self._patience = max(PATIENCE, hop_samples / runner.sample_rate)
        self.rest = b""  # of a frame that is not complete
        self.frames = self.classified = self.skipped = self.refused = 0
        self._samples = self._end = 0  # at the bundle's rate: all of them, and up to the end of the last window

    @property
    def unused_s(self) -> float:
        """What has come since the end of the last window."""
        return max(0, self._samples - self._end) / self._runner.sample_rate

    def push(self, data: bytes, arrived: float) -> Iterator[dict[str, Any]]:
        """The next bytes, which came at `arrived` on the monotonic clock."""
        data = self.rest + data
        whole = len(data) - len(data) % self.frame_bytes
        self.rest = data[whole:]
        if not self.frames and data[:4] in (b"RIFF", b"RIFX", b"RF64"):
            raise RunnerError(
                "standard input: begins with a WAV header, but `stream` takes bare samples: arecord -t raw"
            )
        self.frames += whole // self.frame_bytes
        samples = to_mono(data[:whole], self._channels, self._convert, self._runner.channel)
        if self._scale != 1:
            samples = samples / np.float32(self._scale)
        self._stretches.push(samples)
        return self._windows(samples if self._resampler is None else self._resampler.push(samples), arrived)

    def finish(self) -> Iterator[dict[str, Any]]:
        """What resampling has held back, and where events are looked for, the end of the signal."""
        silence_follows = np.zeros(0, np.float32) if self._resampler is None else self._resampler.finish()
        yield from self._windows(silence_follows, time.monotonic())
        if self._finder is not None and self._rule is not None:
            last = self._cutter.last()
            row: dict[str, Any] = {"skipped": self.skipped, "latency_ms": 0.0, "events": []}
            if last is not None:
                began = time.monotonic()
                self._scorer.add(*last)
                row.update(*self._taken(began, began))
            row["events"] += [event_line(event, self._rule, self._heard_s) for event in self._finder.finish()]
            yield row

    @property
    def _heard_s(self) -> float:
        return self.frames / self._rate

    def _windows(self, samples: np.ndarray, arrived: float) -> Iterator[dict[str, Any]]:
        left, began = self._cutter.completed_by(len(samples)), time.monotonic()
        self._samples += len(samples)
        self._scorer.heard(samples)
        for position, clip in self._cutter.push(samples):
            left, self._end = left - 1, position + len(clip)
            waited = time.monotonic() - arrived
            if waited > self._patience and (left or self._more_waits()) and self._may_skip():
                self.skipped += 1
                continue
            self._scorer.add(position, clip)
            if self._scorer.is_full:
                yield from self._taken(began, arrived)
                began = time.monotonic()
        yield from self._taken(began, arrived)

    def _taken(self, began: float, arrived: float) -> Iterator[dict[str, Any]]:
        """The rows of the windows that the scorer has been given since `began`."""
        rows = self._scorer.take()
        latency = (time.monotonic() - began) / max(1, len(rows))
        for row in rows:
            self._end = row.stop
            told = self._told(row)
            told.update(latency_ms=round(1e3 * latency, 3), late_s=round(time.monotonic() - arrived, 3))
            yield {**told, "skipped": self.skipped}

    def _told(self, row: Row) -> dict[str, Any]:
        rate = self._runner.sample_rate
        told: dict[str, Any] = {"start_s": round(row.start / rate, 6), "end_s": round(row.stop / rate, 6)}
        mean = None
        if row.scores is None:
            told["error"] = row.error
            self.refused += 1
        else:
            self._recent.append(row.scores)
            answer = row.scores if len(self._recent) == 1 else np.mean(self._recent, axis=0)
            told.update(self._ranked(answer), silent=row.silent)
            mean = answer[: len(self._runner.classes)]
            if told.get("unknown") and self._rule is not None:
                mean = opening_nothing(mean, self._rule)
            self.classified += 1
        if self._finder is not None and self._rule is not None:
            events = self._finder.push(row.start, row.stop, None if row.silent else mean)
            told["events"] = [event_line(event, self._rule, self._heard_s) for event in events]
        return told

    def _ranked(self, answer: np.ndarray) -> dict[str, Any]:
        mean, told = answer[: len(self._runner.classes)], self._runner.told(answer)
        each, classes = mean.tolist(), self._runner.classes
        scores = {classes[k]: round(each[k], 6) for k in np.argsort(-mean, kind="stable").tolist()}
        best = next(iter(scores))
        several = {"classes": self._runner.answered(mean)} if self._runner.answers_several else {}
        named = "unknown" if told.get("unknown") else best
        return {"class": named, "score": scores[best], **several, "scores": scores, **told}


# --- A recording in pieces --------------------------------------------------------------------------------------------
# The scores of the windows of a recording that comes in pieces, and the events in them.


class WindowScores:
    """Scores windows every `hop_samples` of a signal at `rate` Hz, and at its end one that is flush with it.

    `classifier` is a `Runner`, or what has its `sample_rate`, `resampler` and what a `Scorer` asks of it. A signal
    shorter than a clip is one window, filled up as in training.
    """

    def __init__(self, classifier: Any, rate: int, hop_samples: int) -> None:
        self._stretches = Stretches(rate, classifier.sample_rate)
        self._scorer = Scorer(classifier, self._stretches, silent_too=False)
        self._cutter = Cutter(classifier.clip_samples, hop_samples)
        self._resampler: Resampler | None = None
        if rate != classifier.sample_rate:
            width, rolloff = classifier.resampler["lowpass_filter_width"], classifier.resampler["rolloff"]
            self._resampler = Resampler(rate, classifier.sample_rate, width, rolloff)

    @property
    def flat(self) -> bool:
        """Whether all that has come has one value."""
        return self._stretches.flat

    def push(self, samples: np.ndarray, audible: np.ndarray | None = None) -> Iterator[Row]:
        """The windows that the next `samples (S,)` complete; `audible` are the same with digital silence as 0, where a
        lossy format has made noise of it."""
        self._stretches.push(samples if audible is None else audible)
        return self._rows(samples if self._resampler is None else self._resampler.push(samples))

    def finish(self) -> Iterator[Row]:
        """The windows that the end of the signal completes."""
        if self._resampler is not None:
            yield from self._rows(self._resampler.finish())
        last = self._cutter.last()
        if last is not None:
            self._scorer.add(*last)
            yield from self._scorer.take()

    def _rows(self, samples: np.ndarray) -> Iterator[Row]:
        self._scorer.heard(samples)
        for position, clip in self._cutter.push(samples):
            self._scorer.add(position, clip)
            if self._scorer.is_full:
                yield from self._scorer.take()
        yield from self._scorer.take()


class Listener:
    """Finds the events of a recording at `rate` Hz that comes in pieces: `push` them, then `finish`.

    `heard` are the samples so far, `windows` those scored or not, `silent` and `unscored` how many of them have no
    scores; `error` and `error_at` (s) tell of the first of the latter.
    """

    def __init__(self, classifier: Any, rule: Rule, rate: int) -> None:
        self.rule, self.rate, self._classifier = rule, rate, classifier
        self._scores = WindowScores(classifier, rate, rule.hop)
        self._finder = EventFinder(rule)
        self.heard = self.windows = self.silent = self.unscored = 0
        self.error: str | None = None
        self.error_at = 0.0

    @property
    def seconds(self) -> float:
        """How long the recording is so far."""
        return self.heard / self.rate

    @property
    def flat(self) -> bool:
        """Whether all of it has one value."""
        return self._scores.flat

    def push(self, samples: np.ndarray, audible: np.ndarray | None = None) -> Iterator[Detection]:
        """The events that are certain with the next `samples (S,)`; `audible` as `WindowScores.push` has it."""
        self.heard += len(samples)
        return self._events(self._scores.push(samples, audible))

    def finish(self) -> Iterator[Detection]:
        """The rest of the events."""
        yield from self._events(self._scores.finish())
        yield from self._finder.finish()

    def _events(self, rows: Iterator[Row]) -> Iterator[Detection]:
        for row in rows:
            self.windows += 1
            self.silent += row.silent
            if row.error is not None:
                if not self.unscored:
                    self.error, self.error_at = row.error, row.start / self.rule.rate
                self.unscored += 1
            scores = row.scores
            if scores is not None:
                unknown = self._classifier.told(scores).get("unknown", False)
                scores = scores[: len(self.rule.classes)]
                scores = opening_nothing(scores, self.rule) if unknown else scores
            yield from self._finder.push(row.start, row.stop, scores)


# --- Tables of events -------------------------------------------------------------------------------------------------
# The command `detect`: events of WAV files, in a table.


_RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Begin File", "File Offset (s)")
Lines = Callable[["dict[str, Any]", float], str]  # an event, and where its recording begins in the sequence, in s


def run_detect(folder: Path, options: argparse.Namespace) -> int:
    """The command `detect`."""
    suffix = "" if options.out is None else options.out.suffix.lower()
    format_ = options.format or {".csv": "csv", ".txt": "raven"}.get(suffix, "jsonl")
    if format_ == "audacity" and len(options.files) > 1:
        raise WrongUsage("--format audacity: a label file is of one recording; give one FILE")
    if options.out is not None and any(_is_same(path, options.out) for path in options.files):
        raise WrongUsage(f"--out {options.out}: is a recording to listen to; name another file for the table")
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    rule = asked_rule(runner, options)
    header, line = _FORMATS[format_]()
    begins, exit_code, count = 0.0, 0, 0
    with _table(options.out) as table:
        table.write(header)
        for path in options.files:
            try:
                events, listener = _events(runner, rule, path)
            except RunnerError as failure:
                complain(f"{path}: {failure}", failure)
                exit_code = BAD_INPUT
                continue
            if told := missed(listener):
                complain(f"{path}: {told}")
                exit_code = BAD_INPUT if listener.unscored else exit_code
            table.writelines(line(event, begins) for event in events)
            table.flush()
            begins, count = begins + listener.seconds, count + len(events)
    complain(f"{begins / 3600:.3f} h heard: {count} events")
    return exit_code


def asked_rule(runner: Runner, options: argparse.Namespace) -> Rule:
    """The bundle's rule with what the options ask for instead."""
    rule = rule_of(
        runner.manifest,
        hop_s=options.hop,
        thresholds=options.threshold or (),
        minimum_s=options.minimum,
        gap_s=options.gap,
        exclusive=options.exclusive or None,
    )
    if note := hop_note(options.hop, rule.hop / rule.rate):
        complain(note)
    return rule


def missed(listener: Listener) -> str:
    """What of a recording could not be listened to, in words; empty where all of it could."""
    if listener.unscored:
        return (
            f"{listener.unscored} of {listener.windows} windows could not be scored, the first at"
            f" {listener.error_at:g} s: {listener.error}"
        )
    if not listener.heard:
        return "holds no samples"
    return "silent: all its samples have one value" if listener.flat else ""


def _events(runner: Runner, rule: Rule, path: Path) -> tuple[list[dict[str, Any]], Listener]:
    with open_wav(path) as wav:
        listener = Listener(runner, rule, wav.rate)
        found: list[Detection] = []
        for piece in wav.blocks(runner.channel, runner.full_scale):
            found += listener.push(piece)
        found += listener.finish()
    found.sort(key=lambda event: (event.start, event.stop, event.label))
    return [event_line(event, rule, listener.seconds, str(path)) for event in found], listener


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _table(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there when all of it is; a pipe or a device, such as /dev/stdout, is written
    to."""
    if path is None:
        yield sys.stdout
        return
    if path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        partial.replace(path)
    finally:
        if partial.exists():
            partial.unlink()


def _json_lines() -> tuple[str, Lines]:
    return "", lambda event, _: json.dumps(event) + "\n"


def _csv() -> tuple[str, Lines]:
    def row(values: Any) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue()

    names = ("audio_file", "annotation", "start_time", "end_time", "score")
    return row(names), lambda event, _: row(event[name] for name in names)


def _audacity() -> tuple[str, Lines]:
    def line(event: dict[str, Any], _: float) -> str:
        return f"{event['start_time']:.6f}\t{event['end_time']:.6f}\t{plain(event['annotation'])}\t{event['score']}\n"

    return "", line


def _raven() -> tuple[str, Lines]:
    numbers = iter(range(1, sys.maxsize))

    def line(event: dict[str, Any], begins: float) -> str:
        times = [begins + event["start_time"], begins + event["end_time"]]
        name = Path(event["audio_file"]).name
        cells = [next(numbers), "Spectrogram 1", 1, *(f"{time:.6f}" for time in times), name]
        cells += [f"{event['start_time']:.6f}", event["audio_file"], event["annotation"], event["score"]]
        return "\t".join(plain(cell) for cell in cells) + "\n"

    return "\t".join((*_RAVEN, "Begin Path", "Annotation", "Score")) + "\n", line


_FORMATS = {"jsonl": _json_lines, "csv": _csv, "raven": _raven, "audacity": _audacity}
TABLES = tuple(_FORMATS)


# --- Standard input ---------------------------------------------------------------------------------------------------
# A signal on standard input: read ahead, classified, a JSON line a window.


READ = 1 << 16  # bytes at a time: what a pipe holds
PROBATION = 10  # s after the first sample in which a source may show that it is faster than real time
TOGETHER = 4.0  # s of a recording that are taken at once
HEADSTART = 2.0  # s of sound, beyond what a pipe holds, that a live source may have saved up before it is read


class Inbox(threading.Thread):
    """Reads a file descriptor ahead, so that a recorder's buffer does not run over while a window is classified.

    Holds up to its capacity, then leaves the writer waiting. `can_wait` tells that nothing is lost by that: it is a
    file, it has ended, or it came faster than real time in the first `PROBATION` seconds, so it is no microphone.
    """

    def __init__(self, descriptor: int, bytes_per_second: int, least_capacity: int) -> None:
        super().__init__(daemon=True)  # it may wait for input for ever
        self._descriptor, self._bytes_per_second = descriptor, bytes_per_second
        os.set_blocking(descriptor, True)
        try:
            pipe = fcntl.fcntl(descriptor, 1032)  # F_GETPIPE_SZ, which has its name from Python 3.10 on
        except OSError:
            pipe = READ
        self._headstart = pipe + int(HEADSTART * bytes_per_second)
        self._capacity = max(least_capacity, 2 * self._headstart)
        self._changed = threading.Condition()
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._failure: OSError | None = None
        self.can_wait = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def run(self) -> None:
        received, started = 0, None
        data = None
        while data != b"":
            try:
                data = os.read(self._descriptor, READ)
            except OSError as failure:
                self._failure, data = failure, b""
            now = time.monotonic()
            started = now if started is None else started
            received += len(data)
            ahead = received - self._headstart > (now - started) * self._bytes_per_second
            with self._changed:
                # Only at first: in a day, a sound card's own clock runs ahead by seconds.
                self.can_wait |= not data or (ahead and now - started < PROBATION)
                self._chunks.append((now, data))
                self._size += len(data)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._size < self._capacity)

    @property
    def more_waits(self) -> bool:
        """Whether something has been read that was not taken yet."""
        return self._size > 0

    def take(self, timeout: float) -> tuple[float, bytes] | None:
        """When something came and what, b"" at the end; None where nothing comes for `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._chunks), timeout):
                return None
            arrived, data = self._chunks.popleft()
            # A recording is heard a few windows at a time, which takes less than one after the other.
            while self.can_wait and data and self._chunks and len(data) < TOGETHER * self._bytes_per_second:
                if not self._chunks[0][1]:
                    break
                data += self._chunks.popleft()[1]
            self._size -= len(data)
            self._changed.notify_all()
        if not data and self._failure is not None:
            raise RunnerError(f"standard input: {(self._failure.strerror or 'cannot be read').lower()}")
        return arrived, data


class _Printer:
    """Prints the rows of a stream, and on standard error, now and then, that windows are skipped."""

    EVERY = 60.0  # s between two complaints

    def __init__(self, top: int | None, threshold: float, events: bool) -> None:
        self._top, self._threshold, self._events = top, threshold, events
        self._reported, self._next = 0, 0.0
        self.found = 0

    def __call__(self, row: dict[str, Any]) -> None:
        now = time.monotonic()
        if row["skipped"] > self._reported and now >= self._next:
            self._reported, self._next = row["skipped"], now + self.EVERY
            complain(
                f"falling behind: {row['skipped']} windows skipped so far, one takes {row['latency_ms']:.0f} ms."
                " Next: a longer --hop, or more --threads"
            )
        if self._events:
            self.found += len(row["events"])
            for event in row["events"]:
                print(json.dumps(event), flush=True)
            return
        if "error" not in row:
            if row["score"] < self._threshold:
                return
            row["scores"] = dict(list(row["scores"].items())[: self._top])
        print(json.dumps(row), flush=True)


def run_stream(folder: Path, options: argparse.Namespace) -> int:
    """The command `stream`."""
    if os.isatty(0):
        raise WrongUsage("standard input is a terminal: arecord -q -f S16_LE -r 32000 -t raw | edgekd_runner.py stream")
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    if runner.engine == "trtexec":
        raise RunnerError(
            "stream: trtexec is too slow for a live signal. Next: install TensorRT's module, or add --cpu"
        )
    threshold = _usage(options)
    rule = asked_rule(runner, options) if options.events else None
    hop_samples = hop_of(runner.manifest, options.hop or runner.hop_samples / runner.sample_rate)
    if rule is None and (note := hop_note(options.hop, hop_samples / runner.sample_rate)):
        complain(note)
    rate = options.rate or runner.sample_rate
    encoding = STREAM_FORMATS[options.format]
    bytes_per_second = rate * options.channels * encoding[1] // 8
    clip_s = runner.clip_samples / runner.sample_rate
    inbox = Inbox(0, bytes_per_second, int(bytes_per_second * clip_s))
    may_skip = {"auto": lambda: not inbox.can_wait, "skip": lambda: True, "wait": lambda: False}
    stream = Stream(
        runner,
        rate=rate,
        encoding=encoding,
        channels=options.channels,
        hop_samples=hop_samples,
        smooth=options.smooth,
        rule=rule,
        may_skip=may_skip[options.behind],
        more_waits=lambda: inbox.more_waits,
    )
    stops: list[int] = []

    def stop(number: int, _: Any) -> None:
        stops.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for the window in work

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    inbox.start()
    show = _Printer(options.top, threshold, options.events)
    for row in _rows(stream, inbox, options.stall_seconds, stops):
        show(row)
    if stops and options.events:  # what has begun ends here
        for row in stream.finish():
            show(row)
    if stream.rest:
        complain(f"the input ended inside a sample: {len(stream.rest)} of {stream.frame_bytes} bytes were left over")
    found = f"{show.found} events; " if options.events else ""
    complain(
        f"{stream.frames / rate:.3f} s heard: {found}{stream.classified} windows classified, {stream.skipped} skipped,"
        f" {stream.refused} refused; {stream.unused_s:.3f} s left over at the end"
    )
    return INTERRUPTED if signal.SIGINT in stops else 0


def _usage(options: argparse.Namespace) -> float:
    """Below which score windows are left out. Raises `WrongUsage` for options that would do nothing."""
    if options.events:
        for given, name in ((options.smooth > 1, "--smooth"), (options.top, "--top")):
            if given:
                raise WrongUsage(f"{name}: is of windows, and with --events there are none")
        return 0.0
    for given, name in ((options.minimum, "--minimum"), (options.gap, "--gap"), (options.exclusive, "--exclusive")):
        if given:
            raise WrongUsage(f"{name}: is of events; add --events")
    thresholds = options.threshold or [(None, 0.0)]
    if len(thresholds) > 1 or thresholds[0][0] is not None:
        raise WrongUsage("--threshold: one score for all classes, or add --events")
    return float(thresholds[0][1])


def _rows(stream: Stream, inbox: Inbox, stall_seconds: float, stops: list[int]) -> Iterator[dict[str, Any]]:
    """The windows of a stream until it ends or is stopped; says when it stalls."""
    last, stalled = time.monotonic(), False
    while not stops:
        taken = inbox.take(timeout=0.2)  # a signal is noticed after this time
        now = time.monotonic()
        if taken is None:
            if not stalled and now - last > stall_seconds:
                complain(f"no samples for {stall_seconds:g} s; still waiting")
                stalled = True
            continue
        if stalled:
            complain(f"samples again after {now - last:.0f} s")
        last, stalled = now, False
        arrived, data = taken
        for row in stream.push(data, arrived) if data else stream.finish():
            yield row
            last = time.monotonic()
            if stops:
                return
        if not data:
            return


# --- The machine ------------------------------------------------------------------------------------------------------
# What decides how fast this machine is just now, and the memory of this process.


def machine_state(root: Path = Path("/")) -> dict[str, Any]:
    """What decides how fast this machine is just now; None or nothing where it does not tell.

    CPU clocks and governor, GPU and memory clocks (`/sys/class/devfreq`), temperatures in degrees C, a Jetson's power
    mode (nvpmodel), and what a Raspberry Pi's firmware has throttled (vcgencmd).
    """
    cores = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    first = cores[0] if cores else root / "absent"
    mhz = [round(clock / 1e3) for core in cores if (clock := _number(core / "scaling_cur_freq"))]
    devices = {}
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        now, most = _number(folder / "cur_freq"), _number(folder / "max_freq")
        if now is not None and most is not None:
            devices[folder.name] = {"mhz": round(now / 1e6), "max_mhz": round(most / 1e6)}
    heat = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        millidegrees = _number(zone / "temp")
        if millidegrees is not None:
            heat[_text(zone / "type") or zone.name] = round(millidegrees / 1e3, 1)
    return {
        "cpu": _cpu_name(root),
        "cpus": os.cpu_count(),
        "governor": _text(first / "scaling_governor"),
        "mhz": mhz,
        "max_mhz": round((_number(first / "cpuinfo_max_freq") or 0) / 1e3) or None,
        "devices": devices,
        "temperatures": heat,
        "power_mode": _power_mode(root),
        "throttled": _throttled(),
    }


def process_memory() -> tuple[int, int]:
    """Bytes of memory that this process holds now, and the most it has held."""
    now = int((_text(Path("/proc/self/statm")) or "0 0").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return now, max(now, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)  # it is in KiB


def _cpu_name(root: Path) -> str | None:
    model = _text(root / "proc/device-tree/model")  # a board's own name; its CPU has none in cpuinfo
    names = re.findall(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return model.strip("\0") if model else next(iter(names), None)


def _power_mode(root: Path) -> str | None:
    mode_name = re.search(r"^NV Power Mode:\s*(\S+)", _output_of("nvpmodel", "-q"), re.MULTILINE)
    if mode_name:
        return mode_name.group(1)
    number = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if not number:
        return None
    mode = int(number.group(1))
    table = _text(root / "etc/nvpmodel.conf") or ""
    name = re.search(rf"POWER_MODEL\s+ID={mode}\s+NAME=(\S+)", table)
    return name.group(1) if name else f"mode {mode}"


def _throttled() -> list[str] | None:
    # Bits 0 to 3: now; 16 to 19: since the board was started.
    flags = re.search(r"throttled=(0x[0-9a-fA-F]+)", _output_of("vcgencmd", "get_throttled"))
    if not flags:
        return None
    bits = int(flags.group(1), 16)
    causes = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
    now = [f"{cause} now" for bit, cause in enumerate(causes) if bits >> bit & 1]
    return now + [f"{cause} earlier" for bit, cause in enumerate(causes) if bits >> bit & 0x10001 == 0x10000]


def _output_of(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # also a sensor that is switched off
        return None


def _number(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None


# --- Timing -----------------------------------------------------------------------------------------------------------
# How long one clip takes, how much memory, and the state of the machine meanwhile.


def run_bench(folder: Path, options: argparse.Namespace) -> int:
    """The command `bench`."""
    load = round(os.getloadavg()[0], 2)  # before there is any of our own
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    clip = runner.golden_clips()[0][:1]
    settled = warm_up(runner, clip, options.warmup)
    block = options.runs if runner.engine == "trtexec" else 10
    deadline = time.monotonic() + options.seconds
    times = runner.time(clip, min(block, options.runs))
    while len(times) < options.runs and time.monotonic() < deadline:
        times = np.concatenate([times, runner.time(clip, min(block, options.runs - len(times)))])
    state = machine_state()  # while it is still warm
    memory, peak = process_memory()
    total = times.sum(axis=1)
    quantiles = [round(float(value), 4) for value in np.percentile(total, range(101))]
    parts = [round(float(value), 4) for value in np.median(times, axis=0)]
    clip_ms = runner.clip_samples / runner.sample_rate * 1e3
    outcome = {
        "engine": runner.engine,
        "engine_version": runner.engine_version,
        "precision": runner.precision,
        "threads": options.threads,
        "runs": len(times),
        "settled": settled,
        "mean_ms": round(float(total.mean()), 4),
        "p50_ms": quantiles[50],
        "p50_interval_ms": [round(value, 4) for value in median_interval(total)],
        "p95_ms": quantiles[95],
        "p99_ms": quantiles[99],
        "spread_ms": round(quantiles[75] - quantiles[25], 4),
        "quantiles_ms": quantiles,
        "front_end_ms": parts[0] if runner.log_mel else None,
        "network_ms": parts[1] if runner.log_mel else None,
        "real_time_factor": round(quantiles[50] / clip_ms, 6),
        "memory_bytes": memory,
        "peak_memory_bytes": peak,
        "memory_budget_bytes": runner.manifest["target"]["memory_bytes"],
        "load_average": load,
        "machine": state,
    }
    print(json.dumps(outcome)) if options.json else show_bench(outcome, clip_ms)
    return 0


def median_interval(times: np.ndarray) -> tuple[float, float]:
    """95 % interval of the median of `times (runs,)`: a bootstrap of blocks of 10 runs, as neighbours are alike."""
    size = 10 if len(times) >= 50 else 1
    blocks = times[: len(times) // size * size].reshape(-1, size)
    random = np.random.default_rng(0)
    medians = [np.median(blocks[random.integers(len(blocks), size=len(blocks))]) for _ in range(1000)]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def warm_up(runner: Runner, clip: np.ndarray, runs: int) -> bool:
    """At least `runs` runs, and until two windows of 5 take the same time within 5 %; False if 5 s did not do."""
    if runner.engine == "trtexec":
        return True  # it warms up itself
    end = time.monotonic() + 5
    before, done = math.inf, 0
    while True:
        now = float(np.median(runner.time(clip, 5).sum(axis=1)))
        done += 6
        if done >= runs and abs(now - before) < 0.05 * before:
            return True
        if done >= runs and time.monotonic() > end:
            return False
        before = now


def show_bench(outcome: dict[str, Any], clip_ms: float) -> None:
    """Print the `outcome` of timing clips of `clip_ms`."""
    engine = " ".join(filter(None, (outcome["engine"], outcome["engine_version"], outcome["precision"])))
    print(f"{plain(engine)}, threads: {outcome['threads']}, one clip of {clip_ms / 1e3:g} s, waveform to scores")
    figures = "   ".join(f"p{share} {outcome[f'p{share}_ms']:.2f} ms" for share in (50, 95, 99))
    print(f"{figures}   real-time factor {outcome['real_time_factor']:.2g}   ({outcome['runs']} runs)")
    if outcome["front_end_ms"] is not None:
        print(f"of which front end {outcome['front_end_ms']:.2f} ms, network {outcome['network_ms']:.2f} ms (medians)")
    peak, budget = outcome["peak_memory_bytes"], outcome["memory_budget_bytes"]
    over = ": over the budget" if peak > budget else ""
    print(
        f"memory {outcome['memory_bytes'] / 2**20:.0f} MiB, peak {peak / 2**20:.0f} of {budget / 2**20:.0f} MiB{over}"
    )
    print(f"load average before {outcome['load_average']}")
    for name, value in outcome["machine"].items():
        if value:
            entries = (f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else [str(value)]
            print(plain(f"{name.replace('_', ' ')}: {', '.join(entries)}").translate({ord(c): None for c in "{}[]'"}))
    if not outcome["settled"]:
        print("the time had not settled after 5 s of warm-up: is something else running?")


# --- The choice of an engine ------------------------------------------------------------------------------------------
# Which of the TensorRT engines built here to use: the fastest of those that agree with the golden examples.


def run_choose(folder: Path, options: argparse.Namespace) -> int:
    """The command `choose`."""
    manifest = read_manifest(folder)
    if manifest["target"]["runtime"] not in ENGINE_STEPS:
        raise WrongUsage("choose: this bundle runs on onnxruntime, with one model: there is nothing to choose from")
    check_files(folder, manifest)
    built = built_engines(folder, manifest)
    if not built:
        raise RunnerError(f"{folder}: no engine has been built here. {engine_step(manifest)}")
    candidates: dict[str, dict[str, Any]] = {}
    runners: dict[str, Runner] = {}
    for precision in built:
        try:
            runner = Runner(folder, precision=precision)
            outcome = runner.verify()
        except RunnerError as failure:
            candidates[precision] = {"agrees": False, "error": str(failure)}
            continue
        runners[precision] = runner
        told = ("agrees", "agreement", "largest_difference", "known_difference", "layers_in_float")
        candidates[precision] = {key: outcome[key] for key in told if key in outcome}
    if not runners:
        raise RunnerError(candidates[built[0]]["error"])
    for precision, times in _interleaved(runners, options.runs).items():
        p50, p95 = (round(float(value), 4) for value in np.percentile(times, (50, 95)))
        candidates[precision].update(p50_ms=p50, p95_ms=p95)
    agreeing = [precision for precision, figures in candidates.items() if figures["agrees"]]
    best = min(agreeing, key=lambda precision: candidates[precision]["p50_ms"], default=None)
    choice = {"precision": best, "candidates": candidates}
    if best is None:
        (folder / "engine.json").unlink(missing_ok=True)
    else:
        _write_whole(folder / "engine.json", json.dumps(choice, indent=2) + "\n")
    print(json.dumps(choice)) if options.json else _show_choice(choice)
    if best is not None:
        return 0
    complain("no engine agrees with the golden examples: do not rely on them. Next: --cpu runs the model itself")
    return DISAGREES


def _interleaved(runners: dict[str, Runner], runs: int) -> dict[str, np.ndarray]:
    """Engine times in ms, `(runs,)` or a few more each, in turns: a slow minute of the machine hits all of them."""
    rounds = 2 if any(runner.engine == "trtexec" for runner in runners.values()) else 5  # starting it takes seconds
    times: dict[str, list[np.ndarray]] = {precision: [] for precision in runners}
    clips = {precision: runner.golden_clips()[0][:1] for precision, runner in runners.items()}
    for precision, runner in runners.items():
        warm_up(runner, clips[precision], 20)
    for _ in range(rounds):
        for precision, runner in runners.items():
            times[precision].append(runner.time(clips[precision], -(-runs // rounds))[:, 1])
    return {precision: np.concatenate(blocks) for precision, blocks in times.items()}


def _show_choice(choice: dict[str, Any]) -> None:
    for precision, figures in choice["candidates"].items():
        if "error" in figures:
            print(f"{precision}  {plain(figures['error'])}")
            continue
        verdict = "chosen" if precision == choice["precision"] else "agrees" if figures["agrees"] else "disagrees"
        print(
            f"{precision}  p50 {figures['p50_ms']:.3f} ms   p95 {figures['p95_ms']:.3f} ms   same top class"
            f" {figures['agreement']:.1%}   largest difference {figures['largest_difference']:.2g}   {verdict}"
        )
        if figures.get("layers_in_float"):
            print(f"{precision}  computes in float what is to be int8: {plain(', '.join(figures['layers_in_float']))}")


def _write_whole(path: Path, text: str) -> None:
    """`path` is there whole or, whatever happens, as it was before."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as failure:
        part.unlink(missing_ok=True)
        raise RunnerError(f"{path}: cannot be written: {failure.strerror}") from None


# --- Commands ---------------------------------------------------------------------------------------------------------


def run_verify(folder: Path, options: argparse.Namespace) -> int:
    """The command `verify`."""
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    outcome = runner.verify()
    if options.json:
        print(json.dumps({"files": len(runner.manifest["files"]) + 1, **outcome}))
    else:
        tolerance = outcome["tolerance"]
        print(f"files               {len(runner.manifest['files']) + 1} unchanged")
        print(f"golden examples     {outcome['clips']}, run by {plain(runner.engine)} in {runner.precision}")
        same = "same answers" if runner.answers_several else "same top class"
        print(f"{same:<18}  {outcome['agreement']:.1%}   (at least {tolerance['agreement']:.1%})")
        print(f"largest difference  {outcome['largest_difference']:.2g}   (at most {tolerance['probability']:g})")
        if "known_difference" in outcome:
            print(f"how familiar        {outcome['known_difference']:.2g} of the range of its scores")
        if "layers_in_float" in outcome:
            print(f"not in int8         {plain(', '.join(outcome['layers_in_float'])) or 'no layer that is to be'}")
    if outcome["agrees"]:
        return 0
    complain("this device does not agree with the golden examples: do not rely on its answers.")
    return DISAGREES


def run_predict(folder: Path, options: argparse.Namespace) -> int:
    """The command `predict`."""
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    rows: list[dict[str, Any]] = []
    width = max(len(plain(path)) for path in options.files)
    exit_code = 0
    for path in options.files:
        try:
            with open_wav(path) as wav:
                seconds = wav.frames / wav.rate
                answer, silent = runner.hear(wav.blocks(runner.channel, runner.full_scale), wav.rate)
        except RunnerError as failure:
            complain(f"{path}: {failure}", failure)
            rows.append({"file": str(path), "error": str(failure)})
            exit_code = BAD_INPUT
            continue
        scores, told = answer[: len(runner.classes)], runner.told(answer)
        answered = runner.answered(scores) if runner.answers_several else None
        shown = options.top or (1 if answered is None else len(answered))
        best = np.argsort(-scores, kind="stable")[:shown]
        if answered is not None and not options.top:  # of thresholds that differ it may be none of the best
            best = np.array([runner.classes.index(name) for name in answered], dtype=np.intp)
        top = [{"class": runner.classes[k], "score": round(float(scores[k]), 6)} for k in best]
        several = {} if answered is None else {"classes": answered}
        rows.append({"file": str(path), "seconds": round(seconds, 3), "silent": silent, **told, **several, "top": top})
        if not options.json:
            said = [f"{plain(row['class'])} {row['score']:.3f}" for row in top] or ["none of the classes"]
            said = ["unknown"] * told.get("unknown", False) + said + ["(silent)"] * silent
            print(f"{plain(path):<{width}}  " + "   ".join(said), flush=True)
    if options.json:
        print(json.dumps({"files": rows}))
    return exit_code


def _between(kind: Callable[[str], Any], lowest: float, highest: float) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not between {lowest:g} and {highest:g}")
        return value

    return number


def _threshold(text: str) -> tuple[str | None, float]:
    """`SCORE`, of all classes, or `CLASS=SCORE`."""
    name, equals, number = text.rpartition("=")
    if equals and not name:
        raise argparse.ArgumentTypeError(f"{text}: write a number, or CLASS=NUMBER")
    return name or None, _between(float, 0, 1)(number)


def _parser() -> argparse.ArgumentParser:
    count, runs, seconds = _between(int, 1, 1e9), _between(int, 1, 1e6), _between(float, 1e-3, 1e6)
    result = argparse.ArgumentParser(add_help=False)
    result.add_argument("--json", action="store_true", help="the result as one JSON object")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--threads", type=_between(int, 1, 1024), default=1, metavar="N", help="CPU threads for onnxruntime (1)"
    )
    model.add_argument(
        "--precision", metavar="P", help="int8, fp16, fp32 or fp16-dla, where the bundle has it (the chosen one)"
    )
    model.add_argument("--cpu", action="store_true", help="onnxruntime, even where an engine has been built")
    parser = argparse.ArgumentParser(prog="edgekd_runner.py", description="Run the classifier in this folder.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="verify|predict|detect|stream|bench|choose")

    def command(
        name: str, run: Callable[..., int], about: str, *parents: argparse.ArgumentParser
    ) -> Callable[..., Any]:
        added = commands.add_parser(name, parents=parents, help=about, description=about)
        added.set_defaults(run=run)
        return added.add_argument

    command("verify", run_verify, "is the bundle whole, and does this device agree", result, model)

    add = command("predict", run_predict, "classify WAV files of any rate and length", result, model)
    add("files", nargs="+", type=Path, metavar="FILE")
    add(
        "--top",
        type=count,
        metavar="K",
        help="how many classes to show (1; of several at once those that are answered)",
    )

    events = argparse.ArgumentParser(add_help=False)
    events.add_argument("--hop", type=seconds, metavar="S", help="seconds from one window to the next (the bundle's)")
    chosen = "of all classes or one, for an event; with stream alone, SCORE: leave out weaker windows (the bundle's; 0)"
    events.add_argument("--threshold", type=_threshold, action="append", metavar="[CLASS=]SCORE", help=chosen)
    length = _between(float, 0, 1e6)
    events.add_argument("--minimum", type=length, metavar="S", help="leave out shorter events (the bundle's)")
    events.add_argument("--gap", type=length, metavar="S", help="join events no further apart (the bundle's)")
    events.add_argument("--exclusive", action="store_true", help="one class at a time, the surest")

    add = command("detect", run_detect, "events in WAV files: what, from when to when, how surely", model, events)
    add("files", nargs="+", type=Path, metavar="FILE")
    add("--out", type=Path, metavar="TABLE", help="a file ending in .jsonl, .csv or .txt, Raven's (JSON lines, here)")
    add("--format", choices=TABLES, help="of the table, whatever its ending")

    add = command("stream", run_stream, "classify raw PCM on standard input, a JSON line a window", model, events)
    add("--events", action="store_true", help="a JSON line an event, when it has ended, as `detect` has them")
    rate = _between(int, RATES[0], RATES[-1])
    formats = "little-endian samples; arecord's S16_LE, S24_3LE, S32_LE, U8, FLOAT_LE (s16)"
    behind = "slow: skip windows for newer ones, or let the writer wait; auto: wait where nothing is lost by it (auto)"
    add("--rate", type=rate, metavar="HZ", help="of the input; another than the bundle's is resampled (the bundle's)")
    add("--format", choices=STREAM_FORMATS, default="s16", help=formats)
    add("--channels", type=_between(int, 1, 64), default=1, metavar="N", help="interleaved (1)")
    add("--smooth", type=runs, default=1, metavar="N", help="mean of the last N windows' scores (1)")
    add("--top", type=count, metavar="K", help="only the K best classes in `scores` (all)")
    add("--behind", choices=("auto", "skip", "wait"), default="auto", help=behind)
    add("--stall-seconds", type=seconds, default=10, metavar="S", help="say so when nothing comes for S seconds (10)")

    add = command("bench", run_bench, "latency of one clip, memory, clocks, heat", result, model)
    add("--runs", type=runs, default=200, metavar="N", help="timed runs, at most (200)")
    add("--seconds", type=seconds, default=20, metavar="S", help="end after S seconds even so (20)")
    add("--warmup", type=runs, default=20, metavar="N", help="untimed runs at first; more until it settles (20)")

    add = command(
        "choose", run_choose, "verify and time every TensorRT engine here, use the fastest that agrees", result
    )
    add("--runs", type=runs, default=200, metavar="N", help="timed runs of each (200)")
    return parser


def main(arguments: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Run a command on the bundle in `folder` (where this file is) and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that is not in UTF-8, or not in the terminal's letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parser().parse_args(arguments)
            return options.run(folder or Path(__file__).resolve().parent, options)
        finally:
            sys.stdout.flush()  # here, where it can be said that it fails
    except RunnerError as failure:
        complain(str(failure), failure)
        return failure.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # what reads our output has seen enough
        _let_go_of_output()
        return 0
    except OSError as failure:
        complain(f"{failure.filename or 'standard output'}: {failure.strerror}")
        _let_go_of_output()
        return BAD_INPUT


def _let_go_of_output() -> None:
    """Have Python write nothing more to standard output, nor complain of what it holds, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(kind: type[BaseException], failure: BaseException, _: Any) -> None:
    complain(f"unforeseen failure: {kind.__name__}: {failure}. EDGEKD_DEBUG=1 shows where.")


if __name__ == "__main__":
    if os.environ.get("EDGEKD_DEBUG") != "1":
        sys.excepthook = _one_line
    sys.exit(main())
