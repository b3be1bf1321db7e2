"""What is in a data set: every file decoded once, a block at a time, and nothing believed that its header says.

Levels, silence and clipping are of the samples as they are recorded, at their own rate, all channels. Two files are
duplicates when they decode to the same samples at the same rate, whatever they are called and however they are packed.
What cannot be read becomes a finding, not an error: the report is there to say what is to be repaired.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgekd.audio.read import tolerant
from edgekd.audio.recording import AudioInfo, Recording, opened
from edgekd.config import DataConfig
from edgekd.data.index import Clip, ClipIndex
from edgekd.data.load import load_index
from edgekd.data.walk import Reason, reasons
from edgekd.errors import InputError
from edgekd.files.threads import threaded
from edgekd.progress import Progress, silent

QUIET_DB = -60.0  # rms re full scale below which a clip counts as silent

_FULL_SCALE = 32_767 / 32_768  # the largest sample of a 16-bit file, as a float
_CLIPPED_SHARE = 1e-3  # a file set to its own peak has a few samples at full scale, and is not clipped

Value = TypeVar("Value", int, str)


@dataclass(frozen=True)
class ClassInfo:
    """A class: its clips, groups (recordings or vessels) and minutes, and the rms of its median clip in dB re full
    scale (None: nothing but digital silence). `example` is the row of that clip."""

    name: str
    clips: int
    groups: int
    minutes: float
    level_db: float | None
    example: int | None


@dataclass(frozen=True)
class Duplicates:
    """Files with the same content, and their classes in the same order: where they have several, those of a window that
    has not the same one in all of them."""

    files: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def labels_differ(self) -> bool:
        return len(set(self.classes)) > 1


@dataclass(frozen=True)
class Inspection:
    """What was found. Counters map a value to its number of files; lengths are of clips, in s.

    `imbalance` is the minutes of the largest class over those of the smallest (None: that has none). `silent` clips are
    digital silence, `quiet` ones below `QUIET_DB`. `clipped` maps the files with more than one sample in a thousand at
    full scale to that share, `unreadable` those that cannot be read to why. `left_out`: what lies in the folder and is
    no clip.
    """

    dataset: str
    root: str
    clips: int
    groups: int
    files: int
    hours: float
    rates: dict[int, int]
    channels: dict[int, int]
    formats: dict[str, int]
    shortest_s: float
    median_s: float
    longest_s: float
    classes: tuple[ClassInfo, ...]
    imbalance: float | None
    silent: tuple[str, ...]
    quiet: int
    clipped: dict[str, float]
    clipped_share: float
    duplicates: tuple[Duplicates, ...]
    unreadable: dict[str, str]
    left_out: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        for row, pair in zip(values["duplicates"], self.duplicates, strict=True):
            row["labels_differ"] = pair.labels_differ
        return values


@dataclass(frozen=True)
class _File:
    """One decoded file; a clip's `power` is its mean square over all channels."""

    info: AudioInfo
    content: str
    power: list[float]
    full_scale: int  # samples
    samples: int  # of all channels


def inspect_data(config: DataConfig, progress: Progress = silent) -> tuple[Inspection, ClipIndex]:
    """What is in the data set of `config`, and its clips. Raises as `load_index` does, but for broken files, and where
    all are broken."""
    with tolerant() as unreadable:
        index = load_index(config, progress)
    return inspect(index, unreadable, progress), index


def inspect(index: ClipIndex, unreadable: dict[Path, str], progress: Progress = silent) -> Inspection:
    """Decode every file of `index`; `unreadable` has those already known to be (see `audio.tolerant`).

    Raises `InputError` when no file can be read.
    """
    rows_of: defaultdict[Path, list[int]] = defaultdict(list)
    for row, clip in enumerate(index):
        rows_of[clip.path].append(row)
    broken = dict(unreadable)
    files: dict[Path, _File] = {}
    paths = [path for path in rows_of if path not in broken]

    def examine(path: Path) -> _File | str:
        try:
            return _examine(path, [index.clips[row] for row in rows_of[path]])
        except InputError as failure:
            return str(failure).removeprefix(f"{path}: ")

    for done, (path, found) in enumerate(threaded(examine, paths), 1):
        if isinstance(found, str):
            broken[path] = found
        else:
            files[path] = found
        progress("inspect", done, len(paths))
    if not files:
        path, why = next(iter(broken.items()))
        raise InputError(f"{index.root}: none of {len(broken)} files can be read; {path}: {why}")
    return _summed_up(index, {path: files[path] for path in paths if path in files}, rows_of, broken)


def _examine(path: Path, clips: Sequence[Clip]) -> _File:
    """Raises `InputError` for a file that cannot be decoded to its end."""
    with opened(path) as recording:
        return _measured(recording, clips)


