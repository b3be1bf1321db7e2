"""AIFF, AU, Wave64, CAF and NIST SPHERE: what a header promises of the bytes that follow.

libsndfile shortens such a file to what is there without a word, and believes a size that was never brought up to date.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekd.audio.parts import WHOLE, Part, Parts
from edgekd.errors import InputError

_MOST_CHUNKS = 4096
_SLACK = 1 << 16  # bytes; so many zeros behind the samples are a disk's padding
_BLOCK = 512  # samples of a channel in the last block of a codec, at most
_LEAST = 16  # bytes; fewer are no sound
_TAGS = (b"TAG", b"ID3", b"3DI", b"APETAGEX")  # of music players
_AIFF_CHUNK, _CAF_CHUNK, _W64_CHUNK = struct.Struct(">4sI"), struct.Struct(">4sq"), struct.Struct("<16sQ")
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # of the GUID of a chunk, after its name


@dataclass(frozen=True)
class _Promise:
    """Where the samples begin, how many bytes of them there are (None: up to the end of the file), and how many samples
    of a channel (None: it does not say).

    `place` is where this number of bytes stands, and its format; `overhead` what it counts beside the samples. `head`
    is what the header of another chunk looks like, of those padded to multiples of `even` bytes.
    """

    begin: int
    length: int | None
    most: int | None = None
    place: tuple[int, str] | None = None
    overhead: int = 0
    head: struct.Struct | None = None
    even: int = 1


def parts(path: Path, file: BinaryIO, size: int) -> Parts | None:
    """How a file of these kinds is decoded; None for another. Raises `InputError` for one that holds fewer bytes than
    its header promises, with both numbers."""
    file.seek(0)
    magic = file.read(40)
    if magic[:4] == b".snd":
        promise = _au(magic)
    elif magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
        promise = _aiff(file, size)
    elif magic[:16] == _W64_RIFF:
        promise = _wave_64(file, size)
    elif magic[:4] == b"caff":
        promise = _caf(file, size)
    elif magic[:7] == b"NIST_1A":
        promise = _sphere(file)
    else:
        return None
    if promise is None or promise.length is None:
        return WHOLE
    held = max(0, size - promise.begin)
    if promise.length > held:
        raise InputError(
            f"{path}: truncated: {held} bytes of the {promise.length} of samples its header promises. Copy it again."
        )
    end = promise.begin + promise.length
    if not _more(file, promise, end, size):
        return (Part(most=promise.most, block=_BLOCK),)
    if promise.place is None or held < 2 * promise.length:
        raise InputError(
            f"{path}: damaged: its header promises {promise.length} bytes of samples, {held} follow. Store it anew."
        )
    offset, number = promise.place  # the size was never brought up to date
    after = offset + struct.calcsize(number)
    return (Part(((0, offset), struct.pack(number, held + promise.overhead), (after, size - after))),)


def _more(file: BinaryIO, promise: _Promise, end: int, size: int) -> bool:
    """Whether something that is no chunk, tag or padding follows the samples."""
    file.seek(end)
    rest = file.read(_SLACK)
    if len(rest) < _LEAST or rest.startswith(_TAGS):
        return False
    head = promise.head
    for skipped in {0, -promise.length % promise.even} if head is not None and promise.length else ():
        assert head is not None
        if len(rest) < skipped + head.size:
            return False
        name, length = head.unpack_from(rest, skipped)
        named = length >= head.size if head is _W64_CHUNK else all(32 <= byte < 127 for byte in name)
        if named and 0 <= length <= size - end:
            return False
    return not promise.length or size - end > _SLACK or any(rest)


def _au(magic: bytes) -> _Promise | None:
    begin, length = struct.unpack(">II", magic[4:12].ljust(8, b"\0"))
    return _Promise(begin, None if length == 0xFFFFFFFF else length, place=(8, ">I"))


def _chunks(
    file: BinaryIO, end: int, position: int, head: struct.Struct, even: int
) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and begin of each chunk from `position`; chunks are padded to multiples of `even` bytes."""
    for _ in range(_MOST_CHUNKS):
        if position > end:
            return
        file.seek(position)
        if len(read := file.read(head.size)) < head.size:
            return
        name, size = head.unpack(read)
        yield name, size, position + head.size
        if size < 0:
            return
        position += head.size + size + -size % even


def _aiff(file: BinaryIO, end: int) -> _Promise | None:
    most = None
    for name, size, begin in _chunks(file, end, 12, _AIFF_CHUNK, 2):
        if name == b"COMM":
            file.seek(begin + 2)
            most = struct.unpack(">I", file.read(4).ljust(4, b"\0"))[0] or None
        elif name == b"SSND":
            file.seek(begin)
            (offset,) = struct.unpack(">I", file.read(4).ljust(4, b"\0"))
            first, length = begin + 8 + offset, max(0, size - 8 - offset)
            return _Promise(first, length, most, (begin - 4, ">I"), 8 + offset, _AIFF_CHUNK, 2)
    return None


def _wave_64(file: BinaryIO, end: int) -> _Promise | None:
    most, position = None, 40
    for _ in range(_MOST_CHUNKS):
        if position > end:
            return None
        file.seek(position)
        if len(head := file.read(24)) < 24:
            return None
        size = int.from_bytes(head[16:], "little")
        name, begin = head[:4] if head[4:16] == _W64_TAIL else b"", position + 24
        if name == b"fact":
            most = int.from_bytes(file.read(8), "little") or None
        if name == b"data":
            return _Promise(begin, max(0, size - 24), most, (position + 16, "<Q"), 24, _W64_CHUNK, 8)
        position += max(24, size + -size % 8)
    return None


def _caf(file: BinaryIO, end: int) -> _Promise | None:
    for name, size, begin in _chunks(file, end, 8, _CAF_CHUNK, 1):  # of -1, where it goes on to the end
        if name == b"data":
            return _Promise(begin + 4, max(0, size - 4), None, (begin - 8, ">q"), 4, _CAF_CHUNK)
    return None


def _sphere(file: BinaryIO) -> _Promise | None:
    file.seek(0)
    text = file.read(1024)
    found = {name: re.search(rb"^%s -i (\d+)" % name, text, re.MULTILINE) for name in _SPHERE}
    if any(match is None for match in found.values()) or b"shorten" in text:
        return None
    count, width, channels = (int(match[1]) for match in found.values() if match)
    lines = text.split(b"\n", 2)
    begin = int(lines[1]) if len(lines) > 2 and lines[1].strip().isdigit() else 1024
    return _Promise(begin, count * width * channels)


_SPHERE = (b"sample_count", b"sample_n_bytes", b"channel_count")
