"""What an ONNX graph costs: parameters, multiply-accumulates (MACs), memory of its activations and how much of it is
moved. For a batch of one.

MACs are those of convolutions and matrix products, the convention by which published models are compared:

    Conv     output elements x input channels of a group x kernel size
    MatMul   output elements x inner dimension              Gemm    the same

An int8 layer, whose weight arrives through a DequantizeLinear, counts like a float one.

Activations are those that a runtime with a layer's usual fusions holds at once, in the order in which the graph lists
its operators: a layer whose activations all come from integers and go to integers writes integers, its ReLU costs
nothing, a reshape moves nothing, and a value is given up after its last use. No runtime promises that figure; it tells
students apart, and whether one can fit at all. Traffic counts by the same rules what each operator reads, weights
included, and writes, as if no cache held anything from one operator to the next.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.exporting.onnx_writer.known import KNOWN_SCOPE

if TYPE_CHECKING:
    import onnx

Shapes = dict[str, tuple[int, ...]]

_AFTER_LOGARITHM = ("Mul", "Add", "AveragePool", "Einsum", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Cast")
_VIEWS = ("DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")  # new name, same memory
_ACTIVATIONS = ("Clip", "Relu")  # done by the layer before


@dataclass(frozen=True)
class GraphCost:
    """Of an ONNX graph. `parameters` and `parameter_bytes`: the weights and biases it stores, not scales and shapes."""

    parameters: int
    parameter_bytes: int
    macs: int


def graph_cost(model: onnx.ModelProto) -> GraphCost:
    """Cost of a graph for a batch of one.

    Raises `ValueError` where a shape that counts does not follow from the input's.
    """
    inferred = with_shapes(model)
    shapes = _shapes(inferred)
    stored = _stored_parameters(inferred)
    return GraphCost(
        parameters=sum(math.prod(tensor.dims) for tensor in stored),
        parameter_bytes=sum(math.prod(tensor.dims) * _item_bytes(tensor.data_type) for tensor in stored),
        macs=sum(_node_macs(node, shapes) for node in inferred.graph.node),
    )


def macs_by_node(model: onnx.ModelProto) -> dict[str, int]:
    """MACs of each convolution and matrix product of a graph, by the name of its node, for a batch of one.

    Raises `ValueError` where a shape that counts does not follow from the input's.
    """
    inferred = with_shapes(model)
    shapes = _shapes(inferred)
    return {node.name: macs for node in inferred.graph.node if (macs := _node_macs(node, shapes))}


def activation_bytes(model: onnx.ModelProto) -> int:
    """The most bytes of activations that a graph holds between two of its operators, for a batch of one.

    Raises `ValueError` where a shape does not follow from the input's.
    """
    inferred = with_shapes(model)
    graph = inferred.graph
    buffer_of, sizes = _buffers(inferred)
    last_use = dict.fromkeys(sizes, -1)
    born = dict.fromkeys(sizes, 0)
    for position, node in enumerate(graph.node):
        for name in node.output:
            if buffer_of.get(name) == name:
                born[name] = position
        for name in (*node.input, *node.output):
            if name in buffer_of:
                last_use[buffer_of[name]] = position
    for value in graph.output:
        last_use[buffer_of[value.name]] = len(graph.node)
    return max(
        sum(size for buffer, size in sizes.items() if born[buffer] <= position <= last_use[buffer])
        for position in range(len(graph.node))
    )


def graph_traffic(model: onnx.ModelProto) -> int:
    """Bytes that all operators of a graph read and write, for a batch of one.

    Raises `ValueError` where a shape does not follow from the input's.
    """
    inferred = with_shapes(model)
    graph = inferred.graph
    buffer_of, sizes = _buffers(inferred)
    stored = {tensor.name: math.prod(tensor.dims) * _item_bytes(tensor.data_type) for tensor in graph.initializer}
    types, shapes = _types(inferred), _shapes(inferred)

    def constant_bytes(name: str) -> int:
        return math.prod(shapes[name]) * _item_bytes(types[name]) if name in shapes else 0

    total = 0
    for node in graph.node:
        if not any(name in buffer_of for name in node.input):
            # Computed from constants alone, when the model is loaded; a weight is read as the integers it is stored as.
            for name in node.output:
                stored[name] = stored[node.input[0]] if node.op_type == "DequantizeLinear" else constant_bytes(name)
            continue
        written = {buffer_of[name] for name in node.output if buffer_of.get(name) == name}
        if written:  # else it is a view, or the layer before does it
            read = {buffer_of.get(name, name) for name in node.input if name}
            total += sum(sizes[name] for name in written) + sum(sizes.get(name, stored.get(name, 0)) for name in read)
    return total


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` for a batch of one, in which every value has its shape."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.shape.dim:  # graphs from elsewhere may leave the output's out
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del copy.graph.value_info[:]  # would keep the batch as a symbol
    return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def split_at_log_mel(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The front end of a graph and its network, each a model of its own with a batch of one.

    The front end ends with the normalised log-mel: the logarithm, the only `Log` of what a student computes for its
    classes, and what
    averages, scales and turns its output before anything else uses it. None where there is no such place.
    """
    from onnx.utils import Extractor

    nodes = (node for node in model.graph.node if node.op_type == "Log")
    logarithms = [node for node in nodes if not node.name.startswith(f"{KNOWN_SCOPE}/")]
    if len(logarithms) != 1:
        return None
    last = logarithms[0]
    while True:
        users = [node for node in model.graph.node if last.output[0] in node.input]
        if len(users) != 1 or users[0].op_type not in _AFTER_LOGARITHM:
            break
        last = users[0]
    cut = last.output[0]
    extractor = Extractor(with_shapes(model))
    inputs, outputs = [model.graph.input[0].name], [model.graph.output[0].name]
    return extractor.extract_model(inputs, [cut]), extractor.extract_model([cut], outputs)


