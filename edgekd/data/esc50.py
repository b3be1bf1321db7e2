"""ESC-50 and its subset ESC-10 (K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM MM 2015).

    root/meta/esc50.csv    filename, fold, target, category, esc10, src_file, take
    root/audio/            the clips, named as the table says (any format)

Clips cut from one source recording share `src_file`: that is the group. The five folds are the authors' own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from edgekd.data import wrong_layout
from edgekd.data.audio import probe
from edgekd.data.index import Clip, ClipIndex
from edgekd.errors import InputError

TABLE = Path("meta/esc50.csv")
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")


class _Row(NamedTuple):
    path: Path
    fold: int
    target: int
    category: str
    source: str


def load(root: Path, subset: Literal["esc50", "esc10"]) -> ClipIndex:
    """One row a file, in the order of the table; labels are the targets present, in order, counted from 0.

    Clips are 5 s long: a shorter clip length takes the beginning of each, a longer one pads. Raises `InputError` for
    another layout, a table without a needed column or with a value that is not one, and audio that is missing or
    unreadable.
    """
    if not (root / TABLE).is_file() or not (root / "audio").is_dir():
        raise wrong_layout(root, subset)
    rows = list(_rows(root, only_esc10=subset == "esc10"))
    if not rows:
        raise InputError(f"{root / TABLE}: lists no clip of {subset}.")
    categories: dict[int, str] = {}
    for row in rows:
        if categories.setdefault(row.target, row.category) != row.category:
            names = f"'{categories[row.target]}' and '{row.category}'"
            raise InputError(f"{root / TABLE}: target {row.target} has two categories, {names}.")
    missing = [row.path for row in rows if not row.path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: listed in {root / TABLE} but not there ({len(missing)} missing in all).")
    targets = sorted(categories)
    return ClipIndex(
        dataset=subset,
        root=root,
        classes=tuple(categories[target] for target in targets),
        clips=tuple(
            Clip(row.path, targets.index(row.target), row.source, row.fold, 0, probe(row.path).frames) for row in rows
        ),
    )


def is_esc10(root: Path) -> bool:
    """Whether every clip the table lists belongs to ESC-10."""
    return len(list(_rows(root, only_esc10=True))) == len(list(_rows(root, only_esc10=False)))


def _rows(root: Path, only_esc10: bool) -> Iterator[_Row]:
    table = root / TABLE
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if absent:
                raise InputError(f"{table}: no column {', '.join(absent)}; needed: {', '.join(COLUMNS)}.")
            for line in reader:
                if only_esc10 and (line["esc10"] or "").strip().lower() not in ("true", "1"):
                    continue
                try:
                    if None in line.values():
                        raise ValueError("a short row")
                    fold, target = int(line["fold"]), int(line["target"])
                    yield _Row(root / "audio" / line["filename"], fold, target, line["category"], line["src_file"])
                except (TypeError, ValueError):
                    raise InputError(
                        f"{table}, line {reader.line_num}: fold and target must be whole numbers in a full row, "
                        f"not {line['fold']!r} and {line['target']!r}."
                    ) from None
    except (UnicodeDecodeError, csv.Error) as failure:
        raise InputError(f"{table}: not a CSV table ({failure}).") from None
