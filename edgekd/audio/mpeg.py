"""MPEG audio (mp3, mp2, mp1; ISO 11172-3, 13818-3): how many frames a file holds, by their headers.

A file says how long it is only in a frame of the Xing or Info kind. Without one libsndfile guesses the length by the
first frame's bit rate, and decodes no further. Then, and where the frame is not right, the frames are counted here.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from edgekd.audio.parts import Part, Parts
from edgekd.errors import InputError

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version
# kbit/s, by version 1 or not and layer.
_BIT_RATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_LONGEST_FRAME = 8192  # bytes; of a free bit rate
_JUNK = 1 << 16  # bytes before the first frame

Bytes = mmap.mmap | bytes


@dataclass(frozen=True)
class _Frame:
    """A header: `kind` is what all frames of a stream share, `size` in bytes (0: free bit rate)."""

    kind: tuple[int, int, int]  # version, layer, rate
    size: int
    samples: int
    padding: int
    side: int  # bytes of side information after the header


@dataclass
class _Stream:
    """Frames of one encoding: those with sound, where they begin and end, and what its Xing frame promises."""

    kind: tuple[int, int, int]
    begin: int
    sound: int  # where the first frame with sound begins
    end: int
    frames: int
    samples: int  # of a frame
    promised: int | None
    first: int = 0  # bytes of the first frame
    cut: bool = False  # it ends within a frame


def parts(path: Path, file: BinaryIO, begin: int = 0, end: int | None = None) -> Parts | None:
    """How the MPEG audio from byte `begin` to `end` is decoded; None where there is none.

    Raises `InputError` for one that ends before the frames its Xing frame promises, with both numbers.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        whole = begin == 0 and end is None
        end = len(data) if end is None else end
        begin, end = _without_tags(data, begin, end)
        first = _first(data, begin, end)
        if first is None:
            return None
        xing = _xing(data, first, _header(data, first))
        if whole and xing is not None and xing[0] and xing[1] == end - first:
            return (Part(loud=True),)  # it says how long it is, in frames and in bytes
        streams = _streams(data, first, end)
    if not streams:
        return None
    return tuple(_part(path, stream) for stream in streams)


def _part(path: Path, stream: _Stream) -> Part:
    promised, held = stream.promised, stream.frames
    if promised == held:
        return Part(((stream.begin, stream.end - stream.begin),), loud=True)
    if promised is not None and promised > held + (not stream.cut):  # some count the Xing frame, too
        each = stream.samples
        raise InputError(
            f"{path}: truncated: {held * each} samples of the {promised * each} its header promises. Copy it again."
        )
    # libsndfile guesses no less than the file has if the same frames follow again, which are not decoded.
    sound = stream.sound, stream.end - stream.sound
    times = 2 + held * stream.first // sound[1]
    return Part((sound,) * times, frames=held * stream.samples, loud=True)


def _streams(data: Bytes, position: int, end: int) -> list[_Stream]:
    """The streams from the frame at `position` on. One ends where the next one's Xing frame lies."""
    streams: list[_Stream] = []
    free, lost = 0, False
    while position < end:
        frame = _header(data, position)
        same = bool(streams) and frame is not None and frame.kind == streams[-1].kind
        if frame is None or ((lost or (streams and not same)) and not _is_frame(data, position, end)):
            position, lost = _next_sync(data, position + 1, end), True
            continue
        if not frame.size and not free:
            free = _free_size(data, position, frame, end)
        size = frame.size or free + frame.padding
        if not free and not frame.size:
            position, lost = _next_sync(data, position + 1, end), True
            continue
        if position + size > end:
            if streams:
                streams[-1].cut = True
            break
        xing, lost = _xing(data, position, frame), False
        if xing is not None or not same:
            sound = position if xing is None else position + size
            streams.append(_Stream(frame.kind, position, sound, sound, 0, frame.samples, xing and xing[0]))
        if xing is None:
            stream = streams[-1]
            stream.frames += 1
            stream.first, stream.end = stream.first or size, position + size
        position += size
    return [stream for stream in streams if stream.frames]


def _header(data: Bytes, position: int) -> _Frame | None:
    return _parsed(data[position : position + 4])


