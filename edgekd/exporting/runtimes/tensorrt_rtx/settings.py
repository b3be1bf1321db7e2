"""The `[tensorrt_rtx]` table of a target's TOML, and the GPUs that TensorRT for RTX builds for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from edgekd.config import Section

if TYPE_CHECKING:
    from edgekd.exporting.targets import Target

TURING = "7.5"
CAPABILITIES = (TURING, "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that release 1.7.1 has a name for; asked for another, it says a word on the driver."""
_OTHERS = {  # of GPUs that a user may mean
    "5.3": "Jetson Nano",
    "7.2": "Jetson Xavier",
    "8.7": "Jetson Orin",
    "9.0": "H100 and H200",
    "10.0": "B200",
    "11.0": "Jetson Thor",
}


class AheadOfTime(Section):
    """The TensorRT for RTX that builds the engines here and runs them there: the same release in both places."""

    version: str = Field(pattern=r"^\d+\.\d+\.\d+$", description="of TensorRT for RTX, here and there, e.g. 1.7.1")
    capabilities: tuple[str, ...] = Field(
        min_length=1, description="compute capabilities of the GPUs that one engine is built for, e.g. 8.9"
    )
    max_batch: int = Field(default=8, ge=1, le=256, description="largest batch of the engine's optimisation profile")

    @field_validator("capabilities")
    @classmethod
    def _are_those_of_gpus(cls, capabilities: tuple[str, ...]) -> tuple[str, ...]:
        for capability in capabilities:
            if capability not in CAPABILITIES:
                of = f" ({_OTHERS[capability]})" if capability in _OTHERS else ""
                instead = "; a Jetson runs TensorRT: runtime = 'tensorrt'" if "Jetson" in of else ""
                known = ", ".join(CAPABILITIES)
                raise ValueError(f"no {capability}{of} in TensorRT for RTX, which builds for {known}{instead}")
        if len(set(capabilities)) < len(capabilities):
            raise ValueError("name each once")
        return capabilities

    def listed(self) -> str:
        """ "8.6, 8.9 or 12.0"."""
        *others, last = self.capabilities
        return f"{', '.join(others)} or {last}" if others else last


def check_capabilities(target: Target, settings: AheadOfTime) -> None:
    """Raise `ValueError` for what cannot be built for a GPU that `settings` name.

    "FP32 GEMM is not supported" for Turing, says the builder, of the log-mel and of the last layer of every student,
    also of an int8 one.
    """
    if TURING in settings.capabilities and (set(target.precisions) != {"fp16"} or target.frontend != "external"):
        raise ValueError(
            f"tensorrt_rtx.capabilities: TensorRT for RTX multiplies no float32 matrices on {TURING} (Turing), so there"
            " only precisions = ['fp16'] with frontend = 'external' can be built; leave it out"
        )
