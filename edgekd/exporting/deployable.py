"""What is deployed: a trained student in one precision, and the PyTorch module of it that becomes a graph.

    waveform (B, S) -> ExportLogMel (gain, log-mel, batch norm folded in) -> network -> softmax
    log_mel (B, 1, T, F) -> batch norm -> network -> softmax                   (log-mel "external", by the caller)

Three precisions. *fp32* is what a trained student is. *fp16* casts the normalised log-mel and runs the network in half
precision; the front end stays in float32, for its power spectrum spans 1e-10 to beyond 65504. In *int8* every fake
quantiser has become what a runtime executes: a QuantizeLinear and a DequantizeLinear round each activation, and int8
weights with a DequantizeLinear per channel. The front end, the histogram layer, averages, sigmoid and softmax stay in
float, and so do the layers that quantisation was told to leave. Types and zero points follow the flavour
(`edgekd.quantization.fake_quant.FLAVOURS`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.exporting.targets import LogMelPlace, Precision
from edgekd.exporting.verify import Probabilities, reference
from edgekd.log_mel import ExportLogMel, turned
from edgekd.models.students.student import Student
from edgekd.models.tracing import module_of
from edgekd.quantization.fake_quant import (
    FLAVOURS,
    ActivationFakeQuant,
    ActivationType,
    Flavour,
    FlavourName,
    QuantizedLayer,
)
from edgekd.quantization.int8_student import load_int8, quantized_network, settings_file
from edgekd.quantization.prepare import QuantizedNetwork, check_finite
from edgekd.runs.run import Run


@dataclass(frozen=True)
class Deployable:
    """A trained student in one precision, of clips of `clip_samples`.

    `network`: the quantised network, which int8 has in place of the student's own. `source` names what it was loaded
    from: deployables of one source, precision and length are the same student, and are equal.
    """

    precision: Precision
    clip_samples: int
    source: str
    student: Student = field(compare=False, repr=False)
    network: QuantizedNetwork | None = field(default=None, compare=False, repr=False)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers of an int8 network that quantisation left in float on purpose."""
        return () if self.network is None else tuple(self.network.float_layers())

    def trained(self, flavour: FlavourName) -> Probabilities:
        """The student as it computes in the end, on a runtime of `flavour`; fp16 is held to the float student."""
        return reference(self.student, self.network, flavour)

    def module(self, flavour: FlavourName, log_mel: LogMelPlace) -> DeployableModule:
        """The PyTorch module that is exported. Raises `InputError` for a scale that was never calibrated."""
        if self.network is None:
            return DeployableModule(self.student, self.student.network, log_mel, half=self.precision == "fp16")
        return integer_module(self.student, self.network, flavour, log_mel)


def deployable_of(run: Run, precision: Precision) -> Deployable:
    """The student of a finished run in one precision.

    Raises `InputError` for an unfinished run, one without an int8 student where that is asked for, and for weights that
    are not finite.
    """
    int8 = precision == "int8"
    student = load_int8(run) if int8 else run.student()
    check_finite(student)
    data = run.config.data
    return Deployable(
        precision=precision,
        clip_samples=round(data.clip_seconds * data.sample_rate),
        source=_source(run, int8),
        student=student,
        network=quantized_network(student) if int8 else None,
    )


def _source(run: Run, int8: bool) -> str:
    """A digest of all that a student is loaded from: configuration, classes, settings of quantisation, weights."""
    digest = hashlib.sha256(json.dumps([run.config.model_dump(mode="json", exclude={"out"}), run.classes]).encode())
    if int8 and settings_file(run).is_file():
        digest.update(settings_file(run).read_bytes())
    digest.update(run.weights("int8" if int8 else "student").read_bytes())
    return digest.hexdigest()


