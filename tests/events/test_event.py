from __future__ import annotations

import pytest

from edgekd.errors import InputError
from edgekd.events.event import Event, check_no_copies, check_times, overlaps


def event(start: float, end: float, label: str = "tug", recording: str = "a.wav", where: str = "") -> Event:
    return Event(recording, start, end, label, where=where)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [(-1, 2, "begins at -1 s, before its recording does"), (3, 2, r"ends at 2 s, before it begins \(3 s\)")],
)
def test_times_that_cannot_be_are_refused_with_their_line(start: float, end: float, told: str) -> None:
    with pytest.raises(InputError, match=rf"^t\.csv, line 7: {told}"):
        check_times(event(start, end, where="t.csv, line 7"))
    assert check_times(event(2, 2)).seconds == 0


def test_an_event_that_is_there_twice_is_refused_with_both_lines() -> None:
    twice = [event(1, 2, where="line 2"), event(1, 2, "cargo"), event(1, 2, where="line 4")]
    with pytest.raises(InputError, match=r"^line 4: 'tug' from 1 to 2 s of a\.wav again, as in line 2\."):
        check_no_copies(twice)
    check_no_copies([event(1, 2), event(1, 2, recording="b.wav"), event(1, 3)])


def test_where_a_row_was_read_makes_no_other_event() -> None:
    assert event(1, 2, where="line 2") == event(1, 2, where="line 4")


def test_overlaps_are_pairs_of_two_labels_in_one_recording_that_share_time() -> None:
    long, inside, after = event(0, 10), event(2, 3, "cargo"), event(9, 12, "whale")
    others = [event(0, 10, "whale", "b.wav"), event(10, 11, "tug"), event(4, 5, "tug"), event(12, 13, "cargo")]
    expected = {(long, inside), (long, after), (after, others[1])}
    assert set(overlaps([after, inside, long, *others])) == expected
