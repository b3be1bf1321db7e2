from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd._torchaudio import functional as audio_functional
from edgekd.config import AugmentConfig
from edgekd.training.spec_augment import Masks, draw_masks, masked_front_end, spec_augment


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


def test_masks_follow_the_frames_of_a_clip_and_the_bins_of_a_step() -> None:
    config = AugmentConfig()
    for frames, widest in ((501, 48), (251, 24), (126, 12), (81, 8)):
        hidden = masked(AugmentConfig(time_masks=1, frequency_masks=0), clips=2_000, frames=frames, bins=1)
        assert hidden.any(2).sum(1).max() == widest - 1, "the width is drawn below the widest"
    few = AugmentConfig(time_masks=0, frequency_masks=1)
    halves = spec_augment(torch.ones(500, 1, 8, 32), masks_for(500, few), few, bins_per_step=2)
    assert (halves == 0).any(2).sum(2).max() == config.frequency_mask_bins // 2 - 1


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
    with masked_front_end(front_end, masks, config):
        masked = front_end(log_mel)
    hidden = spec_augment(torch.ones_like(log_mel), masks, config) == 0
    assert hidden.any(dim=(1, 2, 3)).sum() > 6
    means = log_mel.mean(dim=(1, 2, 3), keepdim=True).expand_as(log_mel)
    torch.testing.assert_close(masked, torch.where(hidden, means, log_mel))
    assert torch.equal(front_end(log_mel), log_mel)
