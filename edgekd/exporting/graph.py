"""A student as one ONNX graph: sound in, class probabilities `(batch, K)` float32 out.

onnxsim sees the float graph only: a simplifier may fold int8 weights back into float32, so nothing simplifies a graph
that has Q/DQ in it. The exporter's own clean-up leaves those operators alone.

The same student gives the same bytes: names come from the modules, and nothing of the exporting machine is kept. Nodes
of the front end are called `frontend/...`, those of a module `network.blocks.0/...`.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from edgekd import __version__
from edgekd.config import FrontendConfig
from edgekd.errors import GateError
from edgekd.exporting.deployable import Deployable, DeployableModule, integer_module
from edgekd.exporting.operators import lowered
from edgekd.exporting.targets import Batch, LogMelPlace, Target
from edgekd.models.students.student import Student
from edgekd.quantization.fake_quant import FlavourName
from edgekd.quantization.prepare import QuantizedNetwork

if TYPE_CHECKING:
    import onnx

INPUTS: dict[LogMelPlace, str] = {"graph": "waveform", "external": "log_mel"}
OUTPUT = "probabilities"
FRONT_END = "frontend/"  # how the names of its nodes begin
OPSETS = range(13, 21)  # per-channel DequantizeLinear is of 13; above 20 ONNX Runtime fails on zero-point-0 graphs
_EXPORTER_LOWEST = 18
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node comes from, outermost first
_TRACED_BATCH = 2  # any batch but 0 and 1, which the exporter would take for constants


@dataclass(frozen=True)
class Form:
    """What a graph looks like from outside.

    `log_mel`: "graph", waveforms in, or "external", log-mels in. `batch`: "dynamic", or 1 for a fixed shape.
    """

    opset: int = 20
    log_mel: LogMelPlace = "graph"
    batch: Batch = "dynamic"

    @classmethod
    def of(cls, target: Target) -> Form:
        """What a target asks for."""
        return cls(target.opset, target.frontend, target.batch)


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
        return float_onnx(student, samples, form, half=deployable.precision == "fp16")
    return quantized_onnx(student, deployable.network, samples, flavour, form)


def float_onnx(student: Student, clip_samples: int, form: Form = Form(), *, half: bool = False) -> bytes:
    """The float student as an ONNX model, its network in float16 where `half`.

    `clip_samples` is the length of a waveform. Raises `GateError` for what the operator set of `form` lacks.
    """
    import onnx
    import onnxsim

    shape = input_shape(student.frontend.config, clip_samples, form.log_mel)
    model = _export(DeployableModule(student, student.network, form.log_mel, half=half), shape, form)
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
    shape = input_shape(student.frontend.config, clip_samples, form.log_mel)
    model = _export(integer_module(student, network, flavour, form.log_mel), shape, form)
    return _serialised(lowered(model, form.opset), {"edgekd.precision": "int8", "edgekd.flavour": flavour})


def input_shape(config: FrontendConfig, clip_samples: int, log_mel: LogMelPlace) -> tuple[int, ...]:
    """Shape of one input, without the batch: `(S,)`, or `(1, T, F)` for a log-mel."""
    if log_mel == "graph":
        return (clip_samples,)
    return (1, *config.shape(clip_samples))


def log_mel_nodes(model_bytes: bytes) -> list[str]:
    """Names of the operators of the log-mel: those that must stay in float32 whatever the rest is built in."""
    import onnx

    nodes = onnx.load_from_string(model_bytes).graph.node
    rounding = ("QuantizeLinear", "DequantizeLinear")
    return [node.name for node in nodes if node.name.startswith(FRONT_END) and node.op_type not in rounding]


def _export(module: DeployableModule, shape: tuple[int, ...], form: Form) -> onnx.ModelProto:
    if form.opset not in OPSETS:
        raise ValueError(f"opset {form.opset} is not one of {OPSETS.start} to {OPSETS.stop - 1}")
    example = torch.zeros(1 if form.batch == 1 else _TRACED_BATCH, *shape)
    shapes = None if form.batch == 1 else {"sound": {0: torch.export.Dim("batch")}}
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=max(form.opset, _EXPORTER_LOWEST),
                input_names=[INPUTS[form.log_mel]],
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as failure:
            raise _not_exported(failure) from None
    assert program is not None
    model = program.model_proto
    _join_padding(model.graph)
    _name_after_modules(model.graph)
    return model


def _not_exported(failure: BaseException) -> GateError:
    """What PyTorch's exporter stumbled over, in one line of the pages that it writes."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    words = (str(failure).strip() or type(failure).__name__).splitlines()[0]
    operator = re.search(r"No ONNX function found for .*?op='([^']+)'", words)
    told = f"it has no ONNX for {operator[1]}" if operator else words.rstrip(".")[:300]
    return GateError(
        f"PyTorch's exporter cannot write the student as an ONNX graph: {told}. Build the student of layers that ONNX"
        " has."
    )


def _join_padding(graph: onnx.GraphProto) -> None:
    """Give a convolution the zeros that are put round its input just before, more on one side than on the other.

    PyTorch's convolution has no such padding, ONNX's has; a Pad between integers would be computed in float.
    """
    import onnx
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    joined = []
    for node in graph.node:
        pad = made.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.op_type != "Pad" or readers[pad.output[0]] > 1 or not _pads_zeros(pad, stored):
            continue
        amounts = numpy_helper.to_array(stored[pad.input[1]]).tolist()
        half = len(amounts) // 2
        if any((*amounts[:2], *amounts[half : half + 2])):  # of batch and channels
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        own = list(attributes["pads"].ints) if "pads" in attributes else [0] * (2 * (half - 2))
        outer = [*amounts[2:half], *amounts[half + 2 :]]
        kept = [attribute for name, attribute in attributes.items() if name not in ("pads", "auto_pad")]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(onnx.helper.make_attribute("pads", [a + b for a, b in zip(own, outer, strict=True)]))
        node.input[0] = pad.input[0]
        joined.append(pad)
    for pad in joined:
        graph.node.remove(pad)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _pads_zeros(pad: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether `pad` puts known numbers of zeros round all axes."""
    from onnx import numpy_helper

    modes = [attribute.s for attribute in pad.attribute if attribute.name == "mode"]
    if modes not in ([], [b"constant"]) or pad.input[1] not in stored or len(pad.input) > 3:
        return False
    value = pad.input[2] if len(pad.input) > 2 else ""
    return not value or (value in stored and not numpy_helper.to_array(stored[value]).any())


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
