"""Time zones: of the clocks of recorders, as somebody names them, and local times in UTC.

Where clocks are put forward an hour is missing, and where they are put back one is there twice. Recorders seldom
follow: a file that is named by a time in the missing hour shows that its recorder's clock kept one offset throughout.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from edgekd.errors import InputError, UsageError, shown

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?", re.IGNORECASE)
_FURTHEST = timedelta(hours=14)


def parse_zone(text: str) -> tzinfo:
    """`UTC`, an offset (`+02:00`, `-3`, `UTC+5:30`) or a name of the IANA database (`Europe/Oslo`).

    Raises `UsageError` for what is none of them, with names that are near.
    """
    plain = text.strip()
    if plain.upper() in ("UTC", "GMT", "Z"):
        return UTC
    offset = _OFFSET.fullmatch(plain)
    if offset is not None:
        size = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        if size > _FURTHEST:
            raise UsageError(f"--time-zone {text}: no clock is {offset[1]}{size} h from UTC. Write e.g. +02:00.")
        return timezone(size if offset[1] == "+" else -size)
    try:
        return ZoneInfo(plain)
    except (ValueError, OSError, KeyError):  # a path, a folder, a name that is not there
        pass
    known = available_timezones()
    if not known:
        raise UsageError(
            f"--time-zone {text}: this Python has no database of time zones (pip install tzdata). An offset needs "
            "none: +02:00."
        )
    places: dict[str, str] = {}
    for name in sorted(known):
        places.setdefault(name.rpartition("/")[2].casefold(), name)
        places[name.casefold()] = name
    wanted = plain.casefold().replace(" ", "_")
    near = [places[wanted]] if wanted in places else [places[key] for key in difflib.get_close_matches(wanted, places)]
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    raise UsageError(f"--time-zone {shown(text)} is no time zone.{hint} Write UTC, an offset (+02:00) or Europe/Oslo.")


def in_utc(local: datetime, zone: tzinfo, what: str) -> tuple[datetime, bool]:
    """The time `local` of clocks in `zone` in UTC, and whether it was there twice: then it is the first of the two.

    Raises `InputError`, about `what`, for a time that was never: clocks were put forward past it.
    """
    first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) != local:
        kept = f"{local.replace(tzinfo=zone, fold=0):%z}"
        raise InputError(
            f"{what}: {local:%Y-%m-%d %H:%M:%S} never was in {zone}, where clocks were put forward past it. So the "
            f"recorder's clock kept one offset throughout: name that, e.g. --time-zone {kept[:3]}:{kept[3:5]}."
        )
    return first, second > first
