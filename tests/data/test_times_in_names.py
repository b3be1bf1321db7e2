from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from edgekd.data.times_in_names import NamedTime, parse_time_pattern, time_in_name
from edgekd.errors import InputError, UsageError


def by(pattern: str, name: str) -> str | None:
    found = parse_time_pattern(pattern).time_in(PurePosixPath(name))
    return None if found is None else found.time.isoformat()


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("A_20240501_120000.wav", "2024-05-01T12:00:00"),
        ("A_20240501T120000Z.wav", "2024-05-01T12:00:00+00:00"),
        ("ICLISTENHF1251_20171104T203623.103Z.wav", "2017-11-04T20:36:23.103000+00:00"),
        ("S20240501T120000.123456+1000_E.wav", "2024-05-01T12:00:00.123456+10:00"),
        ("20240501T120000-0330_REC.flac", "2024-05-01T12:00:00-03:30"),
        ("20240501_120000-121000.wav", "2024-05-01T12:00:00"),  # until when, and no zone
        ("20240501_120000_121000.wav", "2024-05-01T12:00:00"),
        ("PAM_20240501_120000_250.wav", "2024-05-01T12:00:00.250000"),
        ("SM3_0+1_20240501$120000.wav", "2024-05-01T12:00:00"),
        ("19700101_000003.WAV", "1970-01-01T00:00:03"),
        ("5CD2F2C0.WAV", "2019-05-08T15:16:16+00:00"),
        ("1714564800.wav", "2024-05-01T12:00:00+00:00"),
        ("20240501/120000Z.wav", "2024-05-01T12:00:00+00:00"),
    ],
)
def test_recorders_tell_time_and_some_their_zone(name: str, time: str) -> None:
    found = time_in_name(PurePosixPath(name))
    assert found is not None
    assert found.time.isoformat() == time


@pytest.mark.parametrize(
    ("pattern", "name", "time"),
    [
        ("%Y%m%d_%H%M%S", "SITE_20240501_120000_x.wav", "2024-05-01T12:00:00"),
        ("%y%m%d%H%M%S", "5146.240501120000.wav", "2024-05-01T12:00:00"),
        ("%d-%b-%Y %I.%M%p.wav", "01-May-2024 01.30PM.wav", "2024-05-01T13:30:00"),
        ("%Y-%j_%H%M", "x/2024-122_0930.flac", "2024-05-01T09:30:00"),
        ("%Y-%m-%d/*_%H%M", "deep/2024-05-01/hyd_1200.wav", "2024-05-01T12:00:00"),
        ("*_%Y%m%d_%H%M%S_*", "1_20240501_120000_20240501_121000.wav", "2024-05-01T12:00:00"),
        ("REC??%Y%m%d_%H%M%S", "REC0120240501_120000.wav", "2024-05-01T12:00:00"),
        ("%Y%m%d/%Y%m%d_%H", "20240501/20240501_07.wav", "2024-05-01T07:00:00"),
        ("%Y%m%dT%H%M%S.%f%z", "20240501T120000.5+0200.wav", "2024-05-01T12:00:00.500000+02:00"),
        ("%s", "a_1714564800.wav", "2024-05-01T12:00:00+00:00"),
        ("100%%_%Y%m%d_%H", "100%_20240501_12.wav", "2024-05-01T12:00:00"),
    ],
)
def test_a_pattern_finds_the_time(pattern: str, name: str, time: str) -> None:
    assert by(pattern, name) == time


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("%Y%m%d_%H%M%S", "1234520240501_120000.wav"),  # digits beside it
        ("%Y%m%d_%H%M%S", "20240501_1200001.wav"),
        ("%Y%m%d_%H%M%S", "20240230_120000.wav"),  # no such day
        ("%Y-%j_%H", "2023-366_00.wav"),
        ("%Y%m%d_%H%M%S%z", "20240501_120000+9900.wav"),  # no such zone
        ("%Y%m%d/%Y%m%d_%H", "20240501/20240502_07.wav"),  # folder and name differ
        ("%Y-%m-%d/%H", "12.wav"),
        ("A_%Y%m%d_%H*", "B_20240501_12.wav"),
    ],
)
def test_what_does_not_fit_has_no_time(pattern: str, name: str) -> None:
    assert by(pattern, name) is None


def test_two_times_in_a_name_are_a_question() -> None:
    with pytest.raises(InputError, match=r"finds '20240501_120000' or '20240501_121000'.*with \*"):
        by("%Y%m%d_%H%M%S", "20240501_120000_20240501_121000.wav")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("yyyyMMdd_HHmmss", "no code such as %Y. Its letters are of another program's"),
        ("%Y%m%d", "tells no hour"),
        ("%H%M%S", "tells no day"),
        ("%Y%d_%H", "tells no day"),
        ("%Y%m%d_%I", "tells no hour"),
        ("%Y%q", "%q is no code"),
        ("", "write how the time stands"),
        ("/%Y%m%d_%H", "write how the time stands"),
    ],
)
def test_a_pattern_that_tells_no_time_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(UsageError, match="time pattern") as refused:
        parse_time_pattern(pattern)
    assert why in str(refused.value)


def test_where_the_time_stands_and_how_fine_it_is() -> None:
    found = parse_time_pattern("%Y-%m-%d/*_%H%M").time_in(PurePosixPath("a/2024-05-01/hyd_1200.wav"))
    assert found == NamedTime(found.time if found else None, 4, 1, 60.0)  # type: ignore[arg-type]
