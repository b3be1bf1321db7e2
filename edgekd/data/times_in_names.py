"""The time in the name of a recording: as recorders write it, or by a pattern.

    20240501_120000.WAV, 24F3190361DA5BA0_20240501_120000.WAV, 5CD2F2C0.WAV      AudioMoth, new and old
    SITE1_20240501_120000.wav, SMU04123_20240501_120000_000.wav                  Wildlife Acoustics, PAMGuard
    SM3_0+1_20240501$120000.wav, S20240501T120000.123+1000_E.wav                 the same with a fix; Frontier Labs
    5146.240501120000.wav                                                        SoundTrap
    ICLISTENHF1251_20171104T203623.103Z.wav, 2024-05-01T12-00-00.wav             icListen, OOI
    20240501/120000.wav, 1714564800.wav                                          a folder a day; seconds since 1970

A pattern has the codes of `strptime`, as opensoundscape, ketos and PAMpal take them: `%Y%m%d_%H%M%S`. It is looked for
anywhere in the name without its ending, where no digit stands beside it; with `*` (anything) or `?` (one sign) it is
the whole name. `/` reaches into the folders above: `%Y-%m-%d/*_%H%M`.

Few names say their zone: those with a `Z` or an offset, and counts of seconds since 1970. What others mean is known to
whoever set the recorder's clock, and asked for (`edgekd.data.time_zones`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

from edgekd.audio.read import AUDIO_SUFFIXES
from edgekd.errors import InputError, UsageError, shown

_DATE = r"(?P<Y>20\d\d|19[789]\d)[-_.]?(?P<m>0[1-9]|1[0-2])[-_.]?(?P<d>0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?P<H>[01]\d|2[0-3])[-_:.h]?(?P<M>[0-5]\d)(?:[-_:.m]?(?P<S>[0-5]\d))?"
_FRACTION = r"(?:(?:[._,](?=\d{3}(?!\d))|\.(?=\d{6}(?!\d)))(?P<f>\d+))?"  # six digits behind a _ are another clock
_ZONE = _FRACTION + r"(?P<z>Z(?![A-Za-z])|[+-](?:0\d|1[0-4]):?(?:00|30|45)(?!\d))?"
_WHOLE = re.compile(rf"(?<!\d){_DATE}[-_ T.$]{{0,2}}{_CLOCK}(?!\d){_ZONE}")
_DAY, _TIME = re.compile(rf"(?<!\d){_DATE}(?!\d)"), re.compile(rf"(?<!\d){_CLOCK}(?!\d){_ZONE}")
_SOUNDTRAP = re.compile(r"(?<=\d\.)(?P<y>\d\d)(?P<m>\d\d)(?P<d>\d\d)(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)$")
_HEXADECIMAL = re.compile(r"[0-9A-F]{8}")
_SECONDS = re.compile(r"(?<!\d)(1\d{9})(?:\d{3})?(?!\d)")
_SINCE_1970 = range(1_300_000_000, 2_100_000_000)  # 2011 to 2036

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CODES = {
    "Y": r"(?:19|20)\d\d",
    "y": r"\d\d",
    "m": r"0[1-9]|1[0-2]",
    "b": "|".join(_MONTHS),
    "d": r"0[1-9]|[12]\d|3[01]",
    "j": r"[0-3]\d\d",
    "H": r"[01]\d|2[0-3]",
    "I": r"0[1-9]|1[0-2]",
    "p": r"am|pm",
    "M": r"[0-5]\d",
    "S": r"[0-5]\d",
    "f": r"\d{1,6}",
    "z": r"z|[+-](?:0\d|1[0-4]):?[0-5]\d",
    "s": r"\d{9,10}",
}
_DIGITS = frozenset("YymdjHIMSfs")
_JAVA = re.compile(r"y{2,4}|MM|dd|HH")


@dataclass(frozen=True)
class NamedTime:
    """What the name of a recording says: `time`, without a zone where it names none; `stands_at`: where in the name it
    begins; `folders`: how many of the folders above are part of it; `resolution`: s, of its last part."""

    time: datetime
    stands_at: int
    folders: int = 0
    resolution: float = 1.0


@dataclass(frozen=True)
class TimePattern:
    """A pattern in its parts, one for each folder and the last for the name."""

    text: str
    parts: tuple[re.Pattern[str], ...]

    def time_in(self, below: PurePosixPath) -> NamedTime | None:
        """The time in the name of the recording at `below` its folder, None where the name does not fit.

        Raises `InputError` for a name that the pattern reads in two ways.
        """
        names = [*below.parent.parts, below.stem]
        if len(names) < len(self.parts):
            return None
        found: list[re.Match[str]] = []
        for part, name in zip(self.parts, names[len(names) - len(self.parts) :], strict=True):
            matches = list(part.finditer(name))
            if len({match.group() for match in matches}) > 1:
                two = " or ".join(shown(match.group()) for match in matches[:2])
                raise InputError(
                    f"{below}: time pattern {self.text!r} finds {two} in this name. Write more of the name into the "
                    "pattern, with * for what differs."
                )
            if not matches:
                return None
            found.append(matches[0])
        values: dict[str, str] = {}
        for match in found:
            for group, value in match.groupdict().items():
                if values.setdefault(group[0], value) != value:
                    return None
        time = _time(values)
        if time is None:
            return None
        places = [match.start(group) for match in found[-1:] for group in match.groupdict()]
        resolution = 3600.0 if "M" not in values else 60.0 if "S" not in values else 1.0
        resolution = 1.0 if "s" in values else resolution
        return NamedTime(time, min(places, default=0), len(self.parts) - 1, resolution)


def time_in_name(below: PurePosixPath) -> NamedTime | None:
    """The time in the name of the recording at `below` its folder, as recorders write it; None where there is none."""
    found = _found(below.stem)
    if found is None and (day := _DAY.search(below.parent.name)) and (clock := _TIME.match(below.stem)):
        values = day.groupdict() | clock.groupdict()
        time = _time(values)
        found = None if time is None else NamedTime(time, 0, 1, _resolution(values))
    return found


def may_name_a_time(name: str) -> bool:
    """Whether `time_in_name` could find one in the path `name`; cheap, for hundreds of thousands of them."""
    return sum(map(str.isdigit, name)) >= 8 or _HEXADECIMAL.fullmatch(PurePosixPath(name).stem) is not None


def parse_time_pattern(text: str) -> TimePattern:
    """Raises `UsageError` for a code that is not known, and for a pattern without a day or an hour."""
    stem = text[: -len(suffix)] if (suffix := PurePosixPath(text).suffix.lower()) in AUDIO_SUFFIXES else text
    if not stem.strip("/ ") or stem.startswith("/") or "//" in stem or stem.endswith("/"):
        raise _wrong(text, "write how the time stands in a name.")
    used: list[str] = []
    parts = tuple(_part(text, part, used) for part in stem.split("/"))
    codes = {group[0] for group in used}
    if not codes:
        hint = " Its letters are of another program's." if _JAVA.search(text) else ""
        raise _wrong(text, f"has no code such as %Y.{hint}")
    if "s" in codes:
        return TimePattern(text, parts)
    if not (codes & {"Y", "y"} and ("j" in codes or ({"d"} <= codes and codes & {"m", "b"}))):
        raise _wrong(text, "tells no day: it needs %Y (or %y) with %m and %d, or with %j.")
    if "H" not in codes and not {"I", "p"} <= codes:
        raise _wrong(text, "tells no hour: it needs %H, or %I with %p.")
    return TimePattern(text, parts)


def _wrong(text: str, what: str) -> UsageError:
    return UsageError(
        f"time pattern {text!r}: {what} E.g. '%Y%m%d_%H%M%S' for SITE_20240501_120000.wav; codes: "
        f"{' '.join(f'%{code}' for code in _CODES)}; * is anything, ? one sign."
    )


def _part(whole: str, text: str, used: list[str]) -> re.Pattern[str]:
    """The part of a pattern that stands for a name, with a group for each code; two of one code are told apart by a
    number behind the letter."""
    pieces = re.findall(r"%.?|\*|\?|[^%*?]+", text, flags=re.DOTALL)
    expression, before = "", ""
    for piece in pieces:
        code = piece[1:] if piece.startswith("%") else ""
        if piece.startswith("%") and code != "%" and code not in _CODES:
            raise _wrong(whole, f"{piece} is no code that is read.")
        if code in _DIGITS and before in ("", "*"):
            expression += r"(?<!\d)"
        elif before in _DIGITS and piece == "*":
            expression += r"(?!\d)"
        if code in _CODES:
            group = f"{code}{len(used)}"
            used.append(group)
            expression += f"(?P<{group}>{_CODES[code]})"
        else:
            expression += {"*": ".*?", "?": ".", "%%": "%"}.get(piece) or re.escape(piece)
        before = code if code in _CODES else piece
    if before in _DIGITS:
        expression += r"(?!\d)"
    if any(piece in ("*", "?") for piece in pieces):
        expression = rf"\A{expression}\Z"
    return re.compile(expression, re.IGNORECASE)


def _found(stem: str) -> NamedTime | None:
    for match in (*_WHOLE.finditer(stem), *_SOUNDTRAP.finditer(stem)):
        values = match.groupdict()
        time = _time(values)
        if time is not None:
            return NamedTime(time, match.start(), resolution=_resolution(values))
    if _HEXADECIMAL.fullmatch(stem) and int(stem, 16) in _SINCE_1970:
        return NamedTime(datetime.fromtimestamp(int(stem, 16), UTC), 0)
    seconds = _SECONDS.search(stem)
    if seconds and int(seconds[1]) in _SINCE_1970:
        return NamedTime(datetime.fromtimestamp(int(seconds[1]), UTC), seconds.start())
    return None


def _resolution(values: dict[str, str | None]) -> float:
    return 1.0 if values["S"] else 60.0


def _time(values: dict[str, str | None] | dict[str, str]) -> datetime | None:
    """The time that the values of codes make, None where there is no such."""

    def number(code: str, otherwise: int = 0) -> int:
        value = values.get(code)
        return otherwise if value is None else int(value)

    if values.get("s"):
        return datetime.fromtimestamp(number("s"), UTC)
    year = number("Y") if values.get("Y") else number("y") + (2000 if number("y") < 69 else 1900)
    name = values.get("b")
    month = number("m", 1) if name is None else _MONTHS.index(name.lower()) + 1
    hour = number("H") if values.get("H") else number("I") % 12 + 12 * ((values.get("p") or "").lower() == "pm")
    fraction = int((values.get("f") or "0").ljust(6, "0"))
    try:
        time = datetime(year, month, number("d", 1), hour, number("M"), number("S"), fraction)
        if values.get("j"):
            day = time.replace(month=1, day=1) + timedelta(days=number("j") - 1)
            time = day if day.year == year and number("j") else None  # type: ignore[assignment]
    except ValueError:
        return None
    zone = values.get("z")
    if time is None or not zone:
        return time
    return time.replace(tzinfo=UTC if zone in "Zz" else _offset(zone))


def _offset(text: str) -> timezone:
    hours, minutes = int(text[1:3]), int(text[-2:])
    return timezone((1 if text[0] == "+" else -1) * timedelta(hours=hours, minutes=minutes))
