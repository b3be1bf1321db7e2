"""The on-device runner, a part a subject, and what the desk uses of it.

The desk imports the parts and never the file they are joined into, so that a process has one `RunnerError`. They
run on a device, so: Python 3.8, the standard library, numpy, and a runtime where it is used.
"""

from __future__ import annotations

from edgekd.device.runner.arrays import read_golden
from edgekd.device.runner.bundle import (
    DLA_ENGINE,
    Contract,
    built_engines,
    check_files,
    chosen_engine,
    engine_file,
    file_digest,
    graphs,
    manifest_digest,
    read_manifest,
)
from edgekd.device.runner.classifier import Runner, windows
from edgekd.device.runner.engine_layers import types_of
from edgekd.device.runner.engines import NotInstalled, import_rtx, oldest_onnxruntime, open_engine
from edgekd.device.runner.errors import DISAGREES, RunnerError
from edgekd.device.runner.machine import machine_state
from edgekd.device.runner.trtexec import DLA_CORE, TRTEXEC, Trtexec, trtexec_release

__all__ = [
    "DISAGREES",
    "DLA_CORE",
    "DLA_ENGINE",
    "TRTEXEC",
    "Contract",
    "NotInstalled",
    "Runner",
    "RunnerError",
    "Trtexec",
    "built_engines",
    "check_files",
    "chosen_engine",
    "engine_file",
    "file_digest",
    "graphs",
    "import_rtx",
    "machine_state",
    "manifest_digest",
    "oldest_onnxruntime",
    "open_engine",
    "read_golden",
    "read_manifest",
    "trtexec_release",
    "types_of",
    "windows",
]
