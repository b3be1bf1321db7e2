"""What the parts of a configuration have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


# Kept absolute: a run is resumed, exported and profiled from other folders than the one it was started in.
InputPath = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
