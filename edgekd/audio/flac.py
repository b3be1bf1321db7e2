"""FLAC (RFC 9639): the length that a stream has, where its header tells none or another."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from edgekd.audio.checksums import checksum
from edgekd.audio.parts import WHOLE, Part, Parts
from edgekd.audio.sndfile import Stream
from edgekd.errors import InputError

_TAIL = 1 << 16  # bytes before the end in which the last frame begins
_TO_LENGTH = 26  # bytes up to the end of the length
_CRC_8, _CRC_16 = 0x107, 0x18005
_LONGEST = (1 << 36) - 1
_BLOCK_SIZES = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 256 << n - 8 for n in range(8, 16)}}


def parts(path: Path, file: BinaryIO, begin: int, size: int) -> Parts:
    """How the FLAC stream from byte `begin` is decoded, by its last frame, which says where it lies.

    Raises `InputError` for a stream that ends within a frame, before the length that its header promises.
    """
    file.seek(begin)
    head = file.read(_TO_LENGTH)
    if len(head) < _TO_LENGTH or head[:4] != b"fLaC" or head[4] & 127:
        return WHOLE
    promised = int.from_bytes(head[18:26], "big") & _LONGEST
    largest = int.from_bytes(head[10:12], "big")
    file.seek(max(begin, size - _TAIL))
    end = _end_of_last_frame(file.read(_TAIL), largest, promised)
    if end is not None and end == promised:
        return WHOLE
    rest = begin + _TO_LENGTH, size - begin - _TO_LENGTH
    if end is not None and _begins_at_0(file, begin, largest):  # the stream is whole, the header is not
        return (Part((_with_length(head, end), rest)),)
    with Stream(path, Part((_with_length(head, _LONGEST), rest))) as stream:
        held = stream.count()
    if held < promised and end is None:
        raise InputError(
            f"{path}: truncated: {held} samples of the {promised} its header promises can be decoded. Copy it again."
        )
    return (Part((_with_length(head, held), rest)),)


def _with_length(head: bytes, samples: int) -> bytes:
    packed = int.from_bytes(head[18:26], "big") & ~_LONGEST | samples
    return head[:18] + packed.to_bytes(8, "big")


def _end_of_last_frame(tail: bytes, largest: int, promised: int) -> int | None:
    """The sample behind the last frame, where it is whole; `largest` is the number of samples of a block."""
    if tail[-128:-125] == b"TAG":
        tail = tail[:-128]
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        header = _frame_header(tail[place : place + 17], largest)
        if header is not None:
            end = header[0] + header[1]
            if end == promised or checksum(tail[place:], _CRC_16, 16) == 0:
                return end
    return None


def _begins_at_0(file: BinaryIO, begin: int, largest: int) -> bool:
    position = begin + 4
    while True:
        file.seek(position)
        block = file.read(4)
        if len(block) < 4:
            return False
        position += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 128:  # the last one
            break
    file.seek(position)
    header = _frame_header(file.read(17), largest)
    return header is not None and header[0] == 0


def _frame_header(head: bytes, largest: int) -> tuple[int, int] | None:
    """First sample and number of samples of the frame that begins with `head`; None where none does."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    # Bytes of the number after the first, as in UTF-8.
    more = 0 if head[4] < 0x80 else 7 - (head[4] ^ 0xFF).bit_length()
    place = 5 + more
    if (head[4] >= 0x80 and not 1 <= more <= 6) or any(byte & 0xC0 != 0x80 for byte in head[5:place]):
        return None
    number = head[4] & (0x3F >> more if more else 0x7F)
    for byte in head[5:place]:
        number = number << 6 | byte & 0x3F
    size_bytes, rate_bytes = {6: 1, 7: 2}.get(size_code, 0), {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    samples = _BLOCK_SIZES.get(size_code) or int.from_bytes(head[place : place + size_bytes], "big") + 1
    place += size_bytes + rate_bytes
    if place >= len(head) or checksum(head[:place], _CRC_8, 8) != head[place]:
        return None
    if head[1] & 1:  # blocks of several sizes: the number is that of the first sample
        return number, samples
    return number * largest, samples  # all but the last have the largest
