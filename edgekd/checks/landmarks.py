"""Landmarks of clips: the peaks of their spectrograms in pairs, the first of the three steps of `fingerprint`.

Kept in the folder of the `ClipStore`: `fingerprints.npz`, a few numbers a clip, and `landmarks.u64`, 1 kB a second of
sound, which is mapped like the clips. So memory does not grow with the hours.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from functools import reduce
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.read import Waveform, resample
from edgekd.data.clip_store import ClipStore
from edgekd.files.caches import locked
from edgekd.files.threads import threaded
from edgekd.files.whole import sweep, whole_file, write_bytes
from edgekd.progress import Progress, silent

FORMAT = 2

RATE = 8_000  # Hz, of the sound that is compared
HOP = 128  # samples at RATE: 16 ms
_WINDOW = 512  # samples at RATE: 64 ms
_DYNAMICS = 1e-6  # of a clip's strongest cell: what is weaker (60 dB) is no peak
_PEAK_FRAMES, _PEAK_BINS = 8, 10  # a peak is the largest within so many to either side: about 50 a second in noise
_PROMINENT = np.log(2)  # 3 dB over a bin's mean
_PARTNERS = 3  # hashes that start at one peak
_SEEN = 24  # following peaks among which its partners are looked for
_REACH_FRAMES, _REACH_BINS = (2, 40), 63

# A landmark is one integer: its hash, then where it is.
ROW_BITS, FRAME_BITS = 24, 14
_HASH_SHIFT = ROW_BITS + FRAME_BITS
PLACE = np.uint64((1 << _HASH_SHIFT) - 1)
READ = 1 << 20  # landmarks copied at a time

_NUMBERS, _LANDMARKS = "fingerprints.npz", "landmarks.u64"

Landmarks = NDArray[np.uint64]


def levels(store: ClipStore, progress: Progress = silent) -> NDArray[np.float32]:
    """The rms of each clip in dB re full scale `(N,)`; -inf for digital silence."""
    return described(store, progress).levels


def landmarks(waveform: Waveform) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes and frames (of 16 ms) of the landmarks in a `waveform (S,)` at `RATE`."""
    nothing = np.zeros(0, dtype=np.uint64)
    if len(waveform) < _WINDOW:
        return nothing, nothing
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(_WINDOW + 1)[:-1].astype(np.float32))[:, 1:]
    power = spectrum.real**2 + spectrum.imag**2  # (T, F)
    floor = _DYNAMICS * power.max()
    if not floor > 0:
        return nothing, nothing
    prominence = np.log(np.maximum(power, floor))
    prominence -= prominence.mean(axis=0)
    around = _running_max(_running_max(prominence, _PEAK_BINS).T, _PEAK_FRAMES).T
    frame, bin_ = np.nonzero((prominence == around) & (prominence > _PROMINENT) & (power > floor))

    # Each peak with those after it in time: (P, SEEN) candidates, the first few in reach taken.
    after = np.arange(len(frame))[:, None] + np.arange(1, _SEEN + 1)
    there = after < len(frame)
    after = np.minimum(after, len(frame) - 1)
    frames_on, bins_on = frame[after] - frame[:, None], bin_[after] - bin_[:, None]
    reached = there & (frames_on >= _REACH_FRAMES[0]) & (frames_on <= _REACH_FRAMES[1])
    reached &= np.abs(bins_on) <= _REACH_BINS
    taken = reached & (np.cumsum(reached, axis=1) <= _PARTNERS)
    first = np.nonzero(taken)[0]
    hashes = (bin_[first] << 13) | ((bins_on[taken] + _REACH_BINS) << 6) | frames_on[taken]
    return hashes.astype(np.uint64), frame[first].astype(np.uint64)


