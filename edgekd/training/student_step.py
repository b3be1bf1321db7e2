"""The step of distillation: from a batch to its loss, as it is or compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from edgekd import processes
from edgekd.config import AugmentConfig, DistillConfig
from edgekd.errors import UsageError
from edgekd.losses.ssatkd.kernels import use_kernels, use_no_kernels, uses_kernels, why_not
from edgekd.losses.terms import Need, needs_of
from edgekd.losses.total import SSATKDLoss
from edgekd.models.outputs import StudentOutput, TeacherOutput
from edgekd.models.students.student import Student
from edgekd.runs.run import Run
from edgekd.training.batches import Batch
from edgekd.training.compiled import Compiled
from edgekd.training.loop import StepOutput
from edgekd.training.narrow_convolutions import try_kernels
from edgekd.training.precision import mixed_precision
from edgekd.training.spec_augment import Masks, spec_augment
from edgekd.training.student_batches import textures_count


class StudentStep:
    """From a batch to its loss: front end, SpecAugment, network, the terms that count in the epoch.

    `mixed`: in bfloat16 where the device is fast at it. `compiled` (`compiled_step`) computes it from the log-mels on,
    or the student in it.
    Nothing in a step waits for a CUDA device.
    """

    def __init__(
        self,
        student: Student,
        loss: SSATKDLoss,
        config: DistillConfig,
        device: torch.device,
        *,
        mixed: bool = True,
        compiled: Compiled[Any] | None = None,
    ) -> None:
        self.student, self.loss, self.config, self.device = student, loss, config, device
        self.mixed, self.compiled = mixed, compiled
        if "embedding" in needs_of(config.loss.terms):
            student.give_embedding()

    def begin(self, epoch: int) -> frozenset[Need]:
        """Get ready for an epoch of the distillation, from 1; what the terms that count in it need of the teacher."""
        self.loss.count_textures(textures_count(self.config, epoch))
        return self.loss.needs

    def __call__(self, batch: Batch) -> StepOutput:
        """The loss of the clips of `batch`, as a mean over them."""
        with mixed_precision(self.device, self.mixed):
            if batch.log_mels is not None:
                log_mel = batch.log_mels.unsqueeze(1)
            else:
                assert batch.waveforms is not None
                log_mel = self.student.front_end(batch.waveforms)
            # The gradients of a part must outlast the next one, and what a CUDA graph returned does not.
            loss_of: Callable[..., StepOutput] = _loss_of
            if self.compiled is not None and batch.whole:
                whole = self.compiled.function is _loss_of
                loss_of = self.compiled if whole else partial(_loss_of, forward=self.compiled)
            augment = self.config.augment
            return loss_of(
                self.student, self.loss, augment, log_mel, batch.masks, batch.teacher, batch.targets, batch.labelled
            )

    def gives_up(self, failure: Exception) -> bool:
        """What is compiled can be done without, in one process: several would no longer do the same."""
        return self.compiled is not None and processes.count() == 1 and self.compiled.gives_up(failure)


def compiled_step(run: Run, device: torch.device) -> Compiled[Any] | None:
    """What computes a step, compiled, where `training.compile` says so; None where it does not.

    "auto": the student, on CUDA in a single process. "on", on CUDA: all of the step from its log-mels on, with kernels
    of our own for convolutions of few channels and for textures, where these compute what PyTorch does.
    """
    computes_in_kernels(run, device)
    wanted = run.config.training.compile
    if wanted == "off" or (wanted == "auto" and (device.type != "cuda" or processes.count() > 1)):
        return None

    def failed(why: str) -> None:
        if processes.count() > 1:  # what is compiled sums in other messages: the others would wait for ever
            raise UsageError(
                f"training.compile: in several processes all must compile alike, and this one cannot: {why}. "
                "Go on with --resume --set training.compile=off."
            )
        run.warn(f"the student is not compiled but trained as it is, which may be slower: {why}")

    narrow = device.type == "cuda" and wanted == "on"
    if narrow and (why := why_not(try_kernels, device)):
        narrow = False
        if processes.is_first():
            run.warn(f"convolutions of few channels are not computed in kernels of their own: {why}")
    whole = uses_kernels(device) and wanted == "on"
    return Compiled(_loss_of if whole else _masked_forward, device, failed, narrow=narrow)


def computes_in_kernels(run: Run, device: torch.device) -> None:
    """Have textures computed in kernels on `device` where `training.compile` is "on", and nowhere else, whatever an
    earlier run of this process had; a warning of the run says where they cannot be."""
    if run.config.training.compile != "on":
        use_no_kernels()
    elif (why := use_kernels(device)) and processes.is_first():
        run.warn(f"textures are not computed in kernels of their own but by PyTorch, which is slower: {why}")


def _loss_of(
    student: Student,
    loss: SSATKDLoss,
    augment: AugmentConfig,
    log_mel: Tensor,
    masks: Masks,
    teacher: TeacherOutput | None,
    targets: Tensor,
    labelled: Tensor | None,
    *,
    forward: Callable[..., StudentOutput] | None = None,
) -> StepOutput:
    """The loss of clips by their log-mels `(B, 1, T, F)`, which may be stored in half precision."""
    output = (forward or _masked_forward)(student, log_mel.float(), masks, augment)
    total, terms, weights = loss(output, teacher, targets, labelled)
    return StepOutput(total, {term: value.detach() for term, value in terms.items()}, weights)


def _masked_forward(student: Student, log_mel: Tensor, masks: Masks, augment: AugmentConfig) -> StudentOutput:
    """What the student makes of log-mels `(B, 1, T, F)`, masked."""
    bins_per_step = student.frontend.config.bins_per_step
    return student(log_mel, lambda normalised: spec_augment(normalised, masks, augment, bins_per_step))
