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
What is found once is kept in the folder of the `ClipStore`, as the landmarks are.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.read import Waveform, resample
from edgekd.checks.landmarks import (
    FORMAT,
    FRAME_BITS,
    HOP,
    PLACE,
    RATE,
    READ,
    ROW_BITS,
    Described,
    Landmarks,
    described,
    frames_of,
    rows_of,
)
from edgekd.data.clip_store import ClipStore
from edgekd.data.fourier import fast_length
from edgekd.files.whole import write_text
from edgekd.progress import Progress, silent

_FEWEST_VOTES = 4
_FEWEST_ACROSS = 2  # between two stores, where fewer pairs are possible: a second that two barks share has no more
_NEIGHBOURS = 32  # partners a landmark votes with at most: bounds the work where many clips share a hash
_PAIRS_A_BLOCK = 1_000_000  # votes counted at a time: bounds the memory
_MARKS_A_BLOCK = 20_000  # landmarks looked up at a time in those of another store
_SAME = 1 << 30  # votes of two clips with the same samples
_TRIES = 8  # pairs of clips correlated before two groups are called different
_TRIES_ACROSS = 32  # as many offsets of such pairs, between two stores
_LAGS = 2 * HOP  # samples around the offset voted for, in which the best is taken
_PIECE = RATE // 8  # samples
# Copies of ESC-10 and of simulated sonar (codec, rate, half a hop's shift, noise at 20 dB) reach 0.44 and more; other
# clips, at whatever lag suits them best, 0.18.
_CORRELATION = 0.3


@dataclass(frozen=True)
class Match:
    """Two groups that share audio, with their clips that agree best.

    `rows` are those two clips, `offset_s` where the first begins in the second (negative: before it), `correlation`
    the share of the spectrum that is in phase, 0 to 1. `clips` counts the pairs of clips that agree in landmarks.
    Of two stores, the first row is of the first.
    """

    rows: tuple[int, int]
    offset_s: float
    correlation: float
    clips: int


def near_duplicates(store: ClipStore, groups: Sequence[str], progress: Progress = silent) -> tuple[Match, ...]:
    """Every two of `groups` (one a row of `store`) that share audio, in the order of their rows.

    Time grows with the number of clips, and while it is at it this takes 1 kB a second of audio on the disk.
    """

    def find() -> Iterator[Match]:
        group_of = _numbered(groups)
        of_clips = described(store, progress)
        candidates = _Candidates()
        for votes, row, other, frames in _candidates(of_clips, store.folder, group_of, progress):
            candidates.add(_sorted_pair(group_of[row], group_of[other]), (row, other), votes, frames)
        for row, other in _same_samples(of_clips.digests, group_of):
            candidates.add(_sorted_pair(group_of[row], group_of[other]), (row, other), _SAME, 0)
        return candidates.proven(store, store, _TRIES, progress)

    return _remembered(store.folder, "duplicates", [FORMAT, list(groups)], find)


def shared_audio(
    store: ClipStore,
    groups: Sequence[str],
    other: ClipStore,
    other_rows: Sequence[int],
    other_groups: Sequence[str],
    progress: Progress = silent,
) -> tuple[Match, ...]:
    """Every two of `groups` (one a row of `store`) and `other_groups` (one for each of `other_rows`) that share audio.

    Of two clips that overlap little, the offset with most votes may be chance, so several are tried. Time grows with
    the clips of both.
    """

    def find() -> Iterator[Match]:
        group_of, other_group_of = _numbered(groups), dict(zip(other_rows, _numbered(other_groups), strict=True))
        ours, theirs = described(store, progress), described(other, progress)
        candidates = _Candidates()
        for votes, row, other_row, frames in _candidates_across(ours, theirs, other_rows, progress):
            of_groups = int(group_of[row]), int(other_group_of[other_row])
            candidates.add(of_groups, (row, other_row, frames), votes, frames)
        holders = {int(theirs.digests[row]): row for row in reversed(other_rows) if theirs.digests[row]}
        for row, digest in enumerate(ours.digests.tolist()):
            if digest in holders:
                same = holders[digest]
                candidates.add((int(group_of[row]), int(other_group_of[same])), (row, same), _SAME, 0)
        return candidates.proven(store, other, _TRIES_ACROSS, progress)

    asked = [FORMAT, list(groups), other.folder.name, list(other_rows), list(other_groups)]
    return _remembered(store.folder, "shared", asked, find)


def _numbered(groups: Sequence[str]) -> NDArray[np.int64]:
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def _remembered(folder: Path, name: str, asked: object, find: Callable[[], Iterator[Match]]) -> tuple[Match, ...]:
    """What `find` finds, from `folder` where the same was asked before."""
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
    path = folder / f"{name}-{key}.json"
    known = _read_matches(path)
    if known is None:
        known = tuple(find())
        write_text(path, json.dumps([asdict(match) for match in known]))
    return known


# Votes


