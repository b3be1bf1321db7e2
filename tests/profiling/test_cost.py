"""What a PyTorch module costs, and that one count agrees with the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.exporting.cost import graph_cost, split_at_log_mel
from edgekd.exporting.verify import session
from edgekd.models.build import build_student
from edgekd.profiling.cost import module_activations, module_cost, module_macs, module_parameters, module_traffic
from edgekd.quantization.int8_student import load_int8

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled

RATE, SECONDS = 8_000, 0.5  # of the run in `profiled`


def test_hltdnn_costs_what_its_paper_says() -> None:
    student = build_student("hltdnn", 4)
    log_mel = torch.zeros(1, 1, 501, 64)
    assert module_macs(student.network.eval(), log_mel) == pytest.approx(218e6, rel=0.01)
    assert module_parameters(student.network) == 11_144


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_attention_is_counted_on_the_cpu() -> None:
    assert module_macs(Attention(), torch.zeros(1, 2, 10, 8)) == 2 * (2 * 10 * 10 * 8)


class Chain(nn.Module):
    """100 floats through operators of every kind that matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Linear(100, 50, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.product(x)  # 100 and 5000 in, 50 out
        hidden = hidden.relu_()  # 50 in, 50 out, in place
        square = hidden * hidden  # 50 in, once, 50 out
        return square.reshape(5, 10).transpose(0, 1) + 1  # views are free; 50 in, 50 out


def test_traffic_of_a_module_is_what_its_operators_read_and_write() -> None:
    assert module_traffic(Chain(), torch.zeros(1, 100)) == 4 * (100 + 5000 + 50 + 50 + 50 + 50 + 50 + 50 + 50)


def test_an_expanded_tensor_moves_what_is_stored_of_it() -> None:
    assert module_traffic(lambda x: x.expand(1000, 100) + 1, torch.zeros(1, 100)) == 4 * (100 + 100_000)


def test_activations_are_held_until_their_last_use() -> None:
    # The input, its product, and the square; the product is still named when the sum is taken.
    assert module_activations(Chain(), torch.zeros(1, 100)) == 4 * (100 + 50 + 50 + 50)
    # A chain that keeps no names holds two of its values at a time, and the input.
    assert module_activations(nn.Sequential(*[nn.Tanh() for _ in range(5)]), torch.zeros(1, 100)) == 4 * 300


def test_activations_grow_with_what_is_kept_for_later() -> None:
    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x + number for number in range(10)]).sum(dim=0)

    assert module_activations(Keeps(), torch.zeros(1, 100)) == 4 * (100 + 1000 + 1000)


def test_the_front_end_is_part_of_the_intensity_and_not_of_the_network() -> None:
    front_end, network = nn.Linear(20, 100, bias=False), Chain()
    cost = module_cost(nn.Sequential(front_end, network), front_end, network, 123, torch.zeros(1, 20))
    assert (cost.macs, cost.parameters, cost.file_bytes, cost.frontend_macs) == (5000, 5000, 123, None)
    assert cost.traffic_bytes is not None
    assert cost.arithmetic_intensity == pytest.approx((2000 + 5000) / cost.traffic_bytes)


def test_graph_and_module_agree_on_the_network_and_the_front_end_is_its_formula(profiled: Profiled) -> None:
    student, model = profiled.student, onnx.load_from_string(profiled.graphs["student"])
    parts = split_at_log_mel(model)
    assert parts is not None
    front_end, network = (graph_cost(part) for part in parts)
    samples = round(RATE * SECONDS)
    assert network.macs == module_macs(student.network, student.log_mel(torch.zeros(1, samples)))
    frames = samples // 80 + 1
    # n_fft = 16 x 4 x 4: 9 classes that are no mirror images, real and imaginary; 4 hops of 5 samples in each residue
    transform = frames * (16 * 18 * 20 + 4 * 9 * 8 * 8 + 4 * 9 * 8 * 8)
    filters = front_end.macs - transform
    assert 0 < filters <= frames * 129 * 32  # at most the dense filter bank; empty bins are left out
    assert graph_cost(model).macs == front_end.macs + network.macs


def test_the_parts_of_a_graph_compute_what_the_whole_does(profiled: Profiled) -> None:
    model = onnx.load_from_string(profiled.graphs["int8"])
    parts = split_at_log_mel(model)
    assert parts is not None
    waveform = 0.1 * torch.randn(1, round(RATE * SECONDS), generator=torch.Generator().manual_seed(0))
    whole, front_end, network = (session(part.SerializeToString()) for part in (model, *parts))
    (log_mel,) = front_end.run(None, {"waveform": waveform.numpy()})
    (probabilities,) = network.run(None, {network.get_inputs()[0].name: log_mel})
    # The front end ends with the normalised log-mel that the student's network is given.
    np.testing.assert_allclose(log_mel, profiled.student.log_mel(waveform).detach().numpy(), atol=1e-3)
    np.testing.assert_allclose(probabilities, whole.run(None, {"waveform": waveform.numpy()})[0], atol=1e-6)


def test_the_int8_graph_costs_the_same_macs_and_fewer_bytes(profiled: Profiled) -> None:
    costs = {}
    for name, graph in profiled.graphs.items():
        parts = split_at_log_mel(onnx.load_from_string(graph))
        assert parts is not None
        costs[name] = graph_cost(parts[1])
    assert costs["int8"].macs == costs["student"].macs
    assert costs["int8"].parameter_bytes < 0.35 * costs["student"].parameter_bytes
    # What the graph stores is what was learned, batch norm folded.
    assert costs["int8"].parameters == module_parameters(load_int8(profiled.run).network)
