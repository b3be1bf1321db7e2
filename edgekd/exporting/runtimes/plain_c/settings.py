"""What a board's TOML says of its core, in the table `[c]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.section import Section

CoreName = Literal["host", "cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"]


class PlainCSettings(Section):
    """The table `[c]` of a board: what the C is compiled for."""

    core: CoreName = Field(description="host: the machine it is exported on; others are emulated where that can be")
    flash_bytes: int | None = Field(None, ge=1 << 10, description="for code and constants; more is refused")
