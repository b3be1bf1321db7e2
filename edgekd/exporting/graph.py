"""A student as one ONNX graph: sound in, class probabilities `(batch, K)` float32 out, and, where the unknown is to be
rejected, `known (batch,)` (`edgekd.exporting.known`).

The layers that students are made of are written here, operator by operator (`onnx_writer`); a student that has another
goes through PyTorch's exporter, in thirty times the time (`exporter`).

The same student gives the same bytes: names come from the modules, and nothing of the exporting machine is kept. Nodes
of the front end are called `frontend/...`, those of a module `network.blocks.0/...`, those of the second output
`known/...`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from edgekd import __version__
from edgekd.config import FrontendConfig
from edgekd.exporting.computed_weights import OPERATORS, with_computed_weights
from edgekd.exporting.deployable import Deployable, DeployableModule, integer_module
from edgekd.exporting.exporter import export_module, rename_values, simplified
from edgekd.exporting.known import KnownScore
from edgekd.exporting.onnx_writer.known import KNOWN_SCOPE
from edgekd.exporting.onnx_writer.sheet import Unknown
from edgekd.exporting.onnx_writer.write import FRONT_END_SCOPE, write
from edgekd.exporting.operators import lowered
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Batch, LogMelPlace, Target
from edgekd.log_mel import ExportLogMel
from edgekd.models.students.student import Student
from edgekd.quantization.fake_quant import FlavourName
from edgekd.quantization.prepare import QuantizedNetwork

if TYPE_CHECKING:
    import onnx

INPUTS: dict[LogMelPlace, str] = {"graph": "waveform", "external": "log_mel"}
OUTPUT, KNOWN_OUTPUT = "probabilities", "known"
FRONT_END, KNOWN = f"{FRONT_END_SCOPE}/", f"{KNOWN_SCOPE}/"  # how the names of their nodes begin
OPSETS = range(13, 21)  # per-channel DequantizeLinear is of 13; above 20 ONNX Runtime fails on zero-point-0 graphs
_UNKNOWN = "edgekd.unwritten"  # metadata of a graph
_LOWEST_WRITTEN = 18  # older ones are made of this


@dataclass(frozen=True)
class Form:
    """What a graph looks like from outside.

    `log_mel`: "graph", waveforms in, or "external", log-mels in. `batch`: "dynamic", or 1 for a fixed shape.
    `computes_weights`: those of the front end are computed when the graph is loaded, not stored.
    """

    opset: int = 20
    log_mel: LogMelPlace = "graph"
    batch: Batch = "dynamic"
    computes_weights: bool = False

    @classmethod
    def of(cls, target: Target) -> Form:
        """What a target asks for."""
        named = target.operators
        computes = RUNTIMES[target.runtime].folds_constants and (not named or set(named) >= OPERATORS)
        return cls(target.opset, target.frontend, target.batch, computes)


def onnx_of(deployable: Deployable, flavour: FlavourName, form: Form = Form()) -> bytes:
    """The ONNX model of `deployable`, in `flavour` where it has integers.

    One that was made before in this process, for another board or for a profile, is not made again: it takes seconds.
    Raises `InputError` when a scale was never calibrated, `GateError` for what the operator set of `form` lacks.
    """
    return _onnx_of(deployable, None if deployable.network is None else flavour, form)


@lru_cache(maxsize=16)
def _onnx_of(deployable: Deployable, flavour: FlavourName | None, form: Form) -> bytes:
    student, samples = deployable.student, deployable.clip_samples
    if deployable.network is None or flavour is None:
        return float_onnx(student, samples, form, half=deployable.precision == "fp16", known=deployable.known)
    return quantized_onnx(student, deployable.network, samples, flavour, form, known=deployable.known)


def float_onnx(
    student: Student, clip_samples: int, form: Form = Form(), *, half: bool = False, known: KnownScore | None = None
) -> bytes:
    """The float student as an ONNX model, its network in float16 where `half`, with the output `known` where it is one.

    `clip_samples` is the length of a waveform. Raises `GateError` for what the operator set of `form` lacks.
    """
    shape = input_shape(student.frontend.config, clip_samples, form.log_mel)
    module = DeployableModule(student, student.network, form.log_mel, half=half, known=known)
    model, unknown = _written(module, shape, form)
    if unknown:
        model = simplified(model, half=half)
    model = _lowered(model, module, form)
    return _serialised(model, {"edgekd.precision": "fp16" if half else "fp32", **unknown})


def quantized_onnx(
    student: Student,
    network: QuantizedNetwork,
    clip_samples: int,
    flavour: FlavourName,
    form: Form = Form(),
    *,
    known: KnownScore | None = None,
) -> bytes:
    """The student with the quantised `network` in place of its own, as an ONNX model in `flavour`.

    Raises `InputError` when a scale in `network` was never calibrated, `GateError` for what the operator set lacks.
    """
    shape = input_shape(student.frontend.config, clip_samples, form.log_mel)
    module = integer_module(student, network, flavour, form.log_mel, known)
    model, unknown = _written(module, shape, form)
    model = _lowered(model, module, form)
    return _serialised(model, {"edgekd.precision": "int8", "edgekd.flavour": flavour, **unknown})


def input_shape(config: FrontendConfig, clip_samples: int, log_mel: LogMelPlace) -> tuple[int, ...]:
    """Shape of one input, without the batch: `(S,)`, or `(1, T, F)` for a log-mel."""
    if log_mel == "graph":
        return (clip_samples,)
    return (1, *config.shape(clip_samples))


def log_mel_nodes(model_bytes: bytes) -> list[str]:
    """Names of the operators of the log-mel: those that must stay in float32 whatever the rest is built in."""
    return _nodes_of(model_bytes, (FRONT_END,))


def known_nodes(model_bytes: bytes) -> list[str]:
    """Names of the operators of the output `known`, which must stay in float32 too."""
    return _nodes_of(model_bytes, (KNOWN, KNOWN_OUTPUT))  # the last is called after what it gives


def _nodes_of(model_bytes: bytes, scopes: tuple[str, ...]) -> list[str]:
    import onnx

    nodes = onnx.load_from_string(model_bytes).graph.node
    rounding = ("QuantizeLinear", "DequantizeLinear")
    return [node.name for node in nodes if node.name.startswith(scopes) and node.op_type not in rounding]


def unwritten(model_bytes: bytes) -> str | None:
    """What the writer did not know of a graph, so that PyTorch's exporter wrote it; None where it knew all."""
    import onnx

    told = {entry.key: entry.value for entry in onnx.load_from_string(model_bytes).metadata_props}
    return told.get(_UNKNOWN)


