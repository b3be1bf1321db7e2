"""Deployments: the recordings of one recorder in the order of time, and what is odd about them.

Names tell when a recording began, its length when it ended. So what lies between it and the next is known: nothing, a
gap, or less than nothing. One recorder cannot begin a file before the last one ended: where two overlap its clock was
set back, or the files of two recorders lie together. Where names carry a running number, too, that says in which order
they were made, and a clock that jumps back is seen wherever it jumps to.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from edgekd.audio.read import AudioInfo, probe
from edgekd.data.recording_times import Begun, begun
from edgekd.data.time_zones import in_utc
from edgekd.data.times_in_names import TimePattern
from edgekd.data.walk import audio_files, why_no_audio
from edgekd.errors import InputError, UsageError
from edgekd.number_formats import span

SLACK_S = 1.0
"""Names are rounded to seconds: what is no further apart follows at once."""


@dataclass(frozen=True)
class Beginning:
    """When a recording began: `utc`, None where the zone of `named`, the time in its name, is not known."""

    deployment: str
    named: datetime
    utc: datetime | None
    resolution: float

    @property
    def order(self) -> datetime:
        """By which recordings are put in order, without a zone."""
        return self.named if self.utc is None else self.utc.replace(tzinfo=None)


@dataclass(frozen=True)
class Beginnings:
    """When recordings began, by their names; those whose names tell no time are not in `times`. `notes`: what whoever
    uses them should know, a line each."""

    times: Mapping[str, Beginning]
    notes: tuple[str, ...] = ()

    def utc(self, recording: str, seconds: float = 0.0) -> datetime | None:
        """The time `seconds` into a recording, None where it is not known."""
        beginning = self.times.get(recording)
        known = None if beginning is None else beginning.utc
        return None if known is None else known + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Part:
    """One recording of a deployment."""

    recording: str
    beginning: Beginning
    seconds: float
    rate: int

    @property
    def set_clock(self) -> bool:
        """Whether its time is none of those that clocks begin with which nobody has set: of 1970, 1980, or the first
        day of 2000."""
        named = self.beginning.named
        return named.year not in (1970, 1980) and named.date() != date(2000, 1, 1)

    def gap_before(self, following: Part) -> float:
        """Seconds between its end and the beginning of the `following` one; below 0 where they overlap. 0 where names
        are no finer."""
        apart = (following.beginning.order - self.beginning.order).total_seconds() - self.seconds
        slack = max(SLACK_S, self.beginning.resolution, following.beginning.resolution)
        return 0.0 if abs(apart) <= slack else apart


@dataclass(frozen=True)
class Deployment:
    """The recordings of one recorder: `parts` in the order of time; `numbers`: those in their names, where they count
    recordings."""

    name: str
    parts: tuple[Part, ...]
    numbers: Mapping[str, int]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    def gaps(self) -> list[tuple[Part, Part, float]]:
        """Neighbours with nothing recorded between them, and for how many seconds."""
        return [
            (one, other, gap)
            for one, other in pairwise(self.parts)
            if (gap := one.gap_before(other)) > 0 and one.set_clock == other.set_clock
        ]

    def overlaps(self) -> list[tuple[Part, Part, float]]:
        """Neighbours of which the later begins before the earlier ends, and by how many seconds."""
        return [(one, other, -gap) for one, other in pairwise(self.parts) if (gap := one.gap_before(other)) < 0]

    def jumps(self) -> list[tuple[Part, Part, float]]:
        """Recordings that follow each other by number, of which the later one is named by an earlier time."""
        if not self.numbers:
            return []
        made = sorted(self.parts, key=lambda part: self.numbers[part.recording])
        apart = [
            (one, other, (one.beginning.order - other.beginning.order).total_seconds()) for one, other in pairwise(made)
        ]
        return [(one, other, back) for one, other, back in apart if back > max(SLACK_S, other.beginning.resolution)]

    def changes(self) -> list[tuple[Part, Part]]:
        """Neighbours with different rates."""
        return [(one, other) for one, other in pairwise(self.parts) if one.rate != other.rate]

    def notes(self, *, gaps: bool = True) -> list[str]:
        """What is odd, each in a line with its place and the next step; `gaps`, which need none, too."""
        of = f"deployment {self.name}" if self.name else "deployment"
        return [
            f"{of}: {line}"
            for line in (
                *(self._gap_notes() if gaps else ()),
                *self._jump_notes(),
                *self._rate_notes(),
                *self._unset_notes(),
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        def listed(pairs: Iterable[tuple[Part, Part, float]]) -> list[dict[str, Any]]:
            return [
                {"after": one.recording, "before": other.recording, "seconds": round(apart, 3)}
                for one, other, apart in pairs
            ]

        return {
            "deployment": self.name,
            "recordings": [
                {
                    "recording": part.recording,
                    "named": part.beginning.named.isoformat(),
                    "time_utc": None if part.beginning.utc is None else part.beginning.utc.isoformat(),
                    "seconds": part.seconds,
                    "rate": part.rate,
                }
                for part in self.parts
            ],
            "seconds": self.seconds,
            "gaps": listed(self.gaps()),
            "overlaps": listed(self.overlaps()),
            "jumps_back": listed(self.jumps()),
            "notes": self.notes(),
        }

    def _gap_notes(self) -> list[str]:
        gaps = self.gaps()
        if not gaps:
            return []
        lengths = [length for *_, length in gaps]
        usual = median(lengths)
        if len(gaps) > 2 and len(gaps) == len(self.parts) - 1 and max(lengths) - min(lengths) <= 2 * SLACK_S:
            return [f"a gap of {span(usual)} behind each recording."]
        one, other, length = max(gaps, key=lambda gap: gap[2])
        if len(gaps) == 1:
            return [f"a gap of {span(length)} between {one.recording} and {other.recording}."]
        return [
            f"{len(gaps)} gaps, {span(sum(lengths))} in all; the longest, {span(length)}, between {one.recording} and "
            f"{other.recording}."
        ]

    def _jump_notes(self) -> list[str]:
        jumps = self.jumps()
        if jumps:
            one, other, back = jumps[0]
            return [
                f"the clock jumped back by {span(back)} between {one.recording} and {other.recording}{_such(jumps)}: "
                "times on one side of it are wrong. Rename these recordings by the right time."
            ]
        overlaps = self.overlaps()
        if overlaps:
            one, other, shared = overlaps[0]
            return [
                f"{other.recording} begins {span(shared)} before {one.recording} ends{_such(overlaps)}: the clock "
                "jumped back, or recordings of two recorders lie together. Give each recorder a folder, or rename "
                "recordings by the right time."
            ]
        return []

    def _rate_notes(self) -> list[str]:
        changes = self.changes()
        if not changes:
            return []
        one, other = changes[0]
        return [
            f"the rate changes from {one.rate} to {other.rate} Hz between {one.recording} and {other.recording}"
            f"{_such(changes)}: they do not hear the same band. If two recorders lie together, give each a folder."
        ]

    def _unset_notes(self) -> list[str]:
        unset = [part for part in self.parts if not part.set_clock]
        if not unset:
            return []
        named = f"{unset[0].recording} is named {unset[0].beginning.named:%Y-%m-%d %H:%M}{_such(unset)}"
        return [f"{named}, as by a clock that was not set. Rename it by the right time, or take it out."]


def beginnings(recordings: Sequence[str], pattern: TimePattern | None = None, zone: tzinfo | None = None) -> Beginnings:
    """When each of the `recordings`, paths below their folder, began: by `pattern`, or as recorders write it. `zone`:
    of the clock, for the names that tell none.

    Raises `InputError` where `pattern` fits no name or reads one in two ways, and for a time that never was in `zone`;
    `UsageError` where `zone` is given and no name tells a time, or `pattern` and times have no zone.
    """
    found = {name: begun(PurePosixPath(name), pattern=pattern) for name in recordings}
    named = {name: time for name, time in found.items() if time is not None}
    without = [name for name, time in found.items() if time is None]
    if not named and recordings and pattern is not None:
        raise InputError(
            f"none of {len(recordings)} recordings fits --time-pattern {pattern.text!r}, e.g. {recordings[0]}. Write "
            "it as their names have it."
        )
    if not named and recordings and zone is not None:
        raise UsageError(
            f"--time-zone: no recording is named by a time, e.g. {recordings[0]}. Say where it stands in their names "
            "(--time-pattern '%Y%m%d_%H%M%S'), or leave the zone out."
        )
    local = [name for name, time in named.items() if not time.zoned]
    if local and zone is None and pattern is not None:
        raise UsageError(
            f"--time-pattern: tells {_clock(local[0], named)}, but not in which zone. Add --time-zone UTC, or that of "
            "the recorder's clock (+02:00, Europe/Oslo)."
        )
    notes = []
    if local and zone is None:
        notes.append(
            f"names tell when recordings began ({_clock(local[0], named)}), but not in which zone: times in UTC stay "
            "empty. Add --time-zone UTC, or that of the recorder's clock (+02:00, Europe/Oslo)."
        )
    elif zone is not None and local and len(local) < len(named):
        one = next(name for name, time in named.items() if time.zoned)
        notes.append(
            f"{len(named) - len(local)} names tell their zone themselves ({one}, ...): --time-zone is of the other "
            f"{len(local)}."
        )
    if without and named:
        some = without[0] + (", ..." if without[1:] else "")
        notes.append(f"{len(without)} of {len(recordings)} recordings are named by no time ({some}).")
    times, twice = dict(as_named(named).times), []
    if zone is not None:
        for name in local:
            utc, repeated = in_utc(times[name].named, zone, name)
            times[name] = replace(times[name], utc=utc)
            twice += [name] if repeated else []
    if twice:
        notes.append(
            f"{twice[0]}{_such(twice)}: this time was there twice in {zone}, where clocks were put back: taken for the "
            "first. If the recorder's clock kept one offset, name that (--time-zone +01:00)."
        )
    return Beginnings(times, tuple(notes))


def as_named(times: Mapping[str, Begun]) -> Beginnings:
    """Beginnings as names tell them, without asking for the zone of those that tell none."""
    return Beginnings(
        {
            name: Beginning(
                time.deployment, time.time, time.time.replace(tzinfo=UTC) if time.zoned else None, time.resolution
            )
            for name, time in times.items()
        }
    )


def survey(
    audio: Path, pattern: TimePattern | None = None, zone: tzinfo | None = None
) -> tuple[Beginnings, list[Deployment]]:
    """When the recordings in a folder and below it began, and the deployments that they are of. Raises as `beginnings`
    does, and `InputError` for a folder without recordings and for one that cannot be read."""
    if not audio.is_dir():
        raise InputError(f"{audio}: {'a file, no folder' if audio.exists() else 'no such folder'}.")
    files = {path.relative_to(audio).as_posix(): path for path in audio_files(audio)}
    if not files:
        raise InputError(f"{audio}: no recordings here.{why_no_audio(audio)}")
    times = beginnings(list(files), pattern, zone)
    return times, deployments({name: probe(files[name]) for name in times.times}, times)


def deployments(recordings: Mapping[str, AudioInfo], times: Beginnings) -> list[Deployment]:
    """The deployments that these recordings are of, in the order of their names; recordings that are named by no time
    are left out. A number before the time that counts the recordings of a folder is no other recorder's."""
    by_name: defaultdict[str, list[Part]] = defaultdict(list)
    for recording, beginning in times.times.items():
        info = recordings[recording]
        by_name[beginning.deployment].append(Part(recording, beginning, info.seconds, info.rate))
    numbers: dict[str, int] = {}
    for counted in _counted(by_name):
        name = re.sub(r"[_\W]*\d+$", "", counted[0][0])
        for old, number in counted:
            numbers[by_name[old][0].recording] = number
            by_name[name] = [*by_name.get(name, []), *by_name.pop(old)]
    found = []
    for name, parts in sorted(by_name.items()):
        parts.sort(key=lambda part: (part.beginning.order, part.recording))
        known = {part.recording: numbers[part.recording] for part in parts if part.recording in numbers}
        found.append(Deployment(name, tuple(parts), known if len(known) == len(parts) else _numbers_behind(parts)))
    return found


