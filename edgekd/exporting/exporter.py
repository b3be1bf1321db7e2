"""PyTorch's own exporter, for students that have a layer which `edgekd.exporting.onnx_writer` does not know.

onnxsim sees the float graph only: a simplifier may fold int8 weights back into float32, so nothing simplifies a graph
that has Q/DQ in it. The exporter's own clean-up leaves those operators alone.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from edgekd.errors import GateError
from edgekd.exporting.deployable import DeployableModule

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node comes from, outermost first
_TRACED_BATCH = 2  # any batch but 0 and 1, which the exporter would take for constants


def export_module(
    module: DeployableModule, shape: tuple[int | None, ...], opset: int, names: Sequence[str]
) -> onnx.ModelProto:
    """The graph of `module` in operator set `opset`, 18 or later, for one input of `shape`.

    `names`: of the input and the outputs. A first size of None is any batch. Raises `GateError` for an operator that
    the exporter has no ONNX for.
    """
    example = torch.zeros([_TRACED_BATCH if size is None else size for size in shape])
    shapes = {"sound": {0: torch.export.Dim("batch")}} if shape[0] is None else None
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[names[0]],
                output_names=list(names[1:]),
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


def simplified(model: onnx.ModelProto, *, half: bool) -> onnx.ModelProto:
    """A float graph with what is constant computed, and what does nothing left out."""
    import onnx
    import onnxsim

    simpler, same = onnxsim.simplify(model)
    if not same and not half:  # it compares at float32's tolerance
        raise AssertionError("onnxsim changed the outputs of the float graph")
    return onnx.shape_inference.infer_shapes(simpler)


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
    rename_values(graph, new_names)
    graph.ClearField("value_info")  # names of before; shapes are inferred again where they are needed


def rename_values(graph: onnx.GraphProto, new_names: Mapping[str, str]) -> None:
    """Call values, wherever they are made or taken, by their new names; others keep theirs."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new_names.get(name, name)
