"""Ogg (RFC 3533): streams that follow one another in a file, and files that end within a page."""

from __future__ import annotations

import mmap
from pathlib import Path

from edgekd.audio.parts import WHOLE, Part, Parts
from edgekd.errors import InputError

_PAGE = 65_307  # bytes, at most
_BEGINS = (b"OggS\0\2", b"OggS\0\6")  # the first page of a stream


def parts(path: Path) -> Parts:
    """How the Ogg file is decoded: libsndfile decodes the first stream of a chain, so each is shown to it alone.

    Raises `InputError` for a file that ends within a page.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tail = data[max(0, len(data) - 2 * _PAGE) :]
        page = tail[max(0, tail.rfind(b"OggS\0")) :]
        size = _page_size(page, 0)
        if size > len(page):
            raise InputError(
                f"{path}: truncated: {len(page)} bytes of its last page, which has {size} or more. Copy it again."
            )
        begins = _links(data)
        if len(begins) < 2:
            return WHOLE
        ends = [*begins[1:], len(data)]
        return tuple(Part(((begin, end - begin),)) for begin, end in zip(begins, ends, strict=True))


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
    for place in sorted(place for mark in _BEGINS for place in _places(data, mark)):
        if place != follows:
            begins.append(place)
        follows = place + _page_size(data, place)
    return begins


def _places(data: mmap.mmap, mark: bytes) -> list[int]:
    found, place = [], data.find(mark)
    while place >= 0:
        found.append(place)
        place = data.find(mark, place + 1)
    return found
