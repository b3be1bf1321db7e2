from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.config import AugmentConfig
from edgekd.training import views as views_module
from edgekd.training.device_rows import StoredClips
from edgekd.training.views import FreshShifts, Views, draw_views, shift


def test_shifting_rotates_each_clip_by_its_own_number_of_samples() -> None:
    waveforms = torch.randn(3, 11)
    shifts = torch.tensor([0, 4, 10])
    expected = np.stack([np.roll(clip, n) for clip, n in zip(waveforms.numpy(), shifts.tolist(), strict=True)])
    np.testing.assert_array_equal(shift(waveforms, shifts).numpy(), expected)
    np.testing.assert_array_equal(views_module._rotate(waveforms, shifts).numpy(), expected, "as on a device")


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


def test_views_are_requested_ahead_and_are_those_of_the_store() -> None:
    views, store = draw(shifts_per_clip=2, mixes_per_clip=2), Store()
    places, choices = torch.tensor([3, 0, 0, 4, 1, 2]), torch.tensor([0, 2, 1, 3, 3, 0])  # three are mixtures
    whole = views.request(StoredClips(store), places, choices)()  # type: ignore[arg-type]
    for number in range(6):
        alone = views.waveforms(store, places[number : number + 1], choices[number : number + 1])  # type: ignore[arg-type]
        assert torch.equal(alone[0], whole[number])
    assert views.places(torch.tensor([4, 7, 5])).tolist() == [3, 0, 4]


def test_choices_are_drawn_among_the_views_by_the_generator_alone() -> None:
    views = draw(shifts_per_clip=2, mixes_per_clip=1)
    choices = views.draw(300, torch.Generator().manual_seed(0))
    assert set(choices.tolist()) == {0, 1, 2}
    assert torch.equal(choices, views.draw(300, torch.Generator().manual_seed(0)))


def test_what_is_mixed_with_a_clip_without_a_label_has_none_either() -> None:
    views, labels = draw(shifts_per_clip=1, mixes_per_clip=3), torch.tensor([2, 1, 0, 1, -1, 0, 1, 0])
    places = torch.arange(len(ROWS))
    alone = views.labelled(labels, places, torch.zeros_like(places))
    assert alone.tolist() == [row != 4 for row in ROWS]
    mixed = torch.full_like(places, 2)
    expected = [4 not in (row, ROWS[int(views.partners[place, 2])]) for place, row in enumerate(ROWS)]
    assert views.labelled(labels, places, mixed).tolist() == expected
    assert views.targets(labels, 3, places, mixed).isfinite().all()


def test_fresh_shifts_move_each_clip_anew_by_what_was_drawn() -> None:
    store, fresh = Store(), FreshShifts(400, enabled=True)
    rows = fresh.places(torch.tensor(ROWS))
    generator = torch.Generator().manual_seed(3)
    first, second = fresh.draw(len(rows), generator), fresh.draw(len(rows), generator)
    assert not torch.equal(first, second)
    heard = fresh.request(StoredClips(store), rows, first)()  # type: ignore[arg-type]
    for clip, row, by in zip(heard, ROWS, first.tolist(), strict=True):
        np.testing.assert_array_equal(clip.numpy(), np.roll(store.clips[row].numpy(), by))
    unmoved = FreshShifts(400, enabled=False).request(StoredClips(store), rows, first)()  # type: ignore[arg-type]
    assert torch.equal(unmoved, store.waveforms(ROWS))
    labels = torch.tensor([2, 1, 0, 1, -1, 0, 1, 0])
    assert fresh.targets(labels, 3, rows, first).tolist() == [0, 2, 0, 0, 0]
    assert fresh.labelled(labels, rows, first).tolist() == [True, True, True, False, True]


# Levels


LOUD = {"shifts_per_clip": 3, "mixes_per_clip": 2, "gain_db": 10.0}


