"""`edgekd doctor`: what this machine can do."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgekd.cli import options

PACKAGES = ("torch", "torchaudio", "onnx", "onnxruntime", "onnxscript", "onnxsim", "lightning-fabric", "soundfile")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "avxvnni", "asimddp")  # int8 dot products, on x86-64 and on arm64


def doctor(json_: options.Json = False) -> None:
    """Show what this machine can do: versions, devices, back ends, space for the cache."""
    from edgekd.cli.show import print_json, table

    facts = examine()
    if json_:
        print_json(facts)
    else:
        table(("", "on this machine"), list(facts.items()))


def examine() -> dict[str, str]:
    """Facts about this machine, in words."""
    facts = {"python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    facts |= {name: _version(name) for name in PACKAGES}
    facts["cpus"] = f"{os.cpu_count()}, int8 dot products: {_int8_flag() or 'none (int8 will be slow)'}"
    facts["cuda"] = _cuda()
    facts["tensorrt (Python)"] = _optional("tensorrt", "export needs none of it: engines are built on the device")
    facts["trtexec"] = shutil.which("trtexec") or "not found; needed on a Jetson only (in nvidia-jetpack)"
    facts["cache"] = _cache()
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"missing: pip install {package}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no device that torch can use; training runs on the CPU"
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _optional(module: str, advice: str) -> str:
    return _version(module) if importlib.util.find_spec(module) is not None else f"not installed; {advice}"


def _int8_flag() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return next((flag for flag in INT8_FLAGS if flag in flags), None)


def _cache() -> str:
    from edgekd.data.cache import cache_folder

    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{folder}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free (EDGEKD_CACHE_DIR moves it)"
