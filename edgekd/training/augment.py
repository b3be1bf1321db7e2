"""Random changes to training clips: views, which teacher and student share, and SpecAugment for the learner alone.

A view is one way of hearing a clip: shifted round its own length, or mixed with another shifted clip (mixup: Zhang et
al. 2018, arXiv 1710.09412; mixed at equal level, as Tokozume et al. 2018, arXiv 1711.10282, found to matter for
sound). Views are few and known beforehand, so what the teacher says of each is computed once and is about exactly what
the student hears (Beyer et al. 2022, arXiv 2106.05237, on why it must be).

SpecAugment: Park et al. 2019, arXiv 1904.08779; the constants are the SSATKD paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from edgekd._torchaudio import functional as audio_functional
from edgekd.config import AugmentConfig
from edgekd.data.cache import ClipStore

SILENCE = 1e-6  # root mean square below which a clip has no level to be matched


@dataclass(frozen=True)
class Views:
    """The V views of each of N training clips, `rows (N,)` of the index; every other field is `(N, V)`.

    View v of clip i is `share * shift(clip i)`, and of `1 - share` the clip at place `partners` shifted by
    `partner_shifts`. Shifts are in samples. A share of 1 is the clip alone.
    """

    rows: tuple[int, ...]
    shifts: Tensor
    partners: Tensor
    partner_shifts: Tensor
    shares: Tensor

    def __len__(self) -> int:
        """The views of one clip."""
        return self.shifts.shape[1]

    def waveforms(self, store: ClipStore, places: Tensor, choices: Tensor) -> Tensor:
        """`(B, S)`: clips at `places (B,)` of the training side in their views number `choices (B,)`.

        A mixture has the level of its clip: the partner is brought to it first, and the sum, of sounds that do not
        correlate, back to it.
        """
        heard = shift(self._clips(store, places), self.shifts[places, choices])
        shares = self.shares[places, choices]
        mixed = (shares < 1).nonzero().flatten()
        if len(mixed) == 0:
            return heard
        partners, share = self.partners[places, choices][mixed], shares[mixed, None]
        other = shift(self._clips(store, partners), self.partner_shifts[places, choices][mixed])
        level = [waveform.square().mean(1, keepdim=True).sqrt() for waveform in (heard[mixed], other)]
        audible = (level[0] > SILENCE) & (level[1] > SILENCE)
        other = other * torch.where(audible, level[0] / level[1].clamp_min(SILENCE), 1.0)
        mixture = share * heard[mixed] + (1 - share) * other
        heard[mixed] = mixture / (share.square() + (1 - share).square()).sqrt()
        return heard

    def targets(self, labels: Tensor, num_classes: int, places: Tensor, choices: Tensor) -> Tensor:
        """Class shares `(B, K)` of the same views, for `labels (rows of the index,)`."""
        classes = one_hot(labels[list(self.rows)], num_classes).float()
        shares = self.shares[places, choices][:, None]
        return shares * classes[places] + (1 - shares) * classes[self.partners[places, choices]]

    def _clips(self, store: ClipStore, places: Tensor) -> Tensor:
        return store.waveforms([self.rows[int(place)] for place in places])


def draw_views(rows: Sequence[int], samples: int, config: AugmentConfig, seed: int) -> Views:
    """The views of the training clips `rows` of `samples` samples; the first is the clip as it is.

    Then come the shifts, and `mixes_per_clip` mixtures with clips drawn at random from the same rows, of which the clip
    itself has at least `mix_share`.
    """
    generator = torch.Generator().manual_seed(seed)
    clips, shifted = len(rows), config.shifts_per_clip if config.time_shift else 1
    total = shifted + config.mixes_per_clip

    def draw(high: int) -> Tensor:
        return torch.randint(0, high, (clips, total), generator=generator)

    shifts, partners, partner_shifts = draw(samples), draw(clips), draw(samples)
    shares = config.mix_share + (1 - config.mix_share) * torch.rand(clips, total, generator=generator)
    shares[:, :shifted] = 1.0
    shifts[:, 0] = 0
    if not config.time_shift:
        shifts.zero_()
        partner_shifts.zero_()
    return Views(tuple(rows), shifts, partners, partner_shifts, shares)


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
