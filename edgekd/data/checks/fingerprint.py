"""Near-duplicate audio: which recordings share sound, whatever was done to their level, codec, rate or beginning.

Three steps, each cheap enough for the number of things it looks at.

1. Landmarks (A. Wang, "An Industrial-Strength Audio Search Algorithm", ISMIR 2003; D. Ellis, "Robust Landmark-Based
   Audio Fingerprinting", 2009): the peaks of a clip's spectrogram, and as a hash two of them, `(f1, f2 - f1, t2 -
   t1)`. A gain, a shift or a codec leaves most where they are. The spectrogram is taken from the clip at 8 kHz, less
   each bin's mean over time in dB: a steady line, such as all machines on one mains have, makes no peak.
2. Votes: sorted by hash, all landmarks are one inverted index. Two clips that hold the same sound agree in many
   hashes at one time offset; chance spreads over all of them.
3. Proof: the clips, lined up at that offset, are correlated with all frequencies weighted alike (the phase transform
   of Knapp and Carter, IEEE Trans. ASSP 1976): the share of the spectrum that is in phase. That is near 1 for a copy
   and near 0 for two recordings of one kind of thing, however alike they sound and whatever lines they share. Clicks
   are alike everywhere, and two can be lined up; so pieces of 125 ms are correlated and the second best counts.

Two clips with the same samples are compared even where they hold too few peaks for votes. Silence matches nothing.
What is found once is kept in the folder of the `ClipStore`: `fingerprints.npz`, a few numbers a clip, and
`landmarks.u64`, 1 kB a second of sound, which is mapped like the clips. So memory does not grow with the hours.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.data.audio import Waveform, resample
from edgekd.data.clip_store import ClipStore
from edgekd.data.fourier import fast_length
from edgekd.files.caches import locked
from edgekd.files.threads import threaded
from edgekd.files.whole import write_bytes, write_text
from edgekd.progress import Progress, silent

FORMAT = 2

RATE = 8_000  # Hz, of the sound that is compared
_WINDOW, _HOP = 512, 128  # samples at RATE: 64 ms, 16 ms
_DYNAMICS = 1e-6  # of a clip's strongest cell: what is weaker (60 dB) is no peak
_PEAK_FRAMES, _PEAK_BINS = 8, 10  # a peak is the largest within so many to either side: about 50 a second in noise
_PROMINENT = np.log(2)  # 3 dB over a bin's mean
_PARTNERS = 3  # hashes that start at one peak
_SEEN = 24  # following peaks among which its partners are looked for
_REACH_FRAMES, _REACH_BINS = (2, 40), 63

_FEWEST_VOTES = 4
_NEIGHBOURS = 32  # partners a landmark votes with at most: bounds the work where many clips share a hash
_PAIRS_A_BLOCK = 1_000_000  # votes counted at a time: bounds the memory
_SAME = 1 << 30  # votes of two clips with the same samples
_TRIES = 8  # pairs of clips correlated before two groups are called different
_LAGS = 2 * _HOP  # samples around the offset voted for, in which the best is taken
_PIECE = RATE // 8  # samples
# Copies of ESC-10 and of simulated sonar (codec, rate, half a hop's shift, noise at 20 dB) reach 0.44 and more; other
# clips, at whatever lag suits them best, 0.18.
_CORRELATION = 0.3

# A landmark is one integer: its hash, then where it is.
_ROW_BITS, _FRAME_BITS = 24, 14
_HASH_SHIFT = _ROW_BITS + _FRAME_BITS
_PLACE = np.uint64((1 << _HASH_SHIFT) - 1)
_READ = 1 << 20  # landmarks copied at a time

_NUMBERS, _LANDMARKS = "fingerprints.npz", "landmarks.u64"

Landmarks = NDArray[np.uint64]


@dataclass(frozen=True)
class Match:
    """Two groups that share audio, with their clips that agree best.

    `rows` are those two clips, `offset_s` where the first begins in the second (negative: before it), `correlation`
    the share of the spectrum that is in phase, 0 to 1. `clips` counts the pairs of clips that agree in landmarks.
    """

    rows: tuple[int, int]
    offset_s: float
    correlation: float
    clips: int


def near_duplicates(store: ClipStore, groups: Sequence[str], progress: Progress = silent) -> tuple[Match, ...]:
    """Every two of `groups` (one a row of `store`) that share audio, in the order of their rows.

    Time grows with the number of clips, and while it is at it this takes 1 kB a second of audio on the disk.
    """
    key = hashlib.sha256(json.dumps([FORMAT, list(groups)]).encode()).hexdigest()[:24]
    path = store.folder / f"duplicates-{key}.json"
    known = _read_matches(path)
    if known is None:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        group_of = np.array([numbers[group] for group in groups], dtype=np.int64)
        known = tuple(_matches(store, group_of, progress))
        write_text(path, json.dumps([asdict(match) for match in known]))
    return known


def levels(store: ClipStore, progress: Progress = silent) -> NDArray[np.float32]:
    """The rms of each clip in dB re full scale `(N,)`; -inf for digital silence."""
    return _described(store, progress).levels


# Landmarks


def landmarks(waveform: Waveform) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes and frames (of 16 ms) of the landmarks in a `waveform (S,)` at `RATE`."""
    nothing = np.zeros(0, dtype=np.uint64)
    if len(waveform) < _WINDOW:
        return nothing, nothing
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _WINDOW)[::_HOP]
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


