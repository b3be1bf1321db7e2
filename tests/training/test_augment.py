from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd._torchaudio import functional as audio_functional
from edgekd.config import AugmentConfig
from edgekd.training import augment
from edgekd.training.augment import Masks, Views, augmented_front_end, draw_masks, draw_views, shift, spec_augment
from edgekd.training.device_rows import StoredClips


def test_shifting_rotates_each_clip_by_its_own_number_of_samples() -> None:
    waveforms = torch.randn(3, 11)
    shifts = torch.tensor([0, 4, 10])
    expected = np.stack([np.roll(clip, n) for clip, n in zip(waveforms.numpy(), shifts.tolist(), strict=True)])
    np.testing.assert_array_equal(shift(waveforms, shifts).numpy(), expected)
    np.testing.assert_array_equal(augment._rotate(waveforms, shifts).numpy(), expected, "as on a device")


class Store:
    """Eight clips of loud and quiet noise."""

    def __init__(self, samples: int = 400) -> None:
        self.samples = samples
        levels = torch.tensor([1.0, 0.5, 0.01, 0.2, 0.9, 0.0, 0.3, 0.7])
        self.clips = torch.randn(8, samples, generator=torch.Generator().manual_seed(0)) * levels[:, None]

    def waveforms(self, rows: Sequence[int]) -> Tensor:
        return self.clips[list(rows)]


ROWS = (7, 0, 2, 4, 5)  # row numbers are not places


def draw(seed: int = 1, samples: int = 400, **settings: Any) -> Views:
    return draw_views(ROWS, samples, AugmentConfig(**settings), seed)


def hear(views: Views, choice: int, store: Store | None = None) -> Tensor:
    places = torch.arange(len(ROWS))
    return views.waveforms(store or Store(), places, torch.full_like(places, choice))  # type: ignore[arg-type]


def test_the_first_view_of_a_clip_is_the_clip_and_the_next_are_shifts() -> None:
    views = draw_views(range(40), 1_000, AugmentConfig(shifts_per_clip=4, mixes_per_clip=2), seed=1)
    assert len(views) == 6
    assert (views.shifts[:, 0] == 0).all()
    assert ((views.shifts >= 0) & (views.shifts < 1_000)).all()
    assert len(views.shifts[:, 1:4].unique()) > 90, "clips are shifted independently"
    assert (views.shares[:, :4] == 1).all()
    assert ((views.shares[:, 4:] >= 0.5) & (views.shares[:, 4:] < 1)).all()
    store, few = Store(), draw(shifts_per_clip=3, mixes_per_clip=1)
    assert torch.equal(hear(few, 0, store), store.waveforms(ROWS))
    for place, row in enumerate(ROWS):
        expected = np.roll(store.clips[row].numpy(), int(few.shifts[place, 2]))
        np.testing.assert_array_equal(hear(few, 2, store)[place].numpy(), expected)


def test_a_mixture_holds_both_clips_at_one_level_and_keeps_that_of_its_clip() -> None:
    store, views = Store(samples=40_000), draw(samples=40_000, shifts_per_clip=1, mixes_per_clip=3)
    heard = hear(views, 2, store)
    for place, row in enumerate(ROWS):
        own = np.roll(store.clips[row].numpy(), int(views.shifts[place, 2]))
        partner = ROWS[int(views.partners[place, 2])]
        other = np.roll(store.clips[partner].numpy(), int(views.partner_shifts[place, 2]))
        if partner == row or not own.any() or not other.any():
            continue
        # Least squares finds how much of each is in the mixture.
        (first, second), *_ = np.linalg.lstsq(np.stack((own, other), 1), heard[place].numpy(), rcond=None)
        share = float(views.shares[place, 2])
        loudness = np.sqrt(np.mean(other**2)) / np.sqrt(np.mean(own**2))
        assert second * loudness / first == pytest.approx((1 - share) / share, rel=1e-3)
        assert heard[place].square().mean().sqrt() == pytest.approx(np.sqrt(np.mean(own**2)), rel=0.05)


def test_silence_mixed_with_anything_stays_finite() -> None:
    views = draw(mixes_per_clip=12)
    assert all(hear(views, choice).isfinite().all() for choice in range(len(views)))


def test_targets_are_the_shares_of_the_classes_that_are_heard() -> None:
    views, labels = draw(shifts_per_clip=1, mixes_per_clip=2), torch.tensor([2, 1, 0, 1, 2, 0, 1, 0])
    places = torch.arange(len(ROWS))
    alone = views.targets(labels, 3, places, torch.zeros_like(places))
    assert alone.argmax(1).tolist() == [int(labels[row]) for row in ROWS]
    assert (alone.amax(1) == 1).all()
    mixed = views.targets(labels, 3, places, torch.full_like(places, 2))
    torch.testing.assert_close(mixed.sum(1), torch.ones(len(ROWS)))
    for place, row in enumerate(ROWS):
        expected, share = torch.zeros(3), views.shares[place, 2]
        expected[labels[row]] += share
        expected[labels[ROWS[int(views.partners[place, 2])]]] += 1 - share
        torch.testing.assert_close(mixed[place], expected)


def test_views_follow_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = draw(seed=1, mixes_per_clip=2)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, other = draw(seed=1, mixes_per_clip=2), draw(seed=2, mixes_per_clip=2)
    for name in ("shifts", "partners", "partner_shifts", "shares"):
        assert torch.equal(getattr(again, name), getattr(first, name))
        assert not torch.equal(getattr(other, name), getattr(first, name))
    assert torch.equal(torch.get_rng_state(), state), "the random numbers of training are left alone"


