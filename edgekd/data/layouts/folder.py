"""A folder a class: the layout for one's own recordings.

    root/<class>/**/<recording>.wav      any format libsndfile reads
    root/groups.csv                      optional: path (relative to root), group; any table (`table_text`)

A recording longer than a clip is cut into consecutive windows; its windows, and all recordings with the same group (a
vessel, a hydrophone, a day), stay on one side of every split. Without `groups.csv` each file is its own group.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.audio.read import AUDIO_SUFFIXES, probe
from edgekd.data.index import SIDES, Clip, ClipIndex, Side
from edgekd.data.layouts.layout import WrongLayout
from edgekd.data.walk import audio_files, holds_audio, why_no_audio
from edgekd.errors import InputError
from edgekd.files.csv_table import read_table
from edgekd.files.spelling import alike, difference, one_spelling
from edgekd.files.table_text import table_at

if TYPE_CHECKING:
    from edgekd.config import DataConfig

GROUPS = "groups.csv"

# Folders that say how a data set is divided, not what was recorded: their layout needs a loader of its own.
_NOT_CLASSES = re.compile(r"train(ing)?|val(id|idation)?|test|audio|meta(data)?|fold_?\d+", re.IGNORECASE)


def recognise(root: Path) -> bool:
    """Whether there are folders of recordings, and none that divides a data set holds recordings."""
    classes, divisions = _classes_and_divisions(root)
    return bool(classes) and not any(map(holds_audio, divisions))


def several_classes(root: Path) -> bool:
    """Whether there are two classes or more: beside another data set, one folder of audio may be anything."""
    return len(_classes_and_divisions(root)[0]) > 1


def load(root: Path, config: DataConfig, dataset: str = "folder") -> ClipIndex:
    """The windows of every recording, class by class in alphabetical order.

    Raises `InputError` when there are no class folders, fewer than two, two whose names are alike, one
    without audio, an unreadable recording, or a `groups.csv` that names an unknown file or leaves one out.
    """
    folders = class_folders(root)
    if not folders:
        raise WrongLayout(root)
    if len(folders) < 2:
        raise InputError(f"{root}: only one class folder ('{folders[0].name}'); a classifier needs at least two.")
    check_spelling(folders)
    recordings: list[tuple[int, Path]] = []
    for label, folder in enumerate(folders):
        files = audio_files(folder)
        if not files:
            kinds = " ".join(sorted(AUDIO_SUFFIXES))
            raise InputError(
                f"{folder}: class '{folder.name}' has no audio files ({kinds}). Add some or take it out."
                f"{why_no_audio(folder)}"
            )
        recordings += [(label, path) for path in files]
    groups = groups_of(root, [path for _, path in recordings])
    clips = [
        Clip(path, label, groups[path], None, start, length)
        for label, path in recordings
        for start, length in windows(path, config.clip_seconds)
    ]
    return ClipIndex(dataset, root, tuple(folder.name for folder in folders), tuple(clips))


def class_folders(root: Path) -> list[Path]:
    """The folders directly under `root`, hidden ones left out, in alphabetical order."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def sides(folder: Path) -> Iterator[tuple[Side, Path]]:
    """The sides of a data set (train, validation, test) that have a folder `audio` in `folder`."""
    for side in SIDES:
        for path in class_folders(folder):
            if path.name.lower() == side and (path / "audio").is_dir():
                yield side, path


def holds_sides(folder: Path) -> bool:
    """Whether a side with `audio/` lies directly in `folder`."""
    return any(sides(folder))


def check_spelling(folders: Iterable[Path]) -> None:
    """Raises `InputError` for two class folders whose names are alike: the same class, or a mistake."""
    named: dict[str, Path] = {}
    for folder in folders:
        named.setdefault(folder.name, folder)
    for name, other in one_spelling(named).items():
        if other != name:
            raise InputError(
                f"{named[name]}: class {name!r} differs from {other!r} ({named[other]}) only in "
                f"{difference(name, other)}. Rename one, or put their recordings together."
            )


def windows(path: Path, clip_seconds: float) -> list[tuple[int, int]]:
    """`(start, length)` in the file's samples of its consecutive clips.

    What is left at the end counts from half a clip on. A recording shorter than a clip is one short window.
    """
    info = probe(path)
    return cut(0, info.frames, clip_seconds * info.rate)


def cut(start: int, stop: int, samples: float) -> list[tuple[int, int]]:
    """`windows` between two samples of a recording, of as many `samples` as a clip has at its rate."""
    length = max(1, round(samples))
    whole, left = divmod(stop - start, length)
    pieces = [(start + number * length, length) for number in range(whole)]
    if 2 * left >= length or not pieces:
        pieces.append((start + whole * length, left))
    return pieces


def _classes_and_divisions(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders in `root` that hold recordings of a class, and those that divide a data set."""
    folders = class_folders(root)
    divisions = [path for path in folders if _NOT_CLASSES.fullmatch(path.name) or holds_sides(path)]
    return [path for path in folders if path not in divisions and holds_audio(path)], divisions


def groups_of(root: Path, recordings: list[Path], prefix: str = "") -> dict[Path, str]:
    """The group of each of the `recordings` below `root`: that of `groups.csv`, or without one the file, under
    `prefix`. Raises `InputError` for a table that names an unknown file or leaves one out."""
    names = {path.relative_to(root).as_posix(): path for path in recordings}
    table = table_at(root, GROUPS)
    if table is None:
        return {path: prefix + name for name, path in names.items()}
    groups = listed_groups(root, table, recordings)
    left_out = [name for name, path in names.items() if path not in groups]
    if left_out:
        raise InputError(f"{table}: no group for '{left_out[0]}' ({len(left_out)} left out). Add a line for each.")
    return groups


def listed_groups(root: Path, table: Path, recordings: Iterable[Path]) -> dict[Path, str]:
    """The group of each of the `recordings` below `root` that a `groups.csv` lists.

    Raises `InputError` for an unknown file, one without a group, and one with two.
    """
    names = {_path_as_written(path.relative_to(root).as_posix()): path for path in recordings}
    groups: dict[Path, str] = {}
    for line in read_table(table, ("path", "group")):
        path = names.get(_path_as_written(line.text("path"))) or names.get(_path_as_written(line.values["path"]))
        if path is None:
            raise line.error(f"'{line.text('path')}' is no audio file under {root}.")
        group = line.text("group")
        if not group or alike(groups.setdefault(path, group)) != alike(group):
            raise line.error(f"'{line.text('path')}' needs exactly one group.")
    return groups


def _path_as_written(path: str) -> str:
    """A path as tables may have it: from Windows, from here, in another Unicode form than the disk's."""
    return unicodedata.normalize("NFC", path.replace("\\", "/").removeprefix("./"))
