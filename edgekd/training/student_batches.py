"""What a student is taught with: the same in distillation and in int8 training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd import processes
from edgekd.config import AugmentConfig, DistillConfig
from edgekd.data.clip_store import ClipStore, fit_gain
from edgekd.data.index import Split
from edgekd.losses.terms import needs_of, needs_teacher
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.progress import Progress, silent
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.training.batches import TrainingBatches
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
    config, store, train = run.config, data.store, data.split.train
    views = draw_views(train, store.samples, config.augment, config.seed)
    repeated = epochs > len(views)
    cache = None
    if teacher is not None and needs_teacher(config.loss.terms):
        needs = needs_of(config.loss.terms)
        if not textures_count(config, begin):
            needs -= {"tap"}
        cache = answers_of(config, teacher, device, store, views, needs=needs, repeated=repeated, progress=progress)
        if cache.warning and processes.is_first():
            run.warn(cache.warning)
    clips = clips_on(store, train, device, progress)
    return TrainingBatches(
        stage=stage,
        seed=config.seed,
        rows=train,
        batch_size=config.training.batch_size,
        clips=clips,
        labels=torch.tensor(data.index.labels),
        num_classes=len(run.classes),
        augment=config.augment,
        views=views,
        log_mels=_log_mels(student, clips, views, device, progress) if repeated else None,
        teacher=cache,
    )


def student_validation(
    data: RunData, student: Student, epochs: int, device: torch.device, progress: Progress = silent
) -> ValidationClips:
    """The validation side, as log-mels where it is heard more than once and there is room for them."""
    rows, labels, log_mels = data.split.validation, torch.tensor(data.index.labels), None
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
