"""Views: the ways in which a training clip is heard, by teacher and student alike.

A view is one way of hearing a clip: shifted round its own length, or mixed with another shifted clip (mixup: Zhang et
al. 2018, arXiv 1710.09412; mixed at equal level, as Tokozume et al. 2018, arXiv 1711.10282, found to matter for
sound), and louder or quieter where that is asked for. Views are few and known beforehand, so what the teacher says of
each is computed once and is about exactly what the student hears (Beyer et al. 2022, arXiv 2106.05237, on why it must
be). A teacher that learns itself hears each clip changed anew (`FreshShifts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from edgekd.config import AugmentConfig
from edgekd.data.clip_store import ClipStore
from edgekd.training.device_rows import Clips, Pending, StoredClips, to_device

SILENCE = 1e-6  # root mean square below which a clip has no level to be matched


@dataclass(frozen=True)
class Views:
    """The V views of each of N training clips, `rows (N,)` of the index; every other field is `(N, V)`.

    View v of clip i is `share * shift(clip i)`, and of `1 - share` the clip at place `partners` shifted by
    `partner_shifts`, all of it louder by `gains`. Shifts are in samples, gains in dB. A share of 1 is the clip alone.
    """

    rows: tuple[int, ...]
    shifts: Tensor
    partners: Tensor
    partner_shifts: Tensor
    shares: Tensor
    gains: Tensor | None = None

    def __len__(self) -> int:
        """The views of one clip."""
        return self.shifts.shape[1]

    def some(self, count: int) -> Views:
        """`count` of the views of each clip, of every kind that there is, or all where there are no more."""
        if count >= len(self):
            return self
        taken = torch.linspace(0, len(self) - 1, count).round().long()
        drawn = (self.shifts, self.partners, self.partner_shifts, self.shares, self.gains)
        return Views(self.rows, *(None if each is None else each[:, taken] for each in drawn))  # type: ignore[arg-type]

    def places(self, rows: Tensor) -> Tensor:
        """Where the training `rows (B,)` of the index are among the clips."""
        return self._place_of_row[rows]

    def draw(self, clips: int, generator: torch.Generator) -> Tensor:
        """Which of its views each of so many clips is heard in."""
        return torch.randint(0, len(self), (clips,), generator=generator)

    def waveforms(self, store: ClipStore, places: Tensor, choices: Tensor) -> Tensor:
        """`(B, S)`: clips at `places (B,)` of the training side in their views number `choices (B,)`."""
        return self.request(StoredClips(store), places, choices)()

    def request(self, clips: Clips, places: Tensor, choices: Tensor) -> Pending:
        """The same waveforms on the device of `clips`, some batches before they are used; `places` and `choices` are
        on the host, where all that depends on them is decided.

        A mixture has the level of its clip: the partner is brought to it first, and the sum, of sounds that do not
        correlate, back to it.
        """
        device = clips.device
        shares, shifts = self.shares[places, choices], to_device(self.shifts[places, choices], device)
        own = clips.request(self._rows[places])
        mixed = (shares < 1).nonzero().flatten()  # on the host, too
        gains = None if self.gains is None else to_device(self.gains[places, choices], device)
        if len(mixed) == 0:
            return _louder(partial(_shifted, own, shifts), gains)
        partners = clips.request(self._rows[self.partners[places, choices][mixed]])
        partner_shifts = to_device(self.partner_shifts[places, choices][mixed], device)
        mixtures = _Mixtures(to_device(mixed, device), partners, partner_shifts, to_device(shares[mixed, None], device))
        return _louder(partial(_mixed, mixtures, partial(_shifted, own, shifts)), gains)

    def targets(self, labels: Tensor, num_classes: int, places: Tensor, choices: Tensor) -> Tensor:
        """Class shares `(B, K)` of the same views, for the classes `(rows of the index,)` or memberships `(rows, K)`
        that are their `labels`; class 0 stands for an unknown one."""

        def classes(chosen: Tensor) -> Tensor:
            known = labels[self._rows[chosen]].clamp_min(0)
            return known.float() if known.ndim == 2 else one_hot(known, num_classes).float()

        shares = self.shares[places, choices][:, None]
        return shares * classes(places) + (1 - shares) * classes(self.partners[places, choices])

    def labelled(self, labels: Tensor, places: Tensor, choices: Tensor) -> Tensor:
        """Whether all that is heard has a label, `(B,)`; one below 0 is none."""
        known = is_known(labels)[self._rows]
        alone = self.shares[places, choices] == 1
        return known[places] & (alone | known[self.partners[places, choices]])

    @cached_property
    def _rows(self) -> Tensor:
        return torch.tensor(self.rows)

    @cached_property
    def _place_of_row(self) -> Tensor:
        places = torch.full((max(self.rows) + 1,), -1)
        places[self._rows] = torch.arange(len(self.rows))
        return places


@dataclass(frozen=True)
class FreshShifts:
    """Each clip shifted anew whenever it is heard, its level changed by at most `gain_db`, and nothing to remember: for
    who learns without a teacher.

    Places are rows of the index; a choice is the shift, in samples, and where levels are changed the gain in dB, too.
    """

    samples: int
    enabled: bool
    gain_db: float = 0.0

    def places(self, rows: Tensor) -> Tensor:
        """The `rows (B,)` of the index themselves."""
        return rows

    def draw(self, clips: int, generator: torch.Generator) -> Tensor:
        """By how much each of so many clips is shifted, `(B,)`; with gains `(B, 2)`."""
        shifts = torch.randint(0, self.samples, (clips,), generator=generator)
        if not self.gain_db:
            return shifts
        return torch.stack((shifts.double(), _gains((clips,), self.gain_db, generator).double()), 1)

    def request(self, clips: Clips, places: Tensor, choices: Tensor) -> Pending:
        """The shifted waveforms `(B, S)` on the device of `clips`."""
        own, device = clips.request(places), clips.device
        shifts, gains = choices, None
        if self.gain_db:
            shifts, gains = choices[:, 0].long(), to_device(choices[:, 1].float(), device)
        return _louder(partial(_shifted, own, to_device(shifts, device)) if self.enabled else own, gains)

    def targets(self, labels: Tensor, _num_classes: int, places: Tensor, _choices: Tensor) -> Tensor:
        """Classes `(B,)`, or memberships `(B, K)`; 0 stands for an unknown one."""
        return labels[places].clamp_min(0)

    def labelled(self, labels: Tensor, places: Tensor, _choices: Tensor) -> Tensor:
        """Whether each clip has a label, `(B,)`."""
        return is_known(labels)[places]


def is_known(labels: Tensor) -> Tensor:
    """Which of the `labels`, classes `(N,)` or memberships `(N, K)`, are known: not -1."""
    return labels >= 0 if labels.ndim == 1 else labels[:, 0] >= 0


def draw_views(rows: Sequence[int], samples: int, config: AugmentConfig, seed: int) -> Views:
    """The views of the training clips `rows` of `samples` samples; the first is the clip as it is.

    Then come the shifts, and `mixes_per_clip` mixtures with clips drawn at random from the same rows, of which the clip
    itself has at least `mix_share`. All but the first have a gain of their own, where there are any.
    """
    generator = torch.Generator().manual_seed(seed)
    clips, shifted, total = len(rows), config.shifts, config.views

    def draw(high: int) -> Tensor:
        return torch.randint(0, high, (clips, total), generator=generator)

    shifts, partners, partner_shifts = draw(samples), draw(clips), draw(samples)
    shares = config.mix_share + (1 - config.mix_share) * torch.rand(clips, total, generator=generator)
    shares[:, :shifted] = 1.0
    shifts[:, 0] = 0
    if not config.time_shift:
        shifts.zero_()
        partner_shifts.zero_()
    gains = None
    if config.gain_db:  # last, so that all else is drawn as it is without
        gains = _gains((clips, total), config.gain_db, generator)
        gains[:, 0] = 0
    return Views(tuple(rows), shifts, partners, partner_shifts, shares, gains)


def shift(waveforms: Tensor, shifts: Tensor) -> Tensor:
    """Rotate each waveform of `(B, S)` by its own number of samples `(B,)`, both on one device."""
    if waveforms.device.type == "cpu":  # two copies a clip: a tenth of the time of an index for every sample
        rotated = torch.empty_like(waveforms)
        for source, target, start in zip(waveforms, rotated, (shifts % waveforms.shape[1]).tolist(), strict=True):
            target[start:] = source[: len(source) - start]
            target[:start] = source[len(source) - start :]
        return rotated
    return _rotate(waveforms, shifts)


class _Mixtures(NamedTuple):
    """Which rows of a batch are mixtures, and with what: `at (M,)`, the partners, their shifts `(M,)` and the share of
    the clip itself `(M, 1)`."""

    at: Tensor
    partners: Pending
    shifts: Tensor
    shares: Tensor


def _gains(shape: tuple[int, ...], most: float, generator: torch.Generator) -> Tensor:
    """Gains in dB, uniform from `-most` to `most`."""
    return most * (2 * torch.rand(shape, generator=generator) - 1)


def _louder(waveforms: Pending, gains: Tensor | None) -> Pending:
    """The waveforms `(B, S)` louder by `gains (B,)` dB; nothing clips them, and so nothing is lost."""
    return waveforms if gains is None else partial(_scaled, waveforms, gains)


def _scaled(waveforms: Pending, gains: Tensor) -> Tensor:
    return waveforms() * (10 ** (gains / 20))[:, None]


def _shifted(waveforms: Pending, shifts: Tensor) -> Tensor:
    return shift(waveforms(), shifts)


def _mixed(mixtures: _Mixtures, shifted: Pending) -> Tensor:
    waveforms = shifted()
    partners = shift(mixtures.partners(), mixtures.shifts)
    return waveforms.index_copy_(0, mixtures.at, _mixture(waveforms[mixtures.at], partners, mixtures.shares))


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
