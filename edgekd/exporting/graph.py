"""A student as one ONNX graph: sound in, class probabilities `(batch, K)` float32 out.

    waveform (batch, samples) -> ExportLogMel (gain, log-mel, batch norm folded in) -> network -> softmax
    log_mel (batch, 1, T, F) in dB -> batch norm -> network -> softmax                   (front end "external")

Three precisions. *fp32* is what a trained student is. *fp16* casts the normalised log-mel and runs the network in half
precision; the front end stays in float32, for its power spectrum spans 1e-10 to beyond 65504. In *int8* every fake
quantiser has become what a runtime executes: a QuantizeLinear and a DequantizeLinear round each activation, and int8
weights with a DequantizeLinear per channel. The front end, the histogram layer, averages, sigmoid and softmax stay in
float, and so do the layers that quantisation was told to leave. Types and zero points follow the flavour
(`edgekd.quantization.fake_quant.FLAVOURS`).

onnxsim sees the float graph only: a simplifier may fold int8 weights back into float32, so nothing simplifies a graph
that has Q/DQ in it. The exporter's own clean-up leaves those operators alone.

The same student gives the same bytes: names come from the modules, and nothing of the exporting machine is kept. Nodes
of the front end are called `frontend/...`, those of a module `network.blocks.0/...`.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgekd import __version__
from edgekd.config import FrontendConfig
from edgekd.errors import InputError
from edgekd.exporting.operators import lowered
from edgekd.exporting.targets import Batch, FrontEnd
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
from edgekd.quantization.prepare import QuantizedNetwork

if TYPE_CHECKING:
    import onnx

INPUTS: dict[FrontEnd, str] = {"graph": "waveform", "external": "log_mel"}
OUTPUT = "probabilities"
FRONT_END = "frontend/"  # how the names of its nodes begin
OPSETS = range(13, 21)  # per-channel DequantizeLinear is of 13; above 20 ONNX Runtime fails on zero-point-0 graphs
_EXPORTER_LOWEST = 18
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node comes from, outermost first
_TRACED_BATCH = 2  # any batch but 0 and 1, which the exporter would take for constants


@dataclass(frozen=True)
class Form:
    """What a graph looks like from outside.

    `frontend`: "graph", waveforms in, or "external", log-mels in. `batch`: "dynamic", or 1 for a fixed shape.
    """

    opset: int = 20
    frontend: FrontEnd = "graph"
    batch: Batch = "dynamic"


def float_onnx(student: Student, clip_samples: int, form: Form = Form(), *, half: bool = False) -> bytes:
    """The float student as an ONNX model, its network in float16 where `half`.

    `clip_samples` is the length of a waveform. Raises `GateError` for what the operator set of `form` lacks.
    """
    import onnx
    import onnxsim

    shape = input_shape(student.frontend.config, clip_samples, form.frontend)
    model = _export(Deployable(student, student.network, form.frontend, half=half), shape, form)
    simplified, same = onnxsim.simplify(model)
    if not same and not half:  # it compares at float32's tolerance
        raise AssertionError("onnxsim changed the outputs of the float graph")
    precision = "fp16" if half else "fp32"
    older = lowered(onnx.shape_inference.infer_shapes(simplified), form.opset)
    return _serialised(older, {"edgekd.precision": precision})


def quantized_onnx(
    student: Student, network: QuantizedNetwork, clip_samples: int, flavour: FlavourName, form: Form = Form()
) -> bytes:
    """The student with the quantised `network` in place of its own, as an ONNX model in `flavour`.

    Raises `InputError` when a scale in `network` was never calibrated, `GateError` for what the operator set lacks.
    """
    integers = _with_integers(network, FLAVOURS[flavour])
    shape = input_shape(student.frontend.config, clip_samples, form.frontend)
    turn = _turned_by_einsum if flavour == "onnxruntime" else turned
    model = _export(Deployable(student, integers, form.frontend, turn=turn), shape, form)
    return _serialised(lowered(model, form.opset), {"edgekd.precision": "int8", "edgekd.flavour": flavour})


def input_shape(config: FrontendConfig, clip_samples: int, frontend: FrontEnd) -> tuple[int, ...]:
    """Shape of one input, without the batch: `(S,)`, or `(1, T, F)` for a log-mel."""
    if frontend == "graph":
        return (clip_samples,)
    return (1, clip_samples // config.hop_length + 1, config.n_mels)


def frontend_nodes(model_bytes: bytes) -> list[str]:
    """Names of the front end's operators: those that must stay in float32 whatever the rest is built in."""
    import onnx

    nodes = onnx.load_from_string(model_bytes).graph.node
    rounding = ("QuantizeLinear", "DequantizeLinear")
    return [node.name for node in nodes if node.name.startswith(FRONT_END) and node.op_type not in rounding]


