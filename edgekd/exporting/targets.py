"""Target boards: what a bundle is made for, read from `targets/*.toml`.

A target says which runtime runs the model, in which Q/DQ flavour, precisions and operators, the budgets a bundle must
fit, and how far the device may be from the reference; and, for the reader, what hardware it is and where each fact was
read. Adding a board is one TOML file and no code; a user's own board is a path to such a file. What a runtime can serve
it says itself (`edgekd.exporting.runtimes`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgekd.config import Section, parse
from edgekd.errors import UsageError, unknown_name
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.plain_c.settings import PlainCSettings
from edgekd.exporting.runtimes.tensorrt.releases import Installed
from edgekd.exporting.runtimes.tensorrt_rtx.settings import AheadOfTime
from edgekd.resources import named_resources
from edgekd.toml_files import read_toml

if TYPE_CHECKING:
    from edgekd.quantization.fake_quant import FlavourName
else:
    FlavourName = str  # any name is read, and then has to be the runtime's

Precision = Literal["int8", "fp16", "fp32"]
LogMelPlace = Literal["graph", "external"]  # where the front end is computed: in the graph, or by its caller
Batch = Literal["dynamic", 1]
PowerMode = Annotated[str, Field(pattern=r"^\d+ \S+$")]  # "2 MAXN_SUPER"


class Tolerance(Section):
    """How far a device may be from the reference on the same clips."""

    probability: float = Field(gt=0, le=1, description="largest difference of any class probability")
    agreement: float = Field(gt=0, le=1, description="smallest share of clips with the same winning class")


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

    model_bytes: int | None = Field(default=None, ge=1, description="size of model.onnx; of runtime c, its constants")
    parameters: int | None = Field(default=None, ge=1, description="of the network, without front end")
    macs: int | None = Field(default=None, ge=1, description="of the network on one clip, without front end")
    activation_bytes: int | None = Field(
        default=None, ge=1, description="peak of what is live between two operators; of c, an edgekd_t"
    )


class Target(Section):
    """One board."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    aliases: tuple[str, ...] = ()
    runtime: str = Field(description="what runs the model: a key of edgekd.exporting.runtimes.RUNTIMES")
    flavour: FlavourName = Field(description="form of the Q/DQ pairs in the graph: the runtime's")
    opset: int = Field(20, ge=13, le=20, description="ONNX operator set")
    precisions: tuple[Precision, ...] = Field(min_length=1, description="what it runs; the first is what is exported")
    frontend: LogMelPlace = Field("graph", description="external: the graph takes a log-mel that the host computes")
    batch: Batch = Field("dynamic", description="clips of one call; 1: a fixed shape, where the runtime prefers it")
    operators: tuple[str, ...] = Field((), description="ONNX operators that the runtime has; none named: any")
    architecture: str = Field(description="processor, one that the runtime runs on")
    memory_bytes: int = Field(ge=1, description="memory the running classifier may take; resident, under a Linux")
    storage_bytes: int = Field(ge=1 << 10, description="size the bundle folder may have")
    tolerance: Tolerance
    notes: tuple[str, ...] = ()
    budget: Budget = Budget()
    tensorrt: Installed | None = None
    tensorrt_rtx: AheadOfTime | None = None
    c: PlainCSettings | None = None
    hardware: Hardware | None = None
    sources: dict[str, str] = Field({}, description="fact -> where it was read")

    @property
    def precision(self) -> Precision:
        """What is exported where nothing else is asked for."""
        return self.precisions[0]

    def adapted(
        self, precision: Precision | None = None, frontend: LogMelPlace | None = None, batch: Batch | None = None
    ) -> Target:
        """This target with one precision only, or another form of the graph; None leaves what it has.

        Raises `UsageError` for a precision that the board does not run, and for a form that its runtime cannot take.
        """
        if precision is not None and precision not in self.precisions:
            runs = ", ".join(self.precisions)
            raise UsageError(f"Target '{self.name}' runs {runs}, not {precision}. Leave --precision out, or name one.")
        if batch == "dynamic" and RUNTIMES[self.runtime].hears_16_bits:
            raise UsageError(f"Target '{self.name}' hears one clip after another. Leave --batch out.")
        changes = {"precisions": precision and (precision,), "frontend": frontend, "batch": batch}
        given = {name: value for name, value in changes.items() if value is not None}
        return parse(Target, self.model_dump() | given, f"target '{self.name}'") if given else self

    @field_validator("runtime")
    @classmethod
    def _is_a_runtime(cls, name: str) -> str:
        if name not in RUNTIMES:
            raise ValueError(f"input should be {' or '.join(map(repr, RUNTIMES))}")
        return name

    @field_validator("architecture")
    @classmethod
    def _is_one_of_the_runtimes(cls, architecture: str, others: ValidationInfo) -> str:
        runtime = RUNTIMES.get(others.data.get("runtime", ""))
        if runtime is not None and architecture not in runtime.architectures:
            raise ValueError(f"runtime '{runtime.name}' runs on {', '.join(runtime.architectures)}")
        return architecture

    @field_validator("memory_bytes")
    @classmethod
    def _is_enough_for_the_runtime(cls, memory_bytes: int, others: ValidationInfo) -> int:
        runtime = RUNTIMES.get(others.data.get("runtime", ""))
        if runtime is not None and memory_bytes < runtime.least_memory_bytes:
            raise ValueError(f"runtime '{runtime.name}' needs {runtime.least_memory_bytes} at least")
        return memory_bytes

    @model_validator(mode="after")
    def _precisions_differ(self) -> Self:
        if len(set(self.precisions)) < len(self.precisions):
            raise ValueError(f"precisions = {list(self.precisions)}: name each once, first what is exported")
        return self

    @model_validator(mode="after")
    def _runtime_can_serve_it(self) -> Self:
        runtime = RUNTIMES[self.runtime]
        for other in RUNTIMES.values():
            if other.settings not in (None, runtime.settings) and getattr(self, other.settings) is not None:
                raise ValueError(f"[{other.settings}] means nothing with runtime '{runtime.name}'; leave it out")
        runtime.check_target(self)
        if self.flavour != runtime.flavour:
            raise ValueError(f"runtime '{runtime.name}' needs flavour '{runtime.flavour}': {runtime.flavour_reason}")
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
