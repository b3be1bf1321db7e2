"""The header of a WAV file: what the samples are, and which bytes of the file hold them.

RIFF, RIFX (big-endian), and RF64 or BW64, whose sizes have 64 bits (EBU Tech 3306, ITU-R BS.2088). A size that a
recorder could not know, or never wrote because it lost power, is told from one that a cut file falls short of.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

from edgekd.device.runner.errors import RunnerError

RATES = range(100, 768_001)  # Hz; outside, a header is damaged, and resampling could fill the memory
MOST_CHANNELS = 1024
PCM, FLOAT, ALAW, ULAW = 1, 3, 6, 7  # encodings of the format chunk
EXTENSIBLE = 0xFFFE

# Byte orders by the first four bytes.
_ORDERS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_KNOWN = (
    *(b"fmt ", b"data", b"fact", b"LIST", b"JUNK", b"junk", b"PAD ", b"FLLR", b"bext", b"iXML", b"_PMX", b"axml"),
    *(b"chna", b"cue ", b"plst", b"smpl", b"inst", b"id3 ", b"ID3 ", b"PEAK", b"afsp", b"DISP", b"guan", b"wamd"),
    *(b"cart", b"levl", b"umid", b"minf", b"elm1", b"regn", b"acid", b"strc", b"LGWV", b"note", b"labl"),
)
_TAGS = (b"TAG", b"ID3", b"3DI", b"APETAGEX", b"LYRICSBEGIN")  # of music players, behind the last chunk
_MOST_CHUNKS = 4096
_SLACK = 1 << 16  # bytes; so many zeros behind the samples are a disk's padding
_4_GIB = 1 << 32


class NotWav(RunnerError):
    """The file is of another kind."""


class WavHeader(NamedTuple):
    """What the format chunk says, and where the samples are.

    `rate` in Hz; a sample of one channel has `bits` bits in `container` bytes (0 where it has no place of its own:
    `encoding` is a compressed one). `extents` are offsets and lengths in bytes; `fact` is the number of samples of a
    channel that the chunk of this name promises. `layout` is the format chunk.
    """

    order: str
    encoding: int
    channels: int
    rate: int
    container: int
    bits: int
    extents: tuple[tuple[int, int], ...]
    fact: int | None
    layout: bytes

    @property
    def data_bytes(self) -> int:
        return sum(length for _, length in self.extents)


def read_header(file: BinaryIO) -> WavHeader:
    """The header of an open WAV file.

    Raises `NotWav` for another kind of file, `RunnerError` (without the file's name) for one that is damaged, or holds
    another number of bytes than its header promises, with both numbers.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(12)
    if not size:
        raise NotWav("the file is empty")
    order = _ORDERS.get(magic[:4])
    if order is None or magic[8:] != b"WAVE":
        raise NotWav("not a WAV file; convert it first, e.g. ffmpeg -i FILE -c:a pcm_s16le out.wav")
    layout, extents, fact = _walk(_Chunks(file, size, order, wide=magic[:2] != b"RI"))
    return interpret(order, layout, extents, fact)


class _Chunks:
    """The file with the size of it, and what its form says of sizes."""

    def __init__(self, file: BinaryIO, size: int, order: str, wide: bool) -> None:
        self._file, self.size, self.order, self.wide = file, size, order, wide

    def at(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        return self._file.read(length)

    def header(self, position: int) -> tuple[bytes, int] | None:
        """Name and size of the chunk at `position`; None where there is none."""
        head = self.at(position, 8)
        if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
            return None
        return head[:4], struct.unpack(self.order + "I", head[4:])[0]

    def after(self, position: int, size: int) -> int:
        """Where the chunk behind one of `size` bytes at `position` begins: chunks are padded to even lengths, but by
        some programs."""
        end = position + size
        if size % 2 and self.at(end, 4) in _KNOWN and self.at(end + 1, 4) not in _KNOWN:
            return end
        return end + size % 2

    def follow(self, position: int) -> bool:
        """Whether there are chunks from `position` to the end of the file, or one by a name that is known."""
        for _ in range(_MOST_CHUNKS):
            found = self.header(position)
            if found is None:
                return False
            if found[0] in _KNOWN or (position := self.after(position + 8, found[1])) in (self.size, self.size + 1):
                return True
        return False

    def tail(self, position: int) -> int:
        """Where the samples that begin at `position` and have no known end do end: before chunks at the end of the
        file, if there are some."""
        begin = max(position, self.size - _SLACK)
        last = self.at(begin, _SLACK)
        places = (begin + place for name in _KNOWN for place in _places(last, name))
        return min((place for place in places if self._ends_file(place)), default=self.size)

    def _ends_file(self, position: int) -> bool:
        for _ in range(_MOST_CHUNKS):
            found = self.header(position)
            if found is None or found[0] not in _KNOWN:
                return False
            position = self.after(position + 8, found[1])
            if position in (self.size, self.size + 1):
                return True
        return False

    def silent(self, position: int) -> bool:
        """Whether nothing but a little padding follows from `position`."""
        return self.size - position <= _SLACK and not any(self.at(position, _SLACK))


def _places(text: bytes, part: bytes) -> list[int]:
    found, place = [], text.find(part)
    while place >= 0:
        found.append(place)
        place = text.find(part, place + 1)
    return found


def _walk(chunks: _Chunks) -> tuple[bytes, list[tuple[int, int]], int | None]:
    """The format chunk, where the samples are, and what the fact chunk says."""
    layout: bytes | None = None
    extents: list[tuple[int, int]] = []
    fact: int | None = None
    wide: int | None = None
    position, ended = 12, False
    for _ in range(_MOST_CHUNKS):
        found = None if ended else chunks.header(position)
        if found is None:
            break
        (name, size), begin = found, position + 8
        if name == b"ds64" and size >= 24:
            _, wide, wide_fact = struct.unpack("<QQQ", chunks.at(begin, 24).ljust(24, b"\0"))
            fact = wide_fact or fact
        elif name == b"fmt " and layout is None:
            layout = chunks.at(begin, min(size, 256))
        elif name == b"fact" and size >= 4 and fact is None:
            (fact,) = struct.unpack(chunks.order + "I", chunks.at(begin, 4).ljust(4, b"\0"))
        elif name == b"data":
            declared = wide if wide is not None and size == 0xFFFFFFFF else size
            frame = struct.unpack_from(chunks.order + "H", layout, 12)[0] if layout and len(layout) >= 14 else 1
            size, ended = _data_size(chunks, begin, declared, max(1, frame), wide is not None)
            extents.append((begin, size))
        position = chunks.after(begin, size)
    if not extents:
        if position >= chunks.size:
            raise RunnerError("truncated: the header is there, the samples are not")
        raise RunnerError(f"damaged WAV: no chunk at byte {position}, where one must begin, and no samples before it")
    if layout is None or len(layout) < 16:
        raise RunnerError("damaged WAV: no format chunk with the samples")
    return layout, [extent for extent in extents if extent[1]], fact


def _data_size(chunks: _Chunks, begin: int, declared: int, frame: int, wide: bool) -> tuple[int, bool]:
    """How many bytes of samples there are from `begin`, where a header says `declared`; whether nothing follows."""
    held = chunks.size - begin
    if declared > held:
        unknown = 0x7FFF0000 <= declared <= 0x80001000 or declared >= 0xFFFFF000  # what goes to a pipe has no size
        # Some recorders write the file's size for that of the samples.
        if (unknown and not wide) or declared in (0xFFFFFFFF, chunks.size, chunks.size - 8):
            return chunks.tail(begin) - begin, True
        raise RunnerError(f"truncated: the header promises {declared} bytes of samples, {held} follow")
    end = begin + declared
    rest = held - declared
    if rest <= 1 or chunks.follow(chunks.after(begin, declared)):
        return declared, False
    if not wide and rest >= _4_GIB:  # 32 bits could not hold the size
        declared += rest // _4_GIB * _4_GIB
        rest %= _4_GIB
        end = begin + declared
        if rest <= 1 or chunks.follow(chunks.after(begin, declared)):
            return declared, False
    if rest > declared and not (declared and chunks.silent(end)):  # the size was never brought up to date
        return chunks.tail(begin) - begin, True
    if rest < frame or chunks.silent(end) or chunks.at(end, 16).startswith(_TAGS):
        return declared, True
    raise RunnerError(
        f"damaged WAV: the header promises {declared} bytes of samples, {held} follow, and what is behind the promised"
        " ones is no chunk"
    )


def interpret(order: str, layout: bytes, extents: list[tuple[int, int]], fact: int | None) -> WavHeader:
    """What the format chunk `layout` of a file in this byte `order` says of samples that are in `extents`."""
    encoding, channels, rate, speed, align, bits = struct.unpack_from(order + "HHIIHH", layout)
    if encoding == EXTENSIBLE and len(layout) >= 26:  # the encoding opens the GUID of the sub-format
        (encoding,) = struct.unpack_from(order + "H", layout, 24)
    if not 1 <= channels <= MOST_CHANNELS or rate not in RATES:
        raise RunnerError(f"damaged WAV: {channels} channels at {rate} Hz ({said_bounds()})")
    container = 0
    if encoding in (PCM, FLOAT, ALAW, ULAW):
        container = -(-bits // 8)
        block, odd = divmod(align, channels)
        # Samples may lie in more bytes than they have bits for.
        if not odd and block > container and (speed == rate * align or (bits, block) == (24, 4)):
            container = block
    header = WavHeader(order, encoding, channels, rate, container, bits, tuple(extents), fact, layout)
    if header.data_bytes < max(1, container * channels):
        raise RunnerError("holds no samples")
    return header


def said_bounds() -> str:
    """The rates and numbers of channels that are taken, in words."""
    return f"{RATES[0]} to {RATES[-1]} Hz and up to {MOST_CHANNELS} channels are read"