def _written(module: DeployableModule, shape: tuple[int, ...], form: Form) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph of `module`, and what is to be noted in it where it has a layer that the writer does not know: then it
    is as PyTorch's exporter writes it."""
    try:
        return write(module, *_asked(module, shape, form)), {}
    except Unknown as failure:
        return export_module(module, *_asked(module, shape, form)), {_UNKNOWN: str(failure)}


def _lowered(model: onnx.ModelProto, module: DeployableModule, form: Form) -> onnx.ModelProto:
    """`model` in the operator set of `form`, with weights stored or computed."""
    if form.computes_weights and isinstance(module.frontend, ExportLogMel):
        model = with_computed_weights(model, module.frontend, FRONT_END_SCOPE)
    return lowered(model, form.opset)


def _asked(
    module: DeployableModule, shape: tuple[int, ...], form: Form
) -> tuple[tuple[int | None, ...], int, tuple[str, ...]]:
    """Shape of the input, operator set, names of input and outputs, as `write` and `export_module` take them."""
    if form.opset not in OPSETS:
        raise ValueError(f"opset {form.opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
    batch = 1 if form.batch == 1 else None
    outputs = (OUTPUT,) if module.known is None else (OUTPUT, KNOWN_OUTPUT)
    return (batch, *shape), max(form.opset, _LOWEST_WRITTEN), (INPUTS[form.log_mel], *outputs)


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
    rename_values(graph, new_names)
    for node in graph.node:
        node.name = node.output[0]
