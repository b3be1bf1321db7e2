"""What the frozen teacher says of every training clip: read from tables, or asked when it is needed.

A clip is heard in a few known views (`views.Views`), so the teacher's answers are a table with a row for each clip in
each view: logits `(V * N, K)` float32 and, where a loss needs them and they are stored, embeddings `(V * N, E)` and
taps `(V * N, C, T, F)` float16. What is stored is `teacher.cache` of the configuration:

    off      nothing: the teacher hears every batch
    logits   logits and embeddings: where a loss needs taps, the layers below the tap hear every batch
    full     the taps too: the teacher hears nothing while the student learns
    auto     full where each view is heard more than once and there is room for the taps; else logits

The student hears the same in every mode, so modes differ by rounding alone: float16 keeps a number to 2^-11 of itself
(0.05 %), an eighth of bfloat16's error in the same space; what exceeds its range (65504) is cut off there. How the
tables are filled is in `fill_cache`. Of several teachers each has tables of its own, and what they say is averaged when
it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.config import CacheMode
from edgekd.losses.terms import Need
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.ensemble import averaged
from edgekd.training.device_rows import Pending, Rows, rows_on, to_device
from edgekd.training.frozen_teacher import FrozenTeacher


class Request(Protocol):
    """Answers to the clips of a batch, on their way."""

    def outputs(self, waveforms: Tensor | None, /) -> TeacherOutput:
        """The answers; `waveforms (B, S)` are what the student hears, where `Answers.needs_waveforms`."""
        ...


class Answers(Protocol):
    """What a teacher, or several, says of the training clips."""

    @property
    def warning(self) -> str:
        """Why `auto` does not keep the taps that it should; empty where it does."""
        ...

    def summary(self) -> dict[str, str | float]:
        """What is kept, how much that is and where, for a report."""
        ...

    def needs_waveforms(self, needs: Collection[Need], /) -> bool:
        """Whether an answer with what a loss needs takes the waveforms."""
        ...

    def request(self, places: Tensor, choices: Tensor, needs: Collection[Need], /) -> Request:
        """Have answers ready for the clips at `places (B,)` of the training side in their views number `choices (B,)`;
        both are on the host. What a loss does not need of the answers may be empty."""
        ...


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """The answers of one teacher by training clip and view: read from the tables that are kept, else asked anew.

    `folder` None: nothing is kept.
    """

    teacher: FrozenTeacher
    clips: int
    folder: Path | None = None
    tables: Mapping[Need, NDArray[Any]] = field(default_factory=dict)
    """`(views * clips, ...)` each."""
    warning: str = ""

    @property
    def mode(self) -> CacheMode:
        """What is kept."""
        return "off" if self.folder is None else "full" if "tap" in self.tables else "logits"

    def summary(self) -> dict[str, str | float]:
        """What is kept, how much that is and where, for a report."""
        size = sum(table.nbytes for table in self.tables.values())
        found: dict[str, str | float] = {"mode": self.mode, "megabytes": round(size / 1e6, 1)}
        if self.folder is not None:
            found["folder"] = str(self.folder)
        return found

    def needs_waveforms(self, needs: Collection[Need]) -> bool:
        """Whether an answer with what a loss needs takes the waveforms."""
        return any(need not in self.tables for need in needs)

    def request(self, places: Tensor, choices: Tensor, needs: Collection[Need]) -> TeacherRequest:
        """See `Answers`."""
        rows = choices * self.clips + places
        stored: dict[Need, Pending] = {}
        for need in needs:
            if need == "tap" and self._taps is not None:
                stored[need] = self._taps.request(rows)
            elif need in self.tables:
                values = torch.from_numpy(self.tables[need][rows.numpy()])
                stored[need] = _on_its_way(to_device(values, self.teacher.device))
        return TeacherRequest(self.teacher, stored, frozenset(needs) - stored.keys())

    @cached_property
    def _taps(self) -> Rows | None:
        return rows_on(self.tables["tap"], self.teacher.device) if "tap" in self.tables else None


def _on_its_way(values: Tensor) -> Pending:
    return lambda: values


@dataclass(frozen=True, eq=False)
class TeacherRequest:
    """The answers of one teacher to the clips of a batch: what is stored, and what it is asked for."""

    teacher: FrozenTeacher
    stored: Mapping[Need, Pending]
    missing: frozenset[Need]

    def outputs(self, waveforms: Tensor | None) -> TeacherOutput:
        """See `Request`."""
        if self.missing - {"tap"}:
            assert waveforms is not None
            return self.teacher(waveforms)
        parts = {need: pending() for need, pending in self.stored.items()}
        parts |= {need: values.float() for need, values in parts.items() if need != "tap"}  # the loss raises that
        if self.missing:
            assert waveforms is not None
            parts["tap"] = self.teacher.tap(waveforms)
        nothing = torch.empty(0, device=self.teacher.device)
        return TeacherOutput(parts.get("logits", nothing), parts.get("tap", nothing), parts.get("embedding"))


@dataclass(frozen=True, eq=False)
class AveragedAnswers:
    """What several teachers say, averaged; the tap is the first one's."""

    caches: tuple[TeacherCache, ...]

    @property
    def warning(self) -> str:
        return self.caches[0].warning  # the others keep no taps

    def summary(self) -> dict[str, str | float]:
        """See `Answers`."""
        each = [cache.summary() for cache in self.caches]
        found: dict[str, str | float] = {"mode": self.caches[0].mode}
        found["megabytes"] = round(sum(float(one["megabytes"]) for one in each), 1)
        if all("folder" in one for one in each):
            found["folder"] = ", ".join(str(one["folder"]) for one in each)
        return found

    def needs_waveforms(self, needs: Collection[Need]) -> bool:
        """See `Answers`."""
        return any(cache.needs_waveforms(own) for cache, own in self._shares(needs))

    def request(self, places: Tensor, choices: Tensor, needs: Collection[Need]) -> AveragedRequest:
        """See `Answers`."""
        return AveragedRequest(tuple(cache.request(places, choices, own) for cache, own in self._shares(needs)))

    def _shares(self, needs: Collection[Need]) -> list[tuple[TeacherCache, Collection[Need]]]:
        first, *others = self.caches
        return [(first, needs), *((cache, frozenset(needs) - {"tap"}) for cache in others)]


@dataclass(frozen=True)
class AveragedRequest:
    """The answers of several teachers to the clips of a batch."""

    requests: tuple[TeacherRequest, ...]

    def outputs(self, waveforms: Tensor | None) -> TeacherOutput:
        """See `Request`."""
        return averaged([request.outputs(waveforms) for request in self.requests])
