"""One training step of a student, and its validation: shared by distillation and by int8 training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore, fit_gain
from edgekd.data.index import ClipIndex, Split
from edgekd.models.students import Student
from edgekd.models.teachers.base import Teacher
from edgekd.ssatkd import SSATKDLoss
from edgekd.training.augment import draw_shifts, shift, spec_augment
from edgekd.training.evaluation import predict_probabilities
from edgekd.training.loop import StepOutput, Validation
from edgekd.training.run import Run
from edgekd.training.teacher_cache import TeacherCache, fill_cache


@dataclass
class Lesson:
    """What a student is taught with: clips and their shifts, labels, the teacher's outputs, the loss."""

    run: Run
    split: Split
    store: ClipStore
    labels: Tensor  # (clips of the index,)
    position: dict[int, int]  # training row -> its row in `shifts`
    shifts: Tensor  # (training clips, shifts a clip), samples
    teacher: TeacherCache | None
    loss: SSATKDLoss
    device: torch.device

    def step(self, student: nn.Module, rows: Tensor) -> StepOutput:
        """The loss of one batch of training rows, the teacher seeing the waveforms that the student sees."""
        augment = self.run.config.augment
        choices = torch.randint(0, self.shifts.shape[1], (len(rows),))
        places = torch.tensor([self.position[int(row)] for row in rows])
        waveforms = self.store.waveforms(rows.tolist()).to(self.device)
        if augment.time_shift:
            waveforms = shift(waveforms, self.shifts[places, choices])
        seen = student(waveforms, lambda log_mel: spec_augment(log_mel, augment))
        taught = self.teacher(rows, choices, waveforms) if self.teacher is not None else None
        return StepOutput(*self.loss(seen, taught, self.labels[rows].to(self.device)))

    def validate(self, student: nn.Module) -> Validation:
        """Mean cross-entropy and accuracy on the validation side; leaves `student` in eval mode."""
        return validate(student, self.store, self.split.validation, self.labels, self.device)


def prepare_lesson(
    run: Run,
    index: ClipIndex,
    split: Split,
    store: ClipStore,
    teacher: Teacher | None,
    student: Student,
    fabric: Fabric,
    progress: Progress = silent,
) -> Lesson:
    """Draw the shifts, ask the teacher about every training clip, and build the loss."""
    config = run.config
    rows = split.train
    shifts = draw_shifts(len(rows), store.samples, config.augment, config.seed)
    cache = None
    if teacher is not None and needs_teacher(config.loss.terms):
        needs_tap = bool({"statistical", "structural"} & set(config.loss.terms))
        teacher.to(fabric.device)
        saved = run.stage_folder("teacher") / "logits.safetensors"
        cache = fill_cache(teacher, store, rows, shifts, fabric.device, needs_tap, saved, progress=progress)
    loss = SSATKDLoss(config.loss, student.tap_channels, teacher.tap_channels if teacher is not None else 0)
    return Lesson(
        run=run,
        split=split,
        store=store,
        labels=torch.tensor(index.labels),
        position={row: place for place, row in enumerate(rows)},
        shifts=shifts,
        teacher=cache,
        loss=loss.to(fabric.device),
        device=fabric.device,
    )


def validate(
    model: nn.Module, store: ClipStore, rows: Sequence[int], labels: Tensor, device: torch.device
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
