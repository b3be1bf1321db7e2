from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models.blocks import scaled
from edgekd.models.build import build_student
from edgekd.models.histogram import HistogramLayer
from edgekd.models.students.hltdnn_ds import HLTDNNDS

PAPER = (1, 1, 501, 64)  # 5 s at 32 kHz


def test_fits_a_small_device_at_5_seconds() -> None:
    network = HLTDNNDS(10).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(PAPER))
    macs = counter.get_total_flops() / 2
    assert macs <= 12e6, f"{macs / 1e6:.1f} MMAC"


def test_has_at_most_40_thousand_learned_parameters() -> None:
    parameters = sum(parameter.numel() for parameter in build_student("hltdnn_ds", 10).parameters())
    assert parameters <= 40_000, f"{parameters:,} learned parameters"


def test_width_1_has_the_channels_that_runs_were_made_with() -> None:
    """Where these change, students trained before cannot be read."""
    for network in (HLTDNNDS(10), HLTDNNDS(10, 1.0)):
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        expected = [16, 16, 32, 32, 36, 36, 64, 64, 80, 80, 80, 128, 4]
        assert [convolution.out_channels for convolution in convolutions] == expected
        assert network.tap_channels == 36
        assert sum(parameter.numel() for parameter in network.parameters()) == 33_494


def test_channels_are_scaled_to_multiples_of_4() -> None:
    assert [scaled(channels, 0.5) for channels in (16, 32, 36, 64, 80, 128)] == [8, 16, 20, 32, 40, 64]
    assert [scaled(channels, 1.0) for channels in (16, 32, 36, 64, 80, 128)] == [16, 32, 36, 64, 80, 128]
    assert scaled(4, 0.25) == 4


def test_half_the_width_costs_about_a_third() -> None:
    costs = []
    for width in (0.5, 1.0):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            HLTDNNDS(10, width).eval()(torch.randn(PAPER))
        costs.append(counter.get_total_flops())
    assert 0.25 < costs[0] / costs[1] < 0.4


def test_tap_has_the_channels_it_says_and_is_not_negative() -> None:
    network = HLTDNNDS(4).eval()
    output = network(torch.randn(PAPER))
    assert output.tap.shape[:2] == (1, network.tap_channels)
    assert output.logits.shape == (1, 4)
    assert (output.tap >= 0).all()


def test_has_the_histogram_branch_of_hltdnn() -> None:
    network, log_mel = HLTDNNDS(4).eval(), torch.randn(2, 1, 100, 64)
    layers = [module for module in network.modules() if isinstance(module, HistogramLayer)]
    assert [layer.output_size for layer in layers] == [256]
    before = network(log_mel).logits
    with torch.no_grad():
        layers[0].mu.add_(0.5)
    assert not torch.allclose(network(log_mel).logits, before)


def test_all_of_it_learns() -> None:
    torch.manual_seed(0)
    network = HLTDNNDS(4).train()
    network(torch.randn(4, 1, 64, 32)).logits.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
