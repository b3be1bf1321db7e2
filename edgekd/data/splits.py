"""Grouped splits, and the audit that no group is on two sides.

Windows of one recording, or recordings of one vessel, resemble each other more than they resemble their class. A
split that parts them measures memory, not classification: the leak that makes published sonar scores unreachable at
sea. So whole groups are dealt out, either by the data set's own sides or folds or, stratified by class, in given
shares (greedily, the largest group first, to the side that lacks most of its classes, as Sechidis et al. do for
several labels, ECML 2011; then single groups are moved while that brings the shares closer). Shares are of clips, that
is of minutes: one long recording weighs as much as many short ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.config import DataConfig
from edgekd.data.folds import folds_of, validation_fold
from edgekd.data.index import SIDES, Clip, ClipIndex, Side, Split
from edgekd.errors import GateError, InputError, UsageError
from edgekd.escaping import csv_text, from_csv_text
from edgekd.files.tables import read_csv, write_csv

COLUMNS = ("path", "class", "group", "fold", "start", "length", "side")


def make_split(index: ClipIndex, config: DataConfig) -> Split:
    """Train, validation and test rows: by the data set's own sides, or folds, where every clip has one, else by group.

    By fold: `fold` is the test side, `val_fold` (None: the next one there, cyclically) validation. By group, or when
    `given_split` is off: `split` gives the shares of each class's clips, met as nearly as whole groups permit,
    `split_seed` which groups.

    Raises `UsageError` for a fold that is not there, `InputError` for sides or folds that only some clips have and for
    a class that is not, or cannot be, on every side, `GateError` when the data set's own sides or folds part a group.
    """
    given = _given(index) if config.given_split else None
    if given == "side":
        sides = [clip.side for clip in index if clip.side is not None]
    elif given == "fold":
        sides = _by_fold(index, config)
    else:
        sides = _by_group(index, config)
    split = _split(sides)
    advice = "Choose another fold" if given == "fold" else "Add some"
    advice += ", or split by group: --set data.given_split=false."
    for side in SIDES:
        labels = sorted({index.clips[row].label for row in split.side(side)})
        if not labels:
            raise InputError(f"{index.root}: the data set's own split has no {side} side. {advice}")
        present = index.memberships[labels].sum(axis=0) > 0
        for label, name in enumerate(index.classes):
            if not present[label]:
                raise InputError(f"{index.root}: class '{name}' has no clip on the {side} side. {advice}")
    check_no_leak(index, split)
    return split


def check_no_leak(index: ClipIndex, split: Split) -> None:
    """Raises `GateError` naming a group that is on two sides, or a row that is."""
    side_of: dict[str, Side] = {}
    seen: dict[int, Side] = {}
    for side in SIDES:
        for row in split.side(side):
            group = index.clips[row].group
            if side_of.setdefault(group, side) != side:
                raise GateError(
                    f"{index.root}: the split leaks: group '{group}' is on the {side_of[group]} and the {side} side. "
                    "Keep its clips together, or split by group: --set data.given_split=false."
                )
            if row in seen:
                raise GateError(f"{index.root}: the split holds clip {row} ({index.clips[row].path.name}) twice.")
            seen[row] = side


def write_splits(path: Path, index: ClipIndex, split: Split) -> None:
    """Write `splits.csv`: a line a clip, in the order of `index`, paths relative to its root."""
    side_of = {row: side for side in SIDES for row in split.side(side)}
    write_csv(path, [COLUMNS, *([*line, side_of[row]] for row, line in enumerate(_lines(index)))])


def read_splits(path: Path, index: ClipIndex) -> Split:
    """The split in a `splits.csv`. Raises `InputError` where it is unreadable or its clips are not those of `index`.

    Groups that have become one since, by a table or a rule that was not there when the split was made, are no other
    data; whether it still keeps groups apart is for `check_no_leak` to say.
    """
    header, *lines = read_csv(path)
    if tuple(header) != COLUMNS:
        raise InputError(f"{path}: columns are {', '.join(header)}; needed: {', '.join(COLUMNS)}.")
    if len(lines) != len(index):
        raise InputError(
            f"{path}: {len(lines)} clips, but {index.root} now has {len(index)}. Restore the data of the run."
        )
    sides: list[Side] = []
    became: defaultdict[str, set[str]] = defaultdict(set)
    group = COLUMNS.index("group")
    for line, expected in zip(lines, _lines(index), strict=True):
        if len(line) == len(COLUMNS):
            became[line[group]].add(expected[group])
    for number, (line, expected) in enumerate(zip(lines, _lines(index), strict=True), 2):
        side = next((side for side in SIDES if side == line[-1]), None) if line else None
        found = line[:-1]
        if len(line) == len(COLUMNS) and not _same(found, expected) and len(became[line[group]]) == 1:
            found = [*line[:group], expected[group], *line[group + 1 : -1]]
        if not _same(found, expected) or side is None:
            raise InputError(
                f"{path}, line {number}: {','.join(line)} does not match the data, which has {','.join(expected)} "
                f"there (side: one of {', '.join(SIDES)}). Restore the data of the run."
            )
        sides.append(side)
    return _split(sides)


def recordings_on(path: Path, side: Side) -> list[str]:
    """The recordings that the clips on a `side` in a `splits.csv` are of, by their names there. Raises `InputError`."""
    header, *lines = read_csv(path)
    if tuple(header) != COLUMNS:
        raise InputError(f"{path}: columns are {', '.join(header)}; needed: {', '.join(COLUMNS)}.")
    return list(dict.fromkeys(from_csv_text(line[0]) for line in lines if line[-1:] == [side]))


def _same(line: list[str], expected: list[str]) -> bool:
    """Whether a line is what `_lines` has; tables of version 0.1 had names as they are."""
    return line == expected or line == [*map(from_csv_text, expected)]


def _lines(index: ClipIndex) -> Iterator[list[str]]:
    """What identifies each clip, as text."""
    for clip in index:
        name = index.name(clip)
        fold = "" if clip.fold is None else str(clip.fold)
        told = (name, index.label_names[clip.label], clip.group)
        yield [*map(csv_text, told), fold, str(clip.start), str(clip.length)]


def _split(sides: list[Side]) -> Split:
    train, validation, test = (tuple(row for row, on in enumerate(sides) if on == side) for side in SIDES)
    return Split(train, validation, test)


def _given(index: ClipIndex) -> Literal["side", "fold"] | None:
    """Which part of the split the data set brings along. Raises `InputError` where only some clips have it."""
    kinds: tuple[Literal["side", "fold"], ...] = ("side", "fold")
    for kind in kinds:
        without = [clip for clip in index if getattr(clip, kind) is None]
        if not without:
            return kind
        if len(without) < len(index):
            raise InputError(
                f"{index.root}: some clips have a {kind} and {len(without)} have none ({index.name(without[0])}). Give "
                "each one, or split by group: --set data.given_split=false."
            )
    return None


def _by_fold(index: ClipIndex, config: DataConfig) -> list[Side]:
    folds = folds_of(index)
    available = ", ".join(map(str, folds))
    if len(folds) < 3:
        raise InputError(f"{index.root}: only folds {available}; train, validation and test need at least three.")
    for name, fold in (("fold", config.fold), ("val_fold", config.val_fold)):
        if fold is not None and fold not in folds:
            raise UsageError(f"{name} = {fold}: {index.dataset} has no such fold. Available: {available}.")
    if config.val_fold == config.fold:
        raise UsageError(f"val_fold = {config.val_fold}: is the test fold. Choose another of {available}.")
    validation = validation_fold(folds, config)

    def side(clip: Clip) -> Side:
        return "test" if clip.fold == config.fold else "validation" if clip.fold == validation else "train"

    return [side(clip) for clip in index]


def _by_group(index: ClipIndex, config: DataConfig) -> list[Side]:
    clips_of: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for clip in index:
        clips_of[clip.group][clip.label] += 1
    groups = sorted(clips_of)
    # Clips of each class in each group; last, where clips may be of several classes, those of none.
    of_none = (index.memberships.sum(axis=1) == 0).astype(np.int64)[:, None]
    columns = np.concatenate([index.memberships, of_none], axis=1) if of_none.any() else index.memberships
    counts = np.zeros((len(groups), columns.shape[1]))
    for number, group in enumerate(groups):
        for label, clips in clips_of[group].items():
            counts[number] += clips * columns[label]
    for label, name in enumerate(index.classes):
        found = int((counts[:, label] > 0).sum())
        if found < len(SIDES):
            raise InputError(
                f"{index.root}: class '{name}' has {found} group(s) (recordings or vessels) and needs {len(SIDES)}: "
                "one each for train, validation and test. Add recordings or take the class out."
            )
    side_of = _deal(counts, np.array(config.split), np.random.default_rng(config.split_seed))
    for label, name in enumerate(index.classes):
        for number, side in enumerate(SIDES):
            if not counts[side_of == number, label].any():
                raise InputError(
                    f"{index.root}: class '{name}' cannot be on the {side} side too, because its "
                    f"{int((counts[:, label] > 0).sum())} groups are shared with other classes. Add recordings."
                )
    chosen = {group: SIDES[side] for group, side in zip(groups, side_of.tolist(), strict=True)}
    return [chosen[clip.group] for clip in index]


def _deal(counts: NDArray[np.float64], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """The side (0, 1, 2) of each group; `counts (G, K)` clips of each class, `shares (3,)`. A clip of several classes
    counts in each.

    No class missing on a side comes first; then, little squared distance of the clips on each side from those wanted.
    """
    wanted = np.outer(shares, counts.sum(axis=0))  # (3, K)

    def cost(dealt: NDArray[np.float64]) -> tuple[int, float]:
        return int((dealt == 0).sum()), float(((dealt - wanted) ** 2).sum())

    shuffled = rng.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    side_of = np.zeros(len(counts), dtype=np.intp)
    dealt = np.zeros_like(wanted)
    for group in order:
        # Of (lack - clips)^2 on the side that gets the group, only the mixed term differs between sides.
        side_of[group] = int(np.argmax((wanted - dealt) @ counts[group]))
        dealt[side_of[group]] += counts[group]

    improved = True
    while improved:
        improved = False
        for group in order[::-1]:  # small groups first: they disturb least
            present = int(side_of[group])
            costs = []
            for side in range(len(shares)):
                dealt[present] -= counts[group]
                dealt[side] += counts[group]
                costs.append(cost(dealt))
                dealt[side] -= counts[group]
                dealt[present] += counts[group]
            best = costs.index(min(costs))
            if costs[best] < costs[present]:
                dealt[present] -= counts[group]
                dealt[best] += counts[group]
                side_of[group] = best
                improved = True
    return side_of