def _counted(by_name: Mapping[str, Sequence[Part]]) -> list[list[tuple[str, int]]]:
    """The names of deployments that are one, with a running number at the end: three or more, of one recording each,
    whose numbers leave none out and mostly follow the time. Serial numbers of recorders do not."""
    alike: defaultdict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
    for name, parts in by_name.items():
        match = re.fullmatch(r"(.*?)(\d{3,})", name)
        if match and len(parts) == 1:
            alike[match[1], len(match[2])].append((name, int(match[2])))
    counted = []
    for names in alike.values():
        names.sort(key=lambda each: each[1])
        follow = [by_name[one][0].gap_before(by_name[other][0]) >= 0 for (one, _), (other, _) in pairwise(names)]
        if _counts([number for _, number in names]) and 2 * sum(follow) >= len(follow):
            counted.append(names)
    return counted


def _numbers_behind(parts: Sequence[Part]) -> dict[str, int]:
    """The numbers at the end of names, where they count the recordings."""
    found = [re.search(r"\d[^\W_]*[_\-](\d{1,6})$", PurePosixPath(part.recording).stem) for part in parts]
    numbers = [int(match[1]) for match in found if match is not None and not _is_clock(match[1], parts)]
    if len(numbers) < len(parts) or not _counts(sorted(numbers)):
        return {}
    return dict(zip((part.recording for part in parts), numbers, strict=True))


def _is_clock(digits: str, parts: Sequence[Part]) -> bool:
    """Whether digits at the end of a name are of its time: 20240501_120000."""
    return any(f"{part.beginning.named:%H%M%S}".startswith(digits) for part in parts)


def _counts(numbers: Sequence[int]) -> bool:
    return len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))


def _clock(name: str, named: Mapping[str, Begun]) -> str:
    return f"{name}: {named[name].time:%Y-%m-%d %H:%M:%S}"


def _such(found: Sequence[object]) -> str:
    return f" ({len(found)} such)" if len(found) > 1 else ""
