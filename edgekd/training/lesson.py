"""One training step of a student, and its validation: shared by distillation and by int8 training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from edgekd import processes
from edgekd.config import AugmentConfig, DistillConfig
from edgekd.data.clip_store import ClipStore, fit_gain
from edgekd.data.index import ClipIndex, Split
from edgekd.losses.total import TEXTURES, SSATKDLoss
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.models.teachers.base import Teacher
from edgekd.progress import Progress, silent
from edgekd.runs.run import Run
from edgekd.scoring.scores import Waveforms, predict_probabilities
from edgekd.training.augment import Masks, Views, draw_masks, draw_views, spec_augment
from edgekd.training.compiled import Compiled
from edgekd.training.device_rows import CPU, Asked, Clips, Kept, Rows, Sent, StoredClips, clips_on, fits, sent
from edgekd.training.frozen_teacher import FrozenTeacher
from edgekd.training.loop import StepOutput, Validation
from edgekd.training.teacher_cache import Answers, TeacherCache, fill_cache

LOG_MEL_BUDGET = 1 << 30  # bytes


class Drawn(NamedTuple):
    """What was drawn for this process's share of a batch: on the device, or asked for and on its way there."""

    waveforms: Asked | None  # (B, S), where something hears them
    log_mels: Asked | None  # (B, T, F) float16, where they are kept
    taught: Answers | None
    targets: Tensor  # (B, K)
    masks: Masks


@dataclass
class Lesson:
    """What a student is taught with: views of the training clips, labels, the teacher's outputs, the loss."""

    run: Run
    split: Split
    labels: Tensor  # (clips of the index,)
    clips: Clips
    views: Views
    log_mels: Rows | None  # (training clips * views, T, F) float16, before normalisation
    validation: Waveforms  # clips of the validation side by row, or their log-mels
    teacher: TeacherCache | None
    loss: SSATKDLoss
    fabric: Fabric
    compiled: Compiled[StudentOutput] | None = None  # the student in a step, where it is compiled

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    def draw(self, rows: Tensor, share: slice, generator: torch.Generator) -> Drawn:
        """Choose a view for each of the training `rows (B,)` of a batch, and what of it the student does not see."""
        choices = torch.randint(0, len(self.views), (len(rows),), generator=generator)[share]
        masks = draw_masks(len(rows), self.run.config.augment, generator).at(share)
        places, with_tap = self.views.places(rows[share]), self.loss.needs_taps
        listens = self.teacher is not None and self.teacher.needs_waveforms(with_tap)
        heard = self.log_mels is None or listens
        return Drawn(
            waveforms=self.views.ask(self.clips, places, choices) if heard else None,
            log_mels=None if self.log_mels is None else self.log_mels.ask(places * len(self.views) + choices),
            taught=None if self.teacher is None else self.teacher.ask(places, choices, with_tap),
            targets=sent(self.views.targets(self.labels, len(self.run.classes), places, choices), self.device),
            masks=masks.sent(self.device),
        )

    def step(self, student: Student, drawn: Drawn, part: slice) -> StepOutput:
        """The loss of a part of a batch; the teacher hears what the student hears, without the masks of SpecAugment.

        Nothing in it waits for a CUDA device.
        """
        waveforms = None if drawn.waveforms is None else drawn.waveforms(part)
        taught = None if drawn.taught is None else drawn.taught(part, waveforms)
        with self.fabric.autocast():
            if drawn.log_mels is not None:
                log_mel = drawn.log_mels(part).unsqueeze(1).float()
            else:
                assert waveforms is not None
                log_mel = student.front_end(waveforms)
            targets = drawn.targets[part]
            # The gradients of a part must outlast the next one, and what a CUDA graph returned does not.
            whole = len(targets) == len(drawn.targets)
            see = _seen if self.compiled is None or not whole else self.compiled
            seen = see(student, log_mel, drawn.masks.at(part), self.run.config.augment)
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
    log_mels: Rows  # (clips, T, F) float16

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        """`(B, 1, T, F)` float32."""
        asked = self.log_mels.ask(torch.tensor([self.places[row] for row in rows]))
        return asked(slice(None)).unsqueeze(1).float()


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
    compiled: bool = True,
) -> Lesson:
    """Draw the views, ask the teacher about each, and build the loss, as it is in epoch `begin` of the distillation.

    `compiled`: whether the student may be compiled, as `training.compile` says.

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
        if cache.warning and processes.is_first():
            run.warn(cache.warning)
    loss = SSATKDLoss(config.loss, student.tap_channels, teacher.tap_channels if teacher is not None else 0)
    loss.count_textures(_textures_count(config, begin))
    clips = clips_on(store, split.train, fabric.device, progress)
    validation: Waveforms = store
    if epochs > 1:
        plain = AugmentConfig(time_shift=False, mixes_per_clip=0)
        unaltered = draw_views(split.validation, store.samples, plain, config.seed)
        kept = _log_mels(student, StoredClips(store), unaltered, fabric.device, progress)
        if kept is not None:
            validation = LogMelStore({row: place for place, row in enumerate(split.validation)}, kept)
    return Lesson(
        run=run,
        split=split,
        labels=torch.tensor(index.labels),
        clips=clips,
        views=views,
        log_mels=_log_mels(student, clips, views, fabric.device, progress) if repeated else None,
        validation=validation,
        teacher=cache,
        loss=loss.to(fabric.device),
        fabric=fabric,
        compiled=_compiled(run, fabric.device) if compiled else None,
    )


def _compiled(run: Run, device: torch.device) -> Compiled[StudentOutput] | None:
    wanted = run.config.training.compile
    if wanted == "off" or (wanted == "auto" and (device.type != "cuda" or processes.count() > 1)):
        return None

    def failed(why: str) -> None:
        if processes.is_first():
            run.warn(f"the student is not compiled but trained as it is, which may be slower: {why}")

    return Compiled(_seen, device, failed)


def _textures_count(config: DistillConfig, epoch: int) -> bool:
    return epoch <= config.loss.texture_share * config.training.epochs


def _seen(student: Student, log_mel: Tensor, masks: Masks, augment: AugmentConfig) -> StudentOutput:
    """What the student makes of log-mels `(B, 1, T, F)`, masked."""
    return student(log_mel, lambda normalised: spec_augment(normalised, masks, augment))


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
        waveforms = views.ask(clips, numbers // len(views), numbers % len(views))(slice(None))
        heard = student.front_end(waveforms.to(device))[:, 0]
        if table is None:
            needed = heard[0].numel() * 2 * total
            if needed > LOG_MEL_BUDGET:
                return None
            there = device if device.type == "cuda" and fits(needed, device) else CPU
            table = torch.empty(total, *heard.shape[1:], dtype=torch.float16, device=there)
        table[done : done + len(heard)] = heard
        progress("log-mels", done + len(heard), total)
    assert table is not None
    return Kept(table) if table.device.type == device.type else Sent(table.numpy(), device)


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