class DeployableModule(nn.Module):
    """What is shipped: waveform `(B, S)`, or log-mel `(B, 1, T, F)`, -> probabilities `(B, K)`."""

    def __init__(
        self,
        student: Student,
        network: nn.Module,
        log_mel: LogMelPlace = "graph",
        *,
        half: bool = False,
        turn: Callable[[Tensor], Tensor] = turned,
    ) -> None:
        super().__init__()
        scale, shift = _affine(student.norm)
        config, sample_rate = student.frontend.config, student.frontend.sample_rate
        if log_mel == "graph":
            gain = student.gain.item()
            self.frontend: nn.Module = ExportLogMel(config, sample_rate, gain, scale, shift, turn)
        else:
            self.frontend = _Normalise(scale, shift)
        self.half_precision = half
        self.network = copy.deepcopy(network)
        self.eval().cpu()
        if half:
            self.network.half()

    def forward(self, sound: Tensor) -> Tensor:
        log_mel = self.frontend(sound)
        logits = self.network(log_mel.half() if self.half_precision else log_mel)[0]
        return logits.float().softmax(dim=1)


def integer_module(
    student: Student, network: QuantizedNetwork, flavour: FlavourName, log_mel: LogMelPlace = "graph"
) -> DeployableModule:
    """The student with the quantised `network` in place of its own, in the operators that a `flavour` executes.

    Raises `InputError` when a scale in `network` was never calibrated.
    """
    family = FLAVOURS[flavour]
    turn = _turned_by_einsum if family.moves_transposes else turned
    return DeployableModule(student, _with_integers(network, family), log_mel, turn=turn)


def _turned_by_einsum(log_mel: Tensor) -> Tensor:
    """`(B, F, T)` -> `(B, T, F)`, not as a Transpose.

    ONNX Runtime moves a Transpose past the QuantizeLinear that follows, to merge it with the one that brings its int8
    convolutions their channels last, and turning bytes takes it ten times as long as turning floats.
    """
    batch, bins, frames = log_mel.shape
    shape = (batch, frames, bins)
    return torch.onnx.ops.symbolic("Einsum", (log_mel,), {"equation": "bft->btf"}, dtype=log_mel.dtype, shape=shape)


class _Normalise(nn.Module):
    """`scale * x + shift` for each mel bin of `(B, 1, T, F)`."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, log_mel: Tensor) -> Tensor:
        return log_mel * self.get_buffer("scale") + self.get_buffer("shift")


@torch.no_grad()
def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as `scale * x + shift`."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale.cpu(), (norm.bias - norm.running_mean * scale).cpu()


class _RoundActivation(nn.Module):
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


class _StoredIntegers(nn.Module):
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


class _IntegerLayer(nn.Module):
    """A layer with stored integers for its weight and, where the flavour says so, its bias.

    Called as the `QuantizedLayer` that it replaces.
    """

    def __init__(self, layer: QuantizedLayer, input_scale: Tensor, flavour: Flavour) -> None:
        super().__init__()
        self.weight = _StoredIntegers(layer.integer_weight(), layer.weight_quant.scale)
        self.bias: nn.Module | None = None
        integer_bias = layer.integer_bias(input_scale) if flavour.bias == "int32" else None
        if integer_bias is not None:
            self.bias = _StoredIntegers(integer_bias, layer.bias_scale(input_scale))
        self.float_bias = layer.layer.bias if self.bias is None else None
        self.operation = copy.deepcopy(layer.layer)  # for its strides and paddings; its float weight is not used

    def forward(self, activation: Tensor, input_scale: Tensor) -> Tensor:  # noqa: ARG002
        weight = self.weight()
        bias = self.float_bias if self.bias is None else self.bias()
        if isinstance(self.operation, nn.Linear):
            return nn.functional.linear(activation, weight, bias)
        return self.operation._conv_forward(activation, weight, bias)


class _Hidden(nn.Module):
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
                network.add_submodule(f"{node.name}_input", _Hidden())
                with network.graph.inserting_before(node):
                    hidden = network.graph.call_module(f"{node.name}_input", (taken,))
                node.replace_input_with(taken, hidden)
    network.recompile()


def _with_integers(network: QuantizedNetwork, flavour: Flavour) -> QuantizedNetwork:
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
        copied.set_submodule(names[layer], _IntegerLayer(layer, quantiser.scale, flavour), strict=True)
    for name, quantiser in quantisers.items():
        kind = flavour.activation(quantiser.non_negative)
        copied.set_submodule(name, _RoundActivation(quantiser.scale, kind), strict=True)
    return copied
