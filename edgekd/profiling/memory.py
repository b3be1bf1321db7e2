"""Memory that a classifier takes: of a process that does nothing else, and of the activations of one clip.

A graph is opened and run in a child process that imports numpy and ONNX Runtime and nothing else: what a device would
give to it, Python included. Resident memory is the kernel's figure, which it counts in batches of pages for each CPU:
it is good to a few hundred KiB. Activations are counted to the byte, by ONNX Runtime's own allocator (its profile tells
from version 1.32 on): the most that is in use during one clip, less what was in use before the first operator. The clip
itself is the caller's and not in it; working space of operators is. For that the allocator is told to cut blocks to
size, where it otherwise hands out up to twice what is asked for.

A PyTorch module cannot be moved to a child, so only its activations are measured, here, by PyTorch's own count of what
it allocates and frees.

This file is also the child's program: at its top it imports nothing but Python's own modules.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TIMEOUT_S = 120.0
RESULT = "memory.json"  # in the child's folder


@dataclass(frozen=True)
class Memory:
    """Bytes; None where they cannot be had. `failure`: why, where something went wrong."""

    process_bytes: int | None = None
    peak_process_bytes: int | None = None
    activation_bytes: int | None = None
    failure: str | None = None

    def figures(self) -> dict[str, int | None]:
        """The same as fields of `edgekd.report.results.Cost`."""
        return {
            "process_bytes": self.process_bytes,
            "peak_process_bytes": self.peak_process_bytes,
            "measured_activation_bytes": self.activation_bytes,
        }


def graph_memory(model: bytes, feed: Mapping[str, NDArray[np.float32]], runs: int = 3) -> Memory:
    """Memory of an ONNX graph run by ONNX Runtime on one thread of the CPU, `runs` times with the inputs `feed`.

    A child that fails or is killed, as for want of memory, is told of in `failure`.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgekd-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        np.savez(folder / "feed.npz", **dict(feed))  # type: ignore[arg-type]
        # -P: this folder's modules are not to be found by the names of others.
        command = [sys.executable, "-P", str(Path(__file__).resolve()), str(folder), str(runs)]
        try:
            child = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=_one_thread()
            )
        except subprocess.TimeoutExpired:
            return Memory(failure=f"its process took more than {TIMEOUT_S:g} s")
        if child.returncode < 0:
            return Memory(failure=f"its process was killed by signal {-child.returncode}: was there too little memory?")
        if child.returncode:
            last = (child.stderr.strip().splitlines() or ["no message"])[-1]
            return Memory(failure=f"its process failed: {last}")
        return Memory(**json.loads((folder / RESULT).read_bytes()))


def torch_memory(call: Callable[[], object], device: str = "cpu") -> Memory:
    """Activations of a PyTorch `call` that has run before: the most that it holds at once of what it allocates itself.

    On the CPU what oneDNN takes for itself is not in it.
    """
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return Memory(activation_bytes=torch.cuda.max_memory_allocated(device) - before)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    steps = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    live = peak = 0
    for _, size in steps:
        live += size
        peak = max(peak, live)
    return Memory(activation_bytes=peak)


def _one_thread() -> dict[str, str]:
    """An environment in which numpy's libraries start no threads, whose stacks would count."""
    from edgekd.process_setup import python_environment

    return {**python_environment(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


# --- In the child -----------------------------------------------------------------------------------------------------


def _measure(folder: Path, runs: int) -> dict[str, int | None]:
    import numpy as np

    with np.load(folder / "feed.npz") as arrays:
        feed = dict(arrays)
    model = str(folder / "model.onnx")
    session = _open(model, _options())
    for _ in range(runs):
        session.run(None, feed)
    resident, peak = _resident("VmRSS"), _resident("VmHWM")
    return asdict(Memory(resident, peak, _in_use(model, feed, folder)))


def _options() -> Any:
    """The settings of `edgekd.exporting.verify.session_options`, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _open(model: str, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _in_use(model: str, feed: dict[str, Any], folder: Path) -> int | None:
    """The most bytes of activations in use during one run; None where this onnxruntime does not tell."""
    import onnxruntime

    onnxruntime.create_and_register_allocator(
        onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        ),
        # No limit, growth by what is asked for, the library's first size, and no byte more in a block than needed.
        onnxruntime.OrtArenaCfg(0, 1, -1, 1),
    )
    options = _options()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = _open(model, options)
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    operators = [event["args"] for event in events if "mem_in_use_peak" in event.get("args", {})]
    if not operators:
        return None
    first = operators[0]
    before = int(first["mem_bytes_in_use"]) - int(first["mem_in_use_delta"])
    return max(int(operator["mem_in_use_peak"]) for operator in operators) - before


def _resident(key: str) -> int | None:
    """A figure of the kernel's on this process, in bytes; None without Linux's `/proc`."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


if __name__ == "__main__":
    Path(sys.argv[1], RESULT).write_text(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
