"""The commands `detect` and `stream --events`, and the tables that come of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from edgekd.device.runner.commands import main
from edgekd.events.tables import read_events

if TYPE_CHECKING:
    from tests.device.conftest import Toy

RATE = 8_000
CHOSEN = ("--hop", "0.025", "--threshold", "0.9")


@pytest.fixture
def recording(toy: Toy, tmp_path: Path) -> Path:
    """Half a second of each tone in turn, in noise."""
    sound = np.concatenate([toy.tone(name, 0.5) for name in toy.TONES]) + 0.01 * toy.noise(12_000)
    soundfile.write(tmp_path / "tones.wav", sound, RATE)
    return tmp_path / "tones.wav"


def test_events_are_lines_of_json(toy: Toy, written: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(recording), *CHOSEN], written) == 0
    shown = capsys.readouterr()
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert [event["annotation"] for event in events] == list(toy.TONES)
    assert [event["start_time"] for event in events] == pytest.approx([0, 0.5, 1.0], abs=0.05)
    assert [event["end_time"] for event in events] == pytest.approx([0.5, 1.0, 1.5], abs=0.05)
    assert {event["audio_file"] for event in events} == {str(recording)}
    assert "0.000 h heard: 3 events" in shown.err


@pytest.mark.parametrize(("name", "format_"), [("a.jsonl", "jsonl"), ("a.csv", "csv"), ("a.txt", "raven")])
def test_a_table_is_what_its_ending_says_and_is_read_again(
    written: Path, recording: Path, tmp_path: Path, name: str, format_: str
) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(recording.read_bytes())
    for file in ("plain.jsonl", name):
        assert main(["detect", str(recording), str(other), *CHOSEN, "--out", str(tmp_path / file)], written) == 0
    plain, found = read_events(tmp_path / "plain.jsonl", "jsonl"), read_events(tmp_path / name, format_)
    assert len(found) == 6
    for one, expected in zip(found, plain, strict=True):
        assert (one.recording, one.label, one.score) == (expected.recording, expected.label, expected.score)
        assert (one.start, one.end) == pytest.approx((expected.start, expected.end), abs=2e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"plain.jsonl", name, "tones.wav", "other.wav"})


def test_times_of_raven_count_from_the_beginning_of_the_first_file(
    written: Path, recording: Path, tmp_path: Path
) -> None:
    table = tmp_path / "a.txt"
    assert main(["detect", str(recording), str(recording), *CHOSEN, "--out", str(table)], written) == 0
    header, *lines = (line.split("\t") for line in table.read_text().splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    begins = [float(row["Begin Time (s)"]) - float(row["File Offset (s)"]) for row in rows]
    assert begins == pytest.approx([0, 0, 0, 1.5, 1.5, 1.5])


def test_labels_of_audacity(written: Path, recording: Path, tmp_path: Path) -> None:
    table = tmp_path / "tones.txt"
    command = ["detect", *CHOSEN, "--format", "audacity", "--out", str(table)]
    assert main([*command, str(recording)], written) == 0
    assert [(event.recording, event.label) for event in read_events(table)] == [
        ("tones", name) for name in ("low", "middle", "high")
    ]
    assert main([*command, str(recording), str(recording)], written) == 2


def test_what_cannot_be_read_or_heard_is_named_and_the_others_are_heard(
    toy: Toy, written: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.wav").write_text("<html>404</html>" * 100)
    soundfile.write(tmp_path / "flat.wav", np.zeros(RATE), RATE)
    files = [str(tmp_path / name) for name in ("page.wav", "flat.wav", "tones.wav")]
    assert main(["detect", *files, *CHOSEN], written) == 3
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3
    page, flat, _ = shown.err.splitlines()
    assert page.startswith(f"edgekd_runner: {files[0]}: not a WAV file")
    assert flat == f"edgekd_runner: {files[1]}: silent: all its samples have one value"
    sound = toy.noise(3_000)
    sound[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, RATE, subtype="FLOAT")
    assert main(["detect", str(tmp_path / "nan.wav")], written) == 3
    assert "1 of 12 windows could not be scored, the first at 0 s: some samples" in capsys.readouterr().err


def test_a_table_that_is_broken_off_is_not_there(
    written: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.device.runner.scores.Listener.finish", interrupted)
    assert main(["detect", str(recording), "--out", str(tmp_path / "a.csv")], written) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["tones.wav"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("detect", "a.wav", "--threshold", "orca=0.5"),
            "'orca': this class is not there; there are low, middle, high",
        ),
        (("detect", "a.wav", "--hop", "0.2"), "--hop 0.2: windows are 0.1 s"),
        (("detect", "a.wav", "--threshold", "1.5"), "1.5 is not between 0 and 1"),
        (("stream", "--gap", "1"), "--gap: is of events; add --events"),
        (("stream", "--events", "--smooth", "3"), "--smooth: is of windows"),
        (("stream", "--threshold", "low=0.5"), "--threshold: one score for all classes, or add --events"),
    ],
)
def test_wrong_usage_is_refused(toy: Toy, written: Path, arguments: tuple[str, ...], words: str) -> None:
    done = toy.run(written, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_stream_has_the_events_of_the_recording(toy: Toy, written: Path, tmp_path: Path, rate: int) -> None:
    rng = np.random.default_rng(0)
    parts = [np.zeros(100, np.float32)]
    for _ in range(20):
        parts += [toy.tone(rng.choice(list(toy.TONES)), rng.uniform(0.05, 0.6), rate, rng.uniform(0.05, 0.3))]
    sound = np.concatenate(parts)
    sound = sound + 0.05 * rng.standard_normal(len(sound))
    soundfile.write(tmp_path / "a.wav", sound, rate)
    data = toy.s16(sound * 32_768 / 32_767)
    options = ("--hop", "0.05", "--threshold", "0.6", "--gap", "0.06")
    table = tmp_path / "a.jsonl"
    assert main(["detect", str(tmp_path / "a.wav"), *options, "--out", str(table)], written) == 0
    expected = [json.loads(line) for line in table.read_text().splitlines()]
    done = toy.run(written, "stream", "--events", "--rate", str(rate), *options, sound=data)
    found = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda event: event["start_time"])
    assert len(expected) > 5
    assert [event.pop("audio_file") for event in expected] == [str(tmp_path / "a.wav")] * len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
        assert one == other
    assert f"{len(found)} events; ".encode() in done.stderr


def test_a_stream_that_is_stopped_tells_what_has_begun(toy: Toy, written: Path) -> None:
    command, pipe = toy.command(written, "stream", "--events", *CHOSEN), subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(toy.s16(np.concatenate([toy.tone("low", 0.3), toy.tone("high", 0.3)])))
    first = json.loads(process.stdout.readline())  # it has ended, though the pipe is still open
    assert (first["annotation"], first["start_time"]) == ("low", 0)
    time.sleep(0.5)  # for the windows of what it has read by now
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    (last,) = (json.loads(line) for line in process.stdout.read().splitlines())
    assert last["annotation"] == "high"
    assert first["end_time"] < last["end_time"] <= 0.6  # up to the window that was in work
    assert b"0.600 s heard: 2 events" in process.stderr.read()
    for each in (process.stdin, process.stdout, process.stderr):
        each.close()


def test_a_recording_is_not_replaced_by_its_table(
    written: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = recording.read_bytes()
    assert main(["detect", str(recording), *CHOSEN, "--format", "csv", "--out", str(recording)], written) == 2
    assert "is a recording to listen to" in capsys.readouterr().err
    assert recording.read_bytes() == before


def test_a_device_is_written_to_and_stays_one(written: Path, recording: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert main(["detect", str(recording), *CHOSEN, "--out", str(pipe)], written) == 0
    told, _ = reader.communicate(timeout=10)
    assert len(told.splitlines()) == 4
    assert pipe.is_fifo()