class _Described(NamedTuple):
    """Of each clip the level in dB, a digest of its samples (0: silence), and its `counts` landmarks, which begin at
    place `first` of all `landmarks`, a file."""

    levels: NDArray[np.float32]
    digests: NDArray[np.uint64]
    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    landmarks: Landmarks


def _described(store: ClipStore, progress: Progress) -> _Described:
    """What is known of all clips, from the folder of the store if it is there."""
    with locked(store.folder / "fingerprints.lock", lambda: progress("wait for another audit", 0, len(store))):
        return _read_description(store) or _describe(store, progress)


def _read_description(store: ClipStore) -> _Described | None:
    try:
        with np.load(store.folder / _NUMBERS) as known:
            if int(known["format"]) != FORMAT:
                return None
            marks = _mapped(store.folder / _LANDMARKS, int(known["counts"].sum()))
            if _crc(marks) != int(known["crc"]):
                return None
            return _Described(known["levels"], known["digests"], known["first"], known["counts"], marks)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # not there, or damaged
        return None


def _describe(store: ClipStore, progress: Progress) -> _Described:
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
        return (hashes << np.uint64(_HASH_SHIFT)) | np.uint64(row << _FRAME_BITS) | frames

    audible = np.flatnonzero(store.peaks).tolist()
    path, total = store.folder / _LANDMARKS, 0
    with tempfile.TemporaryDirectory(dir=store.folder) as folder:
        written = Path(folder) / path.name
        with open(written, "wb") as file:
            for done, (row, found) in enumerate(threaded(describe, audible), 1):
                file.write(found.tobytes())
                first[row], counts[row] = total, len(found)
                total += len(found)
                progress("fingerprint", done, len(audible))
        written.rename(path)
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
    return _Described(levels, digests, first, counts, marks)


def _mapped(path: Path, count: int) -> Landmarks:
    """The landmarks in a file. Raises `ValueError` where there are more or fewer."""
    if path.stat().st_size != count * 8:
        raise ValueError(f"{path}: not {count} landmarks")
    return np.memmap(path, np.uint64, mode="r", shape=(count,)) if count else np.zeros(0, np.uint64)


def _crc(marks: Landmarks) -> int:
    return reduce(lambda crc, start: zlib.crc32(marks[start : start + _READ].data, crc), range(0, len(marks), _READ), 0)


# Votes


def _candidates(
    described: _Described, folder: Path, group_of: NDArray[np.int64], progress: Progress
) -> Iterator[tuple[int, int, int, int]]:
    """`(votes, row, later row, frames)` of clips of different groups that agree at a time offset in `frames`."""
    of_rows = described.landmarks
    if len(of_rows) == 0:
        return
    # Whole rows a block, since the votes of a row for another count together.
    blocks = np.cumsum(described.counts) * _NEIGHBOURS // _PAIRS_A_BLOCK
    starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, len(of_rows), _READ):
            file.write(of_rows[start : start + _READ].tobytes())
        file.flush()
        index = np.memmap(file, np.uint64, mode="r+")
        index.sort()
        for begin, stop in zip(starts, [*starts[1:], len(group_of)], strict=True):
            taken = zip(described.first[begin:stop].tolist(), described.counts[begin:stop].tolist(), strict=True)
            mine = np.concatenate([of_rows[start : start + count] for start, count in taken])
            mine.sort()
            place, end = np.searchsorted(index, mine), np.searchsorted(index, mine | _PLACE, side="right")
            partners = np.minimum(end - place - 1, _NEIGHBOURS)
            first = np.repeat(mine, partners)
            following = np.arange(1, len(first) + 1) - np.repeat(np.cumsum(partners) - partners, partners)
            second = index[np.repeat(place, partners) + following]
            apart = group_of[_row(first)] != group_of[_row(second)]
            yield from _agreeing(first[apart], second[apart])
            progress("match fingerprints", stop, len(group_of))


def _row(marks: Landmarks) -> NDArray[np.int64]:
    return ((marks & _PLACE) >> np.uint64(_FRAME_BITS)).astype(np.int64)


def _frame(marks: Landmarks) -> NDArray[np.int64]:
    return (marks & np.uint64((1 << _FRAME_BITS) - 1)).astype(np.int64)


