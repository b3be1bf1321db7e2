"""What a model says of clips: class probabilities, for scores and predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd import processes
from edgekd.progress import Progress, silent
from edgekd.task import SINGLE, Task


class Waveforms(Protocol):
    """Where clips come from: `waveforms(rows) -> (B, S)` float32."""

    def waveforms(self, rows: Sequence[int], /) -> Tensor: ...


def predict_probabilities(
    model: Callable[[Tensor], Tensor],
    store: Waveforms,
    rows: Sequence[int],
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    *,
    progress: Progress = silent,
    stage: str = "evaluating",
    task: Task = SINGLE,
) -> npt.NDArray[np.float32]:
    """Class probabilities `(N, K)` of `rows`, in their order; `model` maps waveforms `(B, S)` to logits `(B, K)`,
    which become probabilities by what the classes are to each other, `task`.

    Where there are several processes, each computes its share of the rows. The caller puts the model in `eval()` mode
    and on `device`.
    """
    own = rows[processes.share_of(len(rows))]
    parts: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(own), batch_size):
            batch = own[start : start + batch_size]
            logits = model(store.waveforms(batch).to(device))
            parts.append(task.probabilities(logits.float()).cpu())
            progress(stage, start + len(batch), len(own))
    return processes.put_together(parts, len(rows)).numpy()
