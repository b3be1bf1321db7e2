"""WAV files to waveforms, with numpy alone, a block at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator

import numpy as np

from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.wav_header import ALAW, FLOAT, PCM, ULAW, WavHeader, read_header

_SCALE_32 = np.float32(2.0**-31)
BLOCK_BYTES = 1 << 21  # of samples decoded at a time: bounds the memory that a file of any length takes


class WavFile:
    """The samples of an open WAV file: PCM (8, 16, 24, 32 bits), float (32, 64 bits), A-law or u-law.

    `rate` in Hz, `frames` samples of each of `channels`. Raises `RunnerError` (without the file's name) for another
    encoding.
    """

    def __init__(self, file: BinaryIO, header: WavHeader) -> None:
        self._file, self._extents = file, header.extents
        self.rate, self.channels = header.rate, header.channels
        self.floats = header.encoding == FLOAT  # which may be of any scale
        self._frame = header.container * header.channels
        self._convert = decoder(header, self._bytes)
        self.frames = header.data_bytes // self._frame

    def read(self, start: int, frames: int) -> np.ndarray:
        """`(frames, channels)` float32 with full scale 1, from sample `start`; fewer at the end."""
        frames = min(frames, self.frames - start)
        data = self._bytes(start * self._frame, frames * self._frame)
        if len(data) < frames * self._frame:
            there = start + len(data) // self._frame
            raise RunnerError(f"truncated: {there} samples of the {self.frames} that were there when it was opened")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is classified
            return self._convert(data).reshape(-1, self.channels)

    def blocks(self, channel: int | str = "mean", full_scale: float = 1.0) -> Iterator[np.ndarray]:
        """The whole file as it is heard, in pieces `(samples,)`: of its channels the mean or the one with a number,
        floats divided by their full scale. Raises `RunnerError` for a channel that is not there."""
        if channel != "mean" and int(channel) >= self.channels:
            raise RunnerError(f"has {self.channels} channel(s), counted from 0, and the bundle hears number {channel}")
        step, scale = max(1, BLOCK_BYTES // self._frame), full_scale if self.floats else 1.0
        for start in range(0, self.frames, step):
            piece = mix_down(self.read(start, step), channel)
            yield piece if scale == 1 else piece / np.float32(scale)

    def _bytes(self, start: int, count: int) -> bytes:
        """So many bytes of the samples, wherever in the file they are."""
        parts = []
        for begin, length in self._extents:
            if count > 0 and start < length:
                self._file.seek(begin + start, os.SEEK_SET)
                parts.append(self._file.read(min(count, length - start)))
                count -= len(parts[-1])
            start = max(0, start - length)
        return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def open_wav(path: Path) -> Iterator[WavFile]:
    """The WAV file at `path`, open. Raises `RunnerError` (without the file's name) for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            yield WavFile(file, read_header(file))
    except OSError as failure:
        raise RunnerError((failure.strerror or "cannot be read").lower()) from None


def mix_down(channels: np.ndarray, channel: int | str = "mean") -> np.ndarray:
    """Where channels become one: `(S, C)` float32 -> `(S,)`, their mean, or the one with a number."""
    if channel != "mean" or channels.shape[1] == 1:
        return channels[:, 0 if channel == "mean" else int(channel)]
    with np.errstate(over="ignore", invalid="ignore"):
        return channels.mean(axis=1, dtype=np.float32)


def to_mono(
    data: bytes, channels: int, convert: Callable[[bytes], np.ndarray], channel: int | str = "mean"
) -> np.ndarray:
    """Samples `(S,)` of PCM `data`, its interleaved channels mixed; `convert` is an entry of `DECODERS`."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is classified
        return mix_down(convert(data).reshape(-1, channels), channel)


# Samples


def decodable(header: WavHeader) -> bool:
    """Whether the samples need no codec that is not here."""
    whole = header.encoding != FLOAT or header.bits == 8 * header.container
    return whole and (header.encoding, 8 * header.container) in DECODERS


def decoder(header: WavHeader, samples: Callable[[int, int], bytes]) -> Callable[[bytes], np.ndarray]:
    """What turns the bytes of a file into samples; `samples` reads some, from an offset. Raises `RunnerError`."""
    encoding, container = header.encoding, header.container
    if encoding == PCM and (container, header.bits) == (4, 24) and _low_justified(header, samples):
        return lambda data: _pcm24_low(_in_order(data, 4, header.order))
    if not decodable(header):
        raise RunnerError(
            f"WAV encoding {encoding:#06x} of {header.bits} bits is not supported;"
            " convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav"
        )
    convert = DECODERS[encoding, 8 * container]
    return lambda data: convert(_in_order(data, container, header.order))


def _in_order(data: bytes, container: int, order: str) -> bytes:
    if order == "<" or container == 1:
        return data
    return np.frombuffer(data, np.uint8).reshape(-1, container)[:, ::-1].tobytes()


def _low_justified(header: WavHeader, samples: Callable[[int, int], bytes]) -> bool:
    """Whether samples of 24 bits lie in the lower three of their four bytes, as ALSA's S24_LE does.

    By the format they lie in the upper three and the lowest byte is 0 (Multimedia Programming Interface and Data
    Specifications 1.0, 1991). Where it is not, and the highest only repeats the sign or is 0, it is the other way.
    """
    places = np.linspace(0, max(0, header.data_bytes - 4096) // 4, 64).astype(np.int64) * 4
    pieces = [samples(int(place), 4096) for place in np.unique(places)]
    data = _in_order(b"".join(piece[: len(piece) // 4 * 4] for piece in pieces), 4, header.order)
    quarters = np.frombuffer(data, np.uint8).reshape(-1, 4)
    sign = np.where(quarters[:, 2] >= 128, 255, 0)
    top = quarters[:, 3]
    return bool(quarters[:, 0].any() and ((top == sign).all() or not top.any()))


def _pcm24(data: bytes) -> np.ndarray:
    # Three bytes and the one before them, as the upper three of a 32-bit integer, which keeps the sign.
    wide = np.ndarray(len(data) // 3, "<i4", b"\0" + data, 0, (3,))
    return (wide & np.int32(-256)).astype(np.float32) * _SCALE_32


def _pcm24_low(data: bytes) -> np.ndarray:
    return np.left_shift(np.frombuffer(data, "<u4"), 8).view("<i4").astype(np.float32) * _SCALE_32


def _ulaw_table() -> np.ndarray:
    """ITU-T G.711: a sign, an exponent and a mantissa, all bits inverted."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 15).astype(np.int32) << 3) + 132 << (code >> 4 & 7)) - 132
    return (np.where(code & 128, -magnitude, magnitude) / 2**15).astype(np.float32)


def _alaw_table() -> np.ndarray:
    """ITU-T G.711: a sign, an exponent and a mantissa, every other bit inverted."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = (code >> 4 & 7).astype(np.int32)
    magnitude = ((code & 15).astype(np.int32) << 4) + 8
    magnitude = np.where(exponent, magnitude + 256 << np.maximum(exponent - 1, 0), magnitude)
    return (np.where(code & 128, magnitude, -magnitude) / 2**15).astype(np.float32)


DECODERS: dict[tuple[int, int], Callable[[bytes], Any]] = {  # by encoding and bits of a container
    (PCM, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (PCM, 16): lambda data: np.frombuffer(data, "<i2").astype(np.float32) / 2**15,
    (PCM, 24): _pcm24,
    (PCM, 32): lambda data: np.frombuffer(data, "<i4").astype(np.float32) * _SCALE_32,
    (FLOAT, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    (FLOAT, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
    (ALAW, 8): lambda data: _alaw_table()[np.frombuffer(data, np.uint8)],
    (ULAW, 8): lambda data: _ulaw_table()[np.frombuffer(data, np.uint8)],
}
