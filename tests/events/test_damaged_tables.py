"""Whatever happens to a table of events: it is read, or refused in one line that begins with its name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.events.event import Event
from edgekd.events.tables import FORMATS, Format, read_events, write_events

EVENTS = [
    Event("s1/a.wav", 1.5, 2.25, "Grünwal", 0.75, 1, 100.0, 900.0),
    Event("s1/a.wav", 30.0, 31.0, "Schlepper, klein", 0.5),
    Event("s2/b.wav", 2.0, 4.0, "Grünwal", 0.25, low_hz=50.0),
]
PLACES = {"csv": "t.csv", "jsonl": "t.jsonl", "raven": "t.txt", "audacity": "t.lab"}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bytes taken out, put in, changed or repeated, or the end cut off."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        length = chance.randint(1, 12)
        kind = chance.randrange(5)
        if kind == 0:
            del data[place : place + length]
        elif kind == 1:
            data[place:place] = chance.choice([b"\t", b"\n", b'"', b",", b";", b"\xff", b"\0", b"-", b"9" * 400, b"\\"])
        elif kind == 2:
            data[place] = chance.randrange(256)
        elif kind == 3:
            data[place:place] = data[place : place + length]
        else:
            del data[max(1, place) :]
    return bytes(data)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_table_is_read_or_refused_in_one_line(format_: Format, tmp_path: Path) -> None:
    path = tmp_path / PLACES[format_]
    events = EVENTS[:2] if format_ == "audacity" else EVENTS
    write_events(path, events, format_, {"s1/a.wav": 60.0, "s2/b.wav": 10.0})
    whole = path.read_bytes()
    outcomes = {"read": 0, "refused": 0}
    for seed in range(100):
        path.write_bytes(damaged(whole, random.Random(seed)))
        try:
            found = read_events(path)
        except InputError as refused:
            assert str(refused).startswith(str(path))
            assert len(str(refused).splitlines()) == 1
            outcomes["refused"] += 1
        else:
            assert all(0 <= event.start <= event.end < float("inf") and event.label for event in found)
            outcomes["read"] += 1
    assert all(outcomes.values()), outcomes
