"""Random changes to training clips: circular shifts, which teacher and student share, and SpecAugment for the learner.

SpecAugment: Park et al. 2019, arXiv 1904.08779; the constants are the SSATKD paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgekd._torchaudio import functional as audio_functional
from edgekd.config import AugmentConfig


def draw_shifts(clips: int, samples: int, config: AugmentConfig, seed: int) -> Tensor:
    """The shifts in samples that each clip can have, `(clips, shifts_per_clip)`; the first is 0.

    A clip is seen at few shifts rather than at any, so that what the teacher says of each can be computed once.
    """
    if not config.time_shift:
        return torch.zeros(clips, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(0, samples, (clips, config.shifts_per_clip), generator=generator)
    shifts[:, 0] = 0
    return shifts


def shift(waveforms: Tensor, shifts: Tensor) -> Tensor:
    """Rotate each waveform of `(B, S)` by its own number of samples `(B,)`."""
    positions = torch.arange(waveforms.shape[1], device=waveforms.device)
    source = (positions[None, :] - shifts.to(waveforms.device)[:, None]) % waveforms.shape[1]
    return waveforms.gather(1, source)


@contextmanager
def augmented_front_end(log_mel: nn.Module, config: AugmentConfig) -> Iterator[None]:
    """Within it, SpecAugment masks what the module `log_mel` returns, `(B, 1, T, F)`, with each clip's own mean."""

    def mask(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        mean = output.mean(dim=(2, 3), keepdim=True)
        return spec_augment(output - mean, config) + mean

    handle = log_mel.register_forward_hook(mask)
    try:
        yield
    finally:
        handle.remove()


def spec_augment(log_mel: Tensor, config: AugmentConfig) -> Tensor:
    """Mask bands of time and mel bins of a normalised log-mel `(B, 1, T, F)`, each clip its own, with its mean (0)."""
    for _ in range(config.time_masks):
        width = min(config.time_mask_frames, log_mel.shape[2])
        log_mel = audio_functional.mask_along_axis_iid(log_mel, width, 0.0, axis=2)
    for _ in range(config.frequency_masks):
        width = min(config.frequency_mask_bins, log_mel.shape[3])
        log_mel = audio_functional.mask_along_axis_iid(log_mel, width, 0.0, axis=3)
    return log_mel
