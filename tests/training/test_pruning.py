"""Channels that are left out: those that say nothing new, and the others make up for them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekd.models.blocks import SameConv2d
from edgekd.training.pruning import choose, equalise, prune


def chain(*, redundant: bool) -> list[nn.Sequential]:
    """Three dense layers with a depthwise one between; `redundant`: channels of the first come twice."""
    torch.manual_seed(0)
    first, depthwise = SameConv2d(1, 16, 3, stride=2), SameConv2d(16, 16, 3, groups=16)
    if redundant:
        with torch.no_grad():
            for layer in (first, depthwise):
                layer.weight[8:] = (2.0 if layer is first else 1.0) * layer.weight[:8]
                assert layer.bias is not None
                layer.bias.zero_()
    layers = (first, depthwise, nn.Conv2d(16, 16, 1), nn.Conv2d(16, 24, 3, padding=1))
    return [nn.Sequential(layer, nn.ReLU()) for layer in layers]


def log_mels(clips: int = 24) -> torch.Tensor:
    return torch.randn(clips, 1, 30, 16, generator=torch.Generator().manual_seed(1))


def test_channels_that_others_are_multiples_of_cost_nothing() -> None:
    whole = chain(redundant=True)
    inputs = log_mels()
    narrow = prune(whole, 0.5, inputs, lambda _: None)
    assert [next(layer.children()).out_channels for layer in narrow] == [8, 8, 8, 12]  # type: ignore[union-attr]
    # Up to the third layer nothing is lost, whose output is half of the whole one's then.
    with torch.no_grad():
        before = nn.Sequential(*whole[:3])(inputs)
        after = nn.Sequential(*narrow[:3])(inputs)
    kept = [int((before - after[:, [channel]]).abs().mean((0, 2, 3)).argmin()) for channel in range(after.shape[1])]
    assert len(set(kept)) == 8
    torch.testing.assert_close(after, before[:, kept], rtol=0.05, atol=0.02)


def test_the_next_layer_makes_up_for_what_is_left_out() -> None:
    whole, inputs = chain(redundant=False), log_mels()
    narrow = prune(whole, 0.75, inputs, lambda _: None)
    cut = [copy.deepcopy(layer) for layer in whole]  # the first channels, and no weight solved anew
    with torch.no_grad():
        expected = nn.Sequential(*whole[:2])(inputs)
        target = whole[2][0](expected)
        kept = narrow[0][0].out_channels
        solved = nn.Sequential(*narrow[:2], narrow[2][0])(inputs)
        naive = cut[2][0]._conv_forward(expected[:, :kept], cut[2][0].weight[:, :kept], cut[2][0].bias)
    chosen = [int((target - solved[:, [each]]).abs().mean((0, 2, 3)).argmin()) for each in range(solved.shape[1])]
    lost = (solved - target[:, chosen]).square().mean()
    assert lost < 0.3 * (naive - target).square().mean()


def test_the_same_clips_give_the_same_network() -> None:
    once, twice = (prune(chain(redundant=False), 0.5, log_mels(), lambda _: None) for _ in range(2))
    for one, other in zip(once, twice, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name])


def test_progress_ends_with_all_layers() -> None:
    done: list[int] = []
    prune(chain(redundant=False), 0.5, log_mels(8), done.append)
    assert done == sorted(done)
    assert done[-1] == 4


def test_choosing_is_that_of_exhaustive_search_on_two_of_five() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(400, 5, generator=generator)
    targets = inputs[:, [1, 3]] @ torch.randn(2, 6, generator=generator)
    inputs, targets = inputs - inputs.mean(0), targets - targets.mean(0)
    assert choose(inputs.T @ inputs, inputs.T @ targets, 1, 2).tolist() == [1, 3]
    paired = torch.cat([inputs, inputs[:, :1]], dim=1)  # groups (0, 1), (2, 3), (4, 5)
    found = choose(paired.T @ paired, paired.T @ targets, 2, 2).tolist()
    assert found == [0, 1]


@pytest.mark.parametrize("layers", [2, 4])
def test_evening_out_ranges_changes_no_output_but_the_scale_of_the_last(layers: int) -> None:
    whole, inputs = chain(redundant=False)[:layers], log_mels()
    with torch.no_grad():
        assert whole[0][0].bias is not None
        whole[0][0].weight[0] *= 50  # one loud channel
        before = nn.Sequential(*whole)(inputs)
        first = nn.Sequential(whole[0])(inputs).amax((0, 2, 3))
        equalise(whole, inputs)
        after = nn.Sequential(*whole)(inputs)
        evened = nn.Sequential(whole[0])(inputs).amax((0, 2, 3))
    open_channels = before.amax((0, 2, 3)) > 1e-3
    factors = (after.sum((0, 2, 3)) / before.sum((0, 2, 3)).clamp_min(1e-9)).view(1, -1, 1, 1)
    torch.testing.assert_close((before * factors)[:, open_channels], after[:, open_channels], rtol=1e-3, atol=1e-4)
    assert evened.max() / evened[evened > 1e-2].min() < 0.4 * first.max() / first[first > 1e-2].min()
