"""The layers of a TensorRT engine, by `trtexec --exportProfile`."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device import runner
from edgekd.device.runner import trtexec
from edgekd.errors import InputError
from edgekd.profiling.layers import LayerTime, macs_of, slowest_first, with_own_names
from edgekd.report.results import Layer

# What trtexec calls a format -> precision and bytes of a number: "Half", "Row major linear FP16 format", ...
_FORMATS = (
    ("int8", "int8", 1),
    ("half|fp16", "float16", 2),
    ("bf16|bfloat", "bfloat16", 2),
    ("float|fp32", "float32", 4),
)


def engine_layers(engine: Path, model: bytes | None = None, on_dla: bool = False) -> tuple[Layer, ...]:
    """The layers of a TensorRT engine, timed by the trtexec that the runner takes.

    `model`: the ONNX file that the engine was built from, for the MACs. `on_dla`: it is for an accelerator. Raises
    `InputError` where there is no trtexec, and where it cannot run the engine.
    """
    program = trtexec.find_trtexec()
    if program is None:
        raise InputError(
            f"{engine}: no trtexec on PATH or in {Path(trtexec.TRTEXEC).parent}, which times the layers of an engine."
            " Next: sudo apt install nvidia-jetpack on a Jetson, or leave --layers out."
        )
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        command = [program, f"--loadEngine={engine.resolve()}", "--exportProfile=profile.json"]
        command += ["--exportLayerInfo=layers.json", "--dumpProfile"]
        if on_dla:
            command.append(f"--useDLACore={runner.DLA_CORE}")
        if runner.trtexec_release(program) < (11,):  # which always takes the layers' times in a run of their own
            command.append("--separateProfileRun")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
            reason = errors[0].partition("[E]")[2].strip() if errors else f"exit code {done.returncode}"
            raise InputError(f"{engine}: trtexec cannot run it: {reason}. Build it again on this device.")
        try:
            profile = Path(folder, "profile.json").read_text(encoding="utf-8")
        except OSError:
            raise InputError(f"{engine}: trtexec wrote no profile. Leave --layers out.") from None
        info = Path(folder, "layers.json")
        return trtexec_layers(profile, info.read_text(encoding="utf-8") if info.exists() else None, model)


def trtexec_layers(profile: str, info: str | None = None, model: bytes | None = None) -> tuple[Layer, ...]:
    """What `trtexec --exportProfile` wrote, with what `--exportLayerInfo` did where that is at hand.

    Operator, output and precision are in the latter, if the engine was built with `--profilingVerbosity=detailed`.
    `model`: the ONNX file, for the MACs. Raises `InputError` for text that is none of these.
    """
    try:
        rows = [row for row in json.loads(profile) if "averageMs" in row]
        details = {row["Name"]: row for row in json.loads(info or "{}").get("Layers", []) if isinstance(row, dict)}
        found: dict[str, LayerTime] = {}
        for row in rows:
            detail = details.get(row["name"], {})
            layer = found.setdefault(row["name"], LayerTime(detail.get("LayerType", "")))
            layer.ms += float(row["averageMs"])
            layer.precision, layer.output_bytes = _output(detail)
        if not found:
            raise ValueError("no layers")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError("trtexec: its profile is not the JSON that --exportProfile writes.") from None
    if model is not None:
        import onnx

        macs = macs_of(with_own_names(onnx.load_from_string(model)))
        for name, layer in found.items():  # "a + b" is a and b in one kernel
            layer.macs = sum(macs.get(part.strip(), 0) for part in name.split(" + ")) or None
    return slowest_first(found)


def _output(detail: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Precision and bytes of a layer's first output, as far as they are told."""
    outputs = detail.get("Outputs") or [{}]
    kind = str(outputs[0].get("Format/Datatype", ""))
    for pattern, precision, size in _FORMATS:
        if re.search(pattern, kind, re.IGNORECASE):
            dimensions = outputs[0].get("Dimensions")
            return precision, int(np.prod(dimensions)) * size if dimensions else None
    return None, None
