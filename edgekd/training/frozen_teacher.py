"""A teacher that only answers: no gradients, no training mode, and the arithmetic that the hardware is fast at.

Under bfloat16 autocast, on CUDA and on processors with instructions for it, the front ends stay in float32 (they switch
it off themselves), as does everything that autocast holds to be delicate. Channels-last makes convolutions faster on
CUDA; on a CPU oneDNN reorders the weights itself, and it was measured to change nothing.

A batch that the device has no memory for is heard in parts, halved until they fit; from then on so are the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher

Precision = Literal["float32", "bfloat16"]
Said = TypeVar("Said")


class FrozenTeacher:
    """`module`, the teacher, on `device`, in eval mode, its parameters fixed.

    Waveforms `(B, S)` may be anywhere; answers are float32 on `device`, and a loss may keep them for its backward pass.
    """

    def __init__(self, teacher: Teacher, device: torch.device, precision: Precision | None = None) -> None:
        """Freeze `teacher`; `precision` None: the one that suits `device`."""
        self.module = teacher.to(device).eval().requires_grad_(False)
        self.device = device
        self.precision = fast_precision(device) if precision is None else precision
        self._most: int | None = None  # clips heard at once
        if device.type == "cuda":
            for layer in teacher.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, waveforms: Tensor) -> TeacherOutput:
        """Logits `(B, K)`, tap `(B, C, T, F)` and embedding `(B, E)`.

        Raises `InputError` where not even one clip fits the memory.
        """
        said = self._in_parts(self.module, waveforms)
        embeddings = [part.embedding for part in said if part.embedding is not None]
        return TeacherOutput(
            logits=_usable([part.logits for part in said]),
            tap=_usable([part.tap for part in said]),
            embedding=_usable(embeddings) if embeddings else None,
        )

    def tap(self, waveforms: Tensor) -> Tensor:
        """The tap `(B, C, T, F)` alone, without the cost of the layers above it. Raises as a call does."""
        return _usable(self._in_parts(self.module.tap, waveforms))

    def _in_parts(self, ask: Callable[[Tensor], Said], waveforms: Tensor) -> list[Said]:
        """What `ask` says of `waveforms (B, S)`, in as few parts as the memory allows."""
        while True:
            try:
                with torch.inference_mode(), self._autocast():
                    return [ask(part.to(self.device)) for part in waveforms.split(self._most or len(waveforms))]
            except torch.OutOfMemoryError:
                pass  # what was computed is let go with the exception, and only then
            self._most = self._fewer(min(self._most or len(waveforms), len(waveforms)))

    def _fewer(self, clips: int) -> int:
        """How many clips to try after so many did not fit."""
        if clips == 1:
            raise InputError(
                f"{self.device} is out of memory with one clip in the teacher. Take shorter clips (--clip-seconds) or "
                "--device cpu; with --teacher-cache full the teacher is done before the student takes its memory."
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return clips // 2

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def fast_precision(device: torch.device) -> Precision:
    """bfloat16 on CUDA and on processors that compute in it, else float32."""
    if device.type == "cpu":
        able = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if able else "float32"
    return "bfloat16" if device.type == "cuda" else "float32"


def _usable(parts: list[Tensor]) -> Tensor:
    """The parts of an answer as one float32 copy: autograd cannot keep a tensor that was made in inference mode."""
    return torch.cat([part.float() for part in parts]) if len(parts) > 1 else parts[0].to(torch.float32, copy=True)
