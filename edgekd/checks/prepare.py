"""Everything slow about a data set done beforehand: every clip decoded and fingerprinted."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekd.checks.audit import unheard
from edgekd.checks.fingerprint import near_duplicates
from edgekd.config import DataConfig
from edgekd.data.clip_length import check_clip_length
from edgekd.data.clip_store import open_store
from edgekd.data.load import load_index
from edgekd.progress import Progress, silent


@dataclass(frozen=True)
class Preparation:
    """The clips in a store, how many of them were `decoded` now, and how long that, or checking them, took; `warnings`
    are lines about clips in which nothing is heard."""

    folder: Path
    clips: int
    decoded: int
    sample_rate: int
    clip_seconds: float
    bytes: int
    seconds: float
    warnings: tuple[str, ...]

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work for one of sound; None where nothing was decoded."""
        return self.seconds / (self.decoded * self.clip_seconds) if self.decoded else None

    def to_dict(self) -> dict[str, Any]:
        factor = self.real_time_factor
        return {
            **asdict(self),
            "folder": str(self.folder),
            "seconds": round(self.seconds, 3),
            "real_time_factor": None if factor is None else round(factor, 6),
        }


def prepare_data(config: DataConfig, progress: Progress = silent) -> Preparation:
    """Decode every clip of a data set, and fingerprint it unless `near_duplicates` is off, as far as that is not done.

    Raises as `load_index`, `check_clip_length` and `open_store` do.
    """
    decoded = 0

    def counted(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        nonlocal decoded
        if stage == "cache clips":
            decoded = done
        progress(stage, done, total, **figures)

    index = load_index(config, progress)
    check_clip_length(index, config)
    started = time.perf_counter()
    store = open_store(index, config, counted)
    seconds = time.perf_counter() - started
    if config.near_duplicates != "off":
        near_duplicates(store, [clip.group for clip in index], progress)
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    return Preparation(
        folder=store.folder,
        clips=len(store),
        decoded=decoded,
        sample_rate=store.sample_rate,
        clip_seconds=config.clip_seconds,
        bytes=size,
        seconds=seconds,
        warnings=tuple(found.message for found in unheard(index, store)),
    )
