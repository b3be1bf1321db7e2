"""How good a model in training is on the validation side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from edgekd.scoring.probabilities import Waveforms, predict_probabilities


class Validation(NamedTuple):
    """Mean cross-entropy and accuracy on the validation side; without labels a loss alone."""

    loss: float
    accuracy: float | None

    @property
    def score(self) -> tuple[float, float]:
        """The higher the better."""
        return self.accuracy or 0.0, -self.loss

    def figures(self) -> dict[str, float]:
        """What `metrics.csv` has of it."""
        told = {} if self.accuracy is None else {"validation_accuracy": self.accuracy}
        return {"validation_loss": self.loss, **told}


@dataclass(frozen=True, eq=False)
class ValidationClips:
    """The clips `rows` of an index, the `labels` of all of it, and their waveforms, or what stands for them."""

    clips: Waveforms
    rows: Sequence[int]
    labels: Tensor


LossHeldOut = Callable[[], float]
"""The loss, lower is better, on clips without labels, of the model that it knows."""


def validate(model: nn.Module, side: ValidationClips | LossHeldOut, device: torch.device) -> Validation:
    """Mean cross-entropy and accuracy of a student or teacher, or its loss; leaves it in eval mode."""
    model.eval()
    if not isinstance(side, ValidationClips):
        return Validation(side(), None)
    probabilities = predict_probabilities(
        lambda waveforms: model(waveforms).logits, side.clips, side.rows, device=device
    )
    shares, truth = torch.from_numpy(probabilities), side.labels[list(side.rows)]
    return Validation(
        loss=float(nll_loss(shares.clamp_min(1e-12).log(), truth)),
        accuracy=float((shares.argmax(1) == truth).float().mean()),
    )
