"""Sound that comes through a pipe: bare samples, WAV files of no known length, and input that stops."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig
from edgekd.detection.detect import Found, detect, detect_piped
from edgekd.detection.piped import Pcm, PipedSound
from edgekd.errors import InputError, UsageError
from tests.detection.conftest import RATE, restless

Pipe = Callable[[bytes], int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The reading end of a pipe into which these bytes are written."""
    ends: list[int] = []
    writers: list[threading.Thread] = []

    def opened(data: bytes) -> int:
        reading, writing = os.pipe()
        ends.append(reading)

        def write() -> None:
            with open(writing, "wb") as file:
                file.write(data)

        writers.append(threading.Thread(target=write, daemon=True))
        writers[-1].start()
        return reading

    yield opened
    for end in ends:
        os.close(end)
    for writer in writers:
        writer.join(10)


def wav(samples: Any, rate: int = RATE, subtype: str = "PCM_16", endian: str = "FILE") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype, endian=endian)
    return file.getvalue()


SHORT = wav(np.zeros(100))


def heard(sound: PipedSound) -> np.ndarray:
    return np.concatenate([*sound.pieces(), np.zeros(0, np.float32)])


def piped(descriptor: int, *pcm: Any, **hearing: Any) -> PipedSound:
    return PipedSound(descriptor, DataConfig(**hearing), Pcm(*pcm or (RATE,)), given=bool(pcm))


