"""WAV files to waveforms, with numpy alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable

import numpy as np

from edgekd.device.runner.errors import RunnerError

PLAUSIBLE_RATES = range(1_000, 768_001)  # Hz; outside, a header is damaged and resampling could fill the memory


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Mono waveform `(samples,)`, float32, full scale 1, and the sample rate in Hz, from a RIFF/WAVE file.

    PCM of 8, 16, 24 and 32 bits and float of 32 and 64 bits, plain or WAVE_FORMAT_EXTENSIBLE; channels are averaged.
    Raises `RunnerError` (without the file's name) for anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise RunnerError((failure.strerror or "cannot be read").lower()) from None
    if not content:
        raise RunnerError("the file is empty")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise RunnerError("not a WAV file; convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav")
    layout: bytes | None = None
    position = 12
    while position + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if kind == b"fmt ":
            layout = content[position : position + size]
        elif kind == b"data":
            if layout is None or len(layout) < 16:
                raise RunnerError("damaged WAV: no format before the samples")
            follow = len(content) - position
            if size >= 0x7FFFF000:  # a recorder that writes to a pipe cannot know the size and puts in a limit instead
                size = follow
            if size > follow:
                raise RunnerError(f"truncated: the header promises {size} bytes of samples, {follow} follow")
            return _decode(content[position : position + size], layout)
        position += size + size % 2  # chunks are padded to even lengths
    raise RunnerError("truncated: the header is there, the samples are not")


def _decode(data: bytes, layout: bytes) -> tuple[np.ndarray, int]:
    encoding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if encoding == 0xFFFE and len(layout) >= 26:  # EXTENSIBLE: the encoding opens the sub-format GUID
        (encoding,) = struct.unpack_from("<H", layout, 24)
    if channels == 0 or rate not in PLAUSIBLE_RATES:
        raise RunnerError(f"damaged WAV: {channels} channels at {rate} Hz")
    convert = DECODERS.get((encoding, bits))
    if convert is None:
        raise RunnerError(
            f"WAV encoding {encoding:#06x} of {bits} bits is not supported;"
            " convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav"
        )
    frame = channels * bits // 8
    if len(data) < frame:
        raise RunnerError("no samples in it")
    return to_mono(data[: len(data) // frame * frame], channels, convert), rate


def to_mono(data: bytes, channels: int, convert: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """Samples `(S,)` of PCM `data`, its interleaved channels averaged; `convert` is an entry of `DECODERS`."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is classified
        return convert(data).reshape(-1, channels).mean(axis=1, dtype=np.float32)


def _pcm24(data: bytes) -> np.ndarray:
    # Three bytes become the upper three of a 32-bit integer, which keeps the sign.
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


PCM, FLOAT = 1, 3
DECODERS: dict[tuple[int, int], Callable[[bytes], np.ndarray]] = {
    (PCM, 8): lambda data: (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128,
    (PCM, 16): lambda data: np.frombuffer(data, "<i2").astype(np.float32) / 2**15,
    (PCM, 24): _pcm24,
    (PCM, 32): lambda data: (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32),
    (FLOAT, 32): lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    (FLOAT, 64): lambda data: np.frombuffer(data, "<f8").astype(np.float32),
}
