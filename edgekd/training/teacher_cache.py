"""What the frozen teacher says of every training clip: read from tables, or asked when it is needed.

A clip is heard in a few known views (`views.Views`), so the teacher's answers are a table with a row for each clip in
each view: `logits (V * N, K)` float32 and, where a loss needs them and they are stored, `embeddings (V * N, E)` and
`taps (V * N, C, T, F)` float16. What is stored is `teacher.cache` of the configuration:

    off      nothing: the teacher hears every batch
    logits   logits and embeddings: where a loss needs taps, the layers below the tap hear every batch
    full     the taps too: the teacher hears nothing while the student learns
    auto     full where each view is heard more than once and there is room for the taps; else logits

The student hears the same in every mode, so modes differ by rounding alone: float16 keeps a number to 2^-11 of itself
(0.05 %), an eighth of bfloat16's error in the same space; what exceeds its range (65504) is cut off there. How the
tables are filled is in `fill_cache`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.config import CacheMode
from edgekd.losses.terms import Need
from edgekd.models.outputs import TeacherOutput
from edgekd.training.device_rows import Pending, Rows, rows_on, to_device
from edgekd.training.frozen_teacher import FrozenTeacher


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """The teacher's answers by training clip and view: read from the tables that are kept, else asked anew."""

    teacher: FrozenTeacher
    clips: int
    folder: Path | None = None
    logits: NDArray[np.float32] | None = None  # (views * clips, K)
    embeddings: NDArray[np.float16] | None = None  # (views * clips, E)
    taps: NDArray[np.float16] | None = None  # (views * clips, C, T, F)
    warning: str = ""
    """Why `auto` does not keep the taps that it should; empty where it does."""

    @property
    def mode(self) -> CacheMode:
        """What is kept."""
        return "off" if self.logits is None else "logits" if self.taps is None else "full"

    def summary(self) -> dict[str, str | float]:
        """What is kept, how much that is and where, for a report."""
        tables = [table for table in (self.logits, self.embeddings, self.taps) if table is not None]
        found: dict[str, str | float] = {"mode": self.mode, "megabytes": round(sum(t.nbytes for t in tables) / 1e6, 1)}
        if self.folder is not None:
            found["folder"] = str(self.folder)
        return found

    def needs_waveforms(self, needs: Collection[Need]) -> bool:
        """Whether an answer with what a loss needs takes the waveforms."""
        return self.logits is None or ("tap" in needs and self.taps is None)

    def request(self, places: Tensor, choices: Tensor, needs: Collection[Need]) -> TeacherRequest:
        """Have answers ready for the clips at `places (B,)` of the training side in their views number `choices (B,)`;
        both are on the host. What a loss does not need of the answers may be empty."""
        rows = choices * self.clips + places
        logits = embeddings = taps = None
        if self.logits is not None:
            logits = to_device(torch.from_numpy(self.logits[rows.numpy()]), self.teacher.device)
        if "embedding" in needs and self.embeddings is not None:
            embeddings = to_device(torch.from_numpy(self.embeddings[rows.numpy()]), self.teacher.device)
        with_tap = "tap" in needs
        if with_tap and self._taps is not None:
            taps = self._taps.request(rows)
        return TeacherRequest(self.teacher, logits, embeddings, taps, with_tap)

    @cached_property
    def _taps(self) -> Rows | None:
        return None if self.taps is None else rows_on(self.taps, self.teacher.device)


@dataclass(frozen=True, eq=False)
class TeacherRequest:
    """The teacher's answers to the clips of a batch, as far as they are stored."""

    teacher: FrozenTeacher
    logits: Tensor | None  # (B, K)
    embeddings: Tensor | None  # (B, E) float16
    taps: Pending | None  # (B, C, T, F)
    with_tap: bool

    def outputs(self, waveforms: Tensor | None) -> TeacherOutput:
        """The answers; `waveforms (B, S)` are what the student hears, where `TeacherCache.needs_waveforms`."""
        if self.logits is None:
            assert waveforms is not None
            return self.teacher(waveforms)
        tap = self.logits.new_empty(0)
        if self.taps is not None:
            tap = self.taps().float()
        elif self.with_tap:
            assert waveforms is not None
            tap = self.teacher.tap(waveforms)
        return TeacherOutput(self.logits, tap, None if self.embeddings is None else self.embeddings.float())
