from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.blocks import FirstConv2d, TwoBranches, convolution, scaled, separable


def test_channels_are_scaled_to_multiples_of_4() -> None:
    assert [scaled(channels, 0.5) for channels in (16, 32, 36, 64, 80, 128)] == [8, 16, 20, 32, 40, 64]
    assert [scaled(channels, 1.0) for channels in (16, 32, 36, 64, 80, 128)] == [16, 32, 36, 64, 80, 128]
    assert scaled(4, 0.25) == 4


def test_a_convolution_keeps_the_size_but_for_its_stride_and_gives_nothing_negative() -> None:
    features = torch.randn(2, 3, 9, 8)
    for stride, size in ((1, (9, 8)), (2, (5, 4))):
        output = convolution(3, 6, 3, stride)(features)
        assert output.shape == (2, 6, *size)
        assert (output >= 0).all()


@pytest.mark.parametrize("size", [(9, 8), (8, 11), (2, 1)])
@pytest.mark.parametrize(("side", "stride"), [(3, 2), (3, 1), (5, 2), (1, 1), (1, 2)])
def test_a_first_convolution_has_the_gradients_of_any_other(side: int, stride: int, size: tuple[int, int]) -> None:
    layer = convolution(1, 6, side, stride)[0].double()
    assert isinstance(layer, FirstConv2d)
    maps = torch.randn(3, 1, *size, dtype=torch.float64, requires_grad=True)
    found, expected = layer(maps), F.conv2d(maps, layer.weight, None, stride, side // 2)
    assert type(found.grad_fn) is not type(expected.grad_fn)
    assert torch.equal(found, expected)
    wanted = torch.randn_like(found)
    gradients = [torch.autograd.grad(values, (maps, layer.weight), wanted) for values in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def test_a_separable_convolution_sees_each_channel_alone_first() -> None:
    depthwise, pointwise = separable(4, 6, stride=2)
    assert (depthwise[0].groups, depthwise[0].kernel_size, depthwise[0].stride) == (4, (3, 3), (2, 2))
    assert (pointwise[0].groups, pointwise[0].kernel_size, pointwise[0].stride) == (1, (1, 1), (1, 1))


class Small(TwoBranches):
    def __init__(self) -> None:
        super().__init__()
        self.add_ending(middle=6, last=8, num_classes=3)

    def forward(self, middle: Tensor, last: Tensor) -> Tensor:
        return self.classify(middle, last)


def test_both_branches_of_the_ending_reach_the_logits_and_its_parts_keep_their_names() -> None:
    torch.manual_seed(0)
    network = Small().eval()
    middle, last = torch.randn(2, 6, 10, 8), torch.randn(2, 8, 5, 4)
    logits = network(middle, last)
    assert logits.shape == (2, 3)
    assert not torch.allclose(network(middle + 1, last), logits)
    assert not torch.allclose(network(middle, last + 1), logits)
    torch.testing.assert_close(network(middle, last.flip(2)), logits)  # of the last map only the averages count
    assert {name.split(".")[0] for name in network.state_dict()} == {"squeeze", "histogram", "classifier"}
    assert isinstance(network.classifier, nn.Linear)
