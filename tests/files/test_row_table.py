from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.files.row_table import RowTable, crc_path, read_rows
from edgekd.files.threads import threaded

ROWS = np.random.default_rng(0).standard_normal((7, 3, 2)).astype(np.float32)


def opened(path: Path, rows: int = 7) -> RowTable:
    return RowTable(path, rows, (3, 2), "<f4")


def write(path: Path, first: int, rows: NDArray[np.float32]) -> None:
    with opened(path) as table:
        table.write(first, rows)


def present(path: Path) -> list[int]:
    with opened(path) as table:
        return np.flatnonzero(table.present).tolist()


def test_a_new_table_has_no_rows(tmp_path: Path) -> None:
    assert present(tmp_path / "table") == []


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path / "table", 2, ROWS[2:5])
    with opened(tmp_path / "table") as table:
        assert table.present.tolist() == [False, False, True, True, True, False, False]
        assert table.size == ROWS.nbytes
    np.testing.assert_array_equal(table.values[2:5], ROWS[2:5])
    with pytest.raises(ValueError, match="read-only"):
        table.values[0] = 0


def test_a_row_of_zeros_is_a_row(tmp_path: Path) -> None:
    write(tmp_path / "table", 1, np.zeros((1, 3, 2), np.float32))
    assert present(tmp_path / "table") == [1]


def test_a_damaged_row_is_missing_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write(path, 0, ROWS)
    damaged = bytearray(path.read_bytes())
    damaged[3 * 24 + 5] ^= 1
    path.write_bytes(damaged)
    assert present(path) == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize("lost", ["table", "table.crc"])
def test_without_one_of_its_files_a_table_is_empty(lost: str, tmp_path: Path) -> None:
    write(tmp_path / "table", 0, ROWS)
    (tmp_path / lost).unlink()
    assert present(tmp_path / "table") == []


def test_rows_cut_off_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write(path, 0, ROWS)
    os.truncate(path, 24 * 4 + 10)
    assert present(path) == [0, 1, 2, 3]


def test_what_is_forgotten_is_not_there_later_either(tmp_path: Path) -> None:
    write(tmp_path / "table", 0, ROWS)
    with opened(tmp_path / "table") as table:
        table.forget()
        table.write(6, ROWS[6:])
    assert present(tmp_path / "table") == [6]


def test_a_killed_writer_leaves_the_rows_it_had_flushed(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from edgekd.files.row_table import RowTable

        table = RowTable(Path(sys.argv[1]), 7, (3, 2), "<f4")
        table.write(0, np.ones((2, 3, 2)))
        table.flush()
        table.write(2, np.ones((3, 3, 2)))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "table")]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert present(tmp_path / "table") == [0, 1]
    assert crc_path(tmp_path / "table").stat().st_size == 7 * 4


def test_no_space_is_found_out_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path / "table")
    assert len(list(open_files.iterdir())) == before, "no file is left open"


# Notes beside the rows


def noted(folder: Path) -> RowTable:
    notes = [("peak", "<f4"), ("length", "<i8")]
    return RowTable(folder / "rows", 7, (3, 2), "<f4", notes=notes, records_path=folder / "records")


def test_notes_are_kept_beside_the_rows_and_covered_by_their_sums(tmp_path: Path) -> None:
    with noted(tmp_path) as table:
        table.write(2, ROWS[2:4], (0.5, 11))
        table.write(6, ROWS[6:], (0.25, 12))
    records = np.fromfile(tmp_path / "records", [("peak", "<f4"), ("length", "<i8"), ("crc", "<u4")])
    beside = np.array([0.5], "<f4").tobytes() + np.array([11], "<i8").tobytes()
    assert records["crc"][3] == zlib.crc32(ROWS[3].tobytes(), zlib.crc32(beside))
    with noted(tmp_path) as table:
        assert np.flatnonzero(table.present).tolist() == [2, 3, 6]
        assert table.records["peak"][[2, 3, 6]].tolist() == [0.5, 0.5, 0.25]
        assert table.records["length"][[2, 3, 6]].tolist() == [11, 11, 12]
    records["length"][3] += 1
    records.tofile(tmp_path / "records")
    with noted(tmp_path) as table:
        assert np.flatnonzero(table.present).tolist() == [2, 6]


def test_rows_without_notes_have_a_plain_sum(tmp_path: Path) -> None:
    """The format of teachers' answers, whatever notes other tables have."""
    write(tmp_path / "table", 0, ROWS)
    assert np.fromfile(tmp_path / "table.crc", "<u4").tolist() == [zlib.crc32(row.tobytes()) for row in ROWS]


def test_threads_write_rows_of_their_own_while_others_are_flushed(tmp_path: Path) -> None:
    count = 4_000

    def opened_large() -> RowTable:
        return RowTable(tmp_path / "rows", count, (3,), "<i8", notes=[("twice", "<i8")])

    with opened_large() as table:
        for done, _ in enumerate(
            threaded(lambda row: table.write(row, np.full((1, 3), row), (2 * row,)), range(count))
        ):
            if done % 5 == 0:
                table.flush()
        assert table.unflushed < 200
    with opened_large() as table:
        assert table.present.all()
        assert (table.values == np.arange(count)[:, None]).all()
        assert (table.records["twice"] == 2 * np.arange(count)).all()


def test_a_row_written_during_a_flush_waits_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers may not be on the disk yet: its record would be believed after a power cut."""
    synchronise = os.fdatasync
    with opened(tmp_path / "table") as table:

        def late(file: int) -> None:
            synchronise(file)
            if not table.present[5]:
                table.write(5, ROWS[5:6])

        monkeypatch.setattr(os, "fdatasync", late)
        table.write(0, ROWS[:1])
        table.flush()
        assert np.flatnonzero(np.fromfile(crc_path(tmp_path / "table"), "<u4")).tolist() == [0]
    assert present(tmp_path / "table") == [0, 5]


def test_a_table_of_another_process_is_read_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "table", 0, ROWS)
    values, records = read_rows(tmp_path / "table", 7, (3, 2), "<f4")
    np.testing.assert_array_equal(values, ROWS)
    assert records["crc"].all()
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "nowhere", 7, (3, 2), "<f4")
    with pytest.raises(ValueError, match="7 records for 6 rows"):
        read_rows(tmp_path / "table", 6, (3, 2), "<f4")


def test_only_what_was_flushed_is_recorded(tmp_path: Path) -> None:
    with opened(tmp_path / "table") as table:
        table.write(0, ROWS[:2])
        assert (table.unflushed, crc_path(tmp_path / "table").read_bytes()) == (2, bytes(28))
        table.flush()
        assert table.unflushed == 0
        assert np.flatnonzero(np.fromfile(crc_path(tmp_path / "table"), "<u4")).tolist() == [0, 1]
