"""What a board's TOML says of its core, in the table `[c]`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edgekd.microcontrollers.c.cores import CORES, SOFT
from edgekd.section import Section

CoreName = Literal["host", "cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "xtensa-lx7"]
ARCHITECTURES: dict[CoreName, tuple[str, ...]] = {
    "host": ("x86_64", "aarch64"),
    "cortex-m0plus": ("armv6-m",),
    "cortex-m4": ("armv7e-m",),
    "cortex-m7": ("armv7e-m",),
    "cortex-m33": ("armv8-m.main",),
    "cortex-m55": ("armv8.1-m.main",),
    "xtensa-lx7": ("xtensa",),
}
Current = Annotated[float, Field(gt=0)]


class Power(Section):
    """What the chip draws while it computes, as its datasheet has it: least and most of what fits the use."""

    volts: float = Field(gt=0, le=60)
    milliamperes: tuple[Current, Current] = Field(description="at clock_hz, of the chip alone")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        low, high = self.milliamperes
        if high < low:
            raise ValueError(f"milliamperes = [{low:g}, {high:g}]: the lower figure comes first")
        return self


class PlainCSettings(Section):
    """The table `[c]` of a board: what the C is compiled for."""

    core: CoreName = Field(description="host: the machine it is exported on; others are emulated where that can be")
    fpu: bool | None = Field(
        None,
        description="without one the log-mel is in fixed point; not given: as most of that core have it",
    )
    flash_bytes: int | None = Field(None, ge=1 << 10, description="for code and constants; more is refused")
    hop_seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="from the beginning of a window to that of the next; not given: half a window",
    )
    clock_hz: int | None = Field(None, ge=1_000_000, description="of the core, for estimates of time")
    power: Power | None = Field(None, description="for estimates of energy")

    @property
    def fixed_point(self) -> bool:
        """Whether the log-mel is computed in integers, for want of an FPU."""
        core = CORES.get(self.core)
        return not self.fpu if self.fpu is not None else core is not None and not core.fpu

    @model_validator(mode="after")
    def _is_made_so(self) -> Self:
        core = CORES.get(self.core)
        if core is not None and self.fpu is not None and self.fpu != core.fpu and self.core not in SOFT:
            has = "has one" if core.fpu else "has none"
            raise ValueError(f"fpu = {str(self.fpu).lower()}: a {self.core} {has}; leave it out")
        return self

    @model_validator(mode="after")
    def _power_has_a_clock(self) -> Self:
        if self.power is not None and self.clock_hz is None:
            raise ValueError("power.milliamperes is that at clock_hz, which is missing")
        return self
