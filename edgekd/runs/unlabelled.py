"""`unlabelled.csv`: which clips without labels a run is taught on, and why others are left out.

    path,group,start,length,dropped

in the order of their index; `dropped` is empty where a clip teaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekd.data.index import ClipIndex
from edgekd.errors import InputError
from edgekd.escaping import csv_text, from_csv_text
from edgekd.files.tables import read_csv, write_csv

FILE = "unlabelled.csv"
COLUMNS = ("path", "group", "start", "length", "dropped")


def write_unlabelled(path: Path, index: ClipIndex, dropped: Sequence[str]) -> None:
    """Write `unlabelled.csv`: a line a clip, in the order of `index`, and why it is `dropped (N,)`, empty where not."""
    write_csv(path, [COLUMNS, *([*line, why] for line, why in zip(_lines(index), dropped, strict=True))])


def read_unlabelled(path: Path, index: ClipIndex) -> tuple[int, ...]:
    """The rows of `index` that `unlabelled.csv` does not drop. Raises `InputError` where it is unreadable or its clips
    are not those of `index`."""
    header, *lines = read_csv(path)
    expected, found = list(_lines(index)), [line[:-1] for line in lines]
    as_they_are = [[*map(from_csv_text, line)] for line in expected]  # as version 0.1 wrote names
    if tuple(header) != COLUMNS or found not in (expected, as_they_are):
        raise InputError(
            f"{path}: {len(lines)} clips, which are not the {len(index)} that {index.root} has now. Restore the audio "
            "of the run."
        )
    return tuple(row for row, line in enumerate(lines) if not line[-1])


def _lines(index: ClipIndex) -> Iterator[list[str]]:
    for clip in index:
        yield [csv_text(index.name(clip)), csv_text(clip.group), str(clip.start), str(clip.length)]
