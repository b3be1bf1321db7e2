from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.build import build_teacher
from edgekd.training.layer_rates import GROUPS, layer_order, parameter_groups

WAVEFORM = torch.zeros(1, 20)


class Backwards(nn.Module):
    """Its layers are written from the last to the first, and one holds a table that it adds before its layers run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.positions = nn.Parameter(torch.zeros(5, 8))
        self.stem = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(5))

    def forward(self, waveform: Tensor) -> Tensor:
        frames = self.stem(waveform.unflatten(1, (5, 4))) + self.positions
        return self.head(self.attention(frames, frames, frames)[0].mean(1))


def test_layers_are_ordered_as_they_compute_not_as_they_are_written() -> None:
    network = Backwards()
    order = layer_order(network, WAVEFORM)
    place = {name: order[parameter] for name, parameter in network.named_parameters()}
    assert place["positions"] < place["stem.0.weight"] < place["stem.1.weight"] < place["attention.in_proj_weight"]
    assert place["attention.in_proj_weight"] <= place["attention.out_proj.weight"] < place["head.weight"]
    assert set(order) == set(network.parameters())


def test_watching_the_order_changes_nothing() -> None:
    network = Backwards()
    layer_order(network, WAVEFORM)
    assert network.training
    assert network.stem[1].num_batches_tracked == 0
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_rates_fall_geometrically_from_the_head_to_the_input() -> None:
    network = nn.Sequential(*(nn.Linear(20, 20) for _ in range(16)), nn.Linear(20, 2))
    groups = parameter_groups(network, network[-1], WAVEFORM, 1e-3, 1e-4, 0.1)
    assert [len(group["params"]) for group in groups] == [2] + [4] * GROUPS
    rates = [group["lr"] for group in groups]
    assert (rates[0], rates[1]) == (1e-3, pytest.approx(1e-4))
    assert rates[-1] == pytest.approx(1e-5)
    ratios = [lower / higher for higher, lower in pairwise(rates[1:])]
    assert ratios == pytest.approx([0.1 ** (1 / (GROUPS - 1))] * (GROUPS - 1))
    rate = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert rate[network[0].weight] < rate[network[8].weight] < rate[network[15].weight] < rate[network[16].weight]


@pytest.mark.parametrize("name", ["yamnet", "convnet", "mobilenetv1"])
def test_every_parameter_of_a_teacher_is_in_one_group(name: str) -> None:
    teacher = build_teacher(name, 4, None, 32_000)
    groups = parameter_groups(teacher, teacher.classifier(), torch.zeros(1, 16_000), 1.0, 0.1, 0.5)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(teacher.parameters()))
    assert groups[0]["params"] == list(teacher.head.parameters())
    assert len(groups) == 1 + GROUPS
    place = {parameter: number for number, group in enumerate(groups) for parameter in group["params"]}
    first = next(
        parameter for key, parameter in teacher.named_parameters() if "head" not in key and parameter.ndim == 4
    )
    assert place[first] >= GROUPS - 2


def test_a_network_without_a_head_has_only_layers() -> None:
    network = nn.Sequential(nn.Linear(20, 20))
    (group,) = parameter_groups(network, None, WAVEFORM, 1.0, 0.1, 1.0)
    assert (len(group["params"]), group["lr"]) == (2, pytest.approx(0.1))
