from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.data import clip_store
from edgekd.files.row_table import RowTable, crc_path

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
    environment = {**os.environ, "PYTHONPATH": str(Path(clip_store.__file__).resolve().parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "table")]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert present(tmp_path / "table") == [0, 1]
    assert crc_path(tmp_path / "table").stat().st_size == 7 * 4


def test_no_space_is_found_out_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    monkeypatch.setattr(clip_store.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path / "table")
    assert len(list(open_files.iterdir())) == before, "no file is left open"
