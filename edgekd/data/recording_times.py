"""Recordings that are named by the time they began, as recorders do, and what of them belongs together.

    20240501_120000.WAV, 24F3190361DA5BA0_20240501_120000.WAV, 5CD2F2C0.WAV      AudioMoth, new and old
    SITE1_20240501_120000.wav, SMU04123_20240501_120000_000.wav                  Wildlife Acoustics, PAMGuard
    5146.240501120000.wav                                                        SoundTrap
    ICLISTENHF1251_20171104T203623.103Z.wav, 2024-05-01T12-00-00.wav             icListen, OOI
    20240501/120000.wav, 1714564800.wav                                          a folder a day; seconds since 1970

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

from edgekd.data.index import Clip, ClipIndex, Note
from edgekd.errors import UsageError

NEIGHBOURS_S = 3600.0
"""Beginnings of two recordings of one recorder that are no further apart are neighbours: many sleep between two."""

GroupBy = Literal["day", "deployment"]

_DATE = r"(?P<Y>20\d\d|19[89]\d)[-_.]?(?P<m>0[1-9]|1[0-2])[-_.]?(?P<d>0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?P<H>[01]\d|2[0-3])[-_:.h]?(?P<M>[0-5]\d)(?:[-_:.m]?(?P<S>[0-5]\d))?"
_WHOLE = re.compile(rf"(?<!\d){_DATE}[-_ T.]{{0,2}}{_CLOCK}(?!\d)")
_DAY, _TIME = re.compile(rf"(?<!\d){_DATE}(?!\d)"), re.compile(rf"(?<!\d){_CLOCK}(?!\d)")
_SOUNDTRAP = re.compile(r"(?<=\d\.)(?P<Y>\d\d)(?P<m>\d\d)(?P<d>\d\d)(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)$")
_HEXADECIMAL = re.compile(r"[0-9A-F]{8}")
_SECONDS = re.compile(r"(?<!\d)(1\d{9})(?:\d{3})?(?!\d)")
_SINCE_1970 = range(1_300_000_000, 2_100_000_000)  # 2011 to 2036


@dataclass(frozen=True)
class Begun:
    """When a recording began, by its name, and what its recorder's files have in common."""

    deployment: str
    time: datetime


def begun(below: PurePosixPath, class_name: str = "") -> Begun | None:
    """What the name of a recording at `below` its data folder says; None where it names no time.

    The deployment is the folder, but for one of the class, and what stands in the name before the time.
    """
    folder, stem = below.parent, below.stem
    found = _found(stem)
    if found is None and (day := _DAY.search(folder.name)) and (clock := _TIME.match(stem)):
        time = _time(day.groupdict() | clock.groupdict())
        found, folder = (None if time is None else (0, time)), folder.parent
    if found is None:
        return None
    parts = [part for part in folder.parts if part.casefold() != class_name.casefold()]
    prefix = stem[: found[0]]
    if class_name:
        prefix = re.sub(rf"(?<![^\W_]){re.escape(class_name)}(?![^\W_])", "", prefix, flags=re.IGNORECASE)
    return Begun("/".join([*parts, prefix]).strip("/_-. "), found[1])


def group_of(time: Begun, group_by: GroupBy) -> str:
    """The group of a recording that began at `time`."""
    day = f"{time.time:%Y-%m-%d}" if group_by == "day" else "deployment" if not time.deployment else ""
    return f"{time.deployment} {day}".strip()


def by_time(index: ClipIndex, group_by: GroupBy) -> ClipIndex:
    """`index` where recordings that are a group of their own, and named by a time, are one group a day of their
    deployment, or one a deployment.

    Raises `UsageError` where that is none of them.
    """
    own = _own(index)
    times = {name: time for name, time in own.items() if time is not None}
    if not times:
        why = "no recording is named by the time it began" if own else "each recording has a group by a table"
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


def neighbours(index: ClipIndex) -> list[Note]:
    """A note about recordings that are a group of their own, though by their names others begin within the hour."""
    deployments: defaultdict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for name, time in _own(index).items():
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


def _own(index: ClipIndex) -> dict[str, Begun | None]:
    """The recordings that are a group of their own, each with what its name says."""
    own: dict[str, Begun | None] = {}
    for clip in index:
        # Cheap questions first: there may be hundreds of thousands of clips.
        if clip.group not in own and clip.group.endswith(clip.path.name) and clip.group == index.name(clip):
            may_tell = sum(map(str.isdigit, clip.group)) >= 8 or _HEXADECIMAL.fullmatch(clip.path.stem)
            own[clip.group] = begun(PurePosixPath(clip.group), _class(index, clip)) if may_tell else None
    return own


def _class(index: ClipIndex, clip: Clip) -> str:
    return index.label_names[clip.label] if clip.label >= 0 else ""


def _found(stem: str) -> tuple[int, datetime] | None:
    """Where in a name the time begins, and the time."""
    for match in (*_WHOLE.finditer(stem), *_SOUNDTRAP.finditer(stem)):
        time = _time(match.groupdict())
        if time is not None:
            return match.start(), time
    seconds = _SECONDS.search(stem)
    if _HEXADECIMAL.fullmatch(stem) and int(stem, 16) in _SINCE_1970:
        return 0, datetime.fromtimestamp(int(stem, 16), UTC)
    if seconds and int(seconds[1]) in _SINCE_1970:
        return seconds.start(), datetime.fromtimestamp(int(seconds[1]), UTC)
    return None


def _time(parts: dict[str, str | None]) -> datetime | None:
    year, month, day, hour, minute, second = (int(parts[part] or 0) for part in "YmdHMS")
    try:
        return datetime(year if year > 99 else 2000 + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("s" if count != 1 else "")
