"""UrbanSound8K (J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research", ACM MM 2014).

    root/audio/fold1 .. fold10/<fsID>-<classID>-<occurrenceID>-<sliceID>.wav
    root/metadata/UrbanSound8K.csv      optional: slice_file_name, fsID, start, end, salience, fold, classID, class

Copies with the folds, and the table, directly under the root are read too. 8732 slices of up to 4 s, each at the rate,
width and number of channels somebody uploaded it with. Slices cut from one Freesound recording share `fsID`: that is
the group. The ten folds are the authors' own; a copy may lack some of them.

All that is needed is in the file names. Where the table is there, it gives the names of the classes and has to agree.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgekd.audio.read import probe
from edgekd.data.index import Clip, ClipIndex
from edgekd.data.layouts.folder import class_folders
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.walk import audio_files
from edgekd.errors import InputError
from edgekd.files.csv_table import Line, check_names, read_table
from edgekd.files.table_text import table_at

if TYPE_CHECKING:
    from edgekd.config import DataConfig

TABLES = (Path("metadata/UrbanSound8K.csv"), Path("UrbanSound8K.csv"))
COLUMNS = ("slice_file_name", "fsID", "fold", "classID", "class")
CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)

_FOLD = re.compile(r"fold([0-9]+)", re.IGNORECASE)
_NAME = re.compile(r"([0-9]+)-([0-9]+)-[0-9]+-[0-9]+")


class _Slice(NamedTuple):
    """One file, and what its name and folder say."""

    path: Path
    fold: int
    source: str
    target: int


def recognise(root: Path) -> bool:
    """Whether there are fold folders with a file named as a slice."""
    return any(_NAME.fullmatch(path.stem) for _, folder in _folds(root) for path in audio_files(folder))


def load(root: Path, _: DataConfig) -> ClipIndex:
    """One row a file, fold by fold; labels are the classes present, in the order of their ids, counted from 0.

    A shorter clip length takes the beginning of each slice, a longer one pads. Raises `InputError` for another layout,
    a file that is not named as above or cannot be read, and files and table that do not agree. Folds with no folder
    may be missing, though the table lists them.
    """
    slices = [_named(path, fold) for fold, folder in _folds(root) for path in audio_files(folder)]
    if not slices:
        raise WrongLayout(root)
    table = next((found for name in TABLES if (found := table_at(root / name.parent, name.name))), None)
    names = dict(enumerate(CLASSES)) if table is None else _names_agreed(table, slices)
    for slice_ in slices:
        if slice_.target not in names:
            raise InputError(f"{slice_.path}: class {slice_.target} in its name; UrbanSound8K has 0 to 9.")
    targets = sorted({slice_.target for slice_ in slices})
    if len(targets) < 2:
        raise InputError(f"{root}: only one class ('{names[targets[0]]}'); a classifier needs at least two.")
    return ClipIndex(
        dataset="urbansound8k",
        root=root,
        classes=tuple(names[target] for target in targets),
        clips=tuple(
            Clip(path, targets.index(target), source, fold, 0, probe(path).frames)
            for path, fold, source, target in slices
        ),
        tables=() if table is None else (table,),
    )


def _folds(root: Path) -> list[tuple[int, Path]]:
    """The fold folders and their numbers, in order."""
    for parent in (root / "audio", root):
        folders = class_folders(parent) if parent.is_dir() else []
        numbered = [(int(match[1]), path) for path in folders if (match := _FOLD.fullmatch(path.name))]
        if numbered:
            return sorted(numbered)
    return []


def _named(path: Path, fold: int) -> _Slice:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        raise InputError(
            f"{path}: not named <fsID>-<classID>-<occurrenceID>-<sliceID>.wav, as every slice of UrbanSound8K is. "
            "Restore its name or take it out."
        )
    return _Slice(path, fold, match[1], int(match[2]))


def _names_agreed(table: Path, slices: list[_Slice]) -> dict[int, str]:
    """The name of each class. Raises `InputError` where the table and the files do not say the same."""
    lines: dict[str, Line] = {}
    for line in read_table(table, COLUMNS):
        name = Path(line.text("slice_file_name")).stem
        if lines.setdefault(name, line) is not line:
            raise line.error(f"{name!r} is in line {lines[name].number} already.")

    found = {path.stem for path, *_ in slices}
    unlisted = [path for path, *_ in slices if path.stem not in lines]
    if unlisted:
        raise InputError(
            f"{unlisted[0]}: not in {table} ({len(unlisted)} such). Restore the table, or take it away: "
            "the names of the files are enough."
        )
    for path, fold, source, target in slices:
        line = lines[path.stem]
        said = {"fold": fold, "fsID": int(source), "classID": target}
        for column, value in said.items():
            if line.whole(column) != value:
                raise line.error(
                    f"{column} is {line.whole(column)}, but {value} in {path.parent.name}/{path.name}. "
                    "Restore the file or the table."
                )
    folds = {fold for _, fold, *_ in slices}
    missing = [name for name, line in lines.items() if name not in found and line.whole("fold") in folds]
    if missing:
        fold = lines[missing[0]].whole("fold")
        raise InputError(
            f"{table}, line {lines[missing[0]].number}: no file {missing[0]!r} in fold {fold} ({len(missing)} missing "
            f"in folds that are there). Restore the files or take their lines out."
        )
    return _class_names(list(lines.values()))


def _class_names(lines: list[Line]) -> dict[int, str]:
    check_names((line, line.text("class")) for line in lines)
    names: dict[int, str] = {}
    targets: dict[str, int] = {}
    for line in lines:
        target, name = line.whole("classID"), line.text("class")
        if names.setdefault(target, name) != name:
            raise line.error(f"classID {target} is {name!r} here and {names[target]!r} above.")
        if targets.setdefault(name, target) != target:
            raise line.error(f"{name!r} has classID {target} here and {targets[name]} above.")
    return names
