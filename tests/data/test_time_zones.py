from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from edgekd.data.time_zones import in_utc, parse_zone
from edgekd.errors import InputError, UsageError

NOON = datetime(2024, 5, 1, 12)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        *(("UTC", 0.0), ("z", 0.0), ("+02:00", 2.0), ("-3", -3.0), ("UTC+5:30", 5.5), ("gmt-0330", -3.5)),
        *(("Europe/Oslo", 2.0), ("Asia/Kathmandu", 5.75), ("EST", -5.0)),
    ],
)
def test_zones_by_offset_and_name(text: str, hours: float) -> None:
    assert NOON.replace(tzinfo=parse_zone(text)).utcoffset() == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("oslo", "Did you mean Europe/Oslo?"),
        ("europe/oslo", "Did you mean Europe/Oslo?"),
        ("Europe/Olso", "Europe/Oslo"),
        ("New York", "America/New_York"),
        ("+25", "no clock is"),
        ("../../etc/passwd", "no time zone"),
        ("Europe", "no time zone"),
    ],
)
def test_what_is_no_zone_is_refused_with_what_is_near(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="--time-zone") as refused:
        parse_zone(text)
    assert hint in str(refused.value)


def test_local_time_in_utc() -> None:
    utc, twice = in_utc(NOON, parse_zone("Europe/Oslo"), "a.wav")
    assert (utc.isoformat(), twice) == ("2024-05-01T10:00:00+00:00", False)


def test_an_hour_that_was_there_twice_is_the_first_and_told() -> None:
    utc, twice = in_utc(datetime(2024, 10, 27, 2, 30), parse_zone("Europe/Oslo"), "a.wav")
    assert (utc.isoformat(), twice) == ("2024-10-27T00:30:00+00:00", True)


@pytest.mark.parametrize(
    ("zone", "time", "offset"),
    [("Europe/Oslo", datetime(2024, 3, 31, 2, 30), "+01:00"), ("America/New_York", datetime(2024, 3, 10, 2), "-05:00")],
)
def test_an_hour_that_never_was_is_refused_with_the_offset(zone: str, time: datetime, offset: str) -> None:
    with pytest.raises(InputError, match=rf"a\.wav: .* never was in {zone}.*--time-zone {offset.replace('+', '.')}\."):
        in_utc(time, parse_zone(zone), "a.wav")