def test_each_view_but_the_first_has_a_level_of_its_own() -> None:
    views = draw_views(range(200), 1_000, AugmentConfig(**LOUD), seed=1)  # type: ignore[arg-type]
    assert views.gains is not None
    assert views.gains.shape == (200, 5)
    assert not views.gains[:, 0].any(), "the first view is the clip as it is"
    drawn = views.gains[:, 1:]
    assert len(drawn.unique()) > 790
    assert (drawn.abs() <= 10).all()
    assert drawn.min() < -9.5 and drawn.max() > 9.5
    assert abs(float(drawn.mean())) < 1


def test_a_level_changes_the_waveform_by_so_many_decibels_and_nothing_else() -> None:
    store, louder, plain = Store(), draw(**LOUD), draw(**{**LOUD, "gain_db": 0.0})
    assert plain.gains is None
    assert louder.gains is not None
    for name in ("shifts", "partners", "partner_shifts", "shares"):
        assert torch.equal(getattr(louder, name), getattr(plain, name)), "all else is drawn as it is without"
    assert torch.equal(hear(louder, 0, store), store.waveforms(ROWS))
    for choice in range(1, 5):
        heard, before = hear(louder, choice, store), hear(plain, choice, store)
        level = [each.square().mean(1).sqrt() for each in (heard, before)]
        audible = level[1] > 0
        decibels = 20 * torch.log10(level[0] / level[1])
        torch.testing.assert_close(decibels[audible], louder.gains[audible, choice], rtol=1e-4, atol=1e-4)
        factor = (10 ** (louder.gains[:, choice] / 20))[:, None]
        torch.testing.assert_close(heard, before * factor)
    loud = louder.gains.clone().fill_(40.0)
    assert hear(replace(louder, gains=loud), 1, store).abs().max() > 100, "nothing is clipped"


def test_without_shifts_views_differ_by_their_level() -> None:
    views = draw(time_shift=False, gain_db=6)
    assert len(views) == 4
    assert not views.shifts.any()
    assert views.gains is not None and len(views.gains[:, 1:].unique()) == 15


def test_some_views_keep_their_levels() -> None:
    views = draw(**LOUD)
    few = views.some(2)
    assert few.gains is not None and views.gains is not None
    assert torch.equal(few.gains, views.gains[:, [0, 4]])
    assert torch.equal(hear(few, 1), hear(views, 4))


def test_fresh_shifts_change_the_level_anew_by_what_was_drawn() -> None:
    store, fresh = Store(), FreshShifts(400, enabled=True, gain_db=10)
    rows = fresh.places(torch.tensor(ROWS))
    choices = fresh.draw(len(rows), torch.Generator().manual_seed(3))
    plain = FreshShifts(400, enabled=True)
    shifts = plain.draw(len(rows), torch.Generator().manual_seed(3))
    assert torch.equal(choices[:, 0].long(), shifts)
    assert ((choices[:, 1].abs() <= 10) & (choices[:, 1] != 0)).all()
    heard = fresh.request(StoredClips(store), rows, choices)()  # type: ignore[arg-type]
    factor = (10 ** (choices[:, 1].float() / 20))[:, None]
    torch.testing.assert_close(heard, plain.request(StoredClips(store), rows, shifts)() * factor)  # type: ignore[arg-type]
    part = fresh.request(StoredClips(store), rows[1:3], choices[1:3])()  # type: ignore[arg-type]
    assert torch.equal(part, heard[1:3])
    still = FreshShifts(400, enabled=False, gain_db=10).request(StoredClips(store), rows, choices)()  # type: ignore[arg-type]
    torch.testing.assert_close(still, store.waveforms(ROWS) * factor)
    labels = torch.tensor([2, 1, 0, 1, -1, 0, 1, 0])
    assert fresh.targets(labels, 3, rows, choices).tolist() == [0, 2, 0, 0, 0]
    assert fresh.labelled(labels, rows, choices).tolist() == [True, True, True, False, True]
