"""What the parts of a configuration have in common."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from edgekd.escaping import is_utf8


def _absolute(path: Path) -> Path:
    """Raises `ValueError` for a name that `config.toml`, which is in UTF-8, could not hold."""
    if not is_utf8(str(path)):
        raise ValueError("not a name in UTF-8; rename it, or go there and name it from within")
    return path.expanduser().absolute()


Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
# Kept absolute: a run is resumed, exported and profiled from other folders than the one it was started in.
InputPath = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """A part of the configuration: immutable; unknown keys, numbers that are not finite, and yes or no in place of a
    number refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, field: ValidationInfo) -> Any:
        entries = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(entry, bool) for entry in entries):
            wanted = set(_types_in(cls.model_fields[str(field.field_name)].annotation))
            if not {bool, Any} & wanted:
                raise ValueError("neither true nor false is meant here")
        return value


def _types_in(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of: `int`, `None` of `int | None`."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _types_in(part)
