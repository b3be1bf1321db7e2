"""Clips in which nothing is to be heard, and digital silence in others, which may tell the class.

Runs of samples that are exactly 0 come from editing: a recording that was shorter than it should be, a pause that was
muted. A network hears where they begin as well as it hears anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.data.clip_store import ClipStore

CANCELLED = 0.01  # of the channels' power: of 64 that have nothing to do with each other more is left
SILENCES = {  # figures of a `ClipStore`, and what they are
    "silence_start": "digital silence at the start",
    "silence_end": "digital silence at the end",
    "silence": "digital silence in all",
}


def silent_clips(store: ClipStore) -> list[int]:
    """The rows with nothing to hear: digital silence, or one value throughout. Those that `cancelled_clips` has are not
    among them."""
    return np.flatnonzero((store.peaks == 0) & (store.figures["left"] >= CANCELLED)).tolist()


def cancelled_clips(store: ClipStore) -> list[int]:
    """The rows whose channels have sound that their mean has not: they are in opposite phase."""
    return np.flatnonzero(store.figures["left"] < CANCELLED).tolist()


def silent_words(files: Sequence[str]) -> str:
    """Of which clips nothing is heard, in a line."""
    return f"{_clips(files)} silent (digital silence, or one value throughout): {_some(files)}"


def cancelled_words(files: Sequence[str]) -> str:
    """Of which clips nothing is left when their channels are averaged, in a line with what helps."""
    return (
        f"{_clips(files)} lost when their channels are averaged, for they are in opposite phase "
        f"(--set data.channel=0 hears one): {_some(files)}"
    )


def _clips(files: Sequence[str]) -> str:
    return f"{len(files)} clips are" if len(files) > 1 else "1 clip is"


def _some(files: Sequence[str]) -> str:
    return files[0] + (", ..." if files[1:] else "")