def _running_max(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The largest of `values (A, B)` within `reach` columns to either side, by doubling."""
    width, covered = 2 * reach + 1, 1
    largest = np.pad(values, ((0, 0), (reach, reach)), constant_values=-np.inf)
    while covered < width:
        step = min(covered, width - covered)
        largest = np.maximum(largest[:, :-step], largest[:, step:])
        covered += step
    return largest


# What is known of each clip


class Described(NamedTuple):
    """Of each clip the level in dB, a digest of its samples (0: silence), and its `counts` landmarks, which begin at
    place `first` of all `landmarks`, a file."""

    levels: NDArray[np.float32]
    digests: NDArray[np.uint64]
    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    landmarks: Landmarks


def described(store: ClipStore, progress: Progress) -> Described:
    """What is known of all clips, from the folder of the store if it is there."""
    with locked(store.folder / "fingerprints.lock", lambda: progress("wait for another audit", 0, len(store))):
        sweep(store.folder)
        return _read_description(store) or _describe(store, progress)


def _read_description(store: ClipStore) -> Described | None:
    try:
        with np.load(store.folder / _NUMBERS) as known:
            if int(known["format"]) != FORMAT:
                return None
            marks = _mapped(store.folder / _LANDMARKS, int(known["counts"].sum()))
            if _crc(marks) != int(known["crc"]):
                return None
            return Described(known["levels"], known["digests"], known["first"], known["counts"], marks)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # not there, or damaged
        return None


def _describe(store: ClipStore, progress: Progress) -> Described:
    levels = np.full(len(store), -np.inf, dtype=np.float32)
    digests = np.zeros(len(store), dtype=np.uint64)
    first, counts = np.zeros((2, len(store)), dtype=np.int64)

    def describe(row: int) -> Landmarks:
        samples = store.clips[row]
        waveform = samples.astype(np.float32)
        peak = float(store.peaks[row]) / 32_767
        levels[row] = 20 * np.log10(peak * np.sqrt(np.mean(waveform**2, dtype=np.float64)))
        digests[row] = int.from_bytes(hashlib.blake2b(samples.tobytes(), digest_size=8).digest()) or 1
        hashes, frames = landmarks(resample(waveform, store.sample_rate, RATE))
        return (hashes << np.uint64(_HASH_SHIFT)) | np.uint64(row << FRAME_BITS) | frames

    audible = np.flatnonzero(store.peaks).tolist()
    path, total = store.folder / _LANDMARKS, 0
    with whole_file(path) as file:
        for done, (row, found) in enumerate(threaded(describe, audible), 1):
            file.write(found.tobytes())
            first[row], counts[row] = total, len(found)
            total += len(found)
            progress("fingerprint", done, len(audible))
    marks = _mapped(path, total)
    kept = BytesIO()
    np.savez(
        kept,
        allow_pickle=False,
        format=np.array(FORMAT),
        crc=np.array(_crc(marks)),
        levels=levels,
        digests=digests,
        first=first,
        counts=counts,
    )
    write_bytes(store.folder / _NUMBERS, kept.getvalue())
    return Described(levels, digests, first, counts, marks)


def _mapped(path: Path, count: int) -> Landmarks:
    """The landmarks in a file. Raises `ValueError` where there are more or fewer."""
    if path.stat().st_size != count * 8:
        raise ValueError(f"{path}: not {count} landmarks")
    return np.memmap(path, np.uint64, mode="r", shape=(count,)) if count else np.zeros(0, np.uint64)


def _crc(marks: Landmarks) -> int:
    return reduce(lambda crc, start: zlib.crc32(marks[start : start + READ].data, crc), range(0, len(marks), READ), 0)


def rows_of(marks: Landmarks) -> NDArray[np.int64]:
    """The row of each landmark."""
    return ((marks & PLACE) >> np.uint64(FRAME_BITS)).astype(np.int64)


def frames_of(marks: Landmarks) -> NDArray[np.int64]:
    """The frame, of 16 ms, that each landmark begins in."""
    return (marks & np.uint64((1 << FRAME_BITS) - 1)).astype(np.int64)
