"""One training step of a student, and its validation: shared by distillation and by int8 training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from edgekd.config import AugmentConfig, DistillConfig
from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore, fit_gain
from edgekd.data.index import ClipIndex, Split
from edgekd.models.students import Student
from edgekd.models.teachers.base import Teacher
from edgekd.ssatkd import SSATKDLoss
from edgekd.ssatkd.losses import TEXTURES
from edgekd.training.augment import Views, draw_views, spec_augment
from edgekd.training.evaluation import Waveforms, predict_probabilities
from edgekd.training.frozen_teacher import FrozenTeacher
from edgekd.training.loop import StepOutput, Validation
from edgekd.training.run import Run
from edgekd.training.teacher_cache import TeacherCache, fill_cache

LOG_MEL_BUDGET = 1 << 30  # bytes


@dataclass
class Lesson:
    """What a student is taught with: views of the training clips, labels, the teacher's outputs, the loss."""

    run: Run
    split: Split
    store: ClipStore
    labels: Tensor  # (clips of the index,)
    views: Views
    log_mels: Tensor | None  # (training clips, views, T, F) float16, before normalisation
    validation: Waveforms  # clips of the validation side by row, or their log-mels
    teacher: TeacherCache | None
    loss: SSATKDLoss
    device: torch.device

    def __post_init__(self) -> None:
        self._place = {row: place for place, row in enumerate(self.views.rows)}

    def step(self, student: nn.Module, rows: Tensor) -> StepOutput:
        """The loss of one batch of training rows, each in one of its views; the teacher hears what the student hears,
        without the masks of SpecAugment."""
        choices = torch.randint(0, len(self.views), (len(rows),))
        places = torch.tensor([self._place[int(row)] for row in rows])
        waveforms = heard = None
        with_tap = self.loss.needs_taps
        if self.log_mels is None or (self.teacher is not None and self.teacher.needs_waveforms(with_tap)):
            waveforms = heard = self.views.waveforms(self.store, places, choices).to(self.device)
        if self.log_mels is not None:
            heard = self.log_mels[places, choices].unsqueeze(1).to(self.device).float()
        seen = student(heard, lambda log_mel: spec_augment(log_mel, self.run.config.augment))
        taught = None
        if self.teacher is not None:
            taught = self.teacher(places, choices, waveforms, with_tap)
        targets = self.views.targets(self.labels, len(self.run.classes), places, choices).to(self.device)
        return StepOutput(*self.loss(seen, taught, targets))

    def begin_epoch(self, epoch: int) -> None:
        """Say which terms count in `epoch` of the distillation, counted from 1."""
        self.loss.count_textures(_textures_count(self.run.config, epoch))

    def validate(self, student: nn.Module) -> Validation:
        """Mean cross-entropy and accuracy on the validation side; leaves `student` in eval mode."""
        return validate(student, self.validation, self.split.validation, self.labels, self.device)


@dataclass(frozen=True)
class LogMelStore:
    """Log-mels in place of the waveforms of some clips: a student takes either."""

    places: dict[int, int]  # row of the index -> row of the table
    log_mels: Tensor  # (clips, T, F) float16

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        """`(B, 1, T, F)` float32."""
        return self.log_mels[[self.places[row] for row in rows]].unsqueeze(1).float()


def prepare_lesson(
    run: Run,
    index: ClipIndex,
    split: Split,
    store: ClipStore,
    teacher: Teacher | None,
    student: Student,
    epochs: int,
    fabric: Fabric,
    progress: Progress = silent,
    *,
    begin: int = 1,
) -> Lesson:
    """Draw the views, ask the teacher about each, and build the loss, as it is in epoch `begin` of the distillation.

    What is heard more than once in `epochs` is computed once and kept where there is room: log-mels in memory, what the
    teacher says on disk (`teacher_cache`).
    """
    config = run.config
    views = draw_views(split.train, store.samples, config.augment, config.seed)
    repeated = epochs > len(views)
    cache = None
    if teacher is not None and needs_teacher(config.loss.terms):
        taps = bool(TEXTURES & set(config.loss.terms)) and _textures_count(config, begin)
        frozen = FrozenTeacher(teacher, fabric.device)
        cache = fill_cache(config, frozen, store, views, taps=taps, repeated=repeated, progress=progress)
        if cache.warning:
            run.warn(cache.warning)
    loss = SSATKDLoss(config.loss, student.tap_channels, teacher.tap_channels if teacher is not None else 0)
    loss.count_textures(_textures_count(config, begin))
    validation: Waveforms = store
    if epochs > 1:
        plain = AugmentConfig(time_shift=False, mixes_per_clip=0)
        unaltered = draw_views(split.validation, store.samples, plain, config.seed)
        kept = _log_mels(student, store, unaltered, fabric.device, progress)
        if kept is not None:
            validation = LogMelStore({row: place for place, row in enumerate(split.validation)}, kept[:, 0])
    return Lesson(
        run=run,
        split=split,
        store=store,
        labels=torch.tensor(index.labels),
        views=views,
        log_mels=_log_mels(student, store, views, fabric.device, progress) if repeated else None,
        validation=validation,
        teacher=cache,
        loss=loss.to(fabric.device),
        device=fabric.device,
    )


def _textures_count(config: DistillConfig, epoch: int) -> bool:
    return epoch <= config.loss.texture_share * config.training.epochs


@torch.no_grad()
def _log_mels(
    student: Student, store: ClipStore, views: Views, device: torch.device, progress: Progress, batch_size: int = 16
) -> Tensor | None:
    """The front end's output for every view; None where that is too much to keep.

    float16 rounds a level of -100 dB by 0.03 dB at most.
    """
    clips, total = len(views.rows), len(views.rows) * len(views)
    student.to(device)
    table = None
    for done in range(0, total, batch_size):
        numbers = torch.arange(done, min(done + batch_size, total))
        places, choices = numbers % clips, numbers // clips
        heard = student.front_end(views.waveforms(store, places, choices).to(device))[:, 0]
        if table is None:
            if heard[0].numel() * 2 * total > LOG_MEL_BUDGET:
                return None
            table = torch.empty(clips, len(views), *heard.shape[1:], dtype=torch.float16)
        table[places, choices] = heard.half().cpu()
        progress("log-mels", int(numbers[-1]) + 1, total)
    return table


def validate(
    model: nn.Module, store: Waveforms, rows: Sequence[int], labels: Tensor, device: torch.device
) -> Validation:
    """Mean cross-entropy and accuracy of a student or teacher on `rows`; leaves it in eval mode."""
    model.eval()
    probabilities = predict_probabilities(lambda waveforms: model(waveforms).logits, store, rows, device=device)
    shares, truth = torch.from_numpy(probabilities), labels[list(rows)]
    return Validation(
        loss=float(nll_loss(shares.clamp_min(1e-12).log(), truth)),
        accuracy=float((shares.argmax(1) == truth).float().mean()),
    )


def needs_teacher(terms: Sequence[str]) -> bool:
    """Whether any of the loss terms asks the teacher."""
    return set(terms) != {"classification"}


def waveform_gain(store: ClipStore, split: Split) -> Tensor:
    """The waveform normalisation, fitted on the training side only."""
    return torch.tensor(fit_gain(store, split.train))