def _written_as_integers(graph: onnx.GraphProto) -> set[str]:
    """Float values that are only rounded and come from a layer that reads integers: never float in memory."""
    constants = {tensor.name for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    users = Counter(name for node in graph.node for name in node.input)

    def is_integer(name: str) -> bool:
        node = maker.get(name)
        return name in constants or (node is not None and node.op_type in ("DequantizeLinear", "Constant"))

    found: set[str] = set()
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        chain = [node.input[0]]
        while chain[-1] in maker and maker[chain[-1]].op_type in _ACTIVATIONS:
            chain.append(maker[chain[-1]].input[0])
        layer = maker.get(chain[-1])
        alone = all(users[name] == 1 for name in chain)
        if layer is not None and alone and all(is_integer(name) for name in layer.input if name):
            found.update(chain)
    return found


def _buffers(model: onnx.ModelProto) -> tuple[dict[str, str], dict[str, int]]:
    """The buffer that holds each value of a graph, constants left out, and the bytes of each buffer."""
    graph = model.graph
    buffer_of = {value.name: value.name for value in graph.input}
    integers = _written_as_integers(graph)
    for node in graph.node:
        source = next((buffer_of[name] for name in node.input if name in buffer_of), None)
        if source is None:
            continue  # computed from constants alone: a constant
        shared = node.op_type in (*_VIEWS, *_ACTIVATIONS) or (
            node.op_type == "QuantizeLinear" and node.input[0] in integers
        )
        for name in node.output:
            buffer_of[name] = source if shared else name
    return buffer_of, _buffer_bytes(model, buffer_of, integers)


def _buffer_bytes(model: onnx.ModelProto, buffer_of: dict[str, str], integers: set[str]) -> dict[str, int]:
    types, shapes = _types(model), _shapes(model)
    sizes = {}
    for buffer in dict.fromkeys(buffer_of.values()):
        if buffer not in shapes:
            raise ValueError(f"the shape of {buffer} does not follow from the input")
        sizes[buffer] = math.prod(shapes[buffer]) * (1 if buffer in integers else _item_bytes(types[buffer]))
    return sizes


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}


def _shapes(model: onnx.ModelProto) -> Shapes:
    graph = model.graph
    shapes: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _node_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    unknown = [name for name in (*node.input[:2], node.output[0]) if name not in shapes]
    if unknown:
        raise ValueError(
            f"{node.op_type} '{node.name}': the shape of {', '.join(unknown)} does not follow from the input"
        )
    outputs = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":
        return outputs * math.prod(shapes[node.input[1]][1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return outputs * shapes[node.input[0]][0 if transposed else -1]


def _stored_parameters(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Initialisers that are weights: not scales and zero points, not indices, shapes and lone constants."""
    import onnx

    rounding = ("QuantizeLinear", "DequantizeLinear")
    scales = {name for node in model.graph.node if node.op_type in rounding for name in node.input[1:]}
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.dims and tensor.name not in scales and tensor.data_type != onnx.TensorProto.INT64
    ]


def _item_bytes(data_type: int) -> int:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
