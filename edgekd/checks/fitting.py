"""Settings that fit a data set, where the defaults do not: the rate, the clip length, the channel to hear."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.config import DataConfig
from edgekd.data.clip_length import Recording, fitting_seconds, recordings
from edgekd.data.index import ClipIndex
from edgekd.recordings import LOWEST_RATE

_HAVE = 0.95  # of each class's recordings have the rate, or a higher one


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
    found = recordings(index, rows, rates)
    given = config.model_fields_set
    return Fitting(
        sample_rate=None if "sample_rate" in given else _rate(found, rates, config.sample_rate),
        clip_seconds=_seconds([end - start for _, _, start, end in found], config, "clip_seconds" in given),
        channel=channel if config.channel == "mean" else None,
    )


def _rate(found: Sequence[Recording], rates: Mapping[Path, int], default: int) -> int | None:
    """The highest rate that nearly all of every class has: a lower one hears less, a higher one tells classes by it."""
    of_class: defaultdict[int, list[int]] = defaultdict(list)
    for path, label, _, _ in found:
        of_class[label].append(rates[path])
    lowest = min(sorted(each)[int((1 - _HAVE) * len(each))] for each in of_class.values())
    return None if lowest >= default else max(lowest, LOWEST_RATE)


def _seconds(lengths: Sequence[float], config: DataConfig, given: bool) -> float | None:
    """None where the clip length that is set will do."""
    if given and np.median(lengths) >= config.clip_seconds / 2:
        return None
    seconds = fitting_seconds(lengths)
    return None if seconds >= config.clip_seconds else seconds
