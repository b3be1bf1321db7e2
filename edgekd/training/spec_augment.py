"""SpecAugment: bands of time and of mel bins that the learner does not hear.

Park et al. 2019, arXiv 1904.08779; the constants are the SSATKD paper's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgekd.config import AugmentConfig
from edgekd.training.device_rows import to_device


class Masks(NamedTuple):
    """What is random about the masks of a batch, uniform in [0, 1): of each mask the width and the start, as shares of
    what they can be: `time (B, masks, 2)`, `frequency (B, masks, 2)`."""

    time: Tensor
    frequency: Tensor

    def at(self, part: slice | Tensor) -> Masks:
        """Those of some rows of the batch."""
        return Masks(self.time[part], self.frequency[part])

    def to(self, device: torch.device) -> Masks:
        """The same on `device`."""
        return Masks(to_device(self.time, device), to_device(self.frequency, device))


def draw_masks(clips: int, config: AugmentConfig, generator: torch.Generator) -> Masks:
    """The masks of a batch of so many `clips`."""
    return Masks(*(torch.rand(clips, n, 2, generator=generator) for n in (config.time_masks, config.frequency_masks)))


@contextmanager
def masked_front_end(log_mel: nn.Module, masks: Masks, config: AugmentConfig) -> Iterator[None]:
    """Within it, SpecAugment masks what the module `log_mel` returns, `(B, 1, T, F)`, with each clip's own mean."""

    def mask(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        mean = output.mean(dim=(2, 3), keepdim=True)
        return spec_augment(output - mean, masks, config) + mean

    handle = log_mel.register_forward_hook(mask)
    try:
        yield
    finally:
        handle.remove()


def spec_augment(log_mel: Tensor, masks: Masks, config: AugmentConfig, bins_per_step: int = 1) -> Tensor:
    """Mask bands of time and mel bins of a normalised log-mel `(B, 1, T, F)`, each clip its own, with its mean (0).

    A band is `u w` wide, for `w` the most that is allowed, and begins at `v (size - u w)`, both rounded down, as
    `torchaudio.functional.mask_along_axis_iid` has it. `bins_per_step`: mel bins that became one of these F.
    """
    frames = _hidden(masks.time, config.time_mask(log_mel.shape[2]), log_mel.shape[2])
    bins = _hidden(masks.frequency, config.frequency_mask_bins // bins_per_step, log_mel.shape[3])
    return log_mel.masked_fill(frames[:, None, :, None] | bins[:, None, None, :], 0.0)


def _hidden(drawn: Tensor, most: int, size: int) -> Tensor:
    """Which of `size` positions lie in one of the bands `(B, masks, 2)`, none wider than `most`: `(B, size)`."""
    width = drawn[..., 0] * min(most, size)
    start = (drawn[..., 1] * (size - width)).long()
    end = start + width.long()
    positions = torch.arange(size, device=drawn.device)
    return ((positions >= start[..., None]) & (positions < end[..., None])).any(1)
