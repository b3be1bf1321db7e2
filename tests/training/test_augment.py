from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.config import AugmentConfig
from edgekd.training.augment import draw_shifts, shift, spec_augment


def test_shifting_rotates_each_clip_by_its_own_number_of_samples() -> None:
    waveforms = torch.randn(3, 11)
    shifts = torch.tensor([0, 4, 10])
    expected = np.stack([np.roll(clip, n) for clip, n in zip(waveforms.numpy(), shifts.tolist(), strict=True)])
    np.testing.assert_array_equal(shift(waveforms, shifts).numpy(), expected)


def test_a_clip_has_few_shifts_the_first_of_which_is_none() -> None:
    shifts = draw_shifts(40, 1_000, AugmentConfig(shifts_per_clip=4), seed=1)
    assert shifts.shape == (40, 4)
    assert (shifts[:, 0] == 0).all()
    assert ((shifts >= 0) & (shifts < 1_000)).all()
    assert len(shifts[:, 1:].unique()) > 90, "clips are shifted independently"


def test_shifts_follow_from_the_seed_alone() -> None:
    config = AugmentConfig()
    torch.manual_seed(0)
    first = draw_shifts(10, 1_000, config, seed=1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(draw_shifts(10, 1_000, config, seed=1), first)
    assert not torch.equal(draw_shifts(10, 1_000, config, seed=2), first)
    assert torch.equal(torch.get_rng_state(), state), "the random numbers of training are left alone"


def test_without_time_shift_there_is_one_position() -> None:
    assert draw_shifts(5, 1_000, AugmentConfig(time_shift=False), seed=1).tolist() == [[0]] * 5


def masked(config: AugmentConfig, clips: int = 200, frames: int = 120, bins: int = 40) -> torch.Tensor:
    """Which cells were hidden, `(clips, frames, bins)`."""
    torch.manual_seed(0)
    return spec_augment(torch.ones(clips, 1, frames, bins), config)[:, 0] == 0


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
    log_mel = spec_augment(torch.ones(50, 1, 6, 8), config)
    assert log_mel.shape == (50, 1, 6, 8)
    assert (log_mel.sum((1, 2, 3)) > 0).any()


def test_no_masks_change_nothing_and_the_input_is_left_alone() -> None:
    log_mel = torch.randn(4, 1, 30, 16)
    before = log_mel.clone()
    assert torch.equal(spec_augment(log_mel, AugmentConfig(time_masks=0, frequency_masks=0)), before)
    spec_augment(log_mel, AugmentConfig())
    assert torch.equal(log_mel, before)
