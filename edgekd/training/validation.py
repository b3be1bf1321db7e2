"""How good a model in training is on the validation side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from edgekd.scoring.probabilities import Waveforms, predict_probabilities


class Validation(NamedTuple):
    """Mean cross-entropy and accuracy on the validation side."""

    loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class ValidationClips:
    """The clips `rows` of an index, the `labels` of all of it, and their waveforms, or what stands for them."""

    clips: Waveforms
    rows: Sequence[int]
    labels: Tensor


def validate(model: nn.Module, side: ValidationClips, device: torch.device) -> Validation:
    """Mean cross-entropy and accuracy of a student or teacher; leaves it in eval mode."""
    model.eval()
    probabilities = predict_probabilities(
        lambda waveforms: model(waveforms).logits, side.clips, side.rows, device=device
    )
    shares, truth = torch.from_numpy(probabilities), side.labels[list(side.rows)]
    return Validation(
        loss=float(nll_loss(shares.clamp_min(1e-12).log(), truth)),
        accuracy=float((shares.argmax(1) == truth).float().mean()),
    )
