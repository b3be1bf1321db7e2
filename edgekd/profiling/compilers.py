"""PyTorch modules compiled: by `torch.compile`'s own compiler, by TensorRT, by TensorRT for RTX.

    torch-compiled        PyTorch's own, on the CPU or a GPU
    torch-tensorrt        the package of that name, on a GPU
    torch-tensorrt-rtx    the package of that name, on an RTX GPU

The latter two packages have one module, `torch_tensorrt`, so an environment has either; each release goes with the one
release of PyTorch that has its number. What TensorRT does not convert, such as a Fourier transform, PyTorch runs in
between.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import nn

from edgekd.errors import InputError, UsageError
from edgekd.optional_modules import import_optional

TORCH_COMPILED, TORCH_TENSORRT, TORCH_TENSORRT_RTX = "torch-compiled", "torch-tensorrt", "torch-tensorrt-rtx"
BY_TENSORRT = (TORCH_TENSORRT, TORCH_TENSORRT_RTX)  # also the names of the packages
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "pass_through_build_failures": True,  # else what TensorRT fails to build runs in PyTorch, and is timed as TensorRT
    "disable_tf32": True,  # as in every engine of ours
    "truncate_double": True,
}


def compiled(module: nn.Module, backend: str) -> tuple[Callable[..., Any], str]:
    """`module` as `backend` compiles it when it is first called, and what to call that in a report.

    Raises `InputError` where the package that compiles is missing, does not go with this PyTorch, or does not load.
    """
    if backend == TORCH_COMPILED:
        return torch.compile(module), "compiled"
    version = _import(backend)
    torch.compiler.reset()  # what another back end made of this module would be taken for this one's
    return torch.compile(module, backend="tensorrt", options=_OPTIONS), f"{backend} {version}"


def check_compiler(backend: str, device: str) -> None:
    """Raise `InputError` or `UsageError` where `backend` cannot compile for `device` here; to be asked early."""
    if backend not in BY_TENSORRT:
        return
    _installed(backend)
    if device != "cuda":
        raise UsageError(f"--backend {backend}: it compiles for a GPU. Add --device cuda, or leave it out.")


def _installed(package: str) -> str:
    """Its version. Raises `InputError` where it is missing, or made for another PyTorch."""
    here = ".".join(torch.__version__.split(".")[:2])
    install = f"pip install '{package}=={here}.*'"
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        (other,) = set(BY_TENSORRT) - {package}
        alone = f", in an environment of its own: {other} has the same module and is here" if _has(other) else ""
        raise InputError(f"--backend {package}: {package} is not installed. Next: {install}{alone}") from None
    if version.split(".")[:2] != here.split("."):
        raise InputError(
            f"--backend {package}: {package} {version} goes with torch {'.'.join(version.split('.')[:2])}, and here is"
            f" torch {torch.__version__}. Next: {install}"
        )
    return version


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _import(package: str) -> str:
    version = _installed(package)
    try:
        import_optional("torch_tensorrt")
    except ImportError as failure:
        reason = str(failure)[:200].rstrip(".")
        raise InputError(
            f"--backend {package}: {package} {version} does not load: {reason}. Leave it out, or run it where its"
            " TensorRT and an NVIDIA driver are."
        ) from None
    return version
