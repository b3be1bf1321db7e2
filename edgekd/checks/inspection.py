"""What is in a data set: every file decoded once, a block at a time, and nothing believed that its header says.

Levels and silence are of what the network hears of a recording: its channels averaged, or the one of `data.channel`.
Clipping is of all channels. All are of the samples as they are recorded, at their own rate. Two files are duplicates
when they decode to the same samples at the same rate, whatever they are called and however they are packed.
What cannot be read becomes a finding, not an error: the report is there to say what is to be repaired.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.hearing import Hearing, as_heard, at_full_scale, audible
from edgekd.audio.read import tolerant
from edgekd.audio.recording import AudioInfo, Recording, opened
from edgekd.checks.fitting import Fitting, fitting
from edgekd.checks.silence import CANCELLED
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
    digital silence, `constant` ones have one value throughout, as of a converter that is stuck, `cancelled` ones have
    channels in opposite phase, whose mean is silent, and `quiet` ones are below `QUIET_DB`. `dead_channels` maps files
    with a channel that has one value throughout, beside another that has sound, to the numbers of such. `clipped` maps
    the files with more than one sample in a thousand at full scale to that share, `unreadable` those that cannot be
    read to why. `fitting` has the settings that fit. `left_out`: what lies in the folder and is no clip.
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
    constant: tuple[str, ...]
    cancelled: tuple[str, ...]
    quiet: int
    dead_channels: dict[str, tuple[int, ...]]
    clipped: dict[str, float]
    clipped_share: float
    duplicates: tuple[Duplicates, ...]
    unreadable: dict[str, str]
    fitting: Fitting
    left_out: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        for row, pair in zip(values["duplicates"], self.duplicates, strict=True):
            row["labels_differ"] = pair.labels_differ
        return values


@dataclass(frozen=True)
class _Heard:
    """What a network hears of a clip: its mean `power`; `kind`: None where it is sound.

    `sounding` has the channels with more than one value.
    """

    power: float
    kind: Literal["silent", "constant", "cancelled"] | None
    sounding: frozenset[int]


@dataclass(frozen=True)
class _File:
    """One decoded file and its clips."""

    info: AudioInfo
    content: str
    clips: list[_Heard]
    full_scale: int  # samples
    samples: int  # of all channels


class _Measure:
    """Sums over a clip, block by block. `mixes`: what is heard is the mean of the channels."""

    def __init__(self, mixes: bool) -> None:
        self.mixes = mixes
        self.samples, self.power, self.of_channels = 0, 0.0, 0.0
        self.heard: NDArray[np.float32] | None = None  # lowest and highest of what is heard, then of each channel
        self.channels: NDArray[np.float32] | None = None

    def add(self, channels: NDArray[np.float32], heard: NDArray[np.float32]) -> None:
        """The next samples of all channels `(S, C)`, and of what is heard of them `(S,)`."""
        self.samples += len(heard)
        self.power += float(np.sum(heard**2, dtype=np.float64))
        self.of_channels += float(np.sum(channels**2, dtype=np.float64)) / channels.shape[1]
        self.heard, self.channels = _bounds(self.heard, heard), _bounds(self.channels, channels)

    def done(self) -> _Heard:
        if self.heard is None or self.channels is None:
            return _Heard(0.0, "silent", frozenset())
        low, high = self.channels
        sounding = frozenset(np.flatnonzero(low < high).tolist())
        kind: Literal["silent", "constant", "cancelled"] | None = None
        if self.mixes and sounding and self.power < CANCELLED * self.of_channels:
            kind = "cancelled"
        elif self.heard[0] == self.heard[1]:
            kind = "constant" if self.heard[0] else "silent"
        return _Heard(self.power / self.samples, kind, sounding)


def _bounds(known: NDArray[np.float32] | None, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lowest and the highest of `samples (S, ...)` and of what is `known`: `(2, ...)`."""
    bounds = np.stack([samples.min(axis=0), samples.max(axis=0)])
    return bounds if known is None else np.stack([np.minimum(known[0], bounds[0]), np.maximum(known[1], bounds[1])])


def inspect_data(config: DataConfig, progress: Progress = silent) -> tuple[Inspection, ClipIndex]:
    """What is in the data set of `config`, and its clips. Raises as `load_index` does, but for broken files, and where
    all are broken."""
    with tolerant() as unreadable:
        index = load_index(config, progress)
    return inspect(index, unreadable, config, progress), index


