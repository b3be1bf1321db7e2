"""The CUDA runtime, by ctypes: JetPack has no CUDA module for Python."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any, Iterator

from edgekd.device.runner.errors import RunnerError

_MEANING = {35: "the NVIDIA driver is missing here, or too old", 100: "there is no NVIDIA GPU here"}


class Cuda:
    """The calls of the CUDA runtime that are needed. Raises `RunnerError`."""

    TO_DEVICE, TO_HOST = 1, 2

    def __init__(self) -> None:
        for name in cuda_runtimes():
            try:
                self._library = ctypes.CDLL(name)
                return
            except OSError:
                continue
        raise RunnerError(
            "libcudart.so not found. Next: sudo apt install nvidia-jetpack on a Jetson, python3 -m pip install"
            " nvidia-cuda-runtime elsewhere, or add --cpu"
        )

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            why = _MEANING.get(status, f"{function} failed with CUDA error {status}")
            raise RunnerError(f"{why}. Next: add --cpu to use onnxruntime" if status in _MEANING else why)

    def allocate(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value or 0

    def stream(self) -> int:
        """A new stream."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def copy(self, destination: int, source: int, size: int, kind: int) -> None:
        """Copy bytes, `TO_DEVICE` or `TO_HOST`."""
        pointers = ctypes.c_void_p(destination), ctypes.c_void_p(source)
        self._call("cudaMemcpy", *pointers, ctypes.c_size_t(size), ctypes.c_int(kind))

    def wait(self, stream: int) -> None:
        """Until all that was put into a stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))


def cuda_runtimes() -> Iterator[str]:
    """Names and paths under which it may be."""
    yield from ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "/usr/local/cuda/lib64/libcudart.so")
    for folder in sys.path:  # where pip puts it, which the loader does not know
        yield from sorted(map(str, Path(folder).glob("nvidia/cu*/lib/libcudart.so.*")))
