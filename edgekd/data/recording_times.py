"""Recordings that are named by the time they began (`times_in_names`), and what of them belongs together.

A recorder cuts what it hears into files, every minute or every hour. Neighbours in time hold the same ship, the same
rain, the same bird: parted by a split, they tell how well a network remembers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Literal

from edgekd.config import DataConfig
from edgekd.data.index import Clip, ClipIndex, Note
from edgekd.data.times_in_names import TimePattern, may_name_a_time, parse_time_pattern, time_in_name
from edgekd.errors import UsageError

NEIGHBOURS_S = 3600.0
"""Beginnings of two recordings of one recorder that are no further apart are neighbours: many sleep between two."""

GroupBy = Literal["day", "deployment"]


@dataclass(frozen=True)
class Begun:
    """When a recording began, by its name, and what its recorder's files have in common.

    `time` has no zone: it is in UTC where the name tells one (`zoned`), else as the recorder's clock had it.
    `resolution`: s, of the last part that the name has.
    """

    deployment: str
    time: datetime
    zoned: bool = False
    resolution: float = 1.0


def begun(below: PurePosixPath, class_name: str = "", pattern: TimePattern | None = None) -> Begun | None:
    """What the name of a recording at `below` its data folder says, by `pattern` or as recorders write it; None where
    it names no time.

    The deployment is the folder, but for one of the class, and what stands in the name before the time. Raises
    `InputError` for a name that `pattern` reads in two ways.
    """
    found = time_in_name(below) if pattern is None else pattern.time_in(below)
    if found is None:
        return None
    folders = below.parent.parts
    folders = folders[: len(folders) - found.folders]
    parts = [part for part in folders if part.casefold() != class_name.casefold()]
    prefix = below.stem[: found.stands_at]
    if class_name:
        prefix = re.sub(rf"(?<![^\W_]){re.escape(class_name)}(?![^\W_])", "", prefix, flags=re.IGNORECASE)
    zoned = found.time.tzinfo is not None
    time = found.time.astimezone(UTC).replace(tzinfo=None) if zoned else found.time
    return Begun("/".join([*parts, prefix]).strip("/_-. "), time, zoned, found.resolution)


def pattern_of(config: DataConfig) -> TimePattern | None:
    """`config.time_pattern`, None where names are as recorders write them. Raises `UsageError` for a wrong one."""
    return None if config.time_pattern is None else parse_time_pattern(config.time_pattern)


def group_of(time: Begun, group_by: GroupBy) -> str:
    """The group of a recording that began at `time`."""
    day = f"{time.time:%Y-%m-%d}" if group_by == "day" else "deployment" if not time.deployment else ""
    return f"{time.deployment} {day}".strip()


def by_time(index: ClipIndex, group_by: GroupBy, pattern: TimePattern | None = None) -> ClipIndex:
    """`index` where recordings that are a group of their own, and named by a time, are one group a day of their
    deployment, or one a deployment.

    Raises `UsageError` where that is none of them.
    """
    own = _own(index, pattern)
    times = {name: time for name, time in own.items() if time is not None}
    if not times:
        why = (
            "no recording is named by the time it began (data.time_pattern)"
            if own
            else "each recording has a group by a table"
        )
        raise UsageError(f"data.group_by = '{group_by}': {index.root}: {why}. Unset it.")
    groups = {name: group_of(time, group_by) for name, time in times.items()}
    clips = tuple(replace(clip, group=groups.get(clip.group, clip.group)) for clip in index)
    left = [name for name, time in own.items() if time is None]
    notes = index.notes
    if left:
        notes += (
            Note("groups", f"{len(left)} recordings are named by no time ({left[0]}): each is a group of its own."),
        )
    return replace(index, clips=clips, notes=notes)


def neighbours(index: ClipIndex, pattern: TimePattern | None = None) -> list[Note]:
    """A note about recordings that are a group of their own, though by their names others begin within the hour."""
    deployments: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for name, time in _own(index, pattern).items():
        if time is not None:
            deployments[time.deployment].append((time.time, name))
    near: list[str] = []
    for begun_at in deployments.values():
        begun_at.sort()
        close = [(later[0] - earlier[0]).total_seconds() <= NEIGHBOURS_S for earlier, later in pairwise(begun_at)]
        near += [
            name
            for (_, name), before, after in zip(begun_at, [False, *close], [*close, False], strict=True)
            if before or after
        ]
    if not near:
        return []
    days = len({(deployment, time.date()) for deployment, times in deployments.items() for time, _ in times})
    return [
        Note(
            "groups",
            f"{len(near)} recordings of {_plural(len(deployments), 'deployment')} are named by times within an hour of "
            f"each other's ({near[0]}, {near[1]}, ...) and each is a group of its own: a split may part neighbours. "
            f"Keep them together: --set data.group_by=day ({_plural(days, 'group')}) or deployment "
            f"({len(deployments)}), or by a table (groups.csv, edgekd data manifest).",
        )
    ]


def _own(index: ClipIndex, pattern: TimePattern | None) -> dict[str, Begun | None]:
    """The recordings that are a group of their own, each with what its name says."""
    own: dict[str, Begun | None] = {}
    for clip in index:
        # Cheap questions first: there may be hundreds of thousands of clips.
        if clip.group not in own and clip.group.endswith(clip.path.name) and clip.group == index.name(clip):
            may_tell = pattern is not None or may_name_a_time(clip.group)
            own[clip.group] = begun(PurePosixPath(clip.group), _class(index, clip), pattern) if may_tell else None
    return own


def _class(index: ClipIndex, clip: Clip) -> str:
    return index.label_names[clip.label] if clip.label >= 0 else ""


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
