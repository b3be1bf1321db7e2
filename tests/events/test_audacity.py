from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.events.audacity import audacity_text
from edgekd.events.event import Event
from edgekd.events.tables import read_events

# The four kinds of band that Audacity's manual shows.
MANUAL = (
    "1.000000\t1.000000\tpoint\n\\\t6928.456055\t6928.456055\n"
    "2.000000\t2.500000\tno lowest\n\\\t-1.000000\t6334.588867\n"
    "3.000000\t3.500000\tno highest\r\n\\\t8908.015625\t-1.000000\r\n"
    "4.000000\t4.500000\tneither line\n"
)


def labels(folder: Path, text: str, name: str = "a.txt") -> Path:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / name


def test_labels_with_and_without_a_band_are_read(tmp_path: Path) -> None:
    assert read_events(labels(tmp_path, MANUAL)) == [
        Event("a", 1.0, 1.0, "point", low_hz=6928.456055, high_hz=6928.456055),
        Event("a", 2.0, 2.5, "no lowest", high_hz=6334.588867),
        Event("a", 3.0, 3.5, "no highest", low_hz=8908.015625),
        Event("a", 4.0, 4.5, "neither line"),
    ]


def test_a_fourth_field_is_the_score(tmp_path: Path) -> None:
    (event,) = read_events(labels(tmp_path, "0.0\t3.0\tTursiops truncatus, dolphin\t0.8123\n"))
    assert (event.label, event.score) == ("Tursiops truncatus, dolphin", 0.8123)


def test_times_with_a_decimal_comma_are_read(tmp_path: Path) -> None:
    assert read_events(labels(tmp_path, "1,500000\t2,25\ttug\n")) == [Event("a", 1.5, 2.25, "tug")]


def test_a_file_without_labels_has_no_events(tmp_path: Path) -> None:
    assert read_events(labels(tmp_path, "")) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1.0\t2.0\ttug\nx\t3.0\ttug\n", r"a\.txt, line 2: start must be a number, not 'x'\."),
        ("1.0\t2.0\ttug\n3.0\ttug\n", r"a\.txt, line 2: end must be a number, not 'tug'\."),
        ("1.0\t2.0\ttug\n3.0\t2.5\ttug\n", r"a\.txt, line 2: ends at 2\.5 s, before it begins"),
        ("1.0\t2.0\t\n", r"a\.txt, line 1: the label has no text\."),
        ("1.0\t2.0\n", r"a\.txt, line 1: the label has no text\."),
        ("1.0\t2.0\ttug\n\\\t100\n", r"a\.txt, line 2: a line that begins with \\ holds the two bounds of a band\."),
        ("1.0\t2.0\ttug\tx\n", r"a\.txt, line 1: score must be a number, not 'x'\."),
        ("1.0\t2.0\ttug\n1\t2\t3\t4\t5\n", r"a\.txt, line 2: has 5 fields between tabs"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_events(labels(tmp_path, text))


def test_a_band_before_the_first_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt, line 1: the bounds of a band stand before the first label\."):
        read_events(labels(tmp_path, "\\\t1\t2\n"), "audacity")


def test_what_is_written_reads_as_in_the_manual() -> None:
    events = [Event("a.wav", 2.0, 2.5, "no\tlowest\n", high_hz=6334.588867), Event("a.wav", 1, 1, "point", 0.5)]
    assert audacity_text(events) == (
        "1.000000\t1.000000\tpoint\t0.5\n2.000000\t2.500000\tno lowest \n\\\t-1.000000\t6334.588867\n"
    )


def test_labels_of_two_recordings_do_not_go_into_one_file() -> None:
    with pytest.raises(InputError, match=r"'a\.wav', 'b\.wav': a label file of Audacity is of one recording"):
        audacity_text([Event("a.wav", 1, 2, "tug"), Event("b.wav", 1, 2, "tug")])
