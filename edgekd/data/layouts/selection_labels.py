"""What windows of recordings are labelled by the selections in them, which of them are kept, and what is told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.data.background import background_of
from edgekd.data.layouts.selection_windows import Window, evenly, sort_windows
from edgekd.errors import InputError, shown
from edgekd.events.event import Event
from edgekd.number_formats import percent

if TYPE_CHECKING:
    from edgekd.recordings import SelectionsConfig

Members = tuple[int, ...]
"""The classes of a window, by number; none: it is background."""


class WindowLabels:
    """The windows of all recordings, labelled; `several`: a window may be of several classes."""

    def __init__(self, classes: Sequence[str], background: str, settings: SelectionsConfig, *, several: bool) -> None:
        self._classes, self._background, self._settings = classes, background, settings
        self._several = several
        self._members: dict[str, list[Members | None]] = {}
        self._left: Counter[str] = Counter()
        self._example = ""

    def add(self, name: str, windows: Sequence[Window], rate: int, events: Sequence[Event]) -> None:
        """Label the `windows` of the recording `name`, at `rate` Hz, by the `events` in it."""
        nothing = background_of([*{event.label for event in events}], self._background)
        heard = [event for event in events if event.label != nothing]
        found = sort_windows(windows, rate, heard, self._classes, self._settings.overlap)
        others = sorted({event.label for event in heard} - {*self._classes})
        of_others = sort_windows(windows, rate, heard, others, self._settings.overlap).enough.any(axis=1)
        count = found.enough.sum(axis=1)
        many = count > 1
        quiet = ~found.touched & self._may_be_background(windows, rate, events, nothing)
        if self._several:  # of each class it has to be known whether it is heard
            labelled = (count > 0) & ~found.partly & ~of_others
            between = found.touched & ~labelled & ~of_others
        else:
            labelled = (count == 1) & ~of_others
            between = found.touched & (count == 0) & ~of_others
            self._left["several"] += int(many.sum())
            of_others &= ~many
            if many.any() and not self._example:
                place = int(many.argmax())
                both = [each for each, is_it in zip(self._classes, found.enough[place], strict=True) if is_it]
                self._example = f"{' and '.join(both[:2])} at {windows[place][0] / rate:g} s of {name}"
        self._left["between"] += int(between.sum())
        self._left["others"] += int(of_others.sum())
        self._left["unmarked"] += int((~found.touched & ~quiet).sum())
        self._members[name] = [
            tuple(np.flatnonzero(found.enough[place]).tolist()) if labelled[place] else () if quiet[place] else None
            for place in range(len(windows))
        ]

    def chosen(self, root: Path) -> tuple[dict[str, list[Members | None]], str]:
        """The classes of each window by recording, None for one that is left out, and a line about them.

        Raises `InputError` for a class that no window is of.
        """
        all_members = [members for of_one in self._members.values() for members in of_one if members is not None]
        counts = Counter(number for members in all_members for number in members)
        for number, name in enumerate(self._classes):
            if not counts[number]:
                raise InputError(
                    f"{root}: no window is of class {shown(name)}: its selections share less than "
                    f"{percent(self._settings.overlap)} with any, or others lie over them. Lower "
                    "data.selections.overlap or --clip-seconds, or leave it out (data.selections.classes)."
                )
        quiet, ratio = all_members.count(()), self._settings.background_ratio
        kept = quiet if ratio == "all" else min(quiet, max(1, round(ratio * max(counts.values()))))
        places = [
            (name, place)
            for name, of_one in self._members.items()
            for place, members in enumerate(of_one)
            if members == ()
        ]
        staying = set(evenly(len(places), kept).tolist())
        for number, (name, place) in enumerate(places):
            if number not in staying:
                self._members[name][place] = None
        return self._members, self._told(counts, kept, quiet)

    def _may_be_background(
        self, windows: Sequence[Window], rate: int, events: Sequence[Event], nothing: str | None
    ) -> NDArray[np.bool_]:
        if self._settings.background != "labelled":
            return np.ones(len(windows), dtype=np.bool_)
        if nothing is None:
            return np.zeros(len(windows), dtype=np.bool_)
        marked = [event for event in events if event.label == nothing]
        return sort_windows(windows, rate, marked, [nothing], self._settings.overlap).enough[:, 0]

    def _told(self, counts: Counter[int], kept: int, quiet: int) -> str:
        kinds = [f"{name} {counts[number]}" for number, name in enumerate(self._classes)]
        of = "" if kept == quiet else f" of {quiet} (data.selections.background_ratio)"
        why = {
            "between": f"that a selection shares less than {percent(self._settings.overlap)} with",
            "several": f"of two classes ({self._example}; --set data.labels=multi keeps them)",
            "others": "of other labels (data.selections.classes)",
            "unmarked": "that are not marked (data.selections.background)",
        }
        left = [f"{self._left[kind]} {words}" for kind, words in why.items() if self._left[kind]]
        told = f"windows: {', '.join(kinds)}, {self._background} {kept}{of}"
        return f"{told}; left out: {', '.join(left)}." if left else f"{told}."
