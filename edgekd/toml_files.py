"""Settings in TOML: read from files, and written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.errors import UsageError
from edgekd.escaping import json_text


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file. Raises `UsageError` naming the file (and line) when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such configuration file.") from None
    except ValueError as failure:  # besides what is no TOML or no UTF-8, an integer of more than 4,300 digits
        raise UsageError(f"{path}: not valid TOML: {failure}.") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid TOML: nested too deeply.") from None
    except OSError as failure:
        raise UsageError(f"{path}: cannot be read: {failure.strerror}.") from None


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """TOML of nested mappings of strings, numbers, booleans and flat lists; None is left out, as TOML has no null."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    # A JSON scalar or flat list is also a TOML one.
    lines = [f"{_key(key)} = {json_text(value)}" for key, value in plain.items()]
    text = "\n".join(lines) + "\n" if lines else ""
    if prefix and lines:
        text = f"\n[{prefix}]\n{text}"
    return text + "".join(to_toml(table, f"{prefix}.{key}" if prefix else key) for key, table in tables.items())


def _key(key: str) -> str:
    """A key of TOML, in quotes where it must be (`ears:ears`)."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json_text(key)
