"""What a student is taught with: the same in distillation and in int8 training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgekd import processes
from edgekd.config import AugmentConfig, DistillConfig
from edgekd.data.clip_store import ClipStore, fit_gain
from edgekd.data.index import Split
from edgekd.losses.terms import Need, needs_of, needs_teacher
from edgekd.models.students.names import trains_head_alone
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.progress import Progress, silent
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.training.balance import class_weights
from edgekd.training.batches import TrainingBatches, clips_beside, passes
from edgekd.training.device_rows import (
    CPU,
    Clips,
    ResidentRows,
    Rows,
    StoredClips,
    StreamedRows,
    clips_on,
    fits,
)
from edgekd.training.fill_cache import answers_of
from edgekd.training.validation import ValidationClips
from edgekd.training.views import Views, draw_views

LOG_MEL_BUDGET = 1 << 30  # bytes


@dataclass(frozen=True)
class LogMelClips:
    """Log-mels in place of the waveforms of some clips: a student takes either."""

    places: dict[int, int]  # row of the index -> row of the table
    log_mels: Rows  # (clips, T, F) float16

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        """`(B, 1, T, F)` float32."""
        return self.log_mels.request(torch.tensor([self.places[row] for row in rows]))().unsqueeze(1).float()


def student_batches(
    run: Run,
    data: RunData,
    stage: str,
    student: Student,
    teacher: Teacher | None,
    epochs: int,
    device: torch.device,
    progress: Progress = silent,
    *,
    begin: int = 1,
) -> TrainingBatches:
    """Draw the views, ask the teacher about each, and put together what a student of `epochs` epochs learns from; the
    loss is at first as it is in epoch `begin` of the distillation.

    What is heard more than once is computed once and stored where there is room: log-mels in memory, what the teacher
    says on disk (`teacher_cache`).
    """
    taught = teacher is not None and needs_teacher(run.config.loss.terms)
    beside = unlabelled_views(run.config, data) if taught else None
    views = draw_views(data.split.train, data.store.samples, run.config.augment, run.config.seed)
    repeated = epochs > len(views)
    settings = _Settings(run, stage, student, teacher if taught else None, device, progress)
    needs = needs_of(run.config.loss.terms)
    if not textures_count(run.config, begin):
        needs -= {"tap"}
    if stage == "student" and trains_head_alone(run.config):
        needs &= {"logits"}
    made = settings.batches(data.store, torch.tensor(data.index.truth), views, needs, repeated)
    if beside is not None:
        assert data.unlabelled is not None
        of_index = torch.tensor(data.unlabelled.index.labels)  # none of these counts
        without = settings.batches(data.unlabelled.store, of_index, beside, needs, repeated)
        if without.log_mels is None or made.log_mels is None:  # a student takes one or the other
            without, made = replace(without, log_mels=None), replace(made, log_mels=None)
        made = replace(made, beside=without, beside_share=run.config.training.unlabelled_share)
    return made


def unlabelled_views(config: DistillConfig, data: RunData) -> Views | None:
    """The views of the clips without labels; None where there are none, or no labelled ones to go beside.

    No more clips and views than distillation has use for: a teacher need not hear what its student never does. The same
    for int8 training, whose epochs are fewer.
    """
    if data.unlabelled is None:
        return None
    rows, share = data.unlabelled.rows, config.training.unlabelled_share
    times = config.augment.views if trains_head_alone(config) else config.training.epochs
    heard = times * clips_beside(len(data.split.train), share)
    if heard < len(rows):
        rows = tuple(sorted(passes(rows, config.seed, 0, heard).tolist()))
    views = draw_views(rows, data.unlabelled.store.samples, config.augment, config.seed)
    return views.some(math.ceil(heard / len(rows)))


@dataclass(frozen=True)
class _Settings:
    """What clips with and without labels are made batches of with."""

    run: Run
    stage: str
    student: Student
    teacher: Teacher | None
    device: torch.device
    progress: Progress

    def batches(
        self, store: ClipStore, labels: Tensor, views: Views, needs: frozenset[Need], repeated: bool
    ) -> TrainingBatches:
        """Batches of the clips that `views` are of. `repeated`: whether each view is heard more than once."""
        config, run, cache = self.run.config, self.run, None
        if self.teacher is not None:
            cache = answers_of(
                config, self.teacher, self.device, store, views, needs=needs, repeated=repeated, progress=self.progress
            )
            if cache.warning and processes.is_first():
                run.warn(cache.warning)
        clips = clips_on(store, views.rows, self.device, self.progress)
        known = labels.numel() > 0 and bool((labels >= 0).all())
        kind = config.training.class_weights if known else "none"
        weights = class_weights(kind, labels, views.rows, len(run.classes))
        return TrainingBatches(
            stage=self.stage,
            seed=config.seed,
            rows=views.rows,
            batch_size=config.training.batch_size,
            clips=clips,
            labels=labels,
            num_classes=len(run.classes),
            augment=config.augment,
            views=views,
            class_weights=weights,
            balanced=config.training.sampling == "balanced" and known,
            log_mels=_log_mels(self.student, clips, views, self.device, self.progress) if repeated else None,
            teacher=cache,
        )


def student_validation(
    data: RunData, student: Student, epochs: int, device: torch.device, progress: Progress = silent
) -> ValidationClips:
    """The validation side, as log-mels where it is heard more than once and there is room for them."""
    rows, labels, log_mels = data.split.validation, torch.tensor(data.index.truth), None
    if epochs > 1:
        plain = AugmentConfig(time_shift=False, mixes_per_clip=0)
        views = draw_views(rows, data.store.samples, plain, seed=0)  # nothing is drawn
        log_mels = _log_mels(student, StoredClips(data.store), views, device, progress)
    if log_mels is None:
        return ValidationClips(data.store, rows, labels)
    return ValidationClips(LogMelClips({row: place for place, row in enumerate(rows)}, log_mels), rows, labels)


def textures_count(config: DistillConfig, epoch: int) -> bool:
    """Whether the terms that compare taps count in an epoch of the distillation, from 1."""
    return epoch <= config.loss.texture_share * config.training.epochs


def waveform_gain(store: ClipStore, split: Split) -> Tensor:
    """The waveform normalisation, fitted on the training side only."""
    return torch.tensor(fit_gain(store, split.train))


@torch.no_grad()
def _log_mels(
    student: Student, clips: Clips, views: Views, device: torch.device, progress: Progress, batch_size: int = 16
) -> Rows | None:
    """The front end's output for every view of every clip, in this order; None where that is too much to keep.

    float16 rounds a level of -100 dB by 0.03 dB at most.
    """
    total = len(views.rows) * len(views)
    student.to(device)
    table = None
    for done in range(0, total, batch_size):
        numbers = torch.arange(done, min(done + batch_size, total))
        waveforms = views.request(clips, numbers // len(views), numbers % len(views))()
        log_mel = student.front_end(waveforms.to(device))[:, 0]
        if table is None:
            needed = log_mel[0].numel() * 2 * total
            if needed > LOG_MEL_BUDGET:
                return None
            place = device if device.type == "cuda" and fits(needed, device) else CPU
            table = torch.empty(total, *log_mel.shape[1:], dtype=torch.float16, device=place)
        table[done : done + len(log_mel)] = log_mel
        progress("log-mels", done + len(log_mel), total)
    assert table is not None
    return ResidentRows(table) if table.device.type == device.type else StreamedRows(table.numpy(), device)
