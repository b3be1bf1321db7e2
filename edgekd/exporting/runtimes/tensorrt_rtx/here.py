"""Engines for RTX on this machine: run where there is an NVIDIA GPU that they were built for, else why not."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.device import runner
from edgekd.errors import InputError
from edgekd.exporting.manifest import Check
from edgekd.exporting.runtimes import onnx_bundle
from edgekd.exporting.runtimes.runtime import Classify
from edgekd.exporting.runtimes.tensorrt.build_script import engine_name
from edgekd.exporting.runtimes.tensorrt.engine import chosen_by_runner
from edgekd.exporting.targets import Precision, Target
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.exporting.deployable import Deployable
    from edgekd.exporting.verify import Probabilities

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of CUDA's driver API


def gpu_capability() -> str | None:
    """Compute capability of the first NVIDIA GPU here, "8.9"; None where there is none, or no driver for it."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    device, figures = ctypes.c_int(), []
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for attribute in (_MAJOR, _MINOR):
        figure = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(figure), attribute, device):
            return None
        figures.append(str(figure.value))
    return ".".join(figures)


def not_here(target: Target) -> str | None:
    """Why an engine for `target` cannot be run on this machine; None where it can be."""
    assert target.tensorrt_rtx is not None
    capability = gpu_capability()
    if capability is None:
        return "no NVIDIA GPU here"
    if capability not in target.tensorrt_rtx.capabilities:
        return f"the GPU here is of compute capability {capability}, and the engine for {target.tensorrt_rtx.listed()}"
    return None


def check_by_running(
    files: Mapping[str, bytes],
    deployable: Deployable,
    trained: Probabilities,
    waveforms: Tensor,
    target: Target,
    progress: Progress,
) -> Check:
    """Compare the answers of the engine of `deployable` with `trained`, where it can be run here. Raises `GateError`
    where they differ, and `InputError` where it cannot be run though there is such a GPU."""
    from edgekd.exporting.verify import verify

    precision, by = deployable.precision, "the engine itself"
    reason = not_here(target)
    if reason is not None:
        return Check(by=by, precision=precision, not_run=reason)
    with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
        file = Path(folder, engine_name(precision))
        file.write_bytes(files[file.name])
        engine, classify = _opened(file, deployable, trained, waveforms[:1], target)
        task, tolerance = deployable.student.task, target.tolerance
        parity = verify(classify, trained, waveforms, tolerance, progress, task, deployable.reject)
    figures = parity.model_dump(exclude_none=True)
    return Check(by=f"{by}, in {engine.name} {engine.version}", precision=precision, figures=figures)


def _opened(
    file: Path, deployable: Deployable, trained: Probabilities, example: Tensor, target: Target
) -> tuple[Any, Probabilities]:
    """An engine, and what it makes of waveforms `(B, S)`."""
    import torch

    from edgekd.exporting.graph import input_shape

    outside = target.frontend == "external"
    shape = input_shape(deployable.student.frontend.config, deployable.clip_samples, target.frontend)
    assert target.tensorrt_rtx is not None
    largest = 1 if target.batch == 1 else target.tensorrt_rtx.max_batch
    known = deployable.known is not None
    classes = trained(example).shape[1] - known
    contract = runner.Contract("log_mel" if outside else "waveform", shape, classes, largest, known)
    try:
        engine = runner.open_engine(file, contract, target.runtime)
    except runner.RunnerError as failure:
        raise InputError(str(failure)) from None

    def classify(waveforms: Tensor) -> Tensor:
        with torch.inference_mode():
            sounds = deployable.student.front_end(waveforms) if outside else waveforms
        try:
            return torch.from_numpy(engine(sounds.numpy()))
        except runner.RunnerError as failure:
            raise InputError(str(failure)) from None

    return engine, classify


def open_here(folder: Path, threads: int) -> Classify:
    """The classifier of a bundle: its engine where that runs here, else its graph in ONNX Runtime on the CPU."""
    from edgekd.exporting.manifest import read_bundle

    on_cpu = not_here(read_bundle(folder).manifest.target) is not None
    return onnx_bundle.open_runner(folder, threads, cpu=on_cpu)


def require_gpu() -> None:
    """Raise `InputError` where no engine can be compared here."""
    if gpu_capability() is None:
        raise InputError(
            "--build-engine: there is no NVIDIA GPU here to compare engines on. Leave it out: engines for RTX are built"
            " without one."
        )


def compare_engines(
    folder: Path,
    modules: Mapping[Precision, nn.Module] | None = None,  # noqa: ARG001 - nothing is built here that they could help
    progress: Progress = silent,
) -> dict[str, Any]:
    """What `edgekd_runner.py choose` says of the engines that came with the bundle in `folder`.

    Raises `InputError` where they cannot be run here, `GateError` where none agrees with the golden examples.
    """
    progress("engines", 0, 1)
    found = chosen_by_runner(folder)
    progress("engines", 1, 1)
    return {**found, "refused": {}}
