"""WAV files against libsndfile, and what is no WAV file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.device.runner.commands import main
from edgekd.device.runner.wav import open_wav

RATE = 8_000


def read(path: Path) -> tuple[np.ndarray, int]:
    """Waveform `(samples,)` and rate."""
    with open_wav(path) as wav:
        return np.concatenate(list(wav.blocks())), wav.rate


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_kind_of_wav_is_read_as_libsndfile_reads_it(
    tmp_path: Path, container: str, subtype: str, channels: int
) -> None:
    path = tmp_path / "sound.wav"
    samples = np.random.default_rng(0).uniform(-1, 1, (701, channels))
    soundfile.write(path, samples, 11_025, format=container, subtype=subtype)
    waveform, rate = read(path)
    reference, reference_rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == reference_rate
    np.testing.assert_allclose(waveform, reference.mean(axis=1), atol=1e-7)


def wav(data: bytes, *, size: int | None = None, encoding: int = 1, channels: int = 1, rate: int = RATE) -> bytes:
    """A 16-bit WAV file by hand, with an unknown chunk of odd length before the samples."""
    layout = struct.pack("<HHIIHH", encoding, channels, rate, rate * 2 * channels, 2 * channels, 16)
    chunks = b"fmt " + struct.pack("<I", 16) + layout + b"LIST" + struct.pack("<I", 3) + b"odd\0"
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("size", [0x7FFFF000, 0xFFFFFFFF])
def test_a_recording_from_a_pipe_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav(struct.pack("<4h", 0, 16384, -16384, -32768), size=size))
    np.testing.assert_array_equal(read(path)[0], [0, 0.5, -0.5, -1])


@pytest.mark.parametrize(("channels", "extra"), [(1, b"1"), (2, b"1"), (2, b"12"), (2, b"123")])
@pytest.mark.parametrize("size", [None, 0xFFFFFFFF])
def test_a_recording_that_ends_inside_a_sample_is_read_without_it(
    tmp_path: Path, channels: int, extra: bytes, size: int | None
) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav(struct.pack("<4h", 8192, 8192, -16384, -16384) + extra, channels=channels, size=size))
    waveform, _ = read(path)
    np.testing.assert_array_equal(waveform, [0.25, 0.25, -0.5, -0.5] if channels == 1 else [0.25, -0.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"dear diary", "not a WAV file"),
        (wav(b"\0\0" * 10)[:30], "truncated: the header is there, the samples are not"),
        (wav(b"\0\0" * 10)[:-5], "truncated: the header promises 20 bytes of samples, 15 follow"),
        (wav(b""), "holds no samples"),
        (wav(b"\0\0", rate=0), "damaged WAV: 1 channels at 0 Hz"),
        (wav(b"\0\0", channels=0), "damaged WAV: 0 channels"),
        (wav(b"\0\0", encoding=2), "WAV encoding 0x0002 of 16 bits is not supported"),
        (b"RIFF\4\0\0\0WAVEdata\2\0\0\0\0\0", "damaged WAV: no format chunk with the samples"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_its_name(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(content)
    assert main(["predict", str(path)], written) == 3
    shown = capsys.readouterr().err
    assert shown.startswith(f"edgekd_runner: {path}: {message}")
    assert shown.count("\n") == 1
