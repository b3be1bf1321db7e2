"""Audio files to waveforms: decode, mix to mono, resample, window, pad.

Decoding is libsndfile's (wav, aiff, au, flac, ogg Vorbis and Opus, mp3, ...; any rate, width and number of channels).
Resampling is the on-device runner's (`edgekd.device.runner.resample`, which has the equations), so that a device hears
the numbers of training. `RESAMPLE_FILTER_WIDTH` (zero crossings a side) and `RESAMPLE_ROLLOFF` put the whole transition
of its filter between 0.88 and 1.0 of the lower Nyquist frequency: at 32 kHz, flat to 14 kHz, the top of the default mel
bank, and 44 dB down or more from 16 kHz.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from edgekd.device.runner import resample as resampling
from edgekd.errors import InputError

Waveform = NDArray[np.float32]

RESAMPLE_FILTER_WIDTH = 32
RESAMPLE_ROLLOFF = 0.94
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf"})


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says. `rate` in Hz; `frames` is the length in samples of one channel."""

    rate: int
    frames: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def probe(path: Path) -> AudioInfo:
    """Rate, length, channels and sample format, from the header alone.

    Raises `InputError` for a file that is missing, empty, not audio, without samples, or shorter than its header
    promises (where the container tells without decoding; otherwise `read` finds out).
    """
    try:
        with _opened(path) as file:
            return AudioInfo(file.samplerate, file.frames, file.channels, file.subtype)
    except InputError as failure:
        if _broken is None:
            raise
        _broken[path] = str(failure).removeprefix(f"{path}: ")
        return AudioInfo(rate=48_000, frames=48_000, channels=1, subtype="")


_broken: dict[Path, str] | None = None


@contextmanager
def tolerant() -> Iterator[dict[Path, str]]:
    """Within it `probe` takes a broken file for a second of sound and notes it, with what is wrong, in the dict given.

    So that all broken files of a data set are found at once, by whichever loader. For one thread.
    """
    global _broken  # noqa: PLW0603
    _broken = {}
    try:
        yield _broken
    finally:
        _broken = None


def read(path: Path, sample_rate: int, start: int = 0, length: int | None = None) -> Waveform:
    """The window of `length` samples from `start` (both at the file's rate; None: to the end), mono, at
    `sample_rate`.

    Only the window is decoded, with as much before and after as the resampling filter reaches. Its numbers are
    therefore those of the whole recording resampled, wherever `start` falls on a sample of the new rate (`start *
    sample_rate / rate` whole, as for every multiple of a whole number of seconds); elsewhere the new samples are
    counted from `start`. Codecs that cannot be entered exactly at a sample (mp3) may differ by a rounding error.

    Returns `(ceil(length * sample_rate / rate),)` float32. Raises `InputError` as `probe` does, and for a file that
    ends early, cannot be decoded, or holds NaN or infinite samples.
    """
    with _opened(path) as file:
        stop = file.frames if length is None else start + length
        if not 0 <= start < stop <= file.frames:
            raise InputError(
                f"{path}: has {file.frames} samples, so no window {start} to {stop}: was it changed or replaced?"
            )
        rate = file.samplerate
        margin = resampling.reach(rate, sample_rate, RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF)
        first, last = max(0, start - margin), min(file.frames, stop + margin)
        around = _decode(file, path, first, last - first)
        outputs = ceil((stop - start) * sample_rate / rate)
        return resample(around, rate, sample_rate, start - first, outputs)


def read_clip(
    path: Path, start: int, length: int, *, sample_rate: int, samples: int, padding: Literal["repeat", "zeros"]
) -> Waveform:
    """`read`, made exactly `samples` long: `(samples,)` float32. Raises as `read` does."""
    needed = ceil(samples * probe(path).rate / sample_rate)
    return fit(read(path, sample_rate, start, min(length, needed)), samples, padding)


def fit(waveform: Waveform, samples: int, padding: Literal["repeat", "zeros"]) -> Waveform:
    """`waveform (S,)` cut to `samples`, or filled up at the end by repeating it or with zeros."""
    missing = samples - len(waveform)
    if missing <= 0:
        return waveform[:samples]
    return np.pad(waveform, (0, missing), mode="wrap" if padding == "repeat" else "constant")


