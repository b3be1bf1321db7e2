"""`ClipStore`: every clip of a dataset at one rate and length, decoded once, memory-mapped ever after.

A store is a folder named by a hash of everything that decides its numbers: the content of each file, the window of
each row, the rate and length, what is heard and how it is filled, the resampling filter, the decoder's and this
format's version. Two data sets, two settings or two versions never share one; the same data under another path do. It
holds

    clips.i16   (N, S) int16: the waveform divided by its peak, times 32767
    rows.bin    N records of the peak and the figures of `audio.read.HeardClip` (float32), and a CRC-32 of these and
                the samples; 0: not there yet

so a quiet clip keeps its resolution (rounding is 96 dB below the clip's own peak). Nothing in a store is believed
without its CRC (`files.row_table`): opening checks every row and decodes again those that are missing or damaged, which
is also how a fill that was killed goes on. One process fills at a time (`flock`); the others wait and find the rows
there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from edgekd.audio.read import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF, HeardClip, read_clip
from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.errors import NO_SPACE, InputError
from edgekd.files.caches import cache_folder, locked
from edgekd.files.row_table import RowTable, read_rows
from edgekd.files.threads import threaded
from edgekd.files.whole import sweep, write_text
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2

_LEVELS = 32_767  # symmetric int16
_SAMPLES, _RECORDS, _NOTES = "clips.i16", "rows.bin", [(name, "<f4") for name in ("peak", *HeardClip._fields[1:])]
_FLUSH_ROWS, _FLUSH_SECONDS = 64, 1.0  # what a kill can cost at most


@dataclass(frozen=True, eq=False)
class ClipStore:
    """The clips of a `ClipIndex`, by row number. `peaks (N,)` are the largest magnitudes, `clips (N, S)` int16;
    `figures` has those of `audio.read.HeardClip` by name, each `(N,)`."""

    folder: Path
    sample_rate: int
    samples: int
    peaks: NDArray[np.float32]
    clips: NDArray[np.int16]
    figures: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.peaks)

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        """`(B, S)` float32, at the level they were recorded."""
        import torch

        chosen = np.asarray(rows, dtype=np.int64)
        return torch.from_numpy(self.clips[chosen] * self.scales(chosen))

    def scales(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """`(B, 1)`: what makes waveforms of `clips`."""
        return self.peaks[rows, None] / np.float32(_LEVELS)


def open_store(
    index: ClipIndex, config: DataConfig, progress: Progress = silent, folder: Path | None = None
) -> ClipStore:
    """The store of `index` under `folder` (default: `cache_folder()`), filled first where it is not complete.

    Raises `InputError` for a file that cannot be read (rows already decoded are kept), a folder that cannot be
    written, or too little space.
    """
    parent = cache_folder() if folder is None else folder
    samples = round(config.clip_seconds * config.sample_rate)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        name = f"{index.dataset}-{_key(index, config, samples, parent, progress)}"
        with locked(parent / f"{name}.lock", lambda: progress("wait for another run's cache", 0, len(index))):
            return _complete(parent / name, index, config, samples, progress)
    except OSError as failure:
        raise _refused(failure, parent, len(index) * samples * 2) from None


def attach_store(index: ClipIndex, config: DataConfig, progress: Progress = silent) -> ClipStore:
    """The store that another process of this machine has just opened: not locked and not verified again.

    Raises `InputError` where it is not there.
    """
    parent, samples = cache_folder(), round(config.clip_seconds * config.sample_rate)
    folder = parent / f"{index.dataset}-{_key(index, config, samples, parent, progress)}"
    try:
        clips, records = read_rows(
            folder / _SAMPLES, len(index), (samples,), "<i2", notes=_NOTES, records_path=folder / _RECORDS
        )
    except (OSError, ValueError) as failure:
        raise InputError(f"{folder}: the clip cache that another process filled cannot be read ({failure}).") from None
    return ClipStore(folder, config.sample_rate, samples, clips=clips, **_noted(records))


def fit_gain(store: ClipStore, rows: Sequence[int]) -> float:
    """The factor that brings the loudest sample of `rows` to magnitude 1: min-max normalisation, fitted on them alone.

    The scaling is symmetric, so silence stays 0 and no offset is added, unlike a map of [min, max] onto [-1, 1]. Rows
    of the other sides may exceed 1. Raises `InputError` when every row is silent.
    """
    loudest = float(store.peaks[np.asarray(rows, dtype=np.int64)].max(initial=0.0))
    if loudest == 0.0:
        cancelled = store.figures["left"][np.asarray(rows, dtype=np.int64)].min(initial=1.0) == 0
        advice = "channels in opposite phase? Hear one: --set data.channel=0" if cancelled else "check the recordings"
        raise InputError(f"All {len(rows)} training clips are silent, so no level can be fitted: {advice}.")
    return 1.0 / loudest


# Filling


def _complete(folder: Path, index: ClipIndex, config: DataConfig, samples: int, progress: Progress) -> ClipStore:
    """The store in `folder` with every row there and verified; the caller holds its lock."""
    folder.mkdir(exist_ok=True)
    try:
        with RowTable(
            folder / _SAMPLES,
            len(index),
            (samples,),
            "<i2",
            progress,
            notes=_NOTES,
            records_path=folder / _RECORDS,
            stage="check cached clips",
        ) as table:
            _fill(table, index, config, progress)
    except OSError as failure:
        if failure.errno in NO_SPACE:
            shutil.rmtree(folder, ignore_errors=True)  # leave the user the space there is
        raise
    return ClipStore(folder, config.sample_rate, samples, clips=table.values, **_noted(table.records))


def _noted(records: NDArray[np.void]) -> dict[str, Any]:
    """`peaks` and `figures` of a `ClipStore`."""
    peak, *names = (name for name, _ in _NOTES)
    return {"peaks": records[peak].copy(), "figures": {name: records[name].copy() for name in names}}


def _fill(table: RowTable, index: ClipIndex, config: DataConfig, progress: Progress) -> None:
    """Decode the rows that are missing, in parallel."""
    _, samples = table.values.shape

    def decode(row: int) -> None:
        clip = index.clips[row]
        waveform, *figures = read_clip(
            clip.path, clip.start, clip.length, sample_rate=config.sample_rate, samples=samples, hearing=config
        )
        peak = np.abs(waveform).max()
        scale = np.float32(_LEVELS) / peak if peak > np.finfo(np.float32).tiny else np.float32(0)
        table.write(row, np.round(waveform * scale)[None], (peak, *figures))

    missing = np.flatnonzero(~table.present).tolist()
    flushed = time.monotonic()
    for done, _ in enumerate(threaded(decode, missing), 1):
        if table.unflushed >= _FLUSH_ROWS or time.monotonic() - flushed > _FLUSH_SECONDS:
            table.flush()
            flushed = time.monotonic()
        progress("cache clips", done, len(missing))


# The name of a store


def _key(index: ClipIndex, config: DataConfig, samples: int, parent: Path, progress: Progress) -> str:
    """Hash of everything that decides the numbers in a store."""
    contents = _contents(index, parent, progress)
    numbers = hashlib.sha256(
        json.dumps(
            {
                "format": FORMAT,
                "decoder": soundfile.__libsndfile_version__,
                "filter": [RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF],
                "sample_rate": config.sample_rate,
                "samples": samples,
                "padding": config.padding,
                "channel": config.channel,
                "full_scale": config.full_scale,
                "trim_silence": config.trim_silence,
            }
        ).encode()
    )
    for clip in index:
        numbers.update(f"{contents[clip.path]} {clip.start} {clip.length}\n".encode())
    return numbers.hexdigest()[:24]


def _contents(index: ClipIndex, parent: Path, progress: Progress) -> dict[Path, str]:
    """A hash of each file's content.

    Remembered between runs for files whose size and times are what they were, as version control does, since data
    sets of tens of gigabytes exist. A file changed in the last seconds is not remembered: a second change in the same
    tick of the clock would go unseen.
    """
    memory = parent / f"contents-{hashlib.sha256(os.fsencode(index.root.resolve())).hexdigest()[:24]}.json"
    known = _remembered(memory)
    files = list(dict.fromkeys(clip.path for clip in index))
    now = time.time()
    hashes: dict[Path, str] = {}
    remembered: dict[str, list[int | str]] = {}
    for done, (path, (stamp, digest)) in enumerate(threaded(lambda path: _content(path, known), files), 1):
        hashes[path] = digest
        if now - stamp[2] / 1e9 > 2:
            remembered[str(path.absolute())] = [*stamp, digest]
        progress("hash files", done, len(files))
    if remembered != known:
        write_text(memory, json.dumps(remembered))
    return hashes


def _content(path: Path, known: dict[str, list[int | str]]) -> tuple[tuple[int, int, int], str]:
    """Size and times of a file, and the hash of its content."""
    try:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        entry = known.get(str(path.absolute()))
        if entry is not None and tuple(entry[:3]) == stamp:
            return stamp, str(entry[3])
        with open(path, "rb") as file:
            return stamp, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise InputError(f"{path}: cannot be read: {failure.strerror}.") from None


def _remembered(memory: Path) -> dict[str, list[int | str]]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(known, dict) and all(isinstance(entry, list) and len(entry) == 4 for entry in known.values())
    return known if whole else {}


def _refused(failure: OSError, folder: Path, needed: int) -> InputError:
    """The user's error for a cache folder that cannot be used."""
    elsewhere = "set EDGEKD_CACHE_DIR to a folder on another disk"
    if failure.errno in NO_SPACE:
        free = shutil.disk_usage(folder).free
        return InputError(
            f"{folder}: no space left for the clip cache: {needed} bytes needed, {free} free. "
            f"Make room, or {elsewhere}."
        )
    return InputError(f"{folder}: the clip cache cannot be written ({failure.strerror}). Allow it, or {elsewhere}.")
