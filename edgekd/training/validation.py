"""How good a model in training is on the validation side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, nll_loss

from edgekd.scoring.average_precision import mean_average_precision
from edgekd.scoring.probabilities import Waveforms, predict_probabilities
from edgekd.task import SINGLE, Task, task_of


class Validation(NamedTuple):
    """Mean cross-entropy on the validation side, and the measure of the task: accuracy, mAP; without labels a loss
    alone."""

    loss: float
    measure: float | None
    task: Task = SINGLE

    @property
    def score(self) -> tuple[float, float]:
        """The higher the better."""
        return self.measure or 0.0, -self.loss

    def figures(self) -> dict[str, float]:
        """What `metrics.csv` has of it."""
        told = {} if self.measure is None else {self.task.column: self.measure}
        return {"validation_loss": self.loss, **told}


@dataclass(frozen=True, eq=False)
class ValidationClips:
    """The clips `rows` of an index, the `labels` of all of it, classes or memberships, and their waveforms, or what
    stands for them."""

    clips: Waveforms
    rows: Sequence[int]
    labels: Tensor

    @property
    def task(self) -> Task:
        """What the classes are to each other."""
        return task_of(self.labels)


LossHeldOut = Callable[[], float]
"""The loss, lower is better, on clips without labels, of the model that it knows."""


def validate(model: nn.Module, side: ValidationClips | LossHeldOut, device: torch.device) -> Validation:
    """Mean cross-entropy and measure of a student or teacher, or its loss; leaves it in eval mode."""
    model.eval()
    if not isinstance(side, ValidationClips):
        return Validation(side(), None)
    probabilities = predict_probabilities(
        lambda waveforms: model(waveforms).logits, side.clips, side.rows, device=device, task=side.task
    )
    shares, truth = torch.from_numpy(probabilities), side.labels[list(side.rows)]
    if side.task.several:
        loss = binary_cross_entropy(shares, truth.float(), reduction="none").sum(1).mean()
        return Validation(float(loss), measured(shares, truth), side.task)
    return Validation(float(nll_loss(shares.clamp_min(1e-12).log(), truth)), measured(shares, truth))


def measured(answers: Tensor, truth: Tensor) -> float:
    """The share of clips whose class, of `truth (N,)`, has the largest answer `(N, K)`; with memberships `(N, K)` the
    mean average precision."""
    if truth.ndim == 2:
        return mean_average_precision(answers.numpy(), truth.numpy())
    return float((answers.argmax(1) == truth).float().mean())
