"""ESC-10: the ten classes of ESC-50 that its authors found easiest, in ESC-50's layout (see `esc50`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.data.layouts import esc50

if TYPE_CHECKING:
    from edgekd.config import DataConfig
    from edgekd.data.index import ClipIndex


def recognise(root: Path) -> bool:
    """Whether the table of ESC-50 is there and lists clips of ESC-10 alone. Raises `InputError` for a damaged one."""
    return esc50.subset_at(root) == "esc10"


def load(root: Path, _: DataConfig) -> ClipIndex:
    """The rows of the table with `esc10 = True`. Raises as `esc50.load` does."""
    return esc50.load_subset(root, "esc10")
