"""Which recording is meant: tables name files from other machines, with other folders, and without their endings."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from edgekd.audio.read import AUDIO_SUFFIXES
from edgekd.errors import InputError, shown
from edgekd.escaping import legible, plain_text

# What viewers and programs put behind the name of a recording, in that of its table.
_ADDED = re.compile(
    r"(\.table\.\d+)?(\.selections?)?(\.BirdNET\.[\w.]+|\.selection\.table|[._-]labels?)?\.(txt|tsv|tab|csv|jsonl|ndjson)$",
    re.IGNORECASE,
)


def recording_of_table(name: str) -> str:
    """The recording that a table is named after: `a` of `a.Table.1.selections.txt`, `a.wav` of `a.wav.txt`."""
    return _ADDED.sub("", name) or name


def table_of_recording(recording: str) -> str:
    """The name of a table that is named after a recording: `2024/a.txt` of `/2024/a.wav`.

    Raises `InputError` for a name that would lead out of the folder of the tables, or that names no file.
    """
    path = PurePosixPath(recording.lstrip("/"))
    if not path.name or ".." in path.parts:
        raise InputError(f"{shown(recording)}: no table can be named after this recording. Rename it.")
    stem = path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path
    return f"{stem}.txt"


class RecordingNames:
    """Recordings that are known by a name; a table's name is one of them where the one ends like the other.

    `/data/2024/a.wav` and `2024/a.wav` are `2024/a.wav`, `other/a.wav` is not. Case and Unicode form do not count, and
    a name without the ending of an audio file is one with any.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = dict.fromkeys(known)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._known:
            self._by_stem[_stem(_parts(name)[-1])].append(name)

    def find(self, name: str, folder: str = "") -> str | None:
        """The recording that `name` means in a table in `folder`, None where there is none.

        Two recorders with one schedule name their files alike, and Raven writes no folders: what lies beside the table,
        or below a folder that the table is in, comes before what lies elsewhere. Raises `InputError` where it may
        still be several.
        """
        around = _upwards(folder)
        for above in around:
            if f"{above}/{name}" in self._known:
                return f"{above}/{name}"
        if name in self._known:
            return name
        parts = _parts(name)
        ending = PurePosixPath(parts[-1]).suffix in AUDIO_SUFFIXES
        fitting: defaultdict[int, list[str]] = defaultdict(list)
        for other in self._by_stem.get(_stem(parts[-1]), ()):
            others = _parts(other)
            shared = min(len(parts), len(others))
            both = ending and PurePosixPath(others[-1]).suffix in AUDIO_SUFFIXES
            same = parts[-1] == others[-1] if both else _stem(parts[-1]) == _stem(others[-1])
            if same and parts[-shared:-1] == others[-shared:-1]:
                fitting[shared].append(other)
        if not fitting:
            return None
        longest = fitting[max(fitting)]
        for above in around if len(longest) > 1 else ():
            near = [other for other in longest if _parts(other)[: len(_parts(above))] == _parts(above)]
            if near:
                longest = near
                break
        if len(longest) > 1:
            raise InputError(
                f"{shown(name)} may be {longest[0]} or {longest[1]}. Name it with its folder, as far as the two differ."
            )
        return longest[0]


def _upwards(folder: str) -> list[str]:
    """The folder and those that it lies in, the nearest first."""
    return [str(each) for each in (PurePosixPath(folder), *PurePosixPath(folder).parents) if str(each) != "."]


def _parts(name: str) -> list[str]:
    plain = unicodedata.normalize("NFC", plain_text(legible(name))).casefold()  # as tables can hold it
    return [part for part in map(str.strip, re.split(r"[\\/]+", plain)) if part not in ("", ".")] or [""]


def _stem(part: str) -> str:
    path = PurePosixPath(part)
    return (path.stem if path.suffix in AUDIO_SUFFIXES else part).strip()