def test_without_shifts_and_mixtures_a_clip_is_heard_as_it_is() -> None:
    views = draw(time_shift=False, mixes_per_clip=0)
    assert len(views) == 1
    assert torch.equal(hear(views, 0), Store().waveforms(ROWS))
    unshifted = draw(time_shift=False, mixes_per_clip=2)
    assert len(unshifted) == 3
    assert not unshifted.shifts.any()
    assert not unshifted.partner_shifts.any()


def masked(config: AugmentConfig, clips: int = 200, frames: int = 120, bins: int = 40) -> torch.Tensor:
    """Which cells were hidden, `(clips, frames, bins)`."""
    return spec_augment(torch.ones(clips, 1, frames, bins), masks_for(clips, config), config)[:, 0] == 0


def masks_for(clips: int, config: AugmentConfig) -> Masks:
    return draw_masks(clips, config, torch.Generator().manual_seed(0))


def longest_run(cells: torch.Tensor) -> int:
    longest = run = 0
    for hidden in cells.tolist():
        run = run + 1 if hidden else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("masks", [1, 2])
def test_time_masks_hide_whole_frames_up_to_their_width(masks: int) -> None:
    hidden = masked(AugmentConfig(time_masks=masks, time_mask_frames=20, frequency_masks=0))
    frames = hidden.any(2)
    assert torch.equal(hidden, frames[:, :, None].expand_as(hidden)), "a masked frame is masked in all bins"
    assert 10 < max(longest_run(clip) for clip in frames) <= 20 * masks
    assert frames.sum(1).max() <= 20 * masks
    assert (frames.sum(1).max() > 20) == (masks == 2)
    assert len(frames.unique(dim=0)) > 100, "each clip has masks of its own"


def test_frequency_masks_hide_whole_bins_up_to_their_width() -> None:
    hidden = masked(AugmentConfig(time_masks=0, frequency_masks=2, frequency_mask_bins=8))
    bins = hidden.any(1)
    assert torch.equal(hidden, bins[:, None].expand_as(hidden))
    assert 8 < bins.sum(1).max() <= 16


def test_masks_wider_than_the_clip_leave_it_usable() -> None:
    config = AugmentConfig(time_mask_frames=500, frequency_mask_bins=500)
    log_mel = spec_augment(torch.ones(50, 1, 6, 8), masks_for(50, config), config)
    assert log_mel.shape == (50, 1, 6, 8)
    assert (log_mel.sum((1, 2, 3)) > 0).any()


def test_no_masks_change_nothing_and_the_input_is_left_alone() -> None:
    log_mel = torch.randn(4, 1, 30, 16)
    before = log_mel.clone()
    for config in (AugmentConfig(time_masks=0, frequency_masks=0), AugmentConfig()):
        unmasked = torch.equal(spec_augment(log_mel, masks_for(4, config), config), before)
        assert unmasked == (config.time_masks == 0)
    assert torch.equal(log_mel, before)


def test_masks_are_where_torchaudio_puts_them_for_the_same_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AugmentConfig(time_masks=2, time_mask_frames=20, frequency_masks=3, frequency_mask_bins=500)
    log_mel, masks = torch.randn(64, 1, 90, 32), masks_for(64, config)
    expected = log_mel
    for drawn, width, axis in ((masks.time, 20, 2), (masks.frequency, 32, 3)):
        for number in range(drawn.shape[1]):
            uniform = iter(drawn[:, number, :, None].unbind(1))  # (64, 1), first the widths, then the starts
            with monkeypatch.context() as patch:
                patch.setattr(torch, "rand", lambda *_, uniform=uniform, **__: next(uniform))
                expected = audio_functional.mask_along_axis_iid(expected, width, 0.0, axis)
    assert (expected == 0).sum() > 1000
    assert torch.equal(spec_augment(log_mel, masks, config), expected)


def test_masks_of_a_batch_do_not_depend_on_who_computes_which_part_of_it() -> None:
    config = AugmentConfig()
    log_mel, masks = torch.randn(10, 1, 60, 32), masks_for(10, config)
    parts = [spec_augment(log_mel[part], masks.at(part), config) for part in (slice(0, 3), slice(3, 10))]
    assert torch.equal(torch.cat(parts), spec_augment(log_mel, masks, config))


def test_a_front_end_masks_with_the_mean_of_each_clip_and_only_within() -> None:
    config, front_end = AugmentConfig(time_mask_frames=20), nn.Identity()
    log_mel, masks = torch.randn(8, 1, 60, 32) - 50, masks_for(8, config)
    with augmented_front_end(front_end, masks, config):
        masked = front_end(log_mel)
    hidden = spec_augment(torch.ones_like(log_mel), masks, config) == 0
    assert hidden.any(dim=(1, 2, 3)).sum() > 6
    means = log_mel.mean(dim=(1, 2, 3), keepdim=True).expand_as(log_mel)
    torch.testing.assert_close(masked, torch.where(hidden, means, log_mel))
    assert torch.equal(front_end(log_mel), log_mel)


def test_views_of_a_part_of_a_batch_are_those_of_the_batch() -> None:
    views, store = draw(shifts_per_clip=2, mixes_per_clip=2), Store()
    places, choices = torch.tensor([3, 0, 0, 4, 1, 2]), torch.tensor([0, 2, 1, 3, 3, 0])  # three are mixtures
    asked = views.ask(StoredClips(store), places, choices)  # type: ignore[arg-type]
    whole = asked(slice(0, 6))
    for part in (slice(0, 1), slice(1, 2), slice(2, 6), slice(0, 4)):
        assert torch.equal(asked(part), whole[part])
    assert torch.equal(views.waveforms(store, places, choices), whole)  # type: ignore[arg-type]
    assert views.places(torch.tensor([4, 7, 5])).tolist() == [3, 0, 4]
