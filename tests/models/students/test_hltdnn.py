from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models.students.hltdnn import HLTDNN

PAPER = (1, 1, 501, 64)  # 5 s at 32 kHz


def test_has_the_papers_number_of_learned_parameters() -> None:
    assert sum(parameter.numel() for parameter in HLTDNN(4).parameters()) == 11_144


def test_costs_the_papers_multiplications() -> None:
    network = HLTDNN(4).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(PAPER))
    assert round(counter.get_total_flops() / 2 / 1e6) == 218


def test_tap_follows_the_second_pooling() -> None:
    output = HLTDNN(4).eval()(torch.randn(PAPER))
    assert output.tap.shape == (1, 16, 501, 62)
    assert output.logits.shape == (1, 4)
    assert (output.tap >= 0).all()


def test_layers_are_those_of_the_method_page() -> None:
    """Written out in functions, from the page's words."""
    torch.manual_seed(0)
    network = HLTDNN(5).eval()
    log_mel = torch.randn(2, 1, 40, 64)
    conv, pool = nn.functional.conv2d, nn.functional.max_pool2d
    with torch.no_grad():
        x = pool(conv(log_mel, network.conv1.weight, network.conv1.bias, padding="same").relu(), (1, 2), 1)
        tap = x = pool(conv(x, network.conv2.weight, network.conv2.bias, padding="same").relu(), (1, 2), 1)
        x = pool(conv(x, network.conv3.weight, network.conv3.bias, padding="same").relu(), (1, 4), (1, 2))
        x = pool(conv(x, network.conv4.weight, network.conv4.bias, padding="same").relu(), (1, 8), (1, 4))
        assert x.shape[1] == 4
        flat = nn.functional.conv1d(x.flatten(2), network.expand.weight[:, :, 0], network.expand.bias)
        averages = network.norm(flat.sigmoid().mean(2))
        offset = x[:, :, None] - network.histogram.mu[None, :, :, None, None]
        response = torch.exp(-((network.histogram.gamma[None, :, :, None, None] * offset) ** 2))
        response = response / (response.sum(2, keepdim=True) + 1e-5)
        histogram = adaptive_avg_pool2d(response.flatten(1, 2), 2).flatten(1)
        assert averages.shape == histogram.shape == (2, 256)
        logits = network.classifier(torch.cat([averages, histogram], 1))
        output = network(log_mel)
    torch.testing.assert_close(output.tap, tap)
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-5)


def test_both_branches_and_the_dropout_matter() -> None:
    network, log_mel = HLTDNN(4), torch.randn(2, 1, 20, 64)
    assert network.dropout.p == 0.5
    network.eval()
    whole = network(log_mel).logits
    with torch.no_grad():
        for part in (slice(0, 256), slice(256, 512)):
            kept = network.classifier.weight.clone()
            network.classifier.weight[:, part] = 0
            assert not torch.allclose(network(log_mel).logits, whole)
            network.classifier.weight.copy_(kept)
    network.train()
    assert not torch.equal(network(log_mel).logits, network(log_mel).logits)
