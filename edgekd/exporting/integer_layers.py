"""The operators that a runtime executes in place of fake quantisers: rounded activations, stored integers.

Each is called as the module that it replaces, so that the graph of a quantised network stays as it is.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.tracing import module_of
from edgekd.quantization.fake_quant import ActivationFakeQuant, ActivationType, Flavour, QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork


class RoundActivation(nn.Module):
    """QuantizeLinear, DequantizeLinear; called as the `ActivationFakeQuant` that it replaces."""

    def __init__(self, scale: Tensor, kind: ActivationType) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", torch.tensor(kind.zero_point, dtype=kind.dtype))

    def forward(self, activation: Tensor, observe: bool = True) -> Tensor:  # noqa: ARG002
        parameters = (self.get_buffer("scale"), self.get_buffer("zero_point"))
        integers = torch.onnx.ops.symbolic(
            "QuantizeLinear", (activation, *parameters), dtype=parameters[1].dtype, shape=activation.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (integers, *parameters), dtype=torch.float32, shape=activation.shape
        )


class StoredIntegers(nn.Module):
    """A constant stored as integers, with a scale for each entry of axis 0: DequantizeLinear."""

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", torch.zeros(len(integers), dtype=integers.dtype))

    def forward(self) -> Tensor:
        integers = self.get_buffer("integers")
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (integers, self.get_buffer("scale"), self.get_buffer("zero_point")),
            {"axis": 0},
            dtype=torch.float32,
            shape=integers.shape,
        )


class IntegerLayer(nn.Module):
    """A layer with stored integers for its weight and, where the flavour says so, its bias.

    Called as the `QuantizedLayer` that it replaces.
    """

    def __init__(self, layer: QuantizedLayer, input_scale: Tensor, flavour: Flavour) -> None:
        super().__init__()
        self.weight = StoredIntegers(layer.integer_weight(), layer.weight_quant.scale)
        self.bias: nn.Module | None = None
        integer_bias = layer.integer_bias(input_scale) if flavour.bias == "int32" else None
        if integer_bias is not None:
            self.bias = StoredIntegers(integer_bias, layer.bias_scale(input_scale))
        self.float_bias = layer.layer.bias if self.bias is None else None
        self.operation = copy.deepcopy(layer.layer)  # for its strides and paddings; its float weight is not used

    def forward(self, activation: Tensor, input_scale: Tensor) -> Tensor:  # noqa: ARG002
        weight = self.weight()
        bias = self.float_bias if self.bias is None else self.bias()
        if isinstance(self.operation, nn.Linear):
            return nn.functional.linear(activation, weight, bias)
        return self.operation._conv_forward(activation, weight, bias)


class Hidden(nn.Module):
    """A rounded activation on its way to a layer that stays in float, out of the runtime's sight.

    Where ONNX Runtime finds such a layer between DequantizeLinear and QuantizeLinear it quantises the weight itself,
    with a scale of its own. A maximum with the lowest number changes nothing and hides the DequantizeLinear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("lowest", torch.tensor(torch.finfo(torch.float32).min))

    def forward(self, activation: Tensor) -> Tensor:
        inputs = (activation, self.get_buffer("lowest"))
        return torch.onnx.ops.symbolic("Max", inputs, dtype=torch.float32, shape=activation.shape)


def _hide_from_float_layers(network: QuantizedNetwork) -> None:
    float_layers = network.float_layers()
    for node in list(network.graph.nodes):
        if node.op == "call_module" and node.target in float_layers:
            (taken,) = node.all_input_nodes
            if isinstance(module_of(network, taken), ActivationFakeQuant):
                network.add_submodule(f"{node.name}_input", Hidden())
                with network.graph.inserting_before(node):
                    hidden = network.graph.call_module(f"{node.name}_input", (taken,))
                node.replace_input_with(taken, hidden)
    network.recompile()


def with_integers(network: QuantizedNetwork, flavour: Flavour) -> QuantizedNetwork:
    """A copy of `network` whose quantisers and layers are the operators that a runtime executes."""
    copied = copy.deepcopy(network).cpu()
    if flavour.rounds_float_layers:
        _hide_from_float_layers(copied)
    names = {module: name for name, module in copied.named_modules()}
    quantisers = copied.quantisers()
    for name, quantiser in quantisers.items():
        if not torch.isfinite(quantiser.scale):
            raise InputError(
                f"The int8 student has no scale for '{name}': it was not calibrated. Run edgekd quantize first."
            )
    for layer, quantiser in copied.layers():
        copied.set_submodule(names[layer], IntegerLayer(layer, quantiser.scale, flavour), strict=True)
    for name, quantiser in quantisers.items():
        kind = flavour.activation(quantiser.non_negative)
        copied.set_submodule(name, RoundActivation(quantiser.scale, kind), strict=True)
    return copied
