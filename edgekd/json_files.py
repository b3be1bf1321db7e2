"""JSON that edgekd has written, read back with its types checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edgekd.config import Model, parse
from edgekd.errors import InputError, UsageError

# Types of what is read: a number is taken from a number alone, not from text or a truth value.
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Amount = Annotated[float, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=0)]


def read_json(path: Path, advice: str) -> Any:
    """The contents of a JSON file. Raises `InputError`, which ends in `advice`, for one that cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as failure:
        raise InputError(f"{path}: cannot be read: {failure.strerror}. {advice}") from None
    except RecursionError:
        raise InputError(f"{path}: cannot be read as JSON: nested too deeply. {advice}") from None
    except ValueError as failure:  # besides what is no JSON or no UTF-8, an integer of more than 4,300 digits
        raise InputError(f"{path}: cannot be read as JSON: {failure}. {advice}") from None


def checked(model: type[Model], values: Any, source: str, advice: str) -> Model:
    """`config.parse` of what a program wrote: a mistake in it is nobody's setting, but damage.

    Raises `InputError`, which ends in `advice`.
    """
    try:
        return parse(model, values, source)
    except UsageError as failure:
        raise InputError(f"{failure}. {advice}") from None
