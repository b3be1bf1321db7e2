"""What a layout of a data set is: how its folder is recognised, and how its clips are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.config import DataConfig
    from edgekd.data.index import ClipIndex
    from edgekd.progress import Progress

Recognise = Callable[[Path], bool]
Load = Callable[[Path, "DataConfig"], "ClipIndex"]


class WrongLayout(InputError):
    """Raised by a loader for a folder that is not in its layout at all; `load_index` says what would fit."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"{root}: not in this layout.")


@dataclass(frozen=True)
class Layout:
    """A layout by its name: what a folder of it holds, for messages, and its two functions.

    `recognise(root)` tells by names and places of files whether `root`, an existing folder, has the layout;
    `load(root, config)` reads it. Raises `WrongLayout` for a folder that has not, `InputError` for one with a mistake.
    """

    name: str
    expected: str
    recognise: Recognise
    load: Load
    table: bool = False
    """Whether a table, too, may be given in place of a folder."""
    told_by: Recognise | None = None
    """Whether such a table is of this layout; None: if it is of no other."""
    several: bool = False
    """Whether a clip may be of several classes."""
    folds: int = 0
    """How many folds its authors made; 0: none, or as many as a table says."""
    named: bool = False
    """Whether a table names the recordings, so that what it does not name is left out on purpose."""
    class_folders: bool = False
    """Whether it says what the folders in `root` are: of such layouts the first that is recognised is the one."""
    beside: Recognise | None = None
    """Whether it is there beside another layout, where that takes more than `recognise`."""
    make: Callable[[DataConfig, Progress], Path] | None = None
    """Makes the recordings as the configuration says, once, and returns their folder; None: they are the user's."""
