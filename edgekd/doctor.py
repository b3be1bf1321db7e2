"""What this machine can do: versions, devices, back ends, space for the cache."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.errors import InputError
from edgekd.optional_modules import import_optional

PACKAGES = ("torch", "torchaudio", "onnx", "onnxruntime", "onnxscript", "onnxsim", "soundfile")

# What export can use and does not need: name -> module and, where it is absent, what it is for and how it is installed.
MODULES = {
    "tensorrt": (
        "tensorrt",
        "builds engines here (export --build-engine): pip install 'edgekd[tensorrt]', on a Jetson"
        " sudo apt install python3-libnvinfer",
    ),
    "torch-tensorrt": (
        "torch_tensorrt",
        "profiles PyTorch modules compiled by TensorRT (--backend torch-tensorrt), tries graphs that TensorRT refuses:"
        " pip install 'edgekd[torch-tensorrt]'",
    ),
    "tensorrt-rtx": (
        "tensorrt_rtx_bindings",
        "builds the engines of export --target rtx, asks NVIDIA's parser about every TensorRT export, no GPU needed:"
        " pip install 'edgekd[rtx]'",
    ),
}
PROGRAMS = {
    "trtexec": "for build_engine.sh, on the device: sudo apt install nvidia-jetpack",
    "qemu-aarch64-static": "runs bundles as on arm64, in a test: sudo apt install qemu-user-static",
}
C_COMPILER = "c compiler"
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "avxvnni", "asimddp")  # int8 dot products, on x86-64 and on arm64


def examine(
    packages: Sequence[str] = PACKAGES,
    modules: Mapping[str, tuple[str, str]] = MODULES,
    programs: Mapping[str, str] = PROGRAMS,
) -> dict[str, str]:
    """Facts about this machine, in words: what is installed of `packages`, of the optional `modules` and of
    `programs`."""
    facts = {"python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    facts |= {name: _version(name) for name in packages}
    facts["cpus"] = f"{os.cpu_count()}, int8 dot products: {_int8_flag() or 'none (int8 will be slow)'}"
    facts["cuda"] = _cuda()
    facts |= {name: _module(module, advice) for name, (module, advice) in modules.items()}
    facts |= {name: _program(name, advice) for name, advice in programs.items()}
    facts |= _c_compilers()
    facts["cache"] = _cache()
    return facts


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return f"missing: pip install {package}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return (
            "no device that torch can use, so training runs on the CPU; for a GPU, a CUDA build of torch and a driver"
        )
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _module(module: str, advice: str) -> str:
    """Version of an optional module, or what it would be good for; it is imported, as a broken one is no use."""
    if importlib.util.find_spec(module) is None:
        return f"not installed; {advice}"
    try:
        imported = import_optional(module)
    except ImportError as failure:
        return f"installed, but broken: {failure}"
    return str(getattr(imported, "__version__", "installed"))


def _program(name: str, advice: str) -> str:
    usual = Path("/usr/src/tensorrt/bin") / name
    place = shutil.which(name) or (str(usual) if os.access(usual, os.X_OK) else None)
    return place or f"not found; {advice}"


def _c_compilers() -> dict[str, str]:
    """What compiles the C of bundles for microcontrollers, and runs it on cores that are not here."""
    from edgekd.microcontrollers.c import toolchain
    from edgekd.microcontrollers.c.cores import CORES

    try:
        compiler = toolchain.host_compiler()
        facts = {C_COMPILER: f"{shlex.join(compiler)}, {toolchain.version(compiler[0])}"}
    except InputError as failure:
        facts = {C_COMPILER: str(failure)}
    lacking = toolchain.lacking(CORES["cortex-m55"])
    for program in (toolchain.CROSS_COMPILER, toolchain.EMULATOR):
        lack = lacking.get(program)
        told = None if lack is None else f"{lack.why}; checks C for a Cortex-M at export: {lack.step}"
        facts[program] = told or toolchain.version(program)
    return facts


def _int8_flag() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return next((flag for flag in INT8_FLAGS if flag in flags), None)


def _cache() -> str:
    from edgekd.files.caches import cache_folder

    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{folder}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free (EDGEKD_CACHE_DIR moves it)"
