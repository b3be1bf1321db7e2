"""The sections of a training step: what stands in for student, teacher and loss, and times them."""

from __future__ import annotations

from typing import Any

import torch

from edgekd.losses.total import LossOutput
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.student import Student
from edgekd.training.loop import StepOutput
from tests.benchmarks.measure import Clock, Timed


class Watched(Timed):
    """A student timed as a section, and from the moment on when the gradient reaches its outputs, again.

    Autograd runs the newest operators first, so those of the losses are all done by then.
    """

    def __init__(self, student: Any, clock: Clock) -> None:
        super().__init__(student, clock, "student")

    def __call__(self, *arguments: Any, **keywords: Any) -> StudentOutput:
        output: StudentOutput = super().__call__(*arguments, **keywords)
        if output.logits.requires_grad:
            output.logits.register_hook(lambda _: self._clock.turn_to("student"))
        return output


class TimedTeacher(Timed):
    """The stored answers of a teacher: having them is timed, requesting them is part of drawing a batch."""

    def request(self, *arguments: Any) -> Timed:
        return Timed(self._inner.request(*arguments), self._clock, self._section, "outputs")


class TimedLoss(Timed):
    """A loss whose backward pass is timed, too."""

    def __call__(self, *arguments: Any) -> LossOutput:
        output: LossOutput = super().__call__(*arguments)
        total: Any = _TimedTotal(output.total, self._clock, self._section)
        return output._replace(total=total)


class WatchedStep(Timed):
    """A step that is compiled whole, forward and backward, timed as one section: the losses' share is not seen."""

    def __call__(self, *arguments: Any, **keywords: Any) -> StepOutput:
        output: StepOutput = super().__call__(*arguments, **keywords)
        total: Any = _TimedTotal(output.total, self._clock, self._section)
        return output._replace(total=total)


class _TimedTotal(Timed):
    """A loss's total, of which a share is differentiated."""

    def __mul__(self, share: float) -> Timed:
        return Timed(self._inner * share, self._clock, self._section, "backward")


def hooks(student: Student, optimizer: torch.optim.Optimizer, clock: Clock) -> list[Any]:
    return [
        student.frontend.register_forward_pre_hook(lambda *_: clock.enter("log-mel")),
        student.frontend.register_forward_hook(lambda *_: clock.leave()),
        optimizer.register_step_pre_hook(lambda *_: clock.enter("optimiser")),
        optimizer.register_step_post_hook(lambda *_: clock.leave()),
    ]
