"""Fake quantisation: float tensors rounded to the values that int8 can hold, so that training feels the rounding.

Symmetric, so the zero point is 0 and the real value 0 (padding, a closed ReLU) is exact:

    q = clamp(round(x / scale), qmin, qmax),    x' = scale * q,    scale = bound / 127.

Weights have a scale for each output channel and range [-127, 127], activations one scale for the tensor. The gradient
passes straight through inside the range and is zero outside (Jacob et al. 2018, arXiv 1712.05877; Krishnamoorthi 2018,
arXiv 1806.08342).

One trained network is shipped in two *flavours*, with the same scales in both (`FLAVOURS`): what a runtime can execute
as integers differs in the type of an activation and of the bias, not in the numbers between -127 and 127. `set_flavour`
makes the fake-quantised network compute what that runtime will: beyond 127, and in the rounding of the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd import processes

FlavourName = Literal["tensorrt", "onnxruntime"]
Layer = nn.Conv1d | nn.Conv2d | nn.Linear

QMAX = 127  # largest quantised magnitude; a scale is always bound / QMAX
SCALE_FLOOR = 1e-12  # of a tensor or channel that is all zero
BIAS_LIMIT = 2**30  # a bias must fit int32 at scale input_scale * weight_scale, with room for the sum it starts
EMA_MOMENTUM = 0.02  # how far a scale follows one training batch
HISTOGRAM_BINS = 2048


@dataclass(frozen=True)
class ActivationType:
    """The integer type an activation has between its QuantizeLinear and DequantizeLinear."""

    unsigned: bool
    zero_point: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.unsigned else torch.int8

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest multiple of the scale that the type can hold."""
        smallest, largest = (0, 255) if self.unsigned else (-128, 127)
        return smallest - self.zero_point, largest - self.zero_point


@dataclass(frozen=True)
class Flavour:
    """What one family of runtimes executes as integers.

    `relu` is the type of activations that cannot be negative, `signed` of all others. `bias` is how the bias of a layer
    is stored: as int32 at scale `input_scale * weight_scale`, or left in float32. `rounds_float_layers`: they quantise
    a layer that was left in float, where it lies between rounded activations. `moves_transposes`: they move a Transpose
    past a rounding, where it takes longer.
    """

    name: FlavourName
    relu: ActivationType
    signed: ActivationType
    bias: Literal["int32", "float32"]
    rounds_float_layers: bool = False
    moves_transposes: bool = False

    def activation(self, non_negative: bool) -> ActivationType:
        return self.relu if non_negative else self.signed


_INT8 = ActivationType(unsigned=False, zero_point=0)

FLAVOURS: dict[FlavourName, Flavour] = {
    # TensorRT takes int8 with zero point 0 and nothing else, and rounds the bias itself.
    "tensorrt": Flavour("tensorrt", relu=_INT8, signed=_INT8, bias="float32"),
    # ONNX Runtime absorbs a ReLU only where the zero point is the type's smallest value, and wants the input and output
    # of a convolution in one type: uint8 at zero point 0 after a ReLU, and elsewhere uint8 at 128, int8 at 0 shifted.
    "onnxruntime": Flavour(
        "onnxruntime",
        relu=ActivationType(unsigned=True, zero_point=0),
        signed=ActivationType(unsigned=True, zero_point=128),
        bias="int32",
        rounds_float_layers=True,
        moves_transposes=True,
    ),
}


class ActivationFakeQuant(nn.Module):
    """Rounds an activation of any shape to the multiples of `scale` that its integer type can hold.

    `scale` is NaN until `edgekd.quantization.calibration.calibrate` has seen data. It follows the batches as an
    exponential moving average while in training mode and not `frozen`, and stays in evaluation mode. While not
    `enabled`, activations pass unchanged. An `observer` is called with each activation that comes by.

    `non_negative` says that a ReLU, a sigmoid or the like comes before. `coverage` is the share of magnitudes that a
    batch's bound must cover while the scale follows training; calibration sets it from its recipe.
    """

    scale: Tensor
    _no_zero_point: Tensor

    def __init__(self, non_negative: bool) -> None:
        super().__init__()
        self.non_negative = non_negative
        self.register_buffer("scale", torch.tensor(float("nan")))
        # Zero points belong to the flavour's type, not to this arithmetic, which is symmetric.
        self.register_buffer("_no_zero_point", torch.zeros((), dtype=torch.int32), persistent=False)
        self.range = _INT8.range
        self.enabled = True
        self.frozen = False
        self.coverage = 1.0
        self.observer: Callable[[Tensor], None] | None = None

    def forward(self, activation: Tensor, observe: bool = True) -> Tensor:
        """`observe=False` marks a second look at values already on the grid, such as a max-pool's output."""
        if self.observer is not None and observe:
            self.observer(activation.detach())
        if not self.enabled:
            return activation
        if self.training and not self.frozen and observe:
            with torch.no_grad():
                self.scale.lerp_(scale_for(magnitude_bound(activation, self.coverage)), EMA_MOMENTUM)
        return torch.fake_quantize_per_tensor_affine(activation, self.scale, self._no_zero_point, *self.range)

    def extra_repr(self) -> str:
        return f"scale={self.scale.item():.3g}, non_negative={self.non_negative}, range={self.range}"


