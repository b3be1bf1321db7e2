"""What libmpg123 writes to standard error is dropped; what anybody else writes is not."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.audio.hush import hushed
from edgekd.audio.recording import opened
from edgekd.errors import InputError


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """An mp3 file of which libmpg123 complains."""
    path = tmp_path / "damaged.mp3"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(44_100), 44_100)
    content = bytearray(path.read_bytes())
    for place in range(2_000, len(content), 500):
        content[place : place + 200] = bytes(range(200))
    path.write_bytes(content)
    return path


def decode(path: Path) -> None:
    try:
        with opened(path) as recording:
            for _ in recording.blocks():
                pass
    except InputError:
        pass


def test_libmpg123_complains_of_this_file(damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(soundfile.LibsndfileError):
        soundfile.read(damaged)
    assert "resync" in capfd.readouterr().err


def test_its_lines_do_not_reach_standard_error(damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    decode(damaged)
    assert capfd.readouterr().err == ""


def test_what_others_write_meanwhile_comes_through(damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    threads = [threading.Thread(target=lambda: [decode(damaged) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    lines = 0
    while any(thread.is_alive() for thread in threads):
        os.write(2, f"line {lines}\n".encode())
        lines += 1
        threads[lines % 4].join(0.002)
    os.write(2, b"the end\n")
    shown = capfd.readouterr().err.splitlines()
    assert shown == [*(f"line {number}" for number in range(lines)), "the end"]


def test_a_closed_standard_error_is_left_alone(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(os, "dup", lambda descriptor: (_ for _ in ()).throw(OSError(9, "Bad file descriptor")))
    with hushed(), hushed():
        pass
    decode(damaged)
