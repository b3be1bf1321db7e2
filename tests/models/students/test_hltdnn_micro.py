from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.config import LossConfig
from edgekd.losses.total import SSATKDLoss
from edgekd.models.histogram import HistogramLayer
from edgekd.models.outputs import TeacherOutput
from edgekd.models.students.hltdnn_micro import HLTDNNMicro

PAPER = (1, 1, 501, 64)  # 5 s at 32 kHz
KIBIBYTE = 1024


def test_fits_a_microcontroller_at_5_seconds() -> None:
    network = HLTDNNMicro(10).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(PAPER))
    macs, parameters = counter.get_total_flops() / 2, sum(parameter.numel() for parameter in network.parameters())
    assert macs <= 3e6, f"{macs / 1e6:.2f} MMAC"
    assert parameters <= 20_000, f"{parameters:,} learned parameters"


def test_writes_no_more_than_64_kib_at_a_time_in_int8() -> None:
    """What a layer gives is a byte a value, but for the responses of the histogram: floats, a bin each."""
    network = HLTDNNMicro(10).eval()
    written = {"log_mel": math.prod(PAPER)}

    def note(name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            histogram = isinstance(module, HistogramLayer)
            written[name] = 4 * inputs[0].numel() * module.bins if histogram else output.numel()

        return record

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear | HistogramLayer):
            module.register_forward_hook(note(name))
    with torch.no_grad():
        network(torch.randn(PAPER))
    assert max(written.values()) == written["stem.0"] == 64_256 < 64 * KIBIBYTE
    assert written["histogram"] == 32_768


def test_tap_is_a_quarter_of_the_log_mel_a_side() -> None:
    network = HLTDNNMicro(4).eval()
    output = network(torch.randn(PAPER))
    assert output.tap.shape == (1, network.tap_channels, 126, 16)
    assert output.logits.shape == (1, 4)
    assert (output.tap >= 0).all()


@pytest.mark.parametrize("tap", [(2, 64, 250, 32), (2, 24, 96, 1)], ids=["cnn14", "frames"])
def test_textures_teach_the_layers_before_the_tap(tap: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = HLTDNNMicro(4)
    loss = SSATKDLoss(LossConfig(), network.tap_channels, teacher_channels=tap[1])
    student = network(torch.randn(2, *PAPER[1:]))
    found = loss(student, TeacherOutput(torch.randn(2, 4), torch.rand(tap)), torch.tensor([0, 3]))
    (found.terms["structural"] + found.terms["statistical"]).backward()
    taught = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert taught == {name for name, _ in network.named_parameters() if name.startswith(("stem.", "blocks.0."))}


def test_has_the_histogram_branch_of_hltdnn() -> None:
    network, log_mel = HLTDNNMicro(4).eval(), torch.randn(2, 1, 100, 64)
    assert network.histogram.output_size == 256
    before = network(log_mel).logits
    with torch.no_grad():
        network.histogram.mu.add_(0.5)
    assert not torch.allclose(network(log_mel).logits, before)


@pytest.mark.parametrize("width", [0.25, 1.0, 2.0])
def test_all_of_it_learns(width: float) -> None:
    torch.manual_seed(0)
    network = HLTDNNMicro(4, width).train()
    network(torch.randn(4, 1, 64, 32)).logits.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
