"""Layers of a PyTorch module: each without the modules in it, the slow ones first."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from edgekd.profiling.module_layers import BETWEEN, torch_layers


class Sleeps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.003)
        return x + 1


class Model(nn.Module):
    """A layer that is used twice, a slow one, containers, and work of its own."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.body = nn.Sequential(nn.Tanh(), nn.Sequential(Sleeps()))
        self.pause = pause

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(self.first(self.first(x)))
        time.sleep(self.pause)
        return hidden * 2


def test_a_slow_module_is_first_and_containers_are_none() -> None:
    found = torch_layers(Model().eval(), torch.zeros(1, 8), runs=5)
    assert found[0].name == "body.1.0"
    assert found[0].operator == "Sleeps"
    assert found[0].ms >= 3
    assert {layer.name for layer in found} == {"first", "body.0", "body.1.0", BETWEEN}
    assert sum(layer.share for layer in found) == pytest.approx(1)


def test_what_a_module_computes_between_its_layers_is_its_own_line() -> None:
    found = torch_layers(Model(pause=0.02).eval(), torch.zeros(1, 8), runs=5)
    assert (found[0].name, found[0].operator) == (BETWEEN, "Model")
    assert found[0].ms >= 20
    assert next(layer for layer in found if layer.name == "body.1.0").ms < 20


def test_macs_outputs_and_precision_of_modules() -> None:
    model = Model().eval()
    found = {layer.name: layer for layer in torch_layers(model, torch.zeros(3, 8), runs=1)}
    assert found["first"].macs == 2 * 3 * 8 * 8  # it is called twice
    assert found["body.0"].macs is None
    assert (found["first"].output_bytes, found["first"].precision) == (3 * 8 * 4, "float32")
    half = {layer.name: layer for layer in torch_layers(nn.Sequential(nn.Tanh()), torch.zeros(8).bfloat16(), runs=1)}
    assert half["0"].precision == "bfloat16"
    assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in model.modules())


def test_attention_whose_parts_are_not_called_as_modules_is_a_layer() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x + 1)[0]

    found = {layer.name: layer for layer in torch_layers(Own().eval(), torch.zeros(1, 5, 8), runs=1)}
    assert found["attention"].macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
