"""A teacher that only answers: no gradients, no training mode, and the arithmetic that the hardware is fast at.

Under bfloat16 autocast, on CUDA and on processors with instructions for it, the front ends stay in float32 (they switch
it off themselves), as does everything that autocast holds to be delicate. Channels-last makes convolutions faster on
CUDA; on a CPU oneDNN reorders the weights itself, and it was measured to change nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher

Precision = Literal["float32", "bfloat16"]


class FrozenTeacher:
    """`module`, the teacher, on `device`, in eval mode, its parameters fixed.

    Waveforms `(B, S)` may be anywhere; answers are float32 on `device`, and a loss may keep them for its backward pass.
    """

    def __init__(self, teacher: Teacher, device: torch.device, precision: Precision | None = None) -> None:
        """Freeze `teacher`; `precision` None: the one that suits `device`."""
        self.module = teacher.to(device).eval().requires_grad_(False)
        self.device = device
        self.precision = fast_precision(device) if precision is None else precision
        if device.type == "cuda":
            for layer in teacher.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, waveforms: Tensor) -> TeacherOutput:
        """Logits `(B, K)` and the tap `(B, C, T, F)`."""
        with torch.inference_mode(), self._autocast():
            logits, tap = self.module(waveforms.to(self.device))
        return TeacherOutput(_usable(logits), _usable(tap))

    def tap(self, waveforms: Tensor) -> Tensor:
        """The tap `(B, C, T, F)` alone, without the cost of the layers above it."""
        with torch.inference_mode(), self._autocast():
            tap = self.module.tap(waveforms.to(self.device))
        return _usable(tap)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def fast_precision(device: torch.device) -> Precision:
    """bfloat16 on CUDA and on processors that compute in it, else float32."""
    if device.type == "cpu":
        able = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if able else "float32"
    return "bfloat16" if device.type == "cuda" else "float32"


def _usable(answer: Tensor) -> Tensor:
    """A float32 copy: autograd cannot keep a tensor that was made in inference mode."""
    return answer.to(torch.float32, copy=True)
