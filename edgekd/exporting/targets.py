"""Target boards: what a bundle is made for, read from `targets/*.toml`.

A target says which runtime runs the model, in which Q/DQ flavour, precisions and operators, the budgets a bundle must
fit, and how far the device may be from the reference; and, for the reader, what hardware it is and where each fact was
read. Adding a board is one TOML file and no code; a user's own board is a path to such a file.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from edgekd.config import Section, parse, read_toml
from edgekd.errors import UsageError, unknown_name
from edgekd.resources import named_resources

Precision = Literal["int8", "fp16", "fp32"]
FrontEnd = Literal["graph", "external"]
Batch = Literal["dynamic", 1]
PowerMode = Annotated[str, Field(pattern=r"^\d+ \S+$")]  # "2 MAXN_SUPER"
Release = tuple[int, ...]  # of TensorRT: (10, 3)

# TensorRT releases from which on ...
OLDEST: Release = (8, 2)  # ... bundles can be made at all
LAYER_PRECISIONS: Release = (8, 4)  # ... a layer can be pinned to float32
EXPLICIT_INT8: Release = (8, 5)  # ... Q/DQ pairs are relied on here
STRONGLY_TYPED: Release = (10,)  # ... the types in the graph decide

_OPSETS: tuple[tuple[tuple[float, ...], int], ...] = (((8, 5), 13), ((10,), 17), ((math.inf,), 20))


class Tolerance(Section):
    """How far a device may be from the reference on the same clips."""

    probability: float = Field(gt=0, le=1, description="largest difference of any class probability")
    agreement: float = Field(gt=0, le=1, description="smallest share of clips with the same winning class")


class TensorRT(Section):
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


class Hardware(Section):
    """What the board is made of. For the reader: no figure here refuses anything."""

    processor: str = Field(description="cores")
    gpu: str | None = None
    memory: str = Field(description="fitted memory; shared by processor and GPU on a Jetson")
    storage: str | None = Field(default=None, description="what the system boots from")
    dla_cores: int = Field(default=0, ge=0, description="deep-learning accelerators; a bundle runs on the GPU")
    power_modes: tuple[PowerMode, ...] = Field((), description="number and name, as nvpmodel has them")


class Budget(Section):
    """The most that a student may need, for devices with little; what is not named is not limited."""

    model_bytes: int | None = Field(default=None, ge=1, description="size of model.onnx")
    parameters: int | None = Field(default=None, ge=1, description="of the network, without front end")
    macs: int | None = Field(default=None, ge=1, description="of the network on one clip, without front end")
    activation_bytes: int | None = Field(default=None, ge=1, description="peak of what is live between two operators")


class Target(Section):
    """One board."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    runtime: Literal["onnxruntime", "tensorrt"]
    flavour: Literal["onnxruntime", "tensorrt"] = Field(description="form of the Q/DQ pairs in the graph")
    opset: int = Field(ge=13, le=20, description="ONNX operator set")
    precisions: tuple[Precision, ...] = Field(min_length=1, description="what it runs; the first is what is exported")
    frontend: FrontEnd = Field("graph", description="external: the graph takes a log-mel that the host computes")
    batch: Batch = Field("dynamic", description="clips of one call; 1: a fixed shape, where the runtime prefers it")
    operators: tuple[str, ...] = Field((), description="ONNX operators that the runtime has; none named: any")
    architecture: Literal["aarch64", "x86_64"]
    memory_bytes: int = Field(ge=1 << 20, description="resident memory the running classifier may take")
    storage_bytes: int = Field(ge=1 << 10, description="size the bundle folder may have")
    tolerance: Tolerance
    notes: tuple[str, ...] = ()
    budget: Budget = Budget()
    tensorrt: TensorRT | None = None
    hardware: Hardware | None = None
    sources: dict[str, str] = Field({}, description="fact -> where it was read")

    @property
    def precision(self) -> Precision:
        """What is exported where nothing else is asked for."""
        return self.precisions[0]

    def adapted(
        self, precision: Precision | None = None, frontend: FrontEnd | None = None, batch: Batch | None = None
    ) -> Target:
        """This target with one precision only, or another form of the graph; None leaves what it has.

        Raises `UsageError` for a precision that the board does not run, and for a form that its runtime cannot take.
        """
        if precision is not None and precision not in self.precisions:
            runs = ", ".join(self.precisions)
            raise UsageError(f"Target '{self.name}' runs {runs}, not {precision}. Leave --precision out, or name one.")
        changes = {"precisions": precision and (precision,), "frontend": frontend, "batch": batch}
        given = {name: value for name, value in changes.items() if value is not None}
        return parse(Target, self.model_dump() | given, f"target '{self.name}'") if given else self

    @model_validator(mode="after")
    def _precisions_differ(self) -> Self:
        if len(set(self.precisions)) < len(self.precisions):
            raise ValueError(f"precisions = {list(self.precisions)}: name each once, first what is exported")
        if self.runtime == "onnxruntime" and "fp16" in self.precisions:
            raise ValueError("precisions: onnxruntime computes fp16 in float32 on a CPU; leave 'fp16' out")
        return self

    @model_validator(mode="after")
    def _runtime_has_what_it_needs(self) -> Self:
        if self.runtime == "tensorrt" and self.tensorrt is None:
            raise ValueError("runtime 'tensorrt' needs a [tensorrt] table with the device's version")
        if self.runtime == "onnxruntime" and self.tensorrt is not None:
            raise ValueError("[tensorrt] means nothing with runtime 'onnxruntime'; leave it out")
        if self.flavour != self.runtime:
            why = "it refuses uint8" if self.runtime == "tensorrt" else "with the other it runs convolutions in float"
            raise ValueError(f"runtime '{self.runtime}' needs flavour '{self.runtime}': {why}")
        if self.tensorrt is not None:
            self._check_release(self.tensorrt)
        return self

    def _check_release(self, tensorrt: TensorRT) -> None:
        version, release = tensorrt.version, tensorrt.release
        if release < OLDEST:
            raise ValueError(f"tensorrt.version = '{version}': the oldest that bundles are made for is 8.2")
        if "int8" in self.precisions and release < EXPLICIT_INT8:
            raise ValueError(f"precisions: TensorRT {version} is too old for 'int8' from Q/DQ pairs, which needs 8.5")
        if self.frontend == "graph" and "fp16" in self.precisions and release < LAYER_PRECISIONS:
            raise ValueError(
                f"frontend = 'graph': TensorRT {version} cannot keep the log-mel in float32 beside 'fp16';"
                " write frontend = 'external'"
            )
        if self.opset > newest_opset(release):
            raise ValueError(f"opset = {self.opset}: TensorRT {version} reads up to {newest_opset(release)}")


def newest_opset(release: Release) -> int:
    """The newest ONNX operator set that the parser of a TensorRT release reads, 20 at most, which is all we write.

    From "Supported ONNX Operators" (docs/operators.md of github.com/onnx/onnx-tensorrt) of each release.
    """
    return next(opset for before, opset in _OPSETS if release < before)


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