def inspect(
    index: ClipIndex, unreadable: dict[Path, str], config: DataConfig, progress: Progress = silent
) -> Inspection:
    """Decode every file of `index` as `config` has it heard; `unreadable` has those already known to be (see
    `audio.tolerant`).

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
            return _examine(path, [index.clips[row] for row in rows_of[path]], config)
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
    return _summed_up(index, {path: files[path] for path in paths if path in files}, rows_of, broken, config)


def _examine(path: Path, clips: Sequence[Clip], hearing: Hearing) -> _File:
    """Raises `InputError` for a file that cannot be decoded to its end, or not be heard so."""
    with opened(path) as recording:
        return _measured(recording, clips, hearing)


def _measured(recording: Recording, clips: Sequence[Clip], hearing: Hearing) -> _File:
    path, info = recording.path, recording.info
    content = hashlib.blake2b(f"{info.rate} {info.channels}".encode(), digest_size=16)
    measures = [_Measure(hearing.channel == "mean") for _ in clips]
    ends = [clip.start + clip.length for clip in clips]
    waiting, begun = sorted(range(len(clips)), key=lambda number: -clips[number].start), list[int]()
    full_scale = position = 0
    for block in recording.blocks():
        content.update(block.tobytes())
        channels = at_full_scale(path, block, info.subtype, hearing)
        heard = audible(as_heard(path, channels, hearing), info.subtype)
        full_scale += int((np.abs(channels) >= _FULL_SCALE).sum())
        while waiting and clips[waiting[-1]].start < position + len(block):
            begun.append(waiting.pop())
        for number in begun:
            part = slice(max(0, clips[number].start - position), ends[number] - position)
            measures[number].add(channels[part], heard[part])
        position += len(block)
        begun = [number for number in begun if ends[number] > position]
    heard_clips = [measure.done() for measure in measures]
    return _File(info, content.hexdigest(), heard_clips, full_scale, position * info.channels)


def _summed_up(
    index: ClipIndex,
    files: dict[Path, _File],
    rows_of: dict[Path, list[int]],
    broken: dict[Path, str],
    config: DataConfig,
) -> Inspection:
    seconds: dict[int, float] = {}
    decibels: dict[int, float] = {}
    heard: dict[int, _Heard] = {}
    for path, file in files.items():
        for row, clip in zip(rows_of[path], file.clips, strict=True):
            seconds[row] = index.clips[row].length / file.info.rate
            heard[row] = clip
            decibels[row] = float(10 * np.log10(clip.power)) if clip.kind is None else -np.inf
    classes = tuple(_class(index, label, seconds, decibels) for label in range(len(index.classes)))
    minutes = [each.minutes for each in classes]
    names = {path: index.name(index.clips[rows[0]]) for path, rows in rows_of.items()}
    same: defaultdict[str, list[Path]] = defaultdict(list)
    for path, file in files.items():
        same[file.content].append(path)
    lengths = sorted(seconds.values())

    def of_kind(kind: str) -> tuple[str, ...]:
        return tuple(index.name(index.clips[row]) for row, clip in heard.items() if clip.kind == kind)

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
        silent=of_kind("silent"),
        constant=of_kind("constant"),
        cancelled=of_kind("cancelled"),
        quiet=sum(-np.inf < level < QUIET_DB for level in decibels.values()),
        dead_channels={
            names[path]: dead for path, file in files.items() if 0 < len(dead := _dead(file)) < file.info.channels
        },
        clipped={
            names[path]: round(f.full_scale / f.samples, 6)
            for path, f in files.items()
            if f.full_scale > _CLIPPED_SHARE * f.samples
        },
        clipped_share=sum(f.full_scale for f in files.values()) / sum(f.samples for f in files.values()),
        duplicates=tuple(
            Duplicates(tuple(names[path] for path in paths), _classes(index, [rows_of[path] for path in paths]))
            for content, paths in same.items()
            if len(paths) > 1 and any(each.power for each in files[paths[0]].clips)  # silence is everywhere the same
        ),
        unreadable={names.get(path, str(path)): why for path, why in broken.items()},
        fitting=fitting(
            index,
            seconds,
            {path: file.info.rate for path, file in files.items()},
            _best_channel(files.values()) if of_kind("cancelled") else None,
            config,
        ),
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
            return tuple(index.label_names[each.get(window, first)] for each, first in zip(labels, firsts, strict=True))
    return (index.label_names[firsts[0]],) * len(firsts)


def _dead(file: _File) -> tuple[int, ...]:
    """The channels of a file that have one value in every clip of it."""
    sounding = frozenset[int]().union(*(clip.sounding for clip in file.clips))
    return tuple(channel for channel in range(file.info.channels) if channel not in sounding)


def _best_channel(files: Iterable[_File]) -> int:
    """Of the channels that every file has, the one that is dead in the fewest clips."""
    files = list(files)
    shared = range(min(file.info.channels for file in files))
    return min(shared, key=lambda channel: sum(channel not in clip.sounding for file in files for clip in file.clips))


def _class(index: ClipIndex, label: int, seconds: dict[int, float], decibels: dict[int, float]) -> ClassInfo:
    rows = [row for row in seconds if index.memberships[index.clips[row].label, label]]
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
