"""The C of a classifier on this machine, as a function: what it answers is what it answers on a board."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import LIBRARY, SOURCES
from edgekd.errors import InputError
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.model import HEADER, MODEL, sizes_of
from edgekd.microcontrollers.integer.layers import SHARE
from edgekd.microcontrollers.integer.log_mel import FULL_SCALE

Samples = NDArray[np.int16]
_LIBRARY_FLAGS = ("-shared", "-fPIC")


class HostClassifier:
    """Hears windows of 16-bit samples, each from its first to its last."""

    def __init__(self, model: Mapping[str, str]) -> None:
        """Compile the constants `model`. Raises `InputError` without a compiler, `GateError` where it refuses them."""
        self.sizes = sizes_of(model[HEADER])
        self.classes = self.sizes["CLASSES"]
        with tempfile.TemporaryDirectory(prefix="edgekd-") as name:
            folder = Path(name)
            for source in (HEADER, MODEL):
                (folder / source).write_text(model[source], encoding="utf-8")
            parts = [folder / MODEL, *(SOURCES / source for source in LIBRARY)]
            flags = (*_LIBRARY_FLAGS, f"-I{folder}", f"-I{SOURCES}")
            toolchain.build(parts, folder / "classifier.so", flags)
            toolchain.check_loads(folder / "classifier.so")
            try:
                self.library = ctypes.CDLL(str(folder / "classifier.so"))
            except OSError as failure:
                raise InputError(
                    f"What {toolchain.host_compiler()[0]} compiled cannot be loaded here: {failure}. Name a C compiler "
                    "of this machine in $CC, and in $TMPDIR a folder where programs may lie."
                ) from None
        size = ctypes.c_size_t.in_dll(self.library, "edgekd_bytes").value
        self.state = np.zeros(size // 8 + 1, np.uint64)  # as aligned as anything in it
        self.library.edgekd_init.argtypes = [ctypes.c_void_p]
        self.library.edgekd_push.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self.library.edgekd_scores.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

    @property
    def state_bytes(self) -> int:
        """Of an `edgekd_t` here, which is that of a core of 32 bits: it has no pointers in it."""
        return ctypes.c_size_t.in_dll(self.library, "edgekd_bytes").value

    def start(self) -> None:
        """Forget what was heard."""
        self.library.edgekd_init(self.state.ctypes.data)

    def push(self, samples: Samples) -> NDArray[np.int32] | None:
        """Hear `samples (n,)`: scores `(K,)` in units of 1 / SHARE, of the latest window that they complete."""
        taken = np.ascontiguousarray(samples)
        if not self.library.edgekd_push(self.state.ctypes.data, taken.ctypes.data, len(taken)):
            return None
        scores = np.zeros(self.classes, np.int32)
        self.library.edgekd_scores(self.state.ctypes.data, scores.ctypes.data)
        return scores

    def window(self, samples: Samples) -> NDArray[np.int32]:
        """The scores of one window, on its own. Raises `InputError` for samples that are none."""
        window = self.sizes["WINDOW_SAMPLES"]
        if len(samples) != window:
            raise InputError(
                f"The C hears windows of {window:,} samples, not of {len(samples):,}. Export the bundle again."
            )
        self.start()
        scores = self.push(samples)
        assert scores is not None
        return scores


def in_16_bits(clips: NDArray[np.float32]) -> Samples:
    """Samples of full scale 1 as a 16-bit microphone gives them."""
    return np.clip(np.rint(clips * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def scores(hear: HostClassifier, recordings: Samples) -> NDArray[np.int32]:
    """Of each of `recordings (N, S)` the scores `(N, K)`."""
    return np.stack([hear.window(recording) for recording in recordings])


def classify(hear: HostClassifier) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Clips `(B, S)` of full scale 1 -> probabilities `(B, K)`."""

    def probabilities(clips: NDArray[np.float32]) -> NDArray[np.float32]:
        return (scores(hear, in_16_bits(clips)) / SHARE).astype(np.float32)

    return probabilities
