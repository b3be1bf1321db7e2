"""The same audio under two labels: clips of several classes whose samples are the same.

Samples are those of the clip store, after decoding, mixing and resampling, so the container does not matter. Audio that
is alike and not the same (re-encoded, cut elsewhere) is for `fingerprint` to find.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from edgekd.checks.landmarks import described
from edgekd.data.clip_store import ClipStore
from edgekd.data.index import ClipIndex
from edgekd.progress import Progress, silent


def under_two_labels(
    index: ClipIndex, store: ClipStore, progress: Progress = silent
) -> list[tuple[tuple[int, ...], int]]:
    """For each set of files that hold the same samples under several labels: a row of each, and in how many clips.

    Silence, the same everywhere, does not count, nor do clips without a label.
    """
    digests = described(store, progress).digests
    _, which, times = np.unique(digests, return_inverse=True, return_counts=True)
    same: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero((digests != 0) & (times[which] > 1)).tolist():
        if index.clips[row].label >= 0:
            same[int(digests[row])].append(row)
    found: dict[tuple[tuple[str, int], ...], tuple[tuple[int, ...], int]] = {}
    for rows in same.values():
        held = {(index.name(index.clips[row]), index.clips[row].label): row for row in reversed(rows)}
        if len({label for _, label in held}) > 1:
            files = tuple(sorted(held))
            rows_of, clips = found.get(files, (tuple(held[each] for each in files), 0))
            found[files] = rows_of, clips + 1
    return list(found.values())
