"""Where the boards (`targets/*.toml`) and recipes (`calibration/*.toml`) are: inside the wheel, or beside the
package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def resource_folder(kind: Literal["targets", "calibration"]) -> Path:
    """The folder with the shipped TOML files of `kind`."""
    installed = _PACKAGE / "_resources" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def named_resources(kind: Literal["targets", "calibration"]) -> dict[str, Path]:
    """Name -> TOML file, for every shipped file of `kind`."""
    return {path.stem: path for path in sorted(resource_folder(kind).glob("*.toml"))}
