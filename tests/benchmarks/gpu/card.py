"""The machine: what it is, and what it was seen to do at best. Nothing of it is set, only read."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, backends

from edgekd.exact_float32 import exact_float32
from tests.benchmarks.gpu.parts import Task, told
from tests.benchmarks.measure import limits, seconds_of

FIELDS = (
    *("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw"),
    *("power.limit", "temperature.gpu", "clocks_event_reasons.active"),
)
CEILINGS = {
    "copy_gb_s": ("copies", "GB/s"),
    "launch_us": ("starting an operation", "us"),
    "bf16_tflop_s": ("bf16 products", "TFLOP/s"),
    "float32_tflop_s": ("float32", "TFLOP/s"),
    "tf32_tflop_s": ("TF32", "TFLOP/s"),
}
PACKAGES = ("torch", "torchaudio", "triton", "onnx", "onnxruntime", "numpy")


def run(task: Task) -> None:
    """The machine into `result["machine"]`, its ceilings into `result["ceilings"]`."""
    task.result["machine"] = machine(task.device)
    best = limits(task.device, 3)
    ceilings = task.result["ceilings"] = {
        "copy_gb_s": best.bandwidth / 1e9,
        "launch_us": 1e6 * launch_seconds(task.device),
    }
    task.shared["ceilings"] = ceilings
    side = 512 if task.small else 8192
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        with exact_float32():
            ceilings[f"{name}_tflop_s"], clocks = product_rate(side, dtype, task.device)
        if clocks:
            task.result["machine"][f"clock_sm_under_{name}"] = clocks
    if task.on_cuda:
        ceilings["tf32_tflop_s"] = _in_tf32(lambda: product_rate(side, torch.float32, task.device)[0])


def machine(device: str) -> dict[str, Any]:
    """Names and versions."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": backends.cudnn.version(),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gb": properties.total_memory / 1e9,
            **_asked(FIELDS),
        }
    return found


def product_rate(side: int, dtype: torch.dtype, device: str) -> tuple[float, str | None]:
    """TFLOP a second of a product of two square matrices of random numbers, the best of several runs of ten, and the
    clock while they ran."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    target = torch.empty_like(a)
    times = 10 if device == "cuda" else 1

    def products() -> Tensor:
        for _ in range(times):
            torch.mm(a, b, out=target)
        return target

    seconds = min(seconds_of(products, 1, device) for _ in range(4))
    clock = None
    if device == "cuda":  # read while the card is at work
        for _ in range(max(1, round(0.5 / seconds))):
            products()
        clock = _asked(("clocks.sm",)).get("clocks.sm")
        torch.cuda.synchronize()
    return times * 2 * side**3 / seconds / 1e12, clock


def launch_seconds(device: str) -> float:
    """Seconds that the host spends on starting the smallest of operations."""
    tensor, times = torch.zeros(1, device=device), 2000

    def launches() -> None:
        for _ in range(times):
            tensor.add_(1)

    return seconds_of(launches, 3, device) / times


def _in_tf32(measured: Callable[[], float]) -> float:
    before = backends.cuda.matmul.fp32_precision
    backends.cuda.matmul.fp32_precision = "tf32"
    try:
        return measured()
    finally:
        backends.cuda.matmul.fp32_precision = before


def _asked(fields: tuple[str, ...]) -> dict[str, str]:
    """What `nvidia-smi` says; nothing where it is missing or does not know a field."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (value.strip() for value in said.strip().split(",")), strict=False))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def show(result: Mapping[str, Any]) -> Iterator[str]:
    """In three lines."""
    found = result.get("machine", {})
    if "name" in found or "capability" in found:
        yield (
            f"{found.get('name')}, capability {found.get('capability')}, driver {found.get('driver_version')}, "
            f"SM clock {found.get('clocks.sm')} as found, {found.get('clock_sm_under_bf16')} under bf16 products, "
            f"at most {found.get('clocks.max.sm')}, power limit {found.get('power.limit')}"
        )
    if not found:
        return
    versions = ", ".join(f"{name} {found.get(name)}" for name in ("torch", "cuda", "cudnn", "triton", "onnxruntime"))
    cores = found.get("cores")
    yield f"{found.get('processor')}, {cores} core{'' if cores == 1 else 's'}; Python {found.get('python')}, {versions}"
    ceilings = result.get("ceilings", {})
    said = (f"{words} {told(ceilings[name], 4)} {unit}" for name, (words, unit) in CEILINGS.items() if name in ceilings)
    if ceilings:
        yield "at best: " + ", ".join(said)
