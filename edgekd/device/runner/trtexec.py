"""TensorRT's engines by `trtexec`, NVIDIA's command line tool, where there is no module for this Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.runner.bundle import BUILD_STEP, Contract
from edgekd.device.runner.errors import RunnerError

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
