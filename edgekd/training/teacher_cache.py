"""What the frozen teacher says of every training clip, computed once.

A clip is heard in a few known views (`augment.Views`), so the teacher's logits are a table `(clips, views, K)`. Its
taps are large (0.5 MB a view for YAMNet in float16): they are kept in memory where they fit `TAP_BUDGET` and each view
is heard more than once; else each batch runs the layers below the tap again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import read_weights, save_weights
from edgekd.training.augment import Views

TAP_BUDGET = 2 << 30  # bytes


@dataclass
class TeacherCache:
    """Teacher outputs by training clip and view."""

    teacher: Teacher
    logits: Tensor  # (clips, views, K)
    taps: Tensor | None = None  # (clips, views, C, T, F) float16

    def __call__(
        self, places: Tensor, choices: Tensor, waveforms: Tensor | None, device: torch.device
    ) -> TeacherOutput:
        """Outputs for the clips at `places (B,)` of the training side in their views number `choices (B,)`.

        `waveforms (B, S)` are these views, to compute the taps where these are not kept; without either, the tap is
        empty.
        """
        logits = self.logits[places, choices].to(device)
        if self.taps is not None:
            return TeacherOutput(logits, self.taps[places, choices].to(device).float())
        if waveforms is None:
            return TeacherOutput(logits, logits.new_empty(0))
        with torch.no_grad():
            return TeacherOutput(logits, self.teacher.tap(waveforms))


def fill_cache(
    teacher: Teacher,
    store: ClipStore,
    views: Views,
    device: torch.device,
    keep_taps: bool,
    saved: Path,
    batch_size: int = 16,
    progress: Progress = silent,
) -> TeacherCache:
    """Run `teacher`, frozen and in eval mode, over every view of every training clip.

    The order and batches are fixed, so that a resumed run gets the same numbers to the last bit. The logits are kept in
    the file `saved` and read back from there. `keep_taps`: keep the taps too, where they fit the budget.
    """
    teacher.eval().requires_grad_(False)
    clips, total = len(views.rows), len(views.rows) * len(views)
    logits = read_weights(saved)["logits"] if saved.is_file() else None
    cache = TeacherCache(teacher, torch.empty(0) if logits is None else logits)
    if logits is not None and not keep_taps:
        return cache
    answers: list[Tensor] = []
    with torch.no_grad():
        for done in range(0, total, batch_size):
            numbers = torch.arange(done, min(done + batch_size, total))
            places, choices = numbers % clips, numbers // clips
            waveforms = views.waveforms(store, places, choices).to(device)
            if logits is None:
                output = teacher(waveforms)
                answers.append(output.logits.float().cpu())
                tap = output.tap
            else:
                tap = teacher.tap(waveforms)
            if keep_taps and cache.taps is None:
                keep_taps = tap[0].numel() * 2 * total <= TAP_BUDGET
                if keep_taps:
                    cache.taps = torch.empty(clips, len(views), *tap.shape[1:], dtype=torch.float16)
                elif logits is not None:
                    break
            if cache.taps is not None:
                cache.taps[places, choices] = tap.half().cpu()
            progress("teacher outputs", int(numbers[-1]) + 1, total)
    if logits is None:
        cache.logits = torch.cat(answers).view(len(views), clips, -1).transpose(0, 1).contiguous()
        save_weights(saved, {"logits": cache.logits})
    return cache
