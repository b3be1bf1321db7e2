"""The training clips of a stage, batch by batch: what is drawn of each, and what a step needs of it, on the device.

A batch is that of the whole run. Every process draws what is random about all of its clips, from a generator that is
seeded by the run, the stage and the epoch, and gets its own share of them ready: waveforms or log-mels of the view that
each is heard in, the teacher's answers about the same view, targets, masks. Batches are drawn `AHEAD` of their step, so
that what lies on disk or on the host is on its way meanwhile.

Clips without labels may make up a share of each batch (`beside`). They are of an index, views and answers of their own;
an epoch stays once through the labelled ones, and a pass over the others goes on from epoch to epoch.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgekd import processes
from edgekd.config import AugmentConfig
from edgekd.errors import InputError
from edgekd.losses.terms import Need
from edgekd.models.outputs import TeacherOutput
from edgekd.training.balance import balanced_rows, on_average_1, weights_of
from edgekd.training.device_rows import Clips, Pending, Rows, to_device
from edgekd.training.spec_augment import Masks, draw_masks
from edgekd.training.teacher_cache import Answers, Request
from edgekd.training.views import FreshShifts, Views

AHEAD = 2  # batches drawn before the one that is computed, so that what they need is on its way


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's share of a batch, or a part of that: B clips, all but `rows` on the device.

    `teacher` is what the teacher says of the very waveforms or log-mels that the student gets; the `masks` of
    SpecAugment are the student's alone. `labelled` is None where every clip of the batch has a label that counts like
    any other, else how much the label of each counts: 0 without one, and 1 on average over the batch of all processes.
    """

    rows: Tensor  # (B,) of the index, of those without labels of theirs, on the host
    waveforms: Tensor | None  # (B, S), where something hears them
    log_mels: Tensor | None  # (B, T, F) float16 before normalisation, where they are stored
    teacher: TeacherOutput | None
    targets: Tensor  # class shares (B, K), or classes (B,)
    labelled: Tensor | None  # (B,)
    masks: Masks
    size: int
    """Clips of the batch in all processes."""
    whole: bool = True
    """Whether these are all the clips that the process has of the batch."""

    def __len__(self) -> int:
        return len(self.rows)

    def parts(self, count: int) -> Iterator[Batch]:
        """The same clips in `count` parts, whose sizes differ by one at most."""
        if count == 1:
            yield self
            return
        for number in range(count):
            part = processes.part_of(len(self), number, count)
            yield replace(
                self,
                rows=self.rows[part],
                waveforms=None if self.waveforms is None else self.waveforms[part],
                log_mels=None if self.log_mels is None else self.log_mels[part],
                teacher=None if self.teacher is None else self.teacher.at(part),
                targets=self.targets[part],
                labelled=None if self.labelled is None else self.labelled[part],
                masks=self.masks.at(part),
                whole=False,
            )


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The clips `rows` of the training side in batches of about `batch_size`, for the `stage` of a run.

    `views` say how clips are heard; `log_mels`, one for each clip in each view, stand for the waveforms where they are
    stored; `teacher` answers, for a stage that has one.
    """

    stage: str
    seed: int
    rows: Sequence[int]
    batch_size: int
    clips: Clips
    labels: Tensor  # classes (clips of the index,), or memberships (clips, K); -1: not known
    num_classes: int
    augment: AugmentConfig
    views: Views | FreshShifts
    log_mels: Rows | None = None
    teacher: Answers | None = None
    class_weights: Tensor | None = None  # (K,); None: all count alike
    balanced: bool = False
    """Whether each class is drawn as often as any other, in place of each clip once."""
    beside: TrainingBatches | None = None
    """Clips without labels, that make up `beside_share` of each batch."""
    beside_share: float = 0.0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return batch_count(self.clips_an_epoch, self.batch_size)

    @property
    def clips_an_epoch(self) -> int:
        """The clips of an epoch, with and without labels."""
        return len(self.rows) + (0 if self.beside is None else clips_beside(len(self.rows), self.beside_share))

    def epoch(self, number: int, needs: Collection[Need] = ()) -> Iterator[Batch]:
        """The batches of an epoch, from 1, in which the loss needs these of the teacher."""
        ahead: deque[_Requested | _Together] = deque()
        for requested in self._requests(number, needs):
            ahead.append(requested)
            if len(ahead) > AHEAD:
                yield ahead.popleft().batch()
        while ahead:
            yield ahead.popleft().batch()

    def _requests(self, number: int, needs: Collection[Need]) -> Iterator[_Requested | _Together]:
        generator = seeded(self.seed, self.stage, number, "batches")
        heard = balanced_rows(self.rows, self.labels, generator) if self.balanced else self.rows
        own = shuffled(heard, len(self), generator)
        if self.beside is None:
            for rows in own:
                yield self._request(rows, generator, needs, torch.arange(len(rows))[processes.share_of(len(rows))])
            return
        each_epoch = self.clips_an_epoch - len(self.rows)
        drawn = passes(self.beside.rows, self.seed, (number - 1) * each_epoch, each_epoch)
        for rows, others in zip(own, drawn.tensor_split(len(self)), strict=True):
            order = interleaved(len(rows), len(others))
            here = order[processes.share_of(len(order))]
            yield _Together(
                self._request(rows, generator, needs, here[here < len(rows)]),
                self.beside._request(others, generator, needs, here[here >= len(rows)] - len(rows)),
                places_of(here < len(rows)),
                len(order) / len(rows),
            )

    def _request(self, rows: Tensor, generator: torch.Generator, needs: Collection[Need], share: Tensor) -> _Requested:
        """Draw what is random about a batch of the clips `rows (B,)`, and have those at `share` on their way."""
        views, device = self.views, self.clips.device
        choices = views.draw(len(rows), generator)
        masks = draw_masks(len(rows), self.augment, generator).at(share)
        places = views.places(rows)
        targets = views.targets(self.labels, self.num_classes, places, choices)
        counted = on_average_1(self.counts(places, choices, targets))
        places, choices = places[share], choices[share]
        heard = self.log_mels is None or (self.teacher is not None and self.teacher.needs_waveforms(needs))
        log_mels = None
        if self.log_mels is not None:
            assert isinstance(views, Views)
            log_mels = self.log_mels.request(places * len(views) + choices)
        return _Requested(
            rows=rows[share],
            size=len(rows),
            waveforms=views.request(self.clips, places, choices) if heard else None,
            log_mels=log_mels,
            teacher=None if self.teacher is None else self.teacher.request(places, choices, needs),
            targets=to_device(targets[share], device),
            labelled=None if counted is None else to_device(counted[share], device),
            masks=masks.to(device),
        )

    def counts(self, places: Tensor, choices: Tensor, targets: Tensor) -> Tensor:
        """How much the label of each of these clips, whose `targets` they are, counts, `(B,)`: 0 without one."""
        known = self.views.labelled(self.labels, places, choices).float()
        return (
            known
            if self.class_weights is None
            else known * weights_of(targets, self.class_weights, several=self.labels.ndim == 2)
        )


class _Requested(NamedTuple):
    """A batch that was drawn, and is on its way to the device."""

    rows: Tensor
    size: int
    waveforms: Pending | None
    log_mels: Pending | None
    teacher: Request | None
    targets: Tensor
    labelled: Tensor | None
    masks: Masks

    def batch(self) -> Batch:
        waveforms = None if self.waveforms is None else self.waveforms()
        return Batch(
            rows=self.rows,
            waveforms=waveforms,
            log_mels=None if self.log_mels is None else self.log_mels(),
            teacher=None if self.teacher is None else self.teacher.outputs(waveforms),
            targets=self.targets,
            labelled=self.labelled,
            masks=self.masks,
            size=self.size,
        )


class _Together(NamedTuple):
    """A batch of clips with labels and without, as they were requested: which clip comes where, and how many clips the
    whole batch has for one with a label."""

    labelled: _Requested
    unlabelled: _Requested
    places: Tensor
    clips_a_label: float

    def batch(self) -> Batch:
        size = self.labelled.size + self.unlabelled.size
        if not len(self.labelled.rows):
            return replace(self.unlabelled.batch(), size=size)
        first = self.labelled.batch()
        counts = torch.ones(len(first), device=first.targets.device) if first.labelled is None else first.labelled
        first = replace(first, labelled=counts * self.clips_a_label, size=size)
        if not len(self.unlabelled.rows):
            return first
        return _joined(first, self.unlabelled.batch(), self.places)


def _joined(first: Batch, second: Batch, places: Tensor) -> Batch:
    """The clips of two batches in one of the size of the first, each at its place."""
    there = to_device(places, first.targets.device)

    def both(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat((one, other)).index_select(0, there)

    def of_some(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if one is None or other is None else both(one, other)

    def answers(one: Tensor | None, other: Tensor | None) -> Any:
        return of_some(one, other) if one is None or len(one) else one  # a tap that nobody asked for is empty

    teacher = None
    if first.teacher is not None and second.teacher is not None:
        teacher = TeacherOutput(*map(answers, first.teacher, second.teacher))
    return replace(
        first,
        rows=torch.cat((first.rows, second.rows))[places],
        waveforms=of_some(first.waveforms, second.waveforms),
        log_mels=of_some(first.log_mels, second.log_mels),
        teacher=teacher,
        targets=both(first.targets, second.targets),
        labelled=of_some(first.labelled, second.labelled),
        masks=Masks(*map(both, first.masks, second.masks)),
    )


def clips_beside(clips: int, share: float) -> int:
    """How many clips without labels go with so many with one, where they are this share of a batch."""
    return max(1, round(clips * share / (1 - share)))


def passes(rows: Sequence[int], seed: int, start: int, count: int) -> Tensor:
    """`count` clips from the one at `start` of passes through `rows`, each in an order of its own.

    Whatever was drawn before need not be: so a resumed run draws what an unbroken one does.
    """
    found, total = [], len(rows)
    for number in range(start // total, (start + count - 1) // total + 1):
        order = torch.randperm(total, generator=seeded(seed, "unlabelled", number))
        found.append(torch.tensor(rows)[order][max(0, start - number * total) : start + count - number * total])
    return torch.cat(found)


def interleaved(first: int, second: int) -> Tensor:
    """The numbers of `first` things and of `second` after them, evenly mixed: any share of them in a row has both kinds
    in the proportion of all, so that each process and each part of a batch sees the same statistics."""
    return torch.cat([(torch.arange(count) + 0.5) / max(1, count) for count in (first, second)]).argsort(stable=True)


def places_of(is_first: Tensor) -> Tensor:
    """Where the things of two kinds, one after the other in a table, come in the order of `is_first (B,)`."""
    return torch.where(is_first, is_first.cumsum(0) - 1, is_first.sum() + (~is_first).cumsum(0) - 1)


def shuffled(rows: Sequence[int], count: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """`rows` in random order in `count` batches whose sizes differ by one at most: no last batch of a single clip.

    Within a batch they are in the order of the index, so that clips of one recording lie together: they are read
    together, and by the same process.
    """
    order = torch.randperm(len(rows), generator=generator)
    for chosen in torch.tensor(rows)[order].tensor_split(count):
        yield chosen.sort().values


def batch_count(clips: int, batch_size: int) -> int:
    """How many batches an epoch has."""
    return max(1, round(clips / batch_size))


def check_shares(stage: str, clips: int, batch_size: int) -> None:
    """Raise `InputError` where a batch of a stage has fewer clips than there are processes."""
    smallest, sharing = clips // batch_count(clips, batch_size), processes.count()
    if smallest < sharing:
        setting = "teacher.batch_size" if stage == "teacher" else "--batch-size"
        raise InputError(
            f"{stage}: batches of {smallest} clips ({clips} training clips in all) are too few for {sharing} "
            f"processes: start {smallest} at most, or take a larger {setting}."
        )


def seed_all(seed: int, *names: str | int) -> None:
    """Seed torch's generators from `seed` and where in the run this is, so that no history is needed to repeat it."""
    torch.manual_seed(_number(seed, *names))


def seeded(seed: int, *names: str | int) -> torch.Generator:
    """A generator of its own, seeded as `seed_all` does."""
    return torch.Generator().manual_seed(_number(seed, *names))


def _number(seed: int, *names: str | int) -> int:
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