class Deployable(nn.Module):
    """What is shipped: waveform `(B, S)`, or log-mel `(B, 1, T, F)` in dB, -> probabilities `(B, K)`."""

    def __init__(
        self,
        student: Student,
        network: nn.Module,
        frontend: FrontEnd = "graph",
        *,
        half: bool = False,
        turn: Callable[[Tensor], Tensor] = turned,
    ) -> None:
        super().__init__()
        scale, shift = _affine(student.norm)
        config, sample_rate = student.frontend.config, student.frontend.sample_rate
        if frontend == "graph":
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
        logits, _ = self.network(log_mel.half() if self.half_precision else log_mel)
        return logits.float().softmax(dim=1)


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
    """A rounded activation on its way to a layer that stays in float, out of ONNX Runtime's sight.

    Where it finds such a layer between DequantizeLinear and QuantizeLinear it quantises the weight itself, with a scale
    of its own. A maximum with the lowest number changes nothing and hides the DequantizeLinear.
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
    if flavour.name == "onnxruntime":
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


def _export(module: Deployable, shape: tuple[int, ...], form: Form) -> onnx.ModelProto:
    if form.opset not in OPSETS:
        raise ValueError(f"opset {form.opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
    example = torch.zeros(1 if form.batch == 1 else _TRACED_BATCH, *shape)
    shapes = None if form.batch == 1 else {"sound": {0: torch.export.Dim("batch")}}
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=max(form.opset, _EXPORTER_LOWEST),
            input_names=[INPUTS[form.frontend]],
            output_names=[OUTPUT],
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_after_modules(model.graph)
    return model


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

    _unshare(model.graph)
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


def _name_after_modules(graph: onnx.GraphProto) -> None:
    """Call each value after the module that makes it: `network.stem.0/conv`, a second one `network.stem.0/conv_2`."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    taken: Counter[str] = Counter()
    new_names: dict[str, str] = {}
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        *modules, _ = ast.literal_eval(scopes) or [""]
        stem = f"{(modules and modules[-1]) or 'network'}/{node.op_type.lower()}"
        for name in node.output:
            taken[stem] += 1
            if name and name not in kept:
                new_names[name] = stem if taken[stem] == 1 else f"{stem}_{taken[stem]}"
    _rename_values(graph, new_names)
    graph.ClearField("value_info")  # names of before; shapes are inferred again where they are needed


def _unshare(graph: onnx.GraphProto) -> None:
    """Give each stored weight and bias integers, scales and zero points of its own.

    The exporter lets constants of one shape and value share a tensor: zero points, and a bias of zeros with its zero
    points. ONNX Runtime, asked for exact sums on a processor without VNNI, rewrites weights and their zero points as
    uint8 and fails on one that it has rewritten already.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    own = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            module, _, _ = node.output[0].rpartition("/")
            for place, part in enumerate(("integers", "scale", "zero_point")):
                copied = own[f"{module}.{part}"] = type(stored[node.input[place]])()
                copied.CopyFrom(stored[node.input[place]])
                copied.name = node.input[place] = f"{module}.{part}"
    used = {name for node in graph.node for name in node.input}
    others = [tensor for name, tensor in stored.items() if name in used and name not in own]
    del graph.initializer[:]
    graph.initializer.extend([*others, *own.values()])


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
    _rename_values(graph, new_names)
    for node in graph.node:
        node.name = node.output[0]


def _rename_values(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new_names.get(name, name)
