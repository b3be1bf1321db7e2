"""The audit of audio without labels: what of it may not teach, because a student is scored on it.

Audio that shares a recording with a validation or test clip makes that score one of memory, label or none. So whole
groups are left out where the group is also one of those clips' (`groups.csv`), or where their audio is found in them
(`fingerprint.shared_audio`): other windows of a recording resemble the one that is scored. What the training side holds
may be heard again. Silence teaches nothing and is left out, too, and so is what averaging the channels makes silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgekd.audio.read import probe
from edgekd.checks.fingerprint import Match, shared_audio
from edgekd.checks.silence import cancelled_clips, silent_clips
from edgekd.config import DataConfig
from edgekd.data.clip_store import ClipStore, open_store
from edgekd.data.index import Clip, ClipIndex, Side, Split
from edgekd.data.load import load_index
from edgekd.data.splits import make_split
from edgekd.data.unlabelled import load_unlabelled
from edgekd.data.walk import Reason, reasons
from edgekd.errors import InputError
from edgekd.files.spelling import alike
from edgekd.progress import Progress, silent

HELD_OUT: tuple[Side, ...] = ("validation", "test")


@dataclass(frozen=True)
class Shared:
    """A group without labels that is left out, and why: its `group` or its `audio` is that of the scored clip `of`, on
    `side`. `offset_s` is where the clip at `start_s` of `file` begins in that one, `correlation` as in `Match`."""

    group: str
    why: str
    file: str
    start_s: float
    of: str
    side: Side
    offset_s: float | None = None
    correlation: float | None = None


@dataclass(frozen=True)
class UnlabelledAudit:
    """What is left out. `dropped (N,)` says of each clip why, and is empty where it may teach; `left_out`: what lies in
    the folders and is no clip."""

    dropped: tuple[str, ...]
    shared: tuple[Shared, ...]
    left_out: tuple[Reason, ...] = ()

    @property
    def rows(self) -> tuple[int, ...]:
        """The clips that may teach."""
        return tuple(row for row, why in enumerate(self.dropped) if not why)

    def to_dict(self) -> dict[str, Any]:
        """Counts of clips, and the groups that are shared, for a report."""
        return {
            "clips": len(self.dropped),
            "used": len(self.rows),
            "dropped": dict(Counter(why for why in self.dropped if why)),
            "shared": [asdict(each) for each in self.shared],
            "left_out": [asdict(each) for each in self.left_out],
        }


def audit_unlabelled_data(config: DataConfig, progress: Progress = silent) -> UnlabelledAudit:
    """The audit of the folders `config.unlabelled` beside the split that `config` makes of its data set. Raises as
    `load_unlabelled`, `load_index`, `make_split`, `open_store` and `audit_unlabelled` do."""
    unlabelled, index = load_unlabelled(config, progress), load_index(config, progress)
    split = make_split(index, config)
    stores = open_store(unlabelled, config, progress), open_store(index, config, progress)
    return audit_unlabelled(unlabelled, stores[0], index, split, stores[1], config, progress)


def audit_unlabelled(
    unlabelled: ClipIndex,
    store: ClipStore,
    index: ClipIndex,
    split: Split,
    labelled_store: ClipStore,
    config: DataConfig,
    progress: Progress = silent,
) -> UnlabelledAudit:
    """Which clips of `unlabelled`, with their `store`, may teach beside the `split` of `index`.

    With `config.near_duplicates = "off"` audio is not compared, and groups alone decide. Raises `InputError` where
    nothing is left.
    """
    shared = list(_by_group(unlabelled, index, split))
    if config.near_duplicates != "off":
        rows = [row for side in HELD_OUT for row in split.side(side)]
        groups = [clip.group for clip in unlabelled], [index.clips[row].group for row in rows]
        matches = shared_audio(store, groups[0], labelled_store, rows, groups[1], progress)
        shared += _by_audio(matches, unlabelled, index, split)
    why = {each.group: each.why for each in reversed(shared)}
    unheard = dict.fromkeys(silent_clips(store), "silence") | dict.fromkeys(cancelled_clips(store), "cancelled")
    dropped = tuple(why.get(clip.group) or unheard.get(row, "") for row, clip in enumerate(unlabelled))
    found = UnlabelledAudit(dropped, tuple(shared), reasons(unlabelled))
    progress("audit unlabelled", len(dropped), len(dropped), dropped=len(dropped) - len(found.rows))
    if not found.rows:
        why_not = ", ".join(f"{reason} {clips}" for reason, clips in Counter(dropped).items())
        raise InputError(f"{unlabelled.root}: every clip is left out ({why_not}). Pass other folders (--unlabelled).")
    return found


def _by_group(unlabelled: ClipIndex, index: ClipIndex, split: Split) -> Iterator[Shared]:
    held_out = {
        alike(index.clips[row].group): (index.clips[row], side) for side in HELD_OUT for row in split.side(side)
    }
    for clip in {clip.group: clip for clip in reversed(unlabelled.clips)}.values():
        if alike(clip.group) in held_out:
            other, side = held_out[alike(clip.group)]
            yield Shared(clip.group, "group", unlabelled.name(clip), _seconds(clip), index.name(other), side)


def _by_audio(matches: Iterable[Match], unlabelled: ClipIndex, index: ClipIndex, split: Split) -> Iterator[Shared]:
    test = frozenset(split.test)
    for match in matches:
        clip, other = unlabelled.clips[match.rows[0]], index.clips[match.rows[1]]
        side: Side = "test" if match.rows[1] in test else "validation"
        where = unlabelled.name(clip), _seconds(clip), index.name(other), side
        yield Shared(clip.group, "audio", *where, match.offset_s, match.correlation)


def _seconds(clip: Clip) -> float:
    return round(clip.start / probe(clip.path).rate, 3) if clip.start else 0.0
