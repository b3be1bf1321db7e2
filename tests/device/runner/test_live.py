"""Live signals through real pipes, to the file that ships in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd.device.runner.commands import main
from edgekd.device.runner.live import Inbox

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import Calls

RATE, CLIP, HOP = 8_000, 800, 300  # of the toy classifier


SLOW_AT_FIRST = """
quick = edgekd_runner.Runner.answers
def slow(runner, clips):
    time.sleep(1.0)
    edgekd_runner.Runner.answers = quick
    return quick(runner, clips)
edgekd_runner.Runner.answers = slow
"""


def rows_of(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_window_is_a_line_with_the_scores_of_that_window(toy: Toy, written: Path) -> None:
    waveform = np.round(toy.noise(3_000) * 32767) / 32768
    rows = rows_of(toy.run(written, "stream", sound=toy.s16(waveform / 32767 * 32768)))
    starts = toy.positions(3_000)
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(s / RATE, (s + CLIP) / RATE) for s in starts]
    expected = toy.scores(np.stack([waveform[s : s + CLIP] for s in starts]).astype(np.float32))
    for row, scores in zip(rows, expected, strict=True):
        assert row["scores"] == pytest.approx(dict(zip(toy.TONES, scores.tolist(), strict=True)), abs=2e-6)
        assert row["class"] == max(row["scores"], key=row["scores"].get) == next(iter(row["scores"]))
        assert row["score"] == row["scores"][row["class"]]
        assert row["latency_ms"] > 0
        assert (row["skipped"], row["silent"]) == (0, False)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
def test_tones_are_recognised_in_turn_at_any_rate(toy: Toy, written: Path, rate: int) -> None:
    sound = toy.s16(np.concatenate([toy.tone(name, 0.5, rate) for name in toy.TONES]))
    rows = rows_of(toy.run(written, "stream", "--rate", str(rate), "--hop", "0.25", sound=sound))
    assert [row["class"] for row in rows] == ["low", "low", "middle", "middle", "high", "high"]
    assert [row["start_s"] for row in rows] == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_a_log_mel_bundle_streams_too(toy: Toy, written_log_mel: Path) -> None:
    rows = rows_of(toy.run(written_log_mel, "stream", sound=toy.s16(toy.tone("middle", 0.5))))
    assert len(rows) == len(toy.positions(4_000))
    assert {row["class"] for row in rows} == {"middle"}


def test_top_and_threshold_leave_out_classes_and_windows(toy: Toy, written: Path) -> None:
    sound = toy.s16(np.concatenate([np.zeros(CLIP), toy.tone("high", 0.1)]))
    command = ("stream", "--hop", "0.1", "--top", "1", "--threshold", "0.9")
    (row,) = rows_of(toy.run(written, *command, sound=sound))
    assert (row["start_s"], row["class"], list(row["scores"])) == (0.1, "high", ["high"])


def test_silence_is_classified_and_said(toy: Toy, written: Path) -> None:
    rows = rows_of(toy.run(written, "stream", "--hop", "0.1", sound=bytes(4 * CLIP) + toy.s16(toy.tone("low", 0.1))))
    assert [row["silent"] for row in rows] == [True, True, False]


def test_windows_that_are_not_finite_are_refused_and_the_others_are_not(toy: Toy, written: Path) -> None:
    waveform = np.concatenate([toy.tone("low", 0.3), toy.tone("high", 0.3)])
    waveform[1_000] = np.nan
    waveform[1_001] = np.inf
    done = toy.run(written, "stream", "--format", "f32", "--hop", "0.1", sound=waveform.astype("<f4").tobytes())
    rows = rows_of(done)
    assert [row.get("class") for row in rows] == ["low", None, "low", "high", "high", "high"]
    assert rows[1]["error"] == "some samples are NaN or infinite"
    assert rows[1]["start_s"] == 0.1
    assert b"1 refused" in done.stderr


def test_a_signal_shorter_than_a_window_gives_no_line(toy: Toy, written: Path) -> None:
    done = toy.run(written, "stream", sound=toy.s16(np.zeros(CLIP - 1)))
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"0.100 s heard: 0 windows classified, 0 skipped, 0 refused; 0.100 s left over" in done.stderr


def test_nothing_at_all_is_no_error(toy: Toy, written: Path) -> None:
    done = toy.run(written, "stream")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"0.000 s heard" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"), [((), b"\1"), (("--channels", "2"), b"\1\2\3"), (("--format", "s24"), b"12")]
)
def test_an_end_inside_a_sample_is_said_and_the_rest_ignored(
    toy: Toy, written: Path, arguments: tuple[str, ...], extra: bytes
) -> None:
    done = toy.run(written, "stream", *arguments, sound=bytes(12 * CLIP) + extra)
    assert len(rows_of(done)) >= 1
    assert f"the input ended inside a sample: {len(extra)} of ".encode() in done.stderr


def test_a_wav_header_is_refused(toy: Toy, written: Path) -> None:
    done = toy.run(written, "stream", sound=b"RIFF\x24\x00\x00\x80WAVEfmt " + bytes(5_000))
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"begins with a WAV header" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_terminal_is_refused(toy: Toy, written: Path) -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(toy.command(written, "stream"), stdin=theirs, capture_output=True, text=True, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert "standard input is a terminal: arecord" in done.stderr


def test_an_input_that_cannot_be_read_is_one_line(toy: Toy, written: Path) -> None:
    with Path(os.devnull).open("wb") as unreadable:
        command = toy.command(written, "stream")
        done = subprocess.run(command, stdin=unreadable, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "edgekd_runner: standard input: bad file descriptor\n"


def started(toy: Toy, bundle: Path, *arguments: str, before: str = "") -> subprocess.Popen[bytes]:
    command = toy.command(bundle, "stream", *arguments, before=before)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_a_live_stream_with_its_summary(
    toy: Toy, written: Path, number: signal.Signals, exit_code: int
) -> None:
    process = started(toy, written)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(toy.s16(toy.tone("low", 0.1)))
    assert json.loads(process.stdout.readline())["class"] == "low"  # at once, though the pipe is still open
    process.send_signal(number)
    assert process.wait(60) == exit_code
    shown = process.stderr.read()
    assert b"0.100 s heard: 1 windows classified" in shown
    assert shown.count(b"\n") == 1
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def test_a_stall_is_said_and_waited_for(toy: Toy, written: Path) -> None:
    process = started(toy, written, "--stall-seconds", "0.5")
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(toy.s16(toy.tone("low", 0.1)))
    assert json.loads(process.stdout.readline())["class"] == "low"
    assert b"no samples for 0.5 s; still waiting" in process.stderr.readline()
    process.stdin.write(toy.s16(toy.tone("high", 0.1)))
    assert json.loads(process.stdout.readline())["start_s"] == HOP / RATE
    process.stdin.close()
    assert b"samples again after" in process.stderr.readline()
    assert process.wait(60) == 0
    process.stdout.close()
    process.stderr.close()


def test_a_reader_that_has_seen_enough_ends_it_quietly(toy: Toy, written: Path) -> None:
    process = started(toy, written)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(toy.s16(toy.tone("low", 0.1)))
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(toy.s16(toy.tone("low", 0.5)))
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()


def test_a_live_signal_that_is_too_fast_loses_windows_and_says_so(toy: Toy, written: Path) -> None:
    samples = 2_900
    done = toy.run(written, "stream", "--behind", "skip", sound=toy.s16(toy.noise(samples)), before=SLOW_AT_FIRST)
    rows = rows_of(done)
    assert rows[-1]["skipped"] > 0
    assert len(rows) + rows[-1]["skipped"] == len(toy.positions(samples))
    assert rows[-1]["end_s"] == (toy.positions(samples)[-1] + CLIP) / RATE  # the newest is kept
    assert f"falling behind: {rows[-1]['skipped']} windows skipped so far".encode() in done.stderr


@pytest.mark.parametrize("behind", ["auto", "wait"])
def test_a_recording_in_a_pipe_loses_no_window(toy: Toy, written: Path, behind: str) -> None:
    samples = 40 * RATE  # much more than a live source could have saved up
    command = ("stream", "--hop", "0.5", "--behind", behind)
    rows = rows_of(toy.run(written, *command, sound=toy.s16(toy.noise(samples)), before=SLOW_AT_FIRST))
    assert [row["start_s"] for row in rows] == [i / 2 for i in range(80)]
    assert rows[-1]["skipped"] == 0


def test_a_file_loses_no_window(toy: Toy, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "sound.raw"
    path.write_bytes(toy.s16(toy.noise(2_000)))
    with path.open("rb") as file:
        command = toy.command(written, "stream", before=SLOW_AT_FIRST)
        done = subprocess.run(command, stdin=file, capture_output=True, check=False)
    assert [row["start_s"] for row in rows_of(done)] == [start / RATE for start in toy.positions(2_000)]


def test_a_live_signal_in_a_pipe_loses_windows(toy: Toy, written: Path) -> None:
    process = started(toy, written, before=SLOW_AT_FIRST)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(toy.s16(toy.noise(2_900)))  # and no end: more may come
    newest = (toy.positions(2_900)[-1] + CLIP) / RATE
    rows: list[dict[str, Any]] = []
    while not rows or rows[-1]["end_s"] != newest:
        rows.append(json.loads(process.stdout.readline()))
    assert rows[-1]["skipped"] > 0
    assert len(rows) + rows[-1]["skipped"] == len(toy.positions(2_900))
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize(
    ("sound", "waits"),
    [
        (bytes(16_000 * 30), True),
        (bytes(40_000), False),  # 2.5 s of sound at once are what the pipe of a live source may have held
    ],
)
def test_a_recording_is_told_from_a_microphone_by_its_pace(sound: bytes, waits: bool) -> None:
    reading, writing = os.pipe()
    inbox = Inbox(reading, 16_000, 100_000)
    writer = threading.Thread(target=os.write, args=(writing, sound), daemon=True)
    writer.start()
    inbox.start()
    left = len(sound)
    while left:
        piece = inbox.take(60.0)
        assert piece is not None
        left -= len(piece[1])
    assert inbox.can_wait == waits
    os.close(writing)
    assert inbox.take(60.0) is not None
    assert inbox.can_wait  # an end is an end
    os.close(reading)


def test_what_is_read_ahead_is_bounded() -> None:
    reading, writing = os.pipe()
    inbox = Inbox(reading, bytes_per_second=1_000, least_capacity=300_000)
    written = 0

    def write() -> None:
        nonlocal written
        while written < 3_000_000:
            written += os.write(writing, bytes(10_000))
        os.close(writing)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    inbox.start()
    time.sleep(0.3)
    waiting = written
    assert waiting < 600_000  # what may be held, what the pipe holds, and a piece of each
    received = 0
    while (piece := inbox.take(60.0)) and piece[1]:
        received += len(piece[1])
    assert received == 3_000_000
    os.close(reading)


def test_a_wait_is_bounded() -> None:
    reading, writing = os.pipe()
    inbox = Inbox(reading, 1_000, 1_000)
    inbox.start()
    assert inbox.take(0.01) is None
    os.close(writing)
    assert inbox.take(60.0) == (pytest.approx(time.monotonic(), abs=60), b"")
    os.close(reading)


def test_hours_of_sound_take_no_more_memory_than_seconds(toy: Toy, written: Path) -> None:
    before = """
def kilobytes():
    return int([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])
class Watched(edgekd_runner.Stream):
    pieces = 0
    def push(self, data, arrived):
        Watched.pieces += 1
        if Watched.pieces in (20, 500):
            print(kilobytes(), file=sys.stderr)
        return super().push(data, arrived)
edgekd_runner.Stream = Watched
"""
    process = started(toy, written, "--rate", "11025", "--hop", "5", before=before)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    reader = threading.Thread(target=process.stdout.read, daemon=True)
    reader.start()
    piece = toy.s16(toy.noise(500_000))
    for _ in range(85):  # 85 MB: an hour
        process.stdin.write(piece)
    process.stdin.close()
    shown = process.stderr.read().decode().splitlines()
    assert process.wait(120) == 0
    early, late, summary = int(shown[0]), int(shown[1]), shown[2]
    assert late - early < 8_192
    assert "3854.875 s heard: 771 windows classified" in summary
    process.stdout.close()
    process.stderr.close()


def test_stream_refuses_trtexec(
    toy: Toy, jetson: Path, trtexec: Calls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.build(jetson, "int8")
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    assert main(["stream"], jetson) == 3
    assert "stream: trtexec is too slow for a live signal. Next: " in capsys.readouterr().err
