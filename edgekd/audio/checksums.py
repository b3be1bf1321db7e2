"""Cyclic checksums as FLAC and Ogg have them: most significant bit first, from 0."""

from __future__ import annotations

from functools import cache


@cache
def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
        rows.append(value & (1 << bits) - 1)
    return tuple(rows)


def checksum(data: bytes, polynomial: int, bits: int) -> int:
    """Of `data` by a `polynomial` with its highest term, of `bits` bits."""
    table, value, above, mask = _table(polynomial, bits), 0, bits - 8, (1 << bits) - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> above ^ byte]
    return value
