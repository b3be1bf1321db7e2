"""An open recording: what it holds, told by what can be decoded of it, and its samples.

What a file's header says of its length is compared with the file (`edgekd.audio.streams`; for WAV
`edgekd.device.runner.wav_header`, so that a device reads what training reads). Where they differ, what can be decoded
is used, or the file is refused with both numbers. WAV files are decoded as on a device; WAV files of codecs, and all
others, by libsndfile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.sndfile import BLOCK
from edgekd.audio.streams import Streams
from edgekd.device.runner import RunnerError
from edgekd.device.runner.wav import WavFile, decodable
from edgekd.device.runner.wav_header import (
    ALAW,
    FLOAT,
    MOST_CHANNELS,
    PCM,
    RATES,
    ULAW,
    NotWav,
    read_header,
    said_bounds,
)
from edgekd.errors import InputError

Samples = NDArray[np.float32]

_SUBTYPES = {
    (PCM, 1): "PCM_U8",
    (PCM, 2): "PCM_16",
    (PCM, 3): "PCM_24",
    (PCM, 4): "PCM_32",
    (FLOAT, 4): "FLOAT",
    (FLOAT, 8): "DOUBLE",
    (ALAW, 1): "ALAW",
    (ULAW, 1): "ULAW",
}


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds. `rate` in Hz; `frames` is the length in samples of one channel."""

    rate: int
    frames: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


class _Source(Protocol):
    def read(self, start: int, frames: int, /) -> Samples: ...


class Recording:
    """An open file: `info`, and its samples at its own rate."""

    def __init__(self, path: Path, info: AudioInfo, source: _Source) -> None:
        self.path, self.info, self._source = path, info, source

    def read(self, start: int, length: int, *, finite: bool = True) -> Samples:
        """`(length, channels)` from sample `start`.

        Raises `InputError` for a file that ends early, cannot be decoded, or, where they are to be `finite`, holds NaN
        or infinite samples.
        """
        try:
            channels = self._source.read(start, length)
        except RunnerError as failure:
            raise InputError(f"{self.path}: {failure}.") from None
        if len(channels) < length:
            held, promised = start + len(channels), self.info.frames
            raise InputError(
                f"{self.path}: truncated: {held} samples of the {promised} its header promises. Copy it again."
            )
        if finite and not np.isfinite(channels).all():
            bad = start + int(np.flatnonzero(~np.isfinite(channels).all(axis=1))[0])
            raise InputError(f"{self.path}: sample {bad} is NaN or infinite. Replace the file or take it out.")
        return channels

    def blocks(self, start: int = 0, length: int | None = None, *, finite: bool = True) -> Iterator[Samples]:
        """`length` samples from `start` (None: all that follow), in pieces `(samples, channels)`. Raises as `read`
        does."""
        step = max(1, BLOCK // self.info.channels)
        stop = self.info.frames if length is None else start + length
        for first in range(start, stop, step):
            yield self.read(first, min(step, stop - first), finite=finite)


@contextmanager
def opened(path: Path) -> Iterator[Recording]:
    """The file at `path`, open.

    Raises `InputError` for one that is missing, empty, not audio, without samples, at a rate or with a number of
    channels that no recorder has, or cut.
    """
    with ExitStack() as files:
        try:
            file = files.enter_context(open(path, "rb"))
            if not file.read(1):
                raise InputError(f"{path}: the file is empty (0 bytes). Replace it or take it out.")
            recording = _open(path, file, files)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file.") from None
        except OSError as failure:
            raise InputError(f"{path}: cannot be read: {failure.strerror}.") from None
        yield recording


def _open(path: Path, file: BinaryIO, files: ExitStack) -> Recording:
    header = None
    try:
        header = read_header(file)
        if decodable(header):
            wav = WavFile(file, header)
            subtype = _SUBTYPES[header.encoding, header.container]
            return Recording(path, AudioInfo(wav.rate, wav.frames, wav.channels, subtype), wav)
    except NotWav:
        pass
    except RunnerError as failure:
        advice = "Copy it again" if str(failure).startswith("truncated") else "Replace it or take it out"
        raise InputError(f"{path}: {failure}. {advice}.") from None
    streams = Streams(path, file, header)
    files.callback(streams.close)
    info = AudioInfo(streams.rate, streams.frames, streams.channels, streams.subtype)
    if info.rate not in RATES or not 1 <= info.channels <= MOST_CHANNELS:
        raise InputError(f"{path}: damaged: {info.channels} channels at {info.rate} Hz ({said_bounds()}).")
    if info.frames <= 0:
        raise InputError(f"{path}: holds no samples. Replace it or take it out.")
    return Recording(path, info, streams)
