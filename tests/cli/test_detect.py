from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.events.tables import read_events

RATE = 4_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    for name in ("a", "b"):
        noise = np.random.default_rng(ord(name)).standard_normal(10 * RATE)
        soundfile.write(tmp_path / "site" / f"{name}.wav", 0.1 * noise, RATE)
    return tmp_path / "site"


def test_events_are_printed_as_lines_of_json(edgekd: Callable, tiny_bundle: Path, site: Path) -> None:
    shown = edgekd("detect", tiny_bundle, site, "--threshold", "0", "--quiet")
    assert (shown.code, shown.err) == (0, "")
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert len(events) == 8  # each of four classes all the time, and no background
    assert {(event["start_time"], event["end_time"]) for event in events} == {(0.0, 10.0)}
    assert {event["audio_file"] for event in events} == {f"{site}/a.wav", f"{site}/b.wav"}


def test_a_table_is_written_and_scored(edgekd: Callable, tiny_bundle: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("audio_file,start_time,end_time,annotation\na.wav,0,10,tug\n")
    table = tmp_path / "found.csv"
    shown = edgekd("detect", tiny_bundle, site, "--out", table, "--threshold", "1", "--threshold", "tug=0")
    assert shown.out == f"2 events in 0.00556 h of audio: {table}\n"
    assert "detect: 0.01/0.01 h (" in shown.err
    assert "times real time" in shown.err
    scores = edgekd("score", table, tmp_path / "truth.csv", "--audio", site, "--json").json()
    assert scores["overall"]["recall"]["value"] == 1
    assert scores["overall"]["precision"]["value"] == 0.5


def test_tables_go_into_a_folder_and_json_says_which(
    edgekd: Callable, tiny_bundle: Path, site: Path, tmp_path: Path
) -> None:
    found = edgekd(
        "detect", tiny_bundle, site, "--out", tmp_path / "t", "--format", "raven", "--threshold", "1", "--json", "-q"
    ).json()
    assert found["tables"] == [str(tmp_path / "t" / f"{name}.selections.txt") for name in "ab"]
    assert [entry["seconds"] for entry in found["recordings"]] == [10, 10]
    assert read_events(tmp_path / "t") == []


def test_a_recording_that_cannot_be_read_is_named_and_the_others_are_heard(
    edgekd: Callable, tiny_bundle: Path, site: Path, tmp_path: Path
) -> None:
    (site / "cut.wav").write_bytes((site / "a.wav").read_bytes()[:5_000])
    soundfile.write(site / "flat.wav", np.zeros(RATE), RATE)
    shown = edgekd("detect", tiny_bundle, site, "--out", tmp_path / "d.csv", "--threshold", "0", "-q")
    assert shown.code == 3
    cut, flat = shown.err.splitlines()
    assert cut.startswith(f"edgekd: error: {site}/cut.wav: truncated: the header promises")
    assert flat == f"edgekd: {site}/flat.wav: silent: all its samples have one value"
    assert len({event.recording for event in read_events(tmp_path / "d.csv")}) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--threshold", "orca=0.5"], "--threshold 'orca': this class is not there; there are cargo, passengership"),
        (["--threshold", "x"], "--threshold 'x': write a number, or CLASS=NUMBER."),
        (["--rate", "8000"], "--rate: is of samples on standard input; name it as the recording: -"),
        (["--hop", "2"], "--hop 2: windows are 1 s"),
        (["--out", "a.xlsx"], "a.xlsx: end its name in"),
    ],
)
def test_wrong_usage_is_one_line(
    edgekd: Callable, tiny_bundle: Path, site: Path, arguments: list[str], line: str
) -> None:
    assert edgekd("detect", tiny_bundle, site, *arguments).refusal(2).startswith(line)


def test_standard_input_is_nothing_beside_others(edgekd: Callable, tiny_bundle: Path, site: Path) -> None:
    assert edgekd("detect", tiny_bundle, site, "-").refusal(2).startswith("-: standard input is one recording")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgekd", "detect", *map(str, arguments)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_heard_of_a_pipe_before_a_signal_is_written(
    tiny_bundle: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    table, pipe = tmp_path / "d.csv", subprocess.PIPE
    process = subprocess.Popen(
        command(tiny_bundle, "-", "--out", table, "--threshold", "0"), stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
    )
    assert process.stdin is not None and process.stderr is not None and process.stdout is not None
    noise = 3_000 * np.random.default_rng(0).standard_normal(5 * RATE)
    process.stdin.write(noise.astype("<i2").tobytes())
    deadline = time.monotonic() + 60
    while not _is_read(process.stdin.fileno()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(number)
    assert process.wait(60) == code, process.stderr.read()
    assert {(event.start, event.end) for event in read_events(table)} == {(0.0, 5.0)}
    for each in (process.stdin, process.stdout, process.stderr):
        each.close()


def _is_read(pipe: int) -> bool:
    """Whether all that was written into a pipe has been taken out of it."""
    import array
    import fcntl
    import termios

    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0] == 0


def test_a_terminal_is_refused(tiny_bundle: Path) -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(command(tiny_bundle, "-"), stdin=theirs, capture_output=True, text=True, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert "standard input is a terminal" in done.stderr


def test_times_and_what_is_odd_about_them(edgekd: Callable, tiny_bundle: Path, site: Path) -> None:
    (site / "a.wav").rename(site / "1 May 24, 12h.wav")
    arguments = ["--threshold", "0", "--time-pattern", "%d May %y, %Hh", "--time-zone", "+01:00"]
    assert "tells no day" in edgekd("detect", tiny_bundle, site, *arguments).refusal(2)
    (site / "1 May 24, 12h.wav").rename(site / "01 May 24, 12h.wav")
    arguments[3] = "%d %b %y, %Hh"
    shown = edgekd("detect", tiny_bundle, site, *arguments)
    times = {json.loads(line).get("time_utc") for line in shown.out.splitlines()}
    assert times == {"2024-05-01T11:00:00+00:00", None}
    assert f"Note: 1 of 2 recordings are named by no time ({site}/b.wav)." in shown.err
    assert "no name that tells when it began" in edgekd("detect", tiny_bundle, "-", "--time-zone", "UTC").refusal(2)