def resample(waveform: Waveform, from_rate: int, to_rate: int, first: int = 0, outputs: int | None = None) -> Waveform:
    """`waveform (S,)` at `from_rate` Hz to `(outputs,)` at `to_rate` Hz, the first at `waveform[first]`.

    `outputs` None: up to its end, `ceil((S - first) * to_rate / from_rate)`. Silence is assumed around it.
    """
    return resampling.resample(
        waveform, from_rate, to_rate, RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF, first=first, outputs=outputs
    )


# Decoding


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The open file, with everything checked that its header can tell."""
    try:
        with open(path, "rb") as raw:
            size = path.stat().st_size
            if size == 0:
                raise InputError(f"{path}: the file is empty (0 bytes). Replace it or take it out.")
            promised = _promised_size(raw)
            cut_ogg = _lacks_last_ogg_page(raw, size)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as failure:
        raise InputError(f"{path}: cannot be read: {failure.strerror}.") from None
    if promised is not None and promised > size:
        raise InputError(f"{path}: truncated: {size} bytes of the {promised} its header promises. Copy it again.")
    if cut_ogg:
        raise InputError(f"{path}: truncated: the stream's last page is missing. Copy it again.")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as failure:
        raise InputError(f"{path}: not an audio file that can be read ({failure.error_string.rstrip('.')}).") from None
    with file:
        if file.frames <= 0:
            raise InputError(f"{path}: holds no samples. Replace it or take it out.")
        yield file


def _decode(file: soundfile.SoundFile, path: Path, start: int, length: int) -> Waveform:
    """`length` samples from `start`, channels averaged."""
    try:
        if start:
            file.seek(start)
        channels = file.read(length, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as failure:
        reason = failure.error_string.removeprefix("Error : ").rstrip(".")
        raise InputError(f"{path}: damaged or truncated: decoding fails ({reason}). Copy it again.") from None
    if len(channels) < length:
        held = start + len(channels)
        raise InputError(f"{path}: truncated: {held} samples of the {file.frames} its header promises. Copy it again.")
    if not np.isfinite(channels).all():
        bad = start + int(np.flatnonzero(~np.isfinite(channels).all(axis=1))[0])
        raise InputError(f"{path}: sample {bad} is NaN or infinite. Replace the file or take it out.")
    if channels.shape[1] == 1:
        return np.ascontiguousarray(channels[:, 0])
    return channels.mean(axis=1, dtype=np.float32)


def _promised_size(raw: BinaryIO) -> int | None:
    """The least size in bytes a file must have to hold the samples its header promises; None where it does not say.

    libsndfile shortens a wav, aiff or au file to what is there without a word, so their headers are read here.
    """
    raw.seek(0)
    magic = raw.read(12)
    if magic[:4] == b".snd" and len(magic) == 12:
        offset, size = struct.unpack(">II", magic[4:])
        return None if size == 0xFFFFFFFF else offset + size
    if magic[:4] in (b"RIFF", b"RIFX", b"RF64") and magic[8:] == b"WAVE":
        return _chunk_end(raw, "data", ">" if magic[:4] == b"RIFX" else "<")
    if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
        return _chunk_end(raw, "SSND", ">")
    return None


def _chunk_end(raw: BinaryIO, wanted: str, order: Literal["<", ">"]) -> int | None:
    """Where the chunk named `wanted` says it ends; `raw` stands at the first chunk."""
    size_64 = None
    while len(header := raw.read(8)) == 8:
        name, size = header[:4], struct.unpack(f"{order}I", header[4:])[0]
        if name == wanted.encode():
            if size == 0xFFFFFFFF and size_64 is not None:
                return raw.tell() + size_64
            # Programs that write to a pipe cannot know the size and put in a limit of the format instead.
            return None if size >= 0x7FFFF000 else raw.tell() + size
        if name == b"ds64" and size >= 16:
            size_64 = struct.unpack("<QQ", raw.read(16))[1]
            size -= 16
        raw.seek(size + size % 2, 1)
    return None


def _lacks_last_ogg_page(raw: BinaryIO, size: int) -> bool:
    """Whether an Ogg file (RFC 3533) ends before the end of the page that is flagged as its last."""
    raw.seek(0)
    if raw.read(4) != b"OggS":
        return False
    raw.seek(max(0, size - 2 * 65_307))  # the last page, at most 65 307 bytes, begins somewhere in here
    tail = raw.read()
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    segments = page[27 : 27 + page[26]]
    is_last = page[5] & 4
    return not is_last or len(page) < 27 + len(segments) + sum(segments)