def _measured(recording: Recording, clips: Sequence[Clip]) -> _File:
    info = recording.info
    content = hashlib.blake2b(f"{info.rate} {info.channels}".encode(), digest_size=16)
    energy = np.zeros(len(clips))
    ends = [clip.start + clip.length for clip in clips]
    waiting, begun = sorted(range(len(clips)), key=lambda number: -clips[number].start), list[int]()
    full_scale = position = 0
    for block in recording.blocks():
        content.update(block.tobytes())
        full_scale += int((np.abs(block) >= _FULL_SCALE).sum())
        while waiting and clips[waiting[-1]].start < position + len(block):
            begun.append(waiting.pop())
        for number in begun:
            first, last = clips[number].start - position, ends[number] - position
            energy[number] += np.sum(block[max(0, first) : last] ** 2, dtype=np.float64)
        position += len(block)
        begun = [number for number in begun if ends[number] > position]
    lengths = np.array([clip.length for clip in clips])
    power = (energy / (lengths * info.channels)).tolist()
    return _File(info, content.hexdigest(), power, full_scale, position * info.channels)


def _summed_up(
    index: ClipIndex, files: dict[Path, _File], rows_of: dict[Path, list[int]], broken: dict[Path, str]
) -> Inspection:
    seconds: dict[int, float] = {}
    decibels: dict[int, float] = {}
    for path, file in files.items():
        for row, power in zip(rows_of[path], file.power, strict=True):
            seconds[row] = index.clips[row].length / file.info.rate
            decibels[row] = float(10 * np.log10(power)) if power > 0 else -np.inf
    classes = tuple(_class(index, label, seconds, decibels) for label in range(len(index.classes)))
    minutes = [each.minutes for each in classes]
    names = {path: index.name(index.clips[rows[0]]) for path, rows in rows_of.items()}
    same: defaultdict[str, list[Path]] = defaultdict(list)
    for path, file in files.items():
        same[file.content].append(path)
    lengths = sorted(seconds.values())
    return Inspection(
        dataset=index.dataset,
        root=str(index.root),
        clips=len(seconds),
        groups=len({index.clips[row].group for row in seconds}),
        files=len(files),
        hours=sum(file.info.seconds for file in files.values()) / 3600,
        rates=_counted(file.info.rate for file in files.values()),
        channels=_counted(file.info.channels for file in files.values()),
        formats=_counted(f"{path.suffix.lower().lstrip('.')} {f.info.subtype}" for path, f in files.items()),
        shortest_s=lengths[0],
        median_s=lengths[len(lengths) // 2],
        longest_s=lengths[-1],
        classes=classes,
        imbalance=max(minutes) / min(minutes) if min(minutes) > 0 else None,
        silent=tuple(index.name(index.clips[row]) for row, level in decibels.items() if level == -np.inf),
        quiet=sum(-np.inf < level < QUIET_DB for level in decibels.values()),
        clipped={
            names[path]: round(f.full_scale / f.samples, 6)
            for path, f in files.items()
            if f.full_scale > _CLIPPED_SHARE * f.samples
        },
        clipped_share=sum(f.full_scale for f in files.values()) / sum(f.samples for f in files.values()),
        duplicates=tuple(
            Duplicates(tuple(names[path] for path in paths), _classes(index, [rows_of[path] for path in paths]))
            for content, paths in same.items()
            if len(paths) > 1 and any(files[paths[0]].power)  # silence is everywhere the same
        ),
        unreadable={names.get(path, str(path)): why for path, why in broken.items()},
        left_out=reasons(index),
        notes=tuple(note.message for note in index.notes),
    )


def _classes(index: ClipIndex, rows_of_files: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """The class of each of several files with the same content, by the first window of which they differ in it, else
    that of the first window of all."""
    labels: list[dict[tuple[int, int], int]] = [
        {(index.clips[row].start, index.clips[row].length): index.clips[row].label for row in reversed(rows)}
        for rows in rows_of_files
    ]
    firsts = [index.clips[rows[0]].label for rows in rows_of_files]
    for window in sorted({window for of_file in labels for window in of_file}):
        if len({of_file[window] for of_file in labels if window in of_file}) > 1:
            return tuple(index.classes[each.get(window, first)] for each, first in zip(labels, firsts, strict=True))
    return (index.classes[firsts[0]],) * len(firsts)


def _class(index: ClipIndex, label: int, seconds: dict[int, float], decibels: dict[int, float]) -> ClassInfo:
    rows = [row for row in seconds if index.clips[row].label == label]
    audible = sorted((row for row in rows if np.isfinite(decibels[row])), key=lambda row: decibels[row])
    example = audible[len(audible) // 2] if audible else None
    return ClassInfo(
        name=index.classes[label],
        clips=len(rows),
        groups=len({index.clips[row].group for row in rows}),
        minutes=round(sum(seconds[row] for row in rows) / 60, 3),
        level_db=None if example is None else round(decibels[example], 1),
        example=example,
    )


def _counted(values: Iterable[Value]) -> dict[Value, int]:
    return dict(sorted(Counter(values).items()))
