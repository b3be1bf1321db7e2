"""`ClipIndex`: the rows of a dataset. Everything after it works with row numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.escaping import is_utf8, legible
from edgekd.task import MULTI, SINGLE, Task

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
NOTHING = "none"  # how a table says that a clip is of none of the classes, where it may be of several
Dropped = Literal["group", "audio", "silence", "cancelled"]  # why a clip without a label does not teach


@dataclass(frozen=True)
class Clip:
    """One window of one recording.

    `start` and `length` are in samples of the file, at the file's own rate. Of a `length` above the clip length only
    the beginning is used; a shorter clip is padded. `group` is what must not cross a split: the recording, or the
    vessel where it is known. `label` is a class or, where clips may be of several, one of the index's `combinations`;
    -1: none is known. `fold` and `side` are given by the data set's authors, or None.
    """

    path: Path
    label: int
    group: str
    fold: int | None
    start: int
    length: int
    side: Side | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", legible(self.group))


@dataclass(frozen=True)
class Note:
    """What whoever uses a data set should know of how it was read: of what kind, for programs, and in a line. Of kind
    "windows" nothing is doubtful: it says what the clips were made of."""

    kind: Literal["groups", "folds", "labels", "windows"]
    message: str


@dataclass(frozen=True)
class LeftOut:
    """A file or folder of a data set that is no clip, and why. `lost`: it may have been meant to be one; not so a
    text beside the recordings, or what another subset has."""

    path: Path
    why: str
    lost: bool = True


@dataclass(frozen=True)
class ClipIndex:
    """The clips of a dataset, in a fixed order, and its class names in label order; `left_out`: what is none of them;
    `tables`: the files beside the recordings that it was read from.

    A loader says in `left_out` what is missing by its tables; what else lies in the folder is added by `load_index`.
    """

    dataset: str
    root: Path
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[Note, ...] = ()
    tables: tuple[Path, ...] = ()
    combinations: tuple[tuple[int, ...], ...] = ()
    """Where clips may be of several classes: the sets of classes that occur, which labels number; one may be empty."""

    def __post_init__(self) -> None:
        """Raises `InputError` for a class whose name could not be written down."""
        for name in self.classes:
            if not is_utf8(name):
                raise InputError(f"{self.root}: class '{legible(name)}' is not named in UTF-8. Rename its folder.")

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    def name(self, clip: Clip) -> str:
        """The file of `clip` as tables name it, `legible`: relative to `root` where it lies below, else in full."""
        try:
            below = clip.path.relative_to(self.root)
        except ValueError:
            below = clip.path
        return legible(below.as_posix())

    @property
    def labels(self) -> list[int]:
        return [clip.label for clip in self.clips]

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return MULTI if self.combinations else SINGLE

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """What a table calls each label: its class, or its classes."""
        if not self.combinations:
            return self.classes
        return tuple(";".join(self.classes[k] for k in members) or NOTHING for members in self.combinations)

    @cached_property
    def memberships(self) -> NDArray[np.int64]:
        """Which classes each label comprises, `(labels, K)`, 0 or 1."""
        if not self.combinations:
            return np.eye(len(self.classes), dtype=np.int64)
        found = np.zeros((len(self.combinations), len(self.classes)), dtype=np.int64)
        for label, members in enumerate(self.combinations):
            found[label, list(members)] = 1
        return found

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """What each clip is: its class `(N,)` or, where it may be of several, whether it is of each `(N, K)`; -1 where
        that is not known."""
        labels = np.array(self.labels, dtype=np.int64)
        if not self.combinations:
            return labels
        return np.where(labels[:, None] >= 0, self.memberships[labels], -1)


@dataclass(frozen=True)
class Split:
    """Row numbers of each side of a `ClipIndex`."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def side(self, name: Side) -> tuple[int, ...]:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]