def _agreeing(first: Landmarks, second: Landmarks) -> Iterator[tuple[int, int, int, int]]:
    """The rows that have enough votes for one offset, of the pairs of landmarks `first` and `second`."""
    offset = _frame(second) - _frame(first) + (1 << _FRAME_BITS)
    vote = (_row(first) << 39) | (_row(second) << 15) | offset
    vote, count = np.unique(vote, return_counts=True)
    # Offsets are whole hops, the truth is not: votes are split between two of them.
    both = count[:-1] + count[1:]
    both = np.where(np.diff(vote) == 1, both, count[:-1])
    both = np.append(both, count[-1:])
    enough = np.flatnonzero(both >= _FEWEST_VOTES)
    for votes, where in zip(both[enough].tolist(), vote[enough].tolist(), strict=True):
        yield votes, where >> 39, (where >> 15) & ((1 << _ROW_BITS) - 1), (where & 0x7FFF) - (1 << _FRAME_BITS)


# Proof


def _matches(store: ClipStore, group_of: NDArray[np.int64], progress: Progress) -> Iterator[Match]:
    """The groups that share audio."""
    candidates: defaultdict[tuple[int, int], dict[tuple[int, int], tuple[int, int]]] = defaultdict(dict)
    described = _described(store, progress)
    for votes, row, other, frames in _candidates(described, store.folder, group_of, progress):
        of_groups = candidates[_sorted_pair(group_of[row], group_of[other])]
        of_groups[row, other] = max(of_groups.get((row, other), (0, 0)), (votes, frames))
    for row, other in _same_samples(described.digests, group_of):
        candidates[_sorted_pair(group_of[row], group_of[other])][row, other] = (_SAME, 0)
    for done, (_, pairs) in enumerate(sorted(candidates.items()), 1):
        ranked = sorted(pairs.items(), key=lambda pair: -pair[1][0])
        for (row, other), (votes, frames) in ranked[:_TRIES]:
            lag, height = (
                (0, 1.0) if votes == _SAME else correlate(_sound(store, row), _sound(store, other), frames * _HOP)
            )
            if height >= _CORRELATION:
                yield Match((row, other), round(lag / RATE, 3), round(height, 3), len(pairs))
                break
        progress("compare clips", done, len(candidates))


def _sorted_pair(first: np.int64, second: np.int64) -> tuple[int, int]:
    return (int(first), int(second)) if first < second else (int(second), int(first))


def _same_samples(digests: NDArray[np.uint64], group_of: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows of different groups with the same samples: each group with the next."""
    holders: defaultdict[int, dict[int, int]] = defaultdict(dict)
    _, which, times = np.unique(digests, return_inverse=True, return_counts=True)
    for row in np.flatnonzero((digests != 0) & (times[which] > 1)).tolist():
        holders[int(digests[row])].setdefault(int(group_of[row]), row)
    for first_rows in holders.values():
        yield from pairwise(first_rows.values())


def correlate(first: Waveform, second: Waveform, offset: int) -> tuple[int, float]:
    """Where `first (S,)` begins in `second (S,)`, near sample `offset`, and how much of their spectra is in phase
    there, 0 to 1, in the second best of the pieces of 125 ms they share."""
    shared = slice(max(0, -offset), None), slice(max(0, offset), None)
    length = min(len(first[shared[0]]), len(second[shared[1]]))
    if length < 2 * _PIECE:
        return offset, 0.0
    window = np.hanning(length).astype(np.float32)
    size = fast_length(length + 2 * _LAGS)
    phases = _phases(first[shared[0]][:length] * window, second[shared[1]][:length] * window, size)
    around = np.roll(np.fft.irfft(phases, size), _LAGS)[: 2 * _LAGS + 1]
    offset += int(np.argmax(np.abs(around))) - _LAGS

    first, second = first[max(0, -offset) :], second[max(0, offset) :]
    pieces = min(len(first), len(second)) // _PIECE
    if pieces < 2:
        return offset, 0.0
    window = np.hanning(_PIECE).astype(np.float32)
    cut = [part[: pieces * _PIECE].reshape(pieces, _PIECE) * window for part in (first, second)]
    in_phase = np.abs(_phases(cut[0], cut[1], _PIECE).real.mean(axis=1))  # of either polarity
    return offset, float(np.sort(in_phase)[-2])


def _phases(first: Waveform, second: Waveform, size: int) -> NDArray[np.complex64]:
    """The cross spectrum `(..., size // 2 + 1)`, each frequency brought to magnitude 1, or 0 where one is silent."""
    cross = np.fft.rfft(second, size) * np.fft.rfft(first, size).conj()
    magnitude = np.abs(cross)
    heard = magnitude > 1e-10 * magnitude.max(initial=0.0)
    return np.where(heard, cross / np.where(heard, magnitude, 1), 0)


def _sound(store: ClipStore, row: int) -> Waveform:
    """A clip at `RATE`; its level does not matter."""
    return resample(store.clips[row].astype(np.float32), store.sample_rate, RATE)


def _read_matches(path: Path) -> tuple[Match, ...] | None:
    try:
        return tuple(Match(**{**match, "rows": tuple(match["rows"])}) for match in json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        return None
