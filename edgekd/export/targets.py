"""Target boards: what a bundle is made for, read from `targets/*.toml`.

A target says which runtime runs the model and in which Q/DQ flavour, the budgets a bundle must fit, and how far the
device may be from the reference. Adding a board is one TOML file and no code; a user's own board is a path to such a
file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from edgekd.config import Section, parse, read_toml
from edgekd.errors import unknown_name
from edgekd.resources import named_resources


class Tolerance(Section):
    """How far a device may be from the reference on the same clips."""

    probability: float = Field(gt=0, le=1, description="largest difference of any class probability")
    agreement: float = Field(gt=0, le=1, description="smallest share of clips with the same winning class")


class TensorRT(Section):
    """The TensorRT release on the device, which decides the flags of `trtexec`."""

    version: str = Field(pattern=r"^\d+\.\d+(\.\d+)*$", description="TensorRT version, e.g. 10.3")
    jetpack: str | None = Field(default=None, description="JetPack release that brings it")
    cuda: str | None = Field(default=None, description="CUDA toolkit version")
    compute_capability: str | None = Field(default=None, pattern=r"^\d+\.\d$", description="of the GPU, e.g. 8.7")
    max_batch: int = Field(default=8, ge=1, le=256, description="largest batch of the engine's optimisation profile")

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers: `(10, 3)`."""
        return tuple(int(part) for part in self.version.split("."))


class Target(Section):
    """One board."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    runtime: Literal["onnxruntime", "tensorrt"]
    flavour: Literal["onnxruntime", "tensorrt"] = Field(description="form of the Q/DQ pairs in the graph")
    opset: int = Field(ge=18, le=20, description="ONNX operator set")
    precision: Literal["int8"]
    architecture: Literal["aarch64", "x86_64"]
    memory_bytes: int = Field(ge=1 << 20, description="resident memory the running classifier may take")
    storage_bytes: int = Field(ge=1 << 10, description="size the bundle folder may have")
    tolerance: Tolerance
    tensorrt: TensorRT | None = None
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _runtime_has_what_it_needs(self) -> Self:
        if self.runtime == "tensorrt" and self.tensorrt is None:
            raise ValueError("runtime 'tensorrt' needs a [tensorrt] table with the device's version")
        if self.runtime == "onnxruntime" and self.tensorrt is not None:
            raise ValueError("[tensorrt] means nothing with runtime 'onnxruntime'; leave it out")
        if self.runtime == "tensorrt" and self.flavour != "tensorrt":
            raise ValueError("runtime 'tensorrt' needs flavour 'tensorrt': it refuses the uint8 of the other one")
        return self


def load_target(name_or_path: str) -> Target:
    """The target with this name or alias, or the one in the user's own TOML file.

    Raises `UsageError` naming the known targets, or the file and every wrong key and value in it.
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))
    targets = list_targets()
    for target in targets:
        if name_or_path in (target.name, *target.aliases):
            return target
    names = (name for target in targets for name in (target.name, *target.aliases))
    raise unknown_name("target", name_or_path, names)


def list_targets() -> list[Target]:
    """The shipped targets, by name."""
    return [_read(path) for path in named_resources("targets").values()]


def _read(path: Path) -> Target:
    return parse(Target, read_toml(path), str(path))
