"""A student as one ONNX graph: waveform `(batch, samples)` float32 in, class probabilities `(batch, K)` out.

    waveform -> ExportLogMel (gain, log-mel, batch norm folded in) -> network -> softmax -> probabilities

The float form is what a trained student is. In the int8 form every fake quantiser has become what a runtime executes:
a QuantizeLinear and a DequantizeLinear round each activation, and int8 weights with a DequantizeLinear per channel.
The front end, the histogram layer, averages, sigmoid and softmax stay in float. Types and zero points follow the
flavour (`edgekd.quantization.fake_quant.FLAVOURS`).

onnxsim sees the float graph only: a simplifier may fold int8 weights back into float32, so nothing simplifies a graph
that has Q/DQ in it. The exporter's own clean-up leaves those operators alone.

The same student gives the same bytes: names come from the modules, and nothing of the exporting machine is kept.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgekd import __version__
from edgekd.errors import InputError
from edgekd.frontend import ExportLogMel
from edgekd.models.students import Student
from edgekd.quantization.fake_quant import FLAVOURS, ActivationType, Flavour, FlavourName, QuantizedLayer
from edgekd.quantization.prepare import QuantizedNetwork

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "waveform", "probabilities"
OPSETS = range(18, 21)  # 18: the exporter's lowest; above 20 ONNX Runtime fails on zero-point-0 graphs
_TRACED_BATCH = 2  # any batch but 0 and 1, which the exporter would take for constants


def float_onnx(student: Student, clip_samples: int, opset: int = 20) -> bytes:
    """The float student as an ONNX model; `clip_samples` is the length of a waveform."""
    import onnx
    import onnxsim

    model = _export(Deployable(student, student.network), clip_samples, opset)
    simplified, same = onnxsim.simplify(model)
    if not same:
        raise AssertionError("onnxsim changed the outputs of the float graph")
    return _serialised(onnx.shape_inference.infer_shapes(simplified), {"edgekd.precision": "float32"})


def quantized_onnx(
    student: Student, network: QuantizedNetwork, clip_samples: int, flavour: FlavourName, opset: int = 20
) -> bytes:
    """The student with the quantised `network` in place of its own, as an ONNX model in `flavour`.

    Raises `InputError` when a scale in `network` was never calibrated.
    """
    integers = _with_integers(network, FLAVOURS[flavour])
    model = _export(Deployable(student, integers), clip_samples, opset)
    return _serialised(model, {"edgekd.precision": "int8", "edgekd.flavour": flavour})


class Deployable(nn.Module):
    """What is shipped: waveform `(B, S)` -> probabilities `(B, K)`, with the exportable front end."""

    def __init__(self, student: Student, network: nn.Module) -> None:
        super().__init__()
        scale, shift = _affine(student.norm)
        config, sample_rate = student.frontend.config, student.frontend.sample_rate
        self.frontend = ExportLogMel(config, sample_rate, gain=student.gain.item(), scale=scale, shift=shift)
        self.network = copy.deepcopy(network)
        self.eval().cpu()

    def forward(self, waveform: Tensor) -> Tensor:
        logits, _ = self.network(self.frontend(waveform))
        return logits.softmax(dim=1)


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


def _with_integers(network: QuantizedNetwork, flavour: Flavour) -> QuantizedNetwork:
    """A copy of `network` whose quantisers and layers are the operators that a runtime executes."""
    copied = copy.deepcopy(network).cpu()
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


def _export(module: Deployable, clip_samples: int, opset: int) -> onnx.ModelProto:
    if opset not in OPSETS:
        raise ValueError(f"opset {opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (torch.zeros(_TRACED_BATCH, clip_samples),),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"waveform": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on packages it could also use; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def _serialised(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """The bytes of `model`, checked, with readable names, and without traces of the machine it was exported on."""
    import onnx

    _unshare_zero_points(model.graph)
    _rename(model.graph)
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("value_info")  # a runtime infers shapes itself
    model.graph.ClearField("metadata_props")
    model.graph.name = "edgekd"
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    model.producer_name, model.producer_version = "edgekd", __version__
    model.ClearField("metadata_props")
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _unshare_zero_points(graph: onnx.GraphProto) -> None:
    """Give each stored weight and bias a zero point of its own; the exporter lets layers of one size share theirs.

    ONNX Runtime, asked for exact sums on a processor without VNNI, rewrites weights and their zero points as uint8 and
    fails on one that it has rewritten already.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            own = node.input[0].replace(".integers", ".zero_point")
            if own != node.input[2]:
                copied = graph.initializer.add()
                copied.CopyFrom(stored[node.input[2]])
                copied.name = node.input[2] = own


def _rename(graph: onnx.GraphProto) -> None:
    """Call a rounded value after the value it rounds, a weight after its module, and a node after its output."""
    new_names: dict[str, str] = {}
    for node in graph.node:
        source = new_names.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "QuantizeLinear":
            new_names[node.output[0]] = f"{source}_quantized"
        elif node.op_type == "DequantizeLinear":
            stored = source.endswith(".integers")
            new_names[node.output[0]] = source.removesuffix(".integers") if stored else f"{source[:-10]}_rounded"
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new_names.get(name, name)
        node.name = node.output[0]
