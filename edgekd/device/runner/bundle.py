"""The folder that was exported: its manifest, its files and their sha256, and the engines built in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.manifest import check_manifest, shown

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
