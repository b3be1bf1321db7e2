"""The data of a run: its clips, which side each is on, and where their samples are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd import processes
from edgekd.config import DataConfig
from edgekd.data.clip_store import ClipStore, attach_store, open_store
from edgekd.data.index import ClipIndex, Side, Split
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelledClips:
    """Some clips of an index, in the order of their `rows (N,)`: where each is from, its class (or
    memberships `(N, K)`, where it may be of several) and its group.

    `names` are the file, as `ClipIndex.name` has it, and where in it the clip starts, in samples of the file.
    """

    rows: tuple[int, ...]
    names: tuple[tuple[str, int], ...]
    labels: NDArray[np.int64]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class UnlabelledClips:
    """Clips without labels, of an index and a store of their own, of which those in `rows` may teach."""

    index: ClipIndex
    rows: tuple[int, ...]
    store: ClipStore


@dataclass(frozen=True, eq=False)
class RunData:
    """Clips, sides and samples of a run, opened once and handed on; `unlabelled`: what teaches beside them."""

    index: ClipIndex
    split: Split
    store: ClipStore
    unlabelled: UnlabelledClips | None = None

    def side(self, name: Side) -> LabelledClips:
        """The clips of one side."""
        return self.at(self.split.side(name))

    def at(self, rows: Sequence[int]) -> LabelledClips:
        """The clips in these rows of the index."""
        clips = [self.index.clips[row] for row in rows]
        return LabelledClips(
            rows=tuple(rows),
            names=tuple((self.index.name(clip), clip.start) for clip in clips),
            labels=self.index.truth[list(rows)],
            groups=tuple(clip.group for clip in clips),
        )

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        """`(B, S)` float32 of the clips in these rows of the index."""
        return self.store.waveforms(rows)


def open_clips(index: ClipIndex, config: DataConfig, progress: Progress = silent) -> ClipStore:
    """The cached clips of `index`: opened, filled and verified by one process of each machine, for all of them.

    Raises `InputError` as `data.clip_store.open_store` does.
    """
    return processes.first_on_node(
        lambda: open_store(index, config, progress), lambda: attach_store(index, config, progress)
    )
