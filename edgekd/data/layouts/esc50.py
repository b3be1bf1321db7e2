"""ESC-50 and its subset ESC-10 (K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM MM 2015).

    root/meta/esc50.csv    (or .tsv, .txt) filename, fold, target, category, esc10, src_file, take
    root/audio/            the clips, named as the table says (any format)

Clips cut from one source recording share `src_file`: that is the group. The five folds are the authors' own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgekd.audio.read import AUDIO_SUFFIXES, probe
from edgekd.data.index import Clip, ClipIndex, LeftOut
from edgekd.data.layouts.layout import WrongLayout
from edgekd.errors import InputError
from edgekd.files.csv_table import Line, check_names, missing_files, read_table
from edgekd.files.table_text import table_at

if TYPE_CHECKING:
    from edgekd.config import DataConfig

Subset = Literal["esc50", "esc10"]

TABLE = Path("meta/esc50.csv")
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")


class _Row(NamedTuple):
    line: Line
    path: Path
    fold: int
    target: int
    category: str
    source: str
    in_esc10: bool


def recognise(root: Path) -> bool:
    """Whether the table is there and lists more than ESC-10. Raises `InputError` for a damaged one."""
    return subset_at(root) == "esc50"


def load(root: Path, _: DataConfig) -> ClipIndex:
    """`load_subset` of all clips."""
    return load_subset(root, "esc50")


def load_subset(root: Path, subset: Subset) -> ClipIndex:
    """One row a file, in the order of the table; labels are the targets present, in order, counted from 0.

    Clips are 5 s long: a shorter clip length takes the beginning of each, a longer one pads. Raises `InputError` for
    another layout, a table without a needed column, with a value that is not one or with categories that contradict
    each other, and audio that is missing or unreadable.
    """
    _check_layout(root)
    listed = _rows(root)
    rows = [row for row in listed if row.in_esc10 or subset == "esc50"]
    if not rows:
        raise InputError(f"{root / TABLE}: lists no clip of {subset}.")
    categories = _categories(rows)
    _check_audio(root, rows)
    targets = sorted(categories)
    if len(targets) < 2:
        raise InputError(f"{root / TABLE}: only one class ({rows[0].category!r}); a classifier needs at least two.")
    return ClipIndex(
        dataset=subset,
        root=root,
        classes=tuple(categories[target] for target in targets),
        clips=tuple(
            Clip(row.path, targets.index(row.target), row.source, row.fold, 0, probe(row.path).frames) for row in rows
        ),
        left_out=tuple(
            LeftOut(row.path, f"of other classes than {subset} has", lost=False)
            for row in listed
            if not row.in_esc10 and subset == "esc10" and row.path.is_file()
        ),
        tables=(_table(root) or root / TABLE,),
    )


def subset_at(root: Path) -> Subset | None:
    """What the table of `root` lists: clips of ESC-10 alone, or others too; None where there is no table."""
    if _table(root) is None:
        return None
    return "esc10" if all(row.in_esc10 for row in _rows(root)) else "esc50"


def _check_layout(root: Path) -> None:
    table, audio = _table(root), root / "audio"
    if table is not None and audio.is_dir():
        return
    if table is not None:
        raise InputError(f"{audio}: no such folder, but {table} lists the clips in it. Put it there.")
    if audio.is_dir() and any(path.suffix.lower() in AUDIO_SUFFIXES for path in audio.iterdir()):
        raise InputError(
            f"{root / TABLE}: not there; it tells the clips' classes and folds. Download it with the data set."
        )
    raise WrongLayout(root)


def _rows(root: Path) -> list[_Row]:
    return [
        _Row(
            line,
            root / "audio" / line.text("filename"),
            line.whole("fold"),
            line.whole("target"),
            line.text("category"),
            line.text("src_file"),
            line.text("esc10").lower() in ("true", "1"),
        )
        for line in read_table(_table(root) or root / TABLE, COLUMNS)
    ]


def _table(root: Path) -> Path | None:
    return table_at(root / TABLE.parent, TABLE.name)


def _categories(rows: list[_Row]) -> dict[int, str]:
    """The category of each target."""
    check_names((row.line, row.category) for row in rows)
    categories: dict[int, str] = {}
    targets: dict[str, int] = {}
    for row in rows:
        known = categories.setdefault(row.target, row.category)
        if known != row.category:
            raise row.line.error(f"target {row.target} has two categories, {known!r} and {row.category!r}.")
        if targets.setdefault(row.category, row.target) != row.target:
            raise row.line.error(f"category {row.category!r} is target {targets[row.category]} and {row.target}.")
    return categories


def _check_audio(root: Path, rows: list[_Row]) -> None:
    first: dict[Path, _Row] = {}
    for row in rows:
        if first.setdefault(row.path, row) is not row:
            raise row.line.error(f"{row.path.name!r} is in line {first[row.path].line.number} already.")
        if not row.source:
            raise row.line.error("src_file is empty: it says which clips are of one recording.")
    missing = missing_files((row.line, row.path) for row in rows)
    if missing:
        gone = {row.fold for row in rows} - {row.fold for row in rows if row.path not in missing}
        folds = f", with all of fold {', '.join(map(str, sorted(gone)))}" if gone else ""
        raise InputError(
            f"{next(iter(missing))}: listed in {root / TABLE} but not there ({len(missing)} of {len(rows)} missing"
            f"{folds}). Restore the audio, or take the lines out."
        )
