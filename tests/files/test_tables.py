"""Tables are read back as they were written, and damage is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.files.tables import read_csv, write_csv


def test_cells_come_back_as_they_were(tmp_path: Path) -> None:
    lines = [["path", "class"], ['a, "b".wav', "two\nlines"], ["c.wav", ""]]
    write_csv(tmp_path / "table.csv", lines)
    assert read_csv(tmp_path / "table.csv") == lines
    assert b"\r" not in (tmp_path / "table.csv").read_bytes()


def test_an_empty_file_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "table.csv").touch()
    assert read_csv(tmp_path / "table.csv") == [[]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file; is this a complete run"),
        (b"\xff\xfe", "not a CSV table .*can't decode"),
        (b"a" * 140_000, "not a CSV table .field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"table\.csv: {reason}"):
        read_csv(path)
