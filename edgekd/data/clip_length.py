"""How long a clip should be for the recordings there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.audio.read import probe
from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.errors import UsageError
from edgekd.recordings import SHORTEST_CLIP

_WHOLE = 0.9  # of the recordings fit into a clip whole
_FILLED = 1.8  # times the median recording: a longer clip would mostly be filling

Recording = tuple[Path, int, float, float]
"""File and class, where it starts and ends, in s."""


def check_clip_length(index: ClipIndex, config: DataConfig) -> None:
    """Raises `UsageError` where most clips would be filled up to more than twice their length.

    VTUAD's are 1 s long: cut to 5 s, a network would be trained on repetition and then meet none.
    """
    some = index.clips[:: len(index) // 200 + 1]
    seconds = sorted(clip.length / probe(clip.path).rate for clip in some)[len(some) // 2]
    if max(seconds, SHORTEST_CLIP) < config.clip_seconds / 2:
        rates = {clip.path: probe(clip.path).rate for clip in index}
        lengths = [end - start for _, _, start, end in recordings(index, range(len(index)), rates)]
        raise UsageError(
            f"{index.root}: most clips are {seconds:.2g} s long or shorter, and would be filled up to "
            f"data.clip_seconds = {config.clip_seconds:g}. Pass --clip-seconds {fitting_seconds(lengths):.9g}."
        )


def fitting_seconds(lengths: Sequence[float]) -> float:
    """Long enough for most recordings of these `lengths` (s), not much longer than the typical one; of two digits."""
    most, middle = float(np.quantile(lengths, _WHOLE, method="higher")), float(np.median(lengths))
    return max(min(_rounded(most, math.ceil), _rounded(_FILLED * middle, math.floor)), SHORTEST_CLIP)


def recordings(index: ClipIndex, rows: Iterable[int], rates: Mapping[Path, int]) -> list[Recording]:
    """The stretches that the clips in these `rows` were cut from: those that touch are one."""
    found: list[Recording] = []
    ends: dict[tuple[Path, int, int], int] = {}  # where the next clip would start: the place of its recording
    for row in rows:
        clip = index.clips[row]
        rate, stop = rates[clip.path], clip.start + clip.length
        place = ends.pop((clip.path, clip.label, clip.start), None)
        if place is None:
            place = len(found)
            found.append((clip.path, clip.label, clip.start / rate, stop / rate))
        else:
            found[place] = (*found[place][:3], stop / rate)
        ends[clip.path, clip.label, stop] = place
    return found


def _rounded(seconds: float, to_whole: Callable[[float], int]) -> float:
    unit = 10.0 ** (math.floor(math.log10(max(seconds, 1e-3))) - 1)
    return float(to_whole(round(seconds / unit, 6)) * unit)
