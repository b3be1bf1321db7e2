"""Constants of C read back from text: arrays of numbers and structures of them, and nothing else.

What a text may define are constants as `edgekd.microcontrollers.c.constants` writes them. Which structures there are,
and of what type each field is, is read in the headers of `edgekd/device/c`. A text that holds anything else, or a
number that its type does not, is refused: then no compiler reads it otherwise than this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import text

Array = NDArray[np.generic]
_INCLUDED = ("edgekd_log_mel.h", "edgekd_network.h")  # by edgekd_model.h

_DEFINITION = re.compile(
    r"(?:static )?const (?P<kind>\w+) (?P<name>\w+)(?P<count>\[\d*\])? = \{\n(?P<body>.*?)\n\};\s*", re.DOTALL
)
_WHOLE = re.compile(r"-?(?:0|[1-9]\d*)")  # one that begins with 0 is octal in C
_HEXADECIMAL = re.compile(r"-?0x[01]\.[0-9a-f]+p[+-]\d+f")
_FIELD = re.compile(r"\.(\w+) = ([\w.+-]+)")
_STRUCTURE = re.compile(r"typedef struct \{(.*?)\} (\w+);", re.DOTALL)
_REMARK = re.compile(r"/\*.*?\*/", re.DOTALL)
NUMBERS = {
    **{f"{sign}int{bits}_t": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32)},
    "float": np.dtype(np.float32),
}
"""The types of C that constants are of."""

_POINTER_BYTES = 4  # on a core of 32 bits


@dataclass(frozen=True)
class Field:
    """Of a structure: its type, and whether it points to constants of that type instead."""

    kind: str
    points: bool


@lru_cache(maxsize=1)
def structures() -> dict[str, dict[str, Field]]:
    """The fields of every structure of the library, by name."""
    found: dict[str, dict[str, Field]] = {}
    for header in _INCLUDED:
        for body, name in _STRUCTURE.findall(_REMARK.sub("", text(header))):
            found[name] = {}
            for line in filter(None, (each.strip() for each in body.split(";"))):
                kind, _, names = line.removeprefix("const ").partition(" ")
                for each in names.split(","):
                    field = each.strip()
                    found[name][field.lstrip("*")] = Field(kind, field.startswith("*"))
    return found


def bytes_of(kind: str) -> int:
    """What a number or a structure of this type takes on a core of 32 bits, where each field lies at a multiple of its
    own size, and a structure at one of its largest field's."""
    if kind in NUMBERS:
        return NUMBERS[kind].itemsize
    fields = [_POINTER_BYTES if field.points else bytes_of(field.kind) for field in structures()[kind].values()]
    end = 0
    for size in fields:
        end = _up_to(end, size) + size
    return _up_to(end, max(fields))


def _up_to(place: int, size: int) -> int:
    return -(-place // size) * size


@lru_cache(maxsize=1)
def enumerated() -> dict[str, int]:
    """The numbers that have names in the headers."""
    lists = re.findall(r"enum \{([^}]*)\}", _REMARK.sub("", "".join(map(text, _INCLUDED))))
    return {name.strip(): number for each in lists for number, name in enumerate(each.split(","))}


def read(source: str, names: Mapping[str, str]) -> dict[str, SimpleNamespace]:
    """The structures that `names` asks for, by name and type, of a text of definitions: fields are numbers, and arrays
    or lists of structures where they point; those that are not written are 0 or None, as in C.

    Raises `ValueError` with what is wrong.
    """
    arrays: dict[str, Array] = {}
    listed: dict[str, list[SimpleNamespace]] = {}
    single: dict[str, SimpleNamespace] = {}
    kinds: dict[str, str] = {}
    at = 0
    while at < len(source):
        found = _DEFINITION.match(source, at)
        if found is None:
            raise ValueError(f"line {source.count(chr(10), 0, at) + 1} defines no constants")
        at = found.end()
        kind, name, body = found["kind"], found["name"], found["body"]
        if name in kinds:
            raise ValueError(f"{name} is there twice")
        kinds[name] = kind
        if kind in NUMBERS and found["count"]:
            arrays[name] = _array(name, kind, body)
            if found["count"] != f"[{len(arrays[name])}]":
                raise ValueError(f"{name}{found['count']} has {len(arrays[name])} numbers")
        elif kind in structures() and found["count"]:
            entries = [line.strip() for line in body.split("\n")]
            if not all(entry.startswith("{") and entry.endswith("},") for entry in entries):
                raise ValueError(f"{name} is no list of structures")
            listed[name] = [_structure(name, kind, entry[1:-2], kinds, arrays, listed) for entry in entries]
        elif kind in structures():
            single[name] = _structure(name, kind, body, kinds, arrays, listed)
        else:
            raise ValueError(f"{name} is of an unknown type, {kind}")
    for name, kind in names.items():
        if name not in single or kinds[name] != kind:
            raise ValueError(f"{kind} {name} is missing")
    return {name: single[name] for name in names}


def _array(name: str, kind: str, body: str) -> Array:
    *words, rest = (word.strip() for word in body.split(","))
    if rest:
        raise ValueError(f"{name} does not end with a comma")
    return np.array([_number(name, kind, word) for word in words], NUMBERS[kind])


def _number(name: str, kind: str, word: str) -> int | float:
    dtype = NUMBERS[kind]
    if dtype.kind == "f":
        value = float.fromhex(word[:-1]) if _HEXADECIMAL.fullmatch(word) and len(word) < 32 else float("inf")
        if abs(value) > float(np.finfo(np.float32).max):
            raise ValueError(f"{name} has no number of single precision where it has '{word[:32]}'")
        return value
    whole = int(word) if _WHOLE.fullmatch(word) and len(word) < 16 else None
    limits = np.iinfo(dtype)
    if whole is None or not limits.min <= whole <= limits.max:
        raise ValueError(f"{name} has no number of {dtype} where it has '{word[:32]}'")
    return whole


def _structure(
    name: str,
    kind: str,
    body: str,
    kinds: Mapping[str, str],
    arrays: Mapping[str, Array],
    listed: Mapping[str, list[SimpleNamespace]],
) -> SimpleNamespace:
    fields = structures()[kind]
    written = _FIELD.findall(body)
    rest = _FIELD.sub("", body).replace(",", "").strip()
    if rest or len(dict(written)) < len(written) or not {field for field, _ in written} <= set(fields):
        raise ValueError(f"{name} has other fields than an {kind}")
    values: dict[str, object] = {field: None if fields[field].points else 0 for field in fields}
    for field, word in written:
        of = fields[field]
        if not of.points:
            values[field] = enumerated()[word] if word in enumerated() else _number(f"{name}.{field}", of.kind, word)
        elif word != "0":
            if kinds.get(word) != of.kind or (word not in arrays and word not in listed):
                raise ValueError(f"{name}.{field} points to no {of.kind}")
            values[field] = arrays[word] if word in arrays else listed[word]
    return SimpleNamespace(**values)


def need(true: object, what: str) -> None:
    """Raise `ValueError` with what is wrong where something is not `true`."""
    if not true:
        raise ValueError(what)


def has_length(array: Array | None, length: int, what: str) -> None:
    """Raise `ValueError` where a pointer does not lead to an array of `length` numbers."""
    have = 0 if array is None else len(array)
    need(have == length, f"{what} has {have:,} numbers where {length:,} are read")
