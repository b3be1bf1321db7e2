"""Ogg (RFC 3533): streams that follow one another in a file, and files that end within a page."""

from __future__ import annotations

import mmap
from pathlib import Path

from edgekd.audio.checksums import checksum
from edgekd.audio.parts import WHOLE, Part, Parts
from edgekd.errors import InputError

_PAGE = 65_307  # bytes, at most
_CRC = 0x104C11DB7
_BEGINS = b"OggS\0\2"  # the first page of a stream


def parts(path: Path) -> Parts:
    """How the Ogg file is decoded: libsndfile decodes the first stream of a chain, so each is shown to it alone.

    Raises `InputError` for a file that ends within a page.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = max(0, data.rfind(b"OggS\0"))
        page = data[begin : begin + _PAGE]
        size = _page_size(page, 0)
        if size > len(page):
            raise InputError(
                f"{path}: truncated: {len(page)} bytes of its last page, which has {size} or more. Copy it again."
            )
        begins = _links(data) or [0]
        last = _ended(page[:size])
        if len(begins) < 2 and last == page[:size]:
            return WHOLE
        ends = [*begins[1:], begin]
        parts = [Part(((start, end - start),)) for start, end in zip(begins, ends, strict=True)]
        return (*parts[:-1], Part((*parts[-1].pieces, last)))


def _ended(page: bytes) -> bytes:
    """The page, flagged as the last: a recorder that lost power has written none."""
    if page[5] & 4:
        return page
    bare = page[:5] + bytes([page[5] | 4]) + page[6:22] + bytes(4) + page[26:]
    return bare[:22] + checksum(bare, _CRC, 32).to_bytes(4, "little") + bare[26:]


def _page_size(data: mmap.mmap | bytes, position: int) -> int:
    """Bytes of the page at `position`, or the least it must have."""
    head = data[position : position + 27]
    if len(head) < 27:
        return 28
    segments = data[position + 27 : position + 27 + head[26]]
    return 27 + head[26] + sum(segments)


def _links(data: mmap.mmap) -> list[int]:
    """Where the streams of a chain begin. Streams side by side begin with pages that follow one another."""
    begins: list[int] = []
    follows = -1
    place = data.find(_BEGINS)
    while place >= 0:
        if place != follows:
            begins.append(place)
        follows = place + _page_size(data, place)
        place = data.find(_BEGINS, place + 1)
    return begins
