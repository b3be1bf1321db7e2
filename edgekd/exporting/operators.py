"""What of ONNX a target's runtime reads: its operators, and how new an operator set.

The exporter writes operator sets 18 to 20. TensorRT's parsers before 10 read older ones, and do not say so: they take a
`ReduceMean` whose axes are an input, as they are from 18 on, for one over all axes. `lowered` writes such graphs in the
older set that the target names. What an operator means in one set is decided by onnx's own schemas and checker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.errors import GateError
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Target

if TYPE_CHECKING:
    import onnx

_LOWEST_CONVERTED = 18  # onnx's converter knows no way below it for Pad and reductions
_ALLOWS_ZERO = 14  # Reshape takes a zero literally, if told to, from here on


def check_operators(model: onnx.ModelProto | bytes, target: Target) -> None:
    """Raise `GateError` naming the first operator of `model` that is not among `target.operators`, and its node."""
    if not target.operators:
        return
    for node in _parsed(model).graph.node:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if kind not in target.operators:
            runtime = RUNTIMES[target.runtime].describe(target)
            raise GateError(
                f"Operator {kind} (node '{node.name}') is not among those that target '{target.name}' names for"
                f" {runtime}. Build the student of other layers, or, if the device does have it, add it to 'operators'"
                " in a copy of the target's TOML."
            )


def check_opset(model: onnx.ModelProto | bytes, target: Target) -> None:
    """Raise `GateError` where `model` is written in a newer operator set than `target.opset`, or in one not ONNX's."""
    for entry in _parsed(model).opset_import:
        if entry.domain not in ("", "ai.onnx"):
            raise GateError(
                f"The graph uses operators of '{entry.domain}', which target '{target.name}' does not have. Build the"
                " student of layers that ONNX has."
            )
        if entry.version > target.opset:
            raise GateError(
                f"The graph is written in opset {entry.version}; target '{target.name}' reads up to {target.opset}"
                " (opset). Export it again for this target."
            )


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same graph written in operator set `opset`, 13 or later; as it is where it is no newer.

    Raises `GateError` for an operator that means something else there, or is not there at all.
    """
    import onnx
    from onnx import version_converter

    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if written <= opset:
        return model
    older = version_converter.convert_version(model, max(opset, _LOWEST_CONVERTED))
    if opset < _LOWEST_CONVERTED:
        for node in older.graph.node:
            _write_in(node, opset, older.graph)
        older.opset_import[0].version = opset
        older.ir_version = onnx.helper.find_min_ir_version_for(older.opset_import)
        used = {name for node in older.graph.node for name in node.input}
        kept = [tensor for tensor in older.graph.initializer if tensor.name in used]
        del older.graph.initializer[:]
        older.graph.initializer.extend(kept)
    older.graph.ClearField("value_info")
    try:
        onnx.checker.check_model(older, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as failure:
        reason = str(failure).splitlines()[0].rstrip(".")
        raise GateError(f"The graph cannot be written in opset {opset}: {reason}. Choose a newer target.") from None
    return older


def _write_in(node: onnx.NodeProto, opset: int, graph: onnx.GraphProto) -> None:
    """Turn a node of opset 18 into one of `opset`, as far as the operators of students go."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    reduces = node.op_type.startswith("Reduce") and node.op_type != "ReduceSum"  # whose axes are an input since 13
    if reduces and len(node.input) > 1:
        if node.input[1] not in constants:
            raise GateError(f"{node.op_type} '{node.name}' computes its axes, which opset {opset} cannot express.")
        axes = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
        del node.input[1:]
        kept = [entry for entry in node.attribute if entry.name != "noop_with_empty_axes"]  # they are not empty
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("axes", axes)])
    for entry in list(node.attribute):
        if node.op_type == "Reshape" and entry.name == "allowzero" and opset < _ALLOWS_ZERO:
            shape = constants.get(node.input[1])
            if entry.i and (shape is None or 0 in onnx.numpy_helper.to_array(shape)):
                raise GateError(f"Reshape '{node.name}' may make an empty tensor, which opset {opset} cannot express.")
            node.attribute.remove(entry)


def _parsed(model: onnx.ModelProto | bytes) -> onnx.ModelProto:
    import onnx

    return onnx.load_model_from_string(model) if isinstance(model, bytes) else model