@pytest.mark.parametrize(
    ("format_", "encode"),
    [
        ("s16", lambda x: np.round(x * 32_767).astype("<i2").tobytes()),
        ("f32", lambda x: x.astype("<f4").tobytes()),
        ("u8", lambda x: np.round(x * 127 + 128).astype(np.uint8).tobytes()),
    ],
)
def test_bare_samples(pipe: Pipe, format_: str, encode: Callable[[Any], bytes]) -> None:
    samples = restless(1, seconds=2)
    both = np.stack([samples, -0.5 * samples], axis=1)
    sound = piped(pipe(encode(both.reshape(-1))), 8_000, format_, 2)
    assert sound.rate == 8_000
    np.testing.assert_allclose(heard(sound), 0.25 * samples, atol=0.01 if format_ == "u8" else 1e-4)
    assert (sound.ended, sound.cut, sound.interrupted) == (None, False, False)
    np.testing.assert_allclose(
        heard(piped(pipe(encode(both.reshape(-1))), 8_000, format_, 2, channel=1)), -0.5 * samples, atol=0.01
    )


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("size", ["true", 0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_file_whose_length_is_known_or_not(pipe: Pipe, subtype: str, size: Any) -> None:
    samples = restless(1, seconds=40)
    data = wav(samples, 11_025, subtype)
    if size != "true":
        place = data.index(b"data") + 4
        data = data[:place] + struct.pack("<I", size) + data[place + 4 :]
    sound = piped(pipe(data))
    assert sound.rate == 11_025
    np.testing.assert_allclose(heard(sound), samples, atol=1e-4)
    assert sound.ended is None


def test_what_follows_the_samples_of_a_wav_file_is_no_sound(pipe: Pipe) -> None:
    samples = restless(1, seconds=1)
    sound = piped(pipe(wav(samples) + b"LIST\x04\0\0\0INFO" * 1_000))
    assert len(heard(sound)) == len(samples)
    assert sound.ended is None


def test_a_wav_file_of_known_length_ends_though_the_pipe_does_not() -> None:
    reading, writing = os.pipe()
    closing = threading.Timer(20, os.close, [writing])
    closing.start()
    os.write(writing, wav(restless(1, seconds=1)))
    began = time.monotonic()
    assert len(heard(piped(reading))) == RATE
    assert time.monotonic() - began < 15
    closing.cancel()
    os.close(writing)
    os.close(reading)


@pytest.mark.parametrize("seconds", [0.5, 1.99])
def test_a_wav_file_that_ends_early_is_told(pipe: Pipe, seconds: float) -> None:
    data = wav(restless(1, seconds=2))
    sound = piped(pipe(data[: 44 + int(2 * RATE * seconds)]))
    assert len(heard(sound)) == RATE * seconds
    assert sound.cut
    assert sound.ended == f"ended {2 - seconds:.3f} s before its header says"


def test_an_end_inside_a_sample_is_told(pipe: Pipe) -> None:
    sound = piped(pipe(bytes(2 * RATE + 1)))
    assert len(heard(sound)) == RATE
    assert (sound.ended, sound.cut) == ("ended inside a sample: 1 of 2 bytes were left over", False)


def test_nothing_at_all(pipe: Pipe) -> None:
    assert len(heard(piped(pipe(b"")))) == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"fLaC" + bytes(100), "is FLAC, and bare samples or WAV are read"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a WAV file whose samples do not begin"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f", "a chunk of 2147483647 bytes before its samples"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0" + bytes(100), "does not say what its samples are"),
        (
            wav(np.zeros(100))[:20] + b"\x55\0" + wav(np.zeros(100))[22:],
            "WAV encoding 0x0055 of 16 bits is not supported",
        ),
        (wav(np.zeros(100))[:24] + bytes(4) + wav(np.zeros(100))[28:], "damaged WAV: 1 channels at 0 Hz"),
    ],
)
def test_what_is_no_sound_is_refused(pipe: Pipe, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        piped(pipe(data))


def test_a_channel_that_is_not_there_and_a_wav_file_called_bare_are_refused(pipe: Pipe) -> None:
    with pytest.raises(InputError, match="has 1 channel"):
        piped(pipe(wav(np.zeros(100))), channel=1)
    with pytest.raises(UsageError, match="is a WAV file, which says itself what --rate, --pcm and --channels do"):
        piped(pipe(wav(np.zeros(100))), 8_000)


def test_an_input_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file, pytest.raises(InputError, match="standard input: cannot be read"):
        piped(file.fileno())


def test_a_pipe_has_the_events_of_the_file(
    pipe: Pipe, tiny_bundle: Path, thresholds: dict[str, float], tmp_path: Path
) -> None:
    data = wav(restless(1, rate=11_025), 11_025)
    (tmp_path / "a.wav").write_bytes(data)
    asked: dict[str, Any] = {"thresholds": thresholds, "hop_s": 0.25}
    expected = detect(tiny_bundle, [tmp_path / "a.wav"], **asked).events
    asked["thresholds"] = list(thresholds.items())
    told: list[Any] = []
    found, interrupted = detect_piped(tiny_bundle, pipe(data), tmp_path / "d.csv", tell=told.append, **asked)
    bare, _ = detect_piped(tiny_bundle, pipe(data[44:]), pcm=(11_025, None, None), **asked)
    assert not interrupted
    assert len(expected) > 5
    for events in (found.events, bare.events):
        assert [(e.start, e.end, e.label) for e in events] == [(e.start, e.end, e.label) for e in expected]
    assert sorted(told, key=lambda event: (event.start, event.end, event.label)) == found.events
    assert found.tables == (tmp_path / "d.csv",)


def test_one_table_comes_of_a_pipe_and_replaces_none(pipe: Pipe, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"standard input makes one table\. Name a file"):
        detect_piped(tiny_bundle, pipe(b""), tmp_path)
    (tmp_path / "d.csv").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        detect_piped(tiny_bundle, pipe(b""), tmp_path / "d.csv")
    with pytest.raises(UsageError, match="--pcm s12: one of s16, s24"):
        detect_piped(tiny_bundle, pipe(b""), pcm=(None, "s12", None))
    found: Found = detect_piped(tiny_bundle, pipe(b""))[0]
    assert found.recordings[0].missed == "holds no samples"


def test_a_pipe_that_was_left_without_waiting_is_waited_for(tiny_bundle: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    late = threading.Timer(0.5, lambda: (os.write(writing, bytes(16_000)), os.close(writing)))
    late.start()
    found, _ = detect_piped(tiny_bundle, reading)
    os.close(reading)
    assert found.seconds == 2.0
