"""Which recordings are meant: files, all audio in folders, and patterns such as `site*/2024*.wav`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from edgekd.data.walk import audio_files, why_no_audio
from edgekd.errors import InputError, UsageError


@dataclass(frozen=True)
class Source:
    """A file to listen to. `name` is what tables call it, the path as it was given; `below` is where it lies in the
    folder that was given, or in that in front of a pattern, and where a table of its own goes in that of the tables."""

    path: Path
    name: str
    below: str


def find(paths: Sequence[str | Path]) -> list[Source]:
    """The recordings of `paths`, in their order, those of a folder or a pattern in alphabetical order, none twice.

    A file that is named is taken whatever its ending. Raises `InputError` for a path where nothing is, and for a folder
    without audio.
    """
    found: dict[Path, Source] = {}
    for given in paths:
        for source in _of_one(Path(given)):
            found.setdefault(source.path.absolute(), source)
    return list(found.values())


def check_tables(sources: Sequence[Source]) -> None:
    """Raises `UsageError` where tables of two recordings would have one name."""
    first: dict[str, Source] = {}
    for source in sources:
        place = str(Path(source.below).with_suffix(""))
        if place in first:
            raise UsageError(
                f"{first[place].name}, {source.name}: would have one table, {place}. Name the folder that both are in, "
                "or put the pattern in quotes ('site*/*.wav'), or have one table of all: --out FILE.csv."
            )
        first[place] = source


def _of_one(path: Path) -> list[Source]:
    if path.is_dir():
        files = audio_files(path)
        if not files:
            raise InputError(f"{path}: no recordings here.{why_no_audio(path)}")
        return [Source(file, file.as_posix(), file.relative_to(path).as_posix()) for file in files]
    if path.exists() or not set(str(path)) & set("*?["):
        return [Source(path, path.as_posix(), path.name)]  # where nothing is, opening it says so
    try:
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as failure:
        raise InputError(f"{path}: no pattern that can be followed: {failure}.") from None
    if not matches:
        raise InputError(f"{path}: no file matches.")
    front = Path(*takewhile(lambda part: not set(part) & set("*?["), path.parts))
    files = [each for each in matches if each.is_file()]
    # What '**' matches of a folder it matches with all files in it.
    folders = [] if files else [each for each in matches if each.is_dir()]
    files += [file for folder in folders for file in audio_files(folder)]
    if not files:
        raise InputError(f"{path}: no recordings here.{why_no_audio(folders[0]) if folders else ''}")
    return [Source(file, file.as_posix(), file.relative_to(front).as_posix()) for file in files]
