from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.checks.audit import Attribute, Audit, Finding
from edgekd.checks.fitting import Fitting
from edgekd.checks.inspection import ClassInfo, Duplicates, Inspection
from edgekd.checks.prepare import Preparation
from edgekd.data.index import ClipIndex
from edgekd.number_formats import MINUS, NONE
from edgekd.report.terminal_data import LISTED, print_audit, print_inspection, print_preparation

INSPECTION = Inspection(
    dataset="folder",
    root="/data/harbour",
    clips=32,
    groups=8,
    files=8,
    hours=0.0123,
    rates={4_000: 6, 8_000: 2},
    channels={1: 8},
    formats={"wav PCM_16": 8},
    shortest_s=0.25,
    median_s=0.5,
    longest_s=0.5,
    classes=(ClassInfo("cargo", 24, 6, 0.5, -20.25, 3), ClassInfo("[tug]\n", 8, 2, 0.25, None, None)),
    imbalance=2.0,
    silent=("a.wav", "b.wav", "c.wav"),
    constant=("g.wav",),
    cancelled=(),
    quiet=2,
    dead_channels={},
    clipped={"d.wav": 0.012, "e.wav": 0.5},
    clipped_share=0.031,
    duplicates=(Duplicates(("x", "y"), ("cargo", "cargo")), Duplicates(("v", "w"), ("cargo", "tug"))),
    unreadable={"f.wav": "the file is empty"},
    fitting=Fitting(4_000, 0.5, None),
)
INDEX = ClipIndex("folder", Path("/data/harbour"), ("cargo", "tug"), ())


def test_an_inspection_says_what_is_there_and_what_may_be_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    print_inspection(INSPECTION)
    shown = capsys.readouterr().out
    for words in (
        "folder: /data/harbour\n",
        "32 from 8 groups (recordings or vessels)",
        "0.250 to 0.500 s, median 0.500 s",
        "4000 Hz (6), 8000 Hz (2)",
        "the largest class has 2.00 times the minutes of the smallest",
        f"Silence: 3 clip(s) digital (a.wav, b.wav, ...), 2 more below {MINUS}60 dB.",
        "Constant: 1 clip(s) of one value throughout (g.wav).\n",
        "Clipping: 3.1% of all samples at full scale; files above 0.1%: 2.\n  e.wav: 50.0%\n  d.wav: 1.2%\n",
        "/data/harbour\nTwo labels: 1 set(s) of files with the same audio; one label is wrong.\n"
        "  v (cargo) = w (tug)\n",
        "Duplicates: 2 set(s) of files that decode to the same samples (1 above).\n  x = y\n",
        "Unreadable: 1 file(s).\n  f.wav: the file is empty\n",
    ):
        assert words in shown
    (row,) = (line for line in shown.splitlines() if line.startswith("[tug]"))
    assert row.split() == ["[tug]", "8", "2", "0.250", "33.3%", NONE]
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_one_length_is_told_once_and_a_class_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_inspection(replace(INSPECTION, shortest_s=0.5, imbalance=None, silent=(), duplicates=(), clipped={}))
    shown = capsys.readouterr().out
    assert "lengths   0.500 s" in shown and "median" not in shown
    assert "Balance: a class has nothing that can be read." in shown


def audit(leaks: int = 0, warnings: int = 0, searched: bool = True) -> Audit:
    return Audit(
        clips={"train": 20, "validation": 4, "test": 8},
        groups=8,
        searched=searched,
        leaks=tuple(Finding("near-duplicate", f"leak {number}.") for number in range(leaks)),
        warnings=tuple(Finding("silence", f"warning {number}.") for number in range(warnings)),
        attributes=(Attribute("level", 8, 0.4216, 0.0004, 0.75, 0.5, True),),
    )


def test_an_audit_says_what_leaks_a_few_of_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    print_audit(audit(leaks=LISTED + 2, warnings=1), INDEX)
    shown = capsys.readouterr().out
    assert "Clips: train 20, validation 4, test 8; 8 groups (recordings or vessels)." in shown
    (row,) = (line for line in shown.splitlines() if line.startswith("level"))
    assert row.split() == ["level", "8", "0.422", "<", "0.001", "75.0%", "50.0%"]
    assert shown.count("Leak: ") == LISTED
    assert "  and 2 more of this kind (--json lists all)" in shown
    assert "Warning: warning 0." in shown
    assert "No leak" not in shown


def test_an_audit_without_leaks_says_what_was_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_audit(audit(), INDEX)
    assert "No leak: no group and no near-duplicate audio is on two sides." in capsys.readouterr().out
    print_audit(audit(searched=False), INDEX)
    assert "No leak: no group is on two sides." in capsys.readouterr().out


def test_a_preparation_says_how_fast_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    prepared = Preparation(Path("/cache/x"), 32, 32, 4_000, 0.5, 130_048, 0.25, ())
    print_preparation(prepared)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "32 clips of 0.5 s at 4000 Hz: 32 decoded in 0.250 s, 64.0 times as fast as they play."
    assert second == "Cache: /cache/x (127 KiB)"
    print_preparation(replace(prepared, decoded=0))
    assert "32 clips of 0.5 s at 4000 Hz: all there already, checked in 0.250 s." in capsys.readouterr().out
