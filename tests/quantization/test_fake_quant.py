"""Fake quantisation against ONNX's own definition of the operators it stands for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgekd.quantization.fake_quant import (
    FLAVOURS,
    ActivationFakeQuant,
    FlavourName,
    QuantizedLayer,
    WeightFakeQuant,
    magnitude_bound,
    set_flavour,
    set_frozen,
)


def activation_quantiser(scale: float, non_negative: bool = False) -> ActivationFakeQuant:
    quantiser = ActivationFakeQuant(non_negative)
    quantiser.scale.fill_(scale)
    return quantiser.eval()


def onnx_round_trip(values: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int = 0) -> np.ndarray:
    """QuantizeLinear then DequantizeLinear, by the reference implementation of the standard."""
    graph = onnx.parser.parse_graph(
        "g (float[N] x, float[S] s) => (float[N] y) {q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)}"
    )
    graph.initializer.append(onnx.numpy_helper.from_array(zero_point, "z"))
    for node in graph.node:
        node.attribute.append(onnx.helper.make_attribute("axis", axis))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    return ReferenceEvaluator(model).run(None, {"x": values, "s": scale})[0]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("non_negative", [True, False])
def test_activation_rounding_is_that_of_quantize_and_dequantize(flavour: FlavourName, non_negative: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(4, 50) * 3  # both sides of the range at this scale
    values = values.relu() if non_negative else values
    quantiser = activation_quantiser(0.03, non_negative)
    set_flavour(quantiser, flavour)
    kind = FLAVOURS[flavour].activation(non_negative)
    zero_point = np.array(kind.zero_point, dtype="uint8" if kind.unsigned else "int8")
    expected = onnx_round_trip(values.numpy(), np.float32(0.03), zero_point)
    np.testing.assert_allclose(quantiser(values).numpy(), expected, atol=1e-6)


def test_relu_outputs_beyond_127_scales_survive_in_the_onnxruntime_flavour_only() -> None:
    quantiser = activation_quantiser(0.1, non_negative=True)
    peak = torch.tensor([20.0])
    assert quantiser(peak).item() == pytest.approx(12.7)
    set_flavour(quantiser, "onnxruntime")
    assert quantiser(peak).item() == pytest.approx(20.0)


def test_weight_rounding_is_per_channel_and_that_of_onnx() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 3, 5, 5) * torch.logspace(-3, 1, 6)[:, None, None, None]
    quantiser = WeightFakeQuant(6).train()
    rounded = quantiser(weight, torch.zeros(6))
    expected = onnx_round_trip(weight.numpy(), quantiser.scale.numpy(), np.zeros(6, np.int8))
    np.testing.assert_allclose(rounded.numpy(), expected, rtol=1e-6)
    assert torch.allclose(rounded.flatten(1).abs().amax(1), weight.flatten(1).abs().amax(1))


def test_gradient_passes_straight_through_inside_the_range_and_stops_outside() -> None:
    values = torch.tensor([-20.0, -0.31, 0.004, 5.0, 20.0], requires_grad=True)
    activation_quantiser(0.1)(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_weights_behind_fake_quantisation_learn() -> None:
    torch.manual_seed(0)
    layer = QuantizedLayer(nn.Conv2d(2, 3, 3)).train()
    layer(torch.randn(1, 2, 8, 8), torch.tensor(0.02)).square().sum().backward()
    assert layer.layer.weight.grad is not None
    assert (layer.layer.weight.grad != 0).all()


def test_scales_follow_training_batches_and_stop_when_frozen_or_evaluating() -> None:
    quantiser = activation_quantiser(0.01)
    batch = torch.full((8,), 12.7)
    quantiser(batch)
    assert quantiser.scale.item() == pytest.approx(0.01)
    quantiser.train()(batch)
    assert quantiser.scale.item() == pytest.approx(0.01 + 0.02 * (0.1 - 0.01))
    set_frozen(quantiser, True)
    before = quantiser.scale.clone()
    quantiser(batch)
    assert quantiser.scale == before


def test_frozen_weight_scales_stay_while_the_weights_move() -> None:
    quantiser = WeightFakeQuant(2).train()
    weight = torch.randn(2, 9)
    quantiser(weight, torch.zeros(2))
    set_frozen(quantiser, True)
    before = quantiser.scale.clone()
    quantiser(weight * 2, torch.zeros(2))
    assert torch.equal(quantiser.scale, before)


def test_bias_of_a_nearly_dead_channel_still_fits_int32() -> None:
    layer = QuantizedLayer(nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        layer.layer.weight.copy_(torch.tensor([1.0, 1e-12]).view(2, 1, 1, 1))
        layer.layer.bias.copy_(torch.tensor([0.5, 3.0]))
    input_scale = torch.tensor(0.01)
    layer.follow(input_scale)
    integers = layer.integer_bias(input_scale)
    assert integers is not None
    assert torch.allclose(integers * layer.bias_scale(input_scale), layer.layer.bias, rtol=1e-4)


def test_integer_weights_times_scale_are_the_fake_quantised_weights() -> None:
    torch.manual_seed(0)
    layer = QuantizedLayer(nn.Linear(20, 4))
    layer.follow(torch.tensor(0.02))
    integers = layer.integer_weight()
    assert integers.dtype == torch.int8
    assert integers.abs().max() == 127
    rounded = layer.weight_quant.rounded(layer.layer.weight)
    assert torch.equal(integers * layer.weight_quant.scale[:, None], rounded)


def test_bound_covers_the_asked_share_of_magnitudes() -> None:
    torch.manual_seed(0)
    values = torch.randn(100_000)
    assert magnitude_bound(values, 1.0) == values.abs().max()
    bound = magnitude_bound(values, 0.99)
    assert bound.item() == pytest.approx(
        torch.quantile(values.abs(), 0.99).item(), abs=values.abs().max().item() / 2048
    )
