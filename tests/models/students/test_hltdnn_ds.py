from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models import build_student
from edgekd.models.students.histogram import HistogramLayer
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
