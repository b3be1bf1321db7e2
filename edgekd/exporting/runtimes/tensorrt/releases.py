"""Releases of TensorRT: what each can be asked for, and the `[tensorrt]` table of a target's TOML."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from edgekd.config import Section

if TYPE_CHECKING:
    from edgekd.exporting.targets import Target

Release = tuple[int, ...]  # (10, 3)

# Releases from which on ...
OLDEST: Release = (8, 2)  # ... bundles can be made at all
LAYER_PRECISIONS: Release = (8, 4)  # ... a layer can be pinned to float32
EXPLICIT_INT8: Release = (8, 5)  # ... Q/DQ pairs are relied on here
STRONGLY_TYPED: Release = (10,)  # ... the types in the graph decide

_OPSETS: tuple[tuple[tuple[float, ...], int], ...] = (((8, 5), 13), ((10,), 17), ((math.inf,), 20))


class Installed(Section):
    """The TensorRT release on the device, which decides the flags of `trtexec`."""

    version: str = Field(description="TensorRT version, e.g. 10.3")
    jetpack: str | None = Field(default=None, description="JetPack release that brings it")
    cuda: str | None = Field(default=None, description="CUDA toolkit version")
    compute_capability: str | None = Field(default=None, pattern=r"^\d+\.\d$", description="of the GPU, e.g. 8.7")
    max_batch: int = Field(default=8, ge=1, le=256, description="largest batch of the engine's optimisation profile")

    @field_validator("version", mode="before")
    @classmethod
    def _is_a_version(cls, version: object) -> object:
        if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+)+", version):
            raise ValueError('write numbers and dots, in quotes: version = "10.3"')
        return version

    @property
    def release(self) -> Release:
        """The version as numbers: `(10, 3)`."""
        return tuple(int(part) for part in self.version.split("."))


def check_release(target: Target, installed: Installed) -> None:
    """Raise `ValueError` where `target` asks for what its TensorRT is too old for."""
    version, release = installed.version, installed.release
    if release < OLDEST:
        raise ValueError(f"tensorrt.version = '{version}': the oldest that bundles are made for is 8.2")
    if "int8" in target.precisions and release < EXPLICIT_INT8:
        raise ValueError(f"precisions: TensorRT {version} is too old for 'int8' from Q/DQ pairs, which needs 8.5")
    if target.frontend == "graph" and "fp16" in target.precisions and release < LAYER_PRECISIONS:
        raise ValueError(
            f"frontend = 'graph': TensorRT {version} cannot keep the log-mel in float32 beside 'fp16';"
            " write frontend = 'external'"
        )
    if target.opset > newest_opset(release):
        raise ValueError(f"opset = {target.opset}: TensorRT {version} reads up to {newest_opset(release)}")


def newest_opset(release: Release) -> int:
    """The newest ONNX operator set that the parser of a TensorRT release reads, 20 at most, which is all we write.

    From "Supported ONNX Operators" (docs/operators.md of github.com/onnx/onnx-tensorrt) of each release.
    """
    return next(opset for before, opset in _OPSETS if release < before)
