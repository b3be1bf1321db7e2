"""Settings that fit a data set, where the defaults do not: the rate, the clip length, the channel to hear."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex
from edgekd.recordings import SHORTEST_CLIP

_HAVE = 0.95  # of each class's recordings have the rate, or a higher one
_WHOLE = 0.9  # of the recordings fit into a clip whole
_FILLED = 1.8  # times the median recording: a longer clip would mostly be filling
_LOWEST_RATE = 2_000  # Hz, that a front end is for


@dataclass(frozen=True)
class Fitting:
    """Settings of `DataConfig` that fit, None where what is set will do."""

    sample_rate: int | None
    clip_seconds: float | None
    channel: int | None

    @property
    def flags(self) -> list[str]:
        """As words of a command line."""
        flags = {"--sample-rate": self.sample_rate, "--clip-seconds": self.clip_seconds}
        words = [word for flag, value in flags.items() if value is not None for word in (flag, f"{value:.9g}")]
        return words + ([] if self.channel is None else ["--set", f"data.channel={self.channel}"])


def fitting(
    index: ClipIndex, rows: Iterable[int], rates: Mapping[Path, int], channel: int | None, config: DataConfig
) -> Fitting:
    """What fits the clips in these `rows` of `index`, whose files have these `rates`; `channel` as found elsewhere.

    What `config` gives of itself stays, unless training would refuse it.
    """
    recordings = _recordings(index, rows, rates)
    given = config.model_fields_set
    return Fitting(
        sample_rate=None if "sample_rate" in given else _rate(recordings, rates, config.sample_rate),
        clip_seconds=_seconds([end - start for _, _, start, end in recordings], config, "clip_seconds" in given),
        channel=channel if config.channel == "mean" else None,
    )


_Recording = tuple[Path, int, float, float]
"""File and class, where it starts and ends, in s."""


def _recordings(index: ClipIndex, rows: Iterable[int], rates: Mapping[Path, int]) -> list[_Recording]:
    """The stretches that clips were cut from: those that touch are one."""
    found: list[_Recording] = []
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


def _rate(recordings: Sequence[_Recording], rates: Mapping[Path, int], default: int) -> int | None:
    """The highest rate that nearly all of every class has: a lower one hears less, a higher one tells classes by it."""
    of_class: defaultdict[int, list[int]] = defaultdict(list)
    for path, label, _, _ in recordings:
        of_class[label].append(rates[path])
    lowest = min(sorted(each)[int((1 - _HAVE) * len(each))] for each in of_class.values())
    return None if lowest >= default else max(lowest, _LOWEST_RATE)


def _seconds(lengths: Sequence[float], config: DataConfig, given: bool) -> float | None:
    """Long enough for most recordings, and not much longer than the typical one."""
    most, middle = float(np.quantile(lengths, _WHOLE, method="higher")), float(np.median(lengths))
    if given and middle >= config.clip_seconds / 2:
        return None
    seconds = min(_rounded(most, math.ceil), _rounded(_FILLED * middle, math.floor))
    return None if seconds >= config.clip_seconds else max(seconds, SHORTEST_CLIP)


def _rounded(seconds: float, to_whole: Callable[[float], int]) -> float:
    """With two digits."""
    unit = 10.0 ** (math.floor(math.log10(max(seconds, 1e-3))) - 1)
    return float(to_whole(round(seconds / unit, 6)) * unit)
