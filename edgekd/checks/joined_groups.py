"""The groups that an audit asks for: what shares audio is one group, and what shares audio with that, too.

`write_groups` writes them as the `groups.csv` that goes beside the recordings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.checks.fingerprint import near_duplicates
from edgekd.data.clip_store import ClipStore
from edgekd.data.disjoint_groups import DisjointGroups
from edgekd.data.index import SIDES, ClipIndex
from edgekd.data.layouts.folder import GROUPS
from edgekd.errors import InputError, UsageError
from edgekd.files.tables import write_csv
from edgekd.progress import Progress, silent


@dataclass(frozen=True)
class JoinedGroups:
    """The groups in a file: how many there were and are, how many clips the largest has, and the classes that have too
    few for a split. `parted`: how many of them the data set's own folds or sides part. `beside`: where the file is to
    lie."""

    file: Path
    before: int
    after: int
    largest: int
    clips: int
    too_few: tuple[str, ...]
    parted: int
    beside: Path

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "file": str(self.file), "beside": str(self.beside)}


def check_groups_file(file: Path, overwrite: bool) -> None:
    """Raises `UsageError` for a file that is there and is not to be replaced."""
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists already. Replace it (--overwrite; its groups stay together) or name another.")


def write_groups(file: Path, index: ClipIndex, store: ClipStore, progress: Progress = silent) -> JoinedGroups:
    """Write `file`: a line a recording of `index`, with the group that it has, joined to those it shares audio with.

    Raises `InputError` where it cannot be written, or would have to name a recording that is not below `index.root`.
    """
    joined = _joined(index, store, progress)
    lines = [("path", "group")]
    group_of = {clip.path: (before.group, clip.group) for before, clip in zip(index, joined, strict=True)}
    for path, (before, after) in group_of.items():
        if path.is_relative_to(index.root):
            lines.append((path.relative_to(index.root).as_posix(), after))
        elif before != after:
            raise InputError(
                f"{path}: is to be of group '{after}', but lies outside {index.root}, so {GROUPS} cannot name it. Say "
                "so in the column 'group' of the table."
            )
    write_csv(file, lines)
    groups = {(clip.group, label) for clip in joined for label in np.flatnonzero(index.memberships[clip.label])}
    places = {(clip.group, clip.fold, clip.side) for clip in joined}
    return JoinedGroups(
        file=file,
        before=len({clip.group for clip in index}),
        after=len({group for group, _ in groups}),
        largest=max(Counter(clip.group for clip in joined).values()),
        clips=len(joined),
        too_few=tuple(
            name for label, name in enumerate(index.classes) if sum(of == label for _, of in groups) < len(SIDES)
        ),
        parted=sum(count > 1 for count in Counter(group for group, *_ in places).values()),
        beside=index.root / GROUPS,
    )


def _joined(index: ClipIndex, store: ClipStore, progress: Progress) -> ClipIndex:
    """`index` with what shares audio in one group, under the name of the first. Of many copies not every two are found
    at once, so it is looked for again until nothing is left."""
    while matches := near_duplicates(store, [clip.group for clip in index], progress):
        place = {group: number for number, group in enumerate(dict.fromkeys(clip.group for clip in index))}
        groups = DisjointGroups(place)
        for match in matches:
            met = {groups.name_of(index.clips[row].group) for row in match.rows}
            first, *others = sorted(met, key=place.__getitem__)
            for other in others:
                groups.join(other, into=first)
        index = replace(index, clips=tuple(replace(clip, group=groups.name_of(clip.group)) for clip in index))
    return index
