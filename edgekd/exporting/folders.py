"""What a folder that a user names holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgekd.errors import InputError
from edgekd.files.folders import put_back


def kind_of(folder: Path) -> Literal["run", "bundle"]:
    """What `folder` holds, by its description file. Raises `InputError` for one that is neither."""
    put_back(folder)
    if (folder / "manifest.json").is_file():
        return "bundle"
    if (folder / "config.toml").is_file():
        return "run"
    if folder.is_dir():
        raise InputError(f"{folder}: neither a run folder (config.toml) nor a bundle (manifest.json).")
    reason = "a file" if folder.exists() else "no such folder"
    raise InputError(f"{folder}: {reason}. Name a run ('edgekd distill') or a bundle ('edgekd export').")