@lru_cache(maxsize=4096)
def _parsed(head: bytes) -> _Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_code, bits_code, padding = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_code == 3 or bits_code == 15:
        return None
    rate, one = _RATES[version][rate_code], version == 3
    samples = 384 if layer == 1 else 1152 if layer == 2 or one else 576
    slot = 4 if layer == 1 else 1
    bits = _BIT_RATES[one, layer][bits_code] * 1000
    size = (samples // 8 // slot * bits // rate + padding) * slot if bits else 0
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if one else (9 if mono else 17)
    return _Frame((version, layer, rate), size, samples, padding * slot, side)


def _is_frame(data: Bytes, position: int, end: int) -> bool:
    """Whether a whole frame at `position` is followed by another of its kind, or by nothing."""
    frame = _header(data, position)
    if frame is None:
        return False
    size = frame.size or _free_size(data, position, frame, end)
    if not size or position + size > end:
        return False
    after = _header(data, position + size)
    return position + size == end or (after is not None and after.kind == frame.kind)


def _free_size(data: Bytes, position: int, frame: _Frame, end: int) -> int:
    """The size without padding of frames of a free bit rate: the distance to the next header like this one."""
    limit = min(end, position + _LONGEST_FRAME)
    place = _next_sync(data, position + 4, limit)
    while place < limit:
        other = _header(data, place)
        if other is not None and other.kind == frame.kind and not other.size:
            return place - position - frame.padding
        place = _next_sync(data, place + 1, limit)
    return 0


def _next_sync(data: Bytes, position: int, end: int) -> int:
    place = data.find(b"\xff", position, end)
    return end if place < 0 else place


def _first(data: Bytes, begin: int, end: int) -> int | None:
    """Where the first frame begins that another follows."""
    position = begin
    while position < min(end, begin + _JUNK):
        if _is_frame(data, position, end):
            return position
        position = _next_sync(data, position + 1, end)
    return None


def _xing(data: Bytes, position: int, frame: _Frame | None) -> tuple[int | None, int | None] | None:
    """Frames and bytes that a Xing, Info or VBRI frame promises; None where the frame holds sound."""
    if frame is None or frame.kind[1] != 3:
        return None
    for crc in (0, 2):
        begin = position + 4 + crc + frame.side
        if data[begin : begin + 4] in (b"Xing", b"Info"):
            flags, *numbers = struct.unpack(">III", data[begin + 4 : begin + 16].ljust(12, b"\0"))
            frames = numbers.pop(0) if flags & 1 else None
            return frames, numbers[0] if flags & 2 else None
    if data[position + 36 : position + 40] == b"VBRI":
        _, frames = struct.unpack(">II", data[position + 46 : position + 54].ljust(8, b"\0"))
        return frames, None  # libsndfile does not know it: its bytes must not match
    return None


def _without_tags(data: Bytes, begin: int, end: int) -> tuple[int, int]:
    """The range without the tags of music players (ID3v2 before; ID3v1, APE, Lyrics3 behind)."""
    while data[begin : begin + 3] == b"ID3" and end - begin > 10:
        begin += _id3_size(data[begin : begin + 10])
    while True:
        if data[max(begin, end - 128) : end][:3] == b"TAG" and end - begin > 128:
            end -= 128
        elif data[max(begin, end - 32) : end][:8] == b"APETAGEX" and end - begin > 32:
            size, _, flags = struct.unpack("<III", data[end - 20 : end - 8])
            end = max(begin, end - size - (32 if flags >> 31 else 0))
        elif (
            data[max(begin, end - 9) : end] == b"LYRICS200" and end - begin > 15 and data[end - 15 : end - 9].isdigit()
        ):
            end = max(begin, end - 15 - int(data[end - 15 : end - 9]))
        else:
            return begin, end


def after_id3(file: BinaryIO, size: int) -> int:
    """Where a file begins after the ID3v2 tags in front, which other kinds of files may have, too."""
    begin = 0
    while begin < size:
        file.seek(begin)
        if len(head := file.read(10)) < 10 or head[:3] != b"ID3":
            break
        begin += _id3_size(head)
    return begin


def _id3_size(head: bytes) -> int:
    a, b, c, d = head[6:10]
    return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 16 else 0)
