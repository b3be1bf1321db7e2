"""What the frozen teacher says of every training clip, computed once.

A clip is seen at a few known shifts (`augment.draw_shifts`), so the teacher's logits are a table `(clips, shifts,
K)`. Its taps are large (1 MB a clip for YAMNet in float16): they are kept when clips are not shifted and the taps
fit `TAP_BUDGET`; else each batch runs the teacher's stem again, which is a small part of it (3 % for YAMNet, 11 %
for CNN14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgekd.console import Progress, silent
from edgekd.data.cache import ClipStore
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import read_weights, save_weights
from edgekd.training.augment import shift

TAP_BUDGET = 1 << 30  # bytes


@dataclass
class TeacherCache:
    """Teacher outputs by training clip and shift."""

    teacher: Teacher
    position: Mapping[int, int]  # row of the index -> row of the tables
    logits: Tensor  # (clips, shifts, K)
    taps: Tensor | None  # (clips, C, T, F) float16

    def __call__(self, rows: Tensor, choices: Tensor, waveforms: Tensor) -> TeacherOutput:
        """Outputs for clips `rows (B,)` at shift number `choices (B,)`; `waveforms (B, S)` are shifted already."""
        places = torch.tensor([self.position[int(row)] for row in rows])
        logits = self.logits[places, choices].to(waveforms.device)
        if self.taps is not None:
            return TeacherOutput(logits, self.taps[places].to(waveforms.device).float())
        with torch.no_grad():
            return TeacherOutput(logits, self.teacher.tap(waveforms))


def fill_cache(
    teacher: Teacher,
    store: ClipStore,
    rows: Sequence[int],
    shifts: Tensor,
    device: torch.device,
    needs_tap: bool,
    saved: Path,
    batch_size: int = 16,
    progress: Progress = silent,
) -> TeacherCache:
    """Run `teacher`, frozen and in eval mode, over every clip of `rows` at each of its `shifts (clips, S)`.

    The order and batches are fixed, so that a resumed run gets the same numbers to the last bit. The logits are kept in
    the file `saved` and read back from there, unless taps are to be computed with them.
    """
    teacher.eval().requires_grad_(False)
    positions, total = shifts.shape[1], len(rows) * shifts.shape[1]
    position = {int(row): place for place, row in enumerate(rows)}
    if saved.is_file() and not (needs_tap and positions == 1):
        return TeacherCache(teacher, position, read_weights(saved)["logits"], None)
    logits: list[Tensor] = []
    taps: list[Tensor] = []
    keep_taps = needs_tap and positions == 1
    with torch.no_grad():
        for choice in range(positions):
            for start in range(0, len(rows), batch_size):
                batch = slice(start, start + batch_size)
                waveforms = shift(store.waveforms(rows[batch]).to(device), shifts[batch, choice])
                output = teacher(waveforms)
                logits.append(output.logits.float().cpu())
                if keep_taps:
                    taps.append(output.tap.half().cpu())
                    keep_taps = taps[0][0].nbytes * len(rows) <= TAP_BUDGET
                progress("teacher outputs", choice * len(rows) + min(start + batch_size, len(rows)), total)
    table = torch.cat(logits).view(positions, len(rows), -1).transpose(0, 1).contiguous()
    save_weights(saved, {"logits": table})
    return TeacherCache(teacher, position, table, torch.cat(taps) if keep_taps else None)