class WeightFakeQuant(nn.Module):
    """Rounds a weight `(C_out, ...)` to `scale[c] * [-127, 127]`, channel by channel.

    The scale is that of the weight's largest magnitude in each channel while in training mode and not `frozen`. While
    not `enabled`, weights pass unchanged.
    """

    scale: Tensor
    _no_zero_point: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((channels,), float("nan")))
        self.register_buffer("_no_zero_point", torch.zeros(channels, dtype=torch.int32), persistent=False)
        self.enabled = True
        self.frozen = False

    def forward(self, weight: Tensor, floor: Tensor) -> Tensor:
        """`floor (C_out,)` is the smallest scale allowed; see `QuantizedLayer`."""
        if not self.enabled:
            return weight
        if self.training and not self.frozen:
            self.follow(weight, floor)
        return self.rounded(weight)

    @torch.no_grad()
    def follow(self, weight: Tensor, floor: Tensor) -> None:
        """Set the scales to those of `weight`."""
        self.scale.copy_(torch.maximum(scale_for(weight.flatten(1).abs().amax(dim=1)), floor))

    def rounded(self, weight: Tensor) -> Tensor:
        """`weight` on the grid of the present scales."""
        return torch.fake_quantize_per_channel_affine(weight, self.scale, self._no_zero_point, 0, -QMAX, QMAX)

    def extra_repr(self) -> str:
        return f"channels={self.scale.numel()}"


class QuantizedLayer(nn.Module):
    """A convolution or linear layer whose weight is rounded to int8 on the way in.

    Called with its input, already rounded, and the scale of that input. A runtime that keeps the bias as int32 stores
    it at `input_scale * weight_scale`; where a channel's weights are so small that its bias would not fit, its weight
    scale is raised until it does.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.weight_quant = WeightFakeQuant(layer.weight.shape[0])
        self.rounds_bias = False

    def forward(self, activation: Tensor, input_scale: Tensor) -> Tensor:
        weight = self.weight_quant(self.layer.weight, self._scale_floor(input_scale))
        bias = self.layer.bias
        if bias is not None and self.rounds_bias and self.weight_quant.enabled:
            bias_scale = self.bias_scale(input_scale)
            bias = torch.round(bias / bias_scale) * bias_scale
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(activation, weight, bias)
        return self.layer._conv_forward(activation, weight, bias)

    def follow(self, input_scale: Tensor) -> None:
        """Set the weight scales to those of the present weight."""
        self.weight_quant.follow(self.layer.weight, self._scale_floor(input_scale))

    def bias_scale(self, input_scale: Tensor) -> Tensor:
        """`(C_out,)`: one unit of the int32 sum."""
        return input_scale * self.weight_quant.scale

    @torch.no_grad()
    def integer_weight(self) -> Tensor:
        """The weight as int8, shape unchanged: what a deployed model stores."""
        scale = self.weight_quant.scale.view(-1, *[1] * (self.layer.weight.dim() - 1))
        return torch.round(self.weight_quant.rounded(self.layer.weight) / scale).to(torch.int8)

    @torch.no_grad()
    def integer_bias(self, input_scale: Tensor) -> Tensor | None:
        """The bias `(C_out,)` as int32 at `bias_scale`, or None without one."""
        if self.layer.bias is None:
            return None
        return torch.round(self.layer.bias / self.bias_scale(input_scale)).to(torch.int32)

    def _scale_floor(self, input_scale: Tensor) -> Tensor:
        if self.layer.bias is None:
            return torch.zeros_like(self.weight_quant.scale)
        return self.layer.bias.detach().abs() / (BIAS_LIMIT * input_scale)


def scale_for(bound: Tensor) -> Tensor:
    """The scale at which magnitudes up to `bound` are representable."""
    return (bound / QMAX).clamp(min=SCALE_FLOOR)


def magnitude_bound(values: Tensor, coverage: float) -> Tensor:
    """The magnitude that a share `coverage` of `values`, those of all processes, stays below: their largest at 1, else
    to 1/2048 of it."""
    magnitudes = values.detach().abs()
    largest = processes.largest(magnitudes.amax())
    if coverage >= 1:
        return largest
    histogram = processes.summed(torch.histc(magnitudes.float(), bins=HISTOGRAM_BINS, min=0.0, max=float(largest)))
    return bound_of_histogram(histogram, largest, coverage)


def bound_of_histogram(histogram: Tensor, upper: Tensor, coverage: float) -> Tensor:
    """The upper edge of the first bin, of those between 0 and `upper`, at which a share `coverage` is reached."""
    cumulative = histogram.double().cumsum(0)
    reached = torch.searchsorted(cumulative, coverage * cumulative[-1])
    return upper * (reached + 1) / histogram.numel()


def set_flavour(network: nn.Module, flavour: FlavourName) -> None:
    """Make every fake quantiser in `network` compute what a runtime of this flavour will.

    Training is done in `tensorrt`, which clips at 127. A ReLU's output in `onnxruntime` is uint8, so values between 127
    and 255 scales are kept there.
    """
    table = FLAVOURS[flavour]
    for module in network.modules():
        if isinstance(module, ActivationFakeQuant):
            module.range = table.activation(module.non_negative).range
        elif isinstance(module, QuantizedLayer):
            module.rounds_bias = table.bias == "int32"


def set_frozen(network: nn.Module, frozen: bool) -> None:
    """Hold every scale in `network` (the last epochs of training), or let scales follow training again."""
    for module in network.modules():
        if isinstance(module, ActivationFakeQuant | WeightFakeQuant):
            module.frozen = frozen


def set_enabled(network: nn.Module, enabled: bool) -> None:
    """Let every fake quantiser in `network` round, or let it pass floats unchanged."""
    for module in network.modules():
        if isinstance(module, ActivationFakeQuant | WeightFakeQuant):
            module.enabled = enabled
