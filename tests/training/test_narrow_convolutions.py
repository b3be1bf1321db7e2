"""Narrow convolutions as sums over shifts: the rules on a CPU, and their kernels on a GPU or by the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.training import narrow_convolutions
from edgekd.training.narrow_convolutions import LANES, RULES, shifted_outer, shifted_products
from tests.losses.ssatkd.test_kernels import DEVICE, computed

CONVOLUTION = RULES[torch.ops.aten.convolution.default]
BACKWARD = RULES[torch.ops.aten.convolution_backward.default]


@pytest.fixture
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules hold in float32, too, so that only they can differ."""
    monkeypatch.setattr(narrow_convolutions, "HALF", (torch.float32,))


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "order"),
    [
        (1, 16, (11, 11), torch.contiguous_format),
        (1, 3, (3, 17), torch.contiguous_format),  # a line of the kernel is longer than there are lanes
        (16, 16, (3, 3), torch.channels_last),
        (16, 4, (3, 3), torch.contiguous_format),
        (3, 7, (5, 3), torch.channels_last),
        (4, 256, (1, 1), torch.channels_last),
        (64, 16, (1, 1), torch.contiguous_format),
    ],
)
@pytest.mark.usefixtures("exactly")
def test_a_rule_computes_the_convolution(
    inputs: int, outputs: int, kernel: tuple[int, int], order: torch.memory_format
) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, inputs, 9, 19).contiguous(memory_format=order)
    weights, bias = torch.randn(outputs, inputs, *kernel), torch.randn(outputs)
    how = ([1, 1], [size // 2 for size in kernel], [1, 1], False, [0, 0], 1)
    expected = torch.ops.aten.convolution(values, weights, bias, *how)
    gradient = torch.randn_like(expected)
    asked = (gradient, values, weights, [outputs], *how, [True, True, True])
    torch.testing.assert_close(CONVOLUTION(values, weights, bias, *how), expected, rtol=1e-4, atol=1e-4)
    found = BACKWARD(*asked)
    for value, wanted in zip(found, torch.ops.aten.convolution_backward(*asked), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)
    assert [each is None for each in BACKWARD(*asked[:-1], [False, True, False])] == [True, False, True]


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (nn.Conv2d(4, 8, 3, padding=1), torch.float32),
        (nn.Conv2d(4, 8, 3, padding=1, stride=2), torch.bfloat16),
        (nn.Conv2d(4, 8, 3), torch.bfloat16),
        (nn.Conv2d(4, 8, 3, padding=2, dilation=2), torch.bfloat16),
        (nn.Conv2d(4, 8, 3, padding=1, groups=4), torch.bfloat16),
        (nn.Conv2d(4, 8, 4, padding=2), torch.bfloat16),
        (nn.Conv2d(4, 32, 3, padding=1), torch.bfloat16),
        (nn.Conv2d(32, 64, 1), torch.bfloat16),
        (nn.ConvTranspose2d(4, 8, 3, padding=1), torch.bfloat16),
    ],
)
def test_what_fits_no_rule_is_left_alone(layer: Any, dtype: torch.dtype) -> None:
    values, transposed = torch.zeros(1, layer.in_channels, 6, 6, dtype=dtype), isinstance(layer, nn.ConvTranspose2d)
    how = (layer.stride, layer.padding, layer.dilation, transposed, [0, 0], layer.groups)
    assert CONVOLUTION(values, layer.weight.to(dtype), None, *how) is NotImplemented
    assert BACKWARD(values, values, layer.weight.to(dtype), None, *how, [True] * 3) is NotImplemented


def test_means_of_a_few_large_cells_are_an_average_pooling() -> None:
    means, maps = RULES[torch.ops.aten.avg_pool2d.default], torch.randn(2, 5, 51, 6)
    torch.testing.assert_close(means(maps, [26, 3], [25, 3]), F.avg_pool2d(maps, (26, 3), (25, 3)))
    for how in (([26, 6],), ([26, 6], [])):  # the stride is then the size
        torch.testing.assert_close(means(maps, *how), F.avg_pool2d(maps, (26, 6)))
    for kernel, stride in (([2, 2], [2, 2]), ([10, 6], [10, 6]), ([26], [26])):
        assert means(maps, kernel, stride) is NotImplemented


@pytest.mark.usefixtures("exactly")
def test_a_compiled_network_follows_the_rules() -> None:
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    used: list[str] = []

    def noted(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        used.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d((1, 2), 1), nn.Conv2d(4, 8, 1))
    values, found = torch.randn(2, 1, 8, 7), []
    for run in (network, torch.compile(network, backend=aot_autograd(fw_compiler=noted, decompositions=RULES))):
        network.zero_grad()
        run(values).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    assert {"edgekd.shifted_products.default", "edgekd.shifted_outer.default"} <= set(used)
    assert not any("convolution" in name for name in used)


def _maps(*sizes: int) -> Tensor:
    torch.manual_seed(sum(sizes))
    return F.pad(torch.randn(*sizes, LANES), (0, 0, 1, 1, 1, 1)).to(DEVICE)


@computed
@pytest.mark.parametrize(("height", "side"), [(3, 3), (11, 1)])
def test_a_kernel_sums_over_shifts(height: int, side: int) -> None:
    from edgekd.training import shifted_kernels

    values, gradient = _maps(2, 13, 9), _maps(2, 13, 9)
    values = F.pad(values, (0, 0, 0, 0, height // 2, height // 2))
    gradient = F.pad(gradient, (0, 0, 0, 0, height // 2, height // 2))
    weights, bias = torch.randn(height * side, LANES, LANES), torch.randn(LANES)
    expected = shifted_products(values.cpu(), weights, bias, side)
    reach = (height - 1) * values.shape[2] + side - 1  # past the last of these, a sum means nothing
    for at_once in (1, 4):
        launch = shifted_kernels.Launch(64, at_once, 4, 2)
        found = shifted_kernels.products(values, weights.to(DEVICE), bias.to(DEVICE), side, launch).cpu()
        torch.testing.assert_close(*(each.flatten(0, 2)[:-reach] for each in (found, expected)), rtol=1e-4, atol=1e-4)
        found = shifted_kernels.outer(values, gradient, height, side, launch, programs=3).cpu()
        wanted = shifted_outer(values.cpu(), gradient.cpu(), height, side)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert found.is_contiguous()
