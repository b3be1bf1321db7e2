"""Random changes to training clips: views, which teacher and student share, and SpecAugment for the learner alone.

A view is one way of hearing a clip: shifted round its own length, or mixed with another shifted clip (mixup: Zhang et
al. 2018, arXiv 1710.09412; mixed at equal level, as Tokozume et al. 2018, arXiv 1711.10282, found to matter for
sound). Views are few and known beforehand, so what the teacher says of each is computed once and is about exactly what
the student hears (Beyer et al. 2022, arXiv 2106.05237, on why it must be).

SpecAugment: Park et al. 2019, arXiv 1904.08779; the constants are the SSATKD paper's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from edgekd.config import AugmentConfig
from edgekd.data.clip_store import ClipStore
from edgekd.training.device_rows import Asked, Clips, StoredClips, sent

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

    def places(self, rows: Tensor) -> Tensor:
        """Where the training `rows (B,)` of the index are among the clips."""
        return self._place_of_row[rows]

    def waveforms(self, store: ClipStore, places: Tensor, choices: Tensor) -> Tensor:
        """`(B, S)`: clips at `places (B,)` of the training side in their views number `choices (B,)`."""
        return self.ask(StoredClips(store), places, choices)(slice(None))

    def ask(self, clips: Clips, places: Tensor, choices: Tensor) -> Asked:
        """The same waveforms on the device of `clips`, some batches before they are used; `places` and `choices` are
        on the host, where all that depends on them is decided.

        A mixture has the level of its clip: the partner is brought to it first, and the sum, of sounds that do not
        correlate, back to it.
        """
        device = clips.device
        shares, shifts = self.shares[places, choices], sent(self.shifts[places, choices], device)
        heard = clips.ask(self._rows[places])
        mixed = (shares < 1).nonzero().flatten()  # on the host, too
        if len(mixed) == 0:
            return lambda part: shift(heard(part), shifts[part])
        partners = clips.ask(self._rows[self.partners[places, choices][mixed]])
        partner_shifts = sent(self.partner_shifts[places, choices][mixed], device)
        partner_shares = sent(shares[mixed, None], device)
        where, mixed_there = mixed.tolist(), sent(mixed, device)

        def waveforms(part: slice) -> Tensor:
            shifted = shift(heard(part), shifts[part])
            first, last, _ = part.indices(len(shares))
            among = slice(bisect_left(where, first), bisect_left(where, last))
            if among.start == among.stop:
                return shifted
            at = mixed_there[among] - first
            other = shift(partners(among), partner_shifts[among])
            return shifted.index_copy_(0, at, _mixture(shifted[at], other, partner_shares[among]))

        return waveforms

    def targets(self, labels: Tensor, num_classes: int, places: Tensor, choices: Tensor) -> Tensor:
        """Class shares `(B, K)` of the same views, for `labels (rows of the index,)`."""

        def classes(chosen: Tensor) -> Tensor:
            return one_hot(labels[self._rows[chosen]], num_classes).float()

        shares = self.shares[places, choices][:, None]
        return shares * classes(places) + (1 - shares) * classes(self.partners[places, choices])

    @cached_property
    def _rows(self) -> Tensor:
        return torch.tensor(self.rows)

    @cached_property
    def _place_of_row(self) -> Tensor:
        places = torch.full((max(self.rows) + 1,), -1)
        places[self._rows] = torch.arange(len(self.rows))
        return places


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
    """Rotate each waveform of `(B, S)` by its own number of samples `(B,)`, both on one device."""
    if waveforms.device.type == "cpu":  # two copies a clip: a tenth of the time of an index for every sample
        rotated = torch.empty_like(waveforms)
        for source, target, start in zip(waveforms, rotated, (shifts % waveforms.shape[1]).tolist(), strict=True):
            target[start:] = source[: len(source) - start]
            target[:start] = source[len(source) - start :]
        return rotated
    return _rotate(waveforms, shifts)


class Masks(NamedTuple):
    """What is random about the masks of a batch, uniform in [0, 1): of each mask the width and the start, as shares of
    what they can be: `time (B, masks, 2)`, `frequency (B, masks, 2)`."""

    time: Tensor
    frequency: Tensor

    def at(self, part: slice) -> Masks:
        """Those of some rows of the batch."""
        return Masks(self.time[part], self.frequency[part])

    def sent(self, device: torch.device) -> Masks:
        """The same on `device`."""
        return Masks(sent(self.time, device), sent(self.frequency, device))


def draw_masks(clips: int, config: AugmentConfig, generator: torch.Generator) -> Masks:
    """The masks of a batch of so many `clips`."""
    return Masks(*(torch.rand(clips, n, 2, generator=generator) for n in (config.time_masks, config.frequency_masks)))


@contextmanager
def augmented_front_end(log_mel: nn.Module, masks: Masks, config: AugmentConfig) -> Iterator[None]:
    """Within it, SpecAugment masks what the module `log_mel` returns, `(B, 1, T, F)`, with each clip's own mean."""

    def mask(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        mean = output.mean(dim=(2, 3), keepdim=True)
        return spec_augment(output - mean, masks, config) + mean

    handle = log_mel.register_forward_hook(mask)
    try:
        yield
    finally:
        handle.remove()


def spec_augment(log_mel: Tensor, masks: Masks, config: AugmentConfig) -> Tensor:
    """Mask bands of time and mel bins of a normalised log-mel `(B, 1, T, F)`, each clip its own, with its mean (0).

    A band is `u w` wide, for `w` the most that is allowed, and begins at `v (size - u w)`, both rounded down, as
    `torchaudio.functional.mask_along_axis_iid` has it.
    """
    frames = _hidden(masks.time, config.time_mask_frames, log_mel.shape[2])
    bins = _hidden(masks.frequency, config.frequency_mask_bins, log_mel.shape[3])
    return log_mel.masked_fill(frames[:, None, :, None] | bins[:, None, None, :], 0.0)


def _hidden(drawn: Tensor, most: int, size: int) -> Tensor:
    """Which of `size` positions lie in one of the bands `(B, masks, 2)`, none wider than `most`: `(B, size)`."""
    width = drawn[..., 0] * min(most, size)
    start = (drawn[..., 1] * (size - width)).long()
    end = start + width.long()
    positions = torch.arange(size, device=drawn.device)
    return ((positions >= start[..., None]) & (positions < end[..., None])).any(1)


def _rotate(waveforms: Tensor, shifts: Tensor) -> Tensor:
    """`shift` without a word from the host."""
    positions = torch.arange(waveforms.shape[1], device=waveforms.device)
    return waveforms.gather(1, (positions[None, :] - shifts[:, None]) % waveforms.shape[1])


def _mixture(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`share (B, 1)` of `own (B, S)` and the rest of `other (B, S)`, at the level of `own`."""
    level = [waveform.square().mean(1, keepdim=True).sqrt() for waveform in (own, other)]
    audible = (level[0] > SILENCE) & (level[1] > SILENCE)
    other = other * torch.where(audible, level[0] / level[1].clamp_min(SILENCE), 1.0)
    return (share * own + (1 - share) * other) / (share.square() + (1 - share).square()).sqrt()