def _candidates(
    of_clips: Described, folder: Path, group_of: NDArray[np.int64], progress: Progress
) -> Iterator[tuple[int, int, int, int]]:
    """`(votes, row, later row, frames)` of clips of different groups that agree at a time offset in `frames`."""
    of_rows = of_clips.landmarks
    if len(of_rows) == 0:
        return
    # Whole rows a block, since the votes of a row for another count together.
    blocks = np.cumsum(of_clips.counts) * _NEIGHBOURS // _PAIRS_A_BLOCK
    starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, len(of_rows), READ):
            file.write(of_rows[start : start + READ].tobytes())
        file.flush()
        index = np.memmap(file, np.uint64, mode="r+")
        index.sort()
        for begin, stop in zip(starts, [*starts[1:], len(group_of)], strict=True):
            taken = zip(of_clips.first[begin:stop].tolist(), of_clips.counts[begin:stop].tolist(), strict=True)
            mine = np.concatenate([of_rows[start : start + count] for start, count in taken])
            mine.sort()
            place, end = np.searchsorted(index, mine), np.searchsorted(index, mine | PLACE, side="right")
            partners = np.minimum(end - place - 1, _NEIGHBOURS)
            first = np.repeat(mine, partners)
            following = np.arange(1, len(first) + 1) - np.repeat(np.cumsum(partners) - partners, partners)
            second = index[np.repeat(place, partners) + following]
            apart = group_of[rows_of(first)] != group_of[rows_of(second)]
            yield from _agreeing(first[apart], second[apart], _FEWEST_VOTES)
            progress("match fingerprints", stop, len(group_of))


def _candidates_across(
    ours: Described, theirs: Described, their_rows: Sequence[int], progress: Progress
) -> Iterator[tuple[int, int, int, int]]:
    """`(votes, row of ours, row of theirs, frames)` of clips that agree at a time offset in `frames`."""
    index = np.sort(_taken(theirs, np.asarray(their_rows, dtype=np.int64)))
    blocks = np.cumsum(ours.counts) // _MARKS_A_BLOCK
    starts = np.flatnonzero(np.diff(blocks, prepend=-1)).tolist()
    for begin, stop in zip(starts, [*starts[1:], len(ours.counts)], strict=True):
        mine = _taken(ours, np.arange(begin, stop))
        place = np.searchsorted(index, mine & ~PLACE)
        partners = np.searchsorted(index, mine | PLACE, side="right") - place
        following = np.arange(partners.sum()) - np.repeat(np.cumsum(partners) - partners, partners)
        yield from _agreeing(np.repeat(mine, partners), index[np.repeat(place, partners) + following], _FEWEST_ACROSS)
        progress("match fingerprints", stop, len(ours.counts))


def _taken(of_clips: Described, rows: NDArray[np.int64]) -> Landmarks:
    """The landmarks of some rows, in memory."""
    places = zip(of_clips.first[rows].tolist(), of_clips.counts[rows].tolist(), strict=True)
    parts = [of_clips.landmarks[start : start + count] for start, count in places]
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def _agreeing(first: Landmarks, second: Landmarks, fewest: int) -> Iterator[tuple[int, int, int, int]]:
    """The rows that have enough votes for one offset, of the pairs of landmarks `first` and `second`."""
    offset = frames_of(second) - frames_of(first) + (1 << FRAME_BITS)
    vote = (rows_of(first) << 39) | (rows_of(second) << 15) | offset
    vote, count = np.unique(vote, return_counts=True)
    # Offsets are whole hops, the truth is not: votes are split between two of them.
    both = count[:-1] + count[1:]
    both = np.where(np.diff(vote) == 1, both, count[:-1])
    both = np.append(both, count[-1:])
    enough = np.flatnonzero(both >= fewest)
    for votes, where in zip(both[enough].tolist(), vote[enough].tolist(), strict=True):
        yield votes, where >> 39, (where >> 15) & ((1 << ROW_BITS) - 1), (where & 0x7FFF) - (1 << FRAME_BITS)


# Proof


class _Candidates:
    """What may share audio, by the two groups: the best votes, and the frames between, of each `(row, other, ...)`."""

    def __init__(self) -> None:
        self.of_groups: defaultdict[tuple[int, int], dict[tuple[int, ...], tuple[int, int]]] = defaultdict(dict)

    def add(self, groups: tuple[int, int], rows: tuple[int, ...], votes: int, frames: int) -> None:
        known = self.of_groups[groups]
        known[rows] = max(known.get(rows, (0, 0)), (votes, frames))

    def proven(self, store: ClipStore, others: ClipStore, tries: int, progress: Progress) -> Iterator[Match]:
        """The groups that do share audio."""
        for done, (_, candidates) in enumerate(sorted(self.of_groups.items()), 1):
            ranked = sorted(candidates.items(), key=lambda candidate: -candidate[1][0])
            for (row, other, *_), (votes, frames) in ranked[:tries]:
                lag, height = 0, 1.0
                if votes != _SAME:
                    lag, height = correlate(_sound(store, row), _sound(others, other), frames * HOP)
                if height >= _CORRELATION:
                    pairs = len({rows[:2] for rows in candidates})
                    yield Match((row, other), round(lag / RATE, 3), round(height, 3), pairs)
                    break
            progress("compare clips", done, len(self.of_groups))


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
