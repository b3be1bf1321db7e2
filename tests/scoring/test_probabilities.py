from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgekd.scoring.probabilities import predict_probabilities


class Ramp:
    """Clip i is filled with i."""

    def waveforms(self, rows: Sequence[int], /) -> Tensor:
        return torch.tensor([[float(row)] * 4 for row in rows])


def test_probabilities_are_the_softmax_of_the_rows_in_their_order() -> None:
    reported: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        reported.append((stage, done, total))

    rows = [5, 0, 3, 2, 7]
    probabilities = predict_probabilities(
        lambda w: w[:, :3] * torch.tensor([0.0, 1, 2]), Ramp(), rows, 2, progress=progress
    )
    expected = torch.softmax(torch.tensor(rows)[:, None] * torch.tensor([0.0, 1, 2]), dim=1)
    np.testing.assert_allclose(probabilities, expected.numpy(), rtol=1e-6)
    assert probabilities.dtype == np.float32
    assert reported == [("evaluating", 2, 5), ("evaluating", 4, 5), ("evaluating", 5, 5)]
