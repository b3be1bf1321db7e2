"""What a classifier costs: parameters, multiply-accumulates (MACs) of one clip, bytes.

MACs are those of convolutions and matrix products, the convention by which published models are compared; element-wise
work, pooling and the FFT of a PyTorch front end are left out. PyTorch modules are counted by torch's own
`FlopCounterMode` while they run (a MAC is two FLOPs). An ONNX file is counted by a walk over its graph:

    Conv     output elements x input channels of a group x kernel size
    MatMul   output elements x inner dimension              Gemm    the same

where an int8 layer, whose weight arrives through a DequantizeLinear, counts like a float one. Batch 1 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx

Shapes = dict[str, tuple[int, ...]]

_AFTER_LOGARITHM = ("Mul", "Add", "Transpose", "Unsqueeze", "Reshape")


@dataclass(frozen=True)
class Cost:
    """Of one subject. `macs` are the network's on one clip, `frontend_macs` those of the log-mel before it.

    `frontend_macs` is None where the front end is an FFT, which has none to count.
    """

    parameters: int
    macs: int
    frontend_macs: int | None
    file_bytes: int

    def to_dict(self) -> dict[str, int | None]:
        return asdict(self)


@dataclass(frozen=True)
class GraphCost:
    """Of an ONNX graph. `parameters` and `parameter_bytes`: the weights and biases it stores, not scales and shapes."""

    parameters: int
    parameter_bytes: int
    macs: int


def module_parameters(module: nn.Module) -> int:
    """Learned numbers in `module`."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def module_macs(module: Callable[[Tensor], object], example: Tensor) -> int:
    """MACs of `module(example)`; every convolution and matrix product that PyTorch runs in it counts."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # The counter has no formula for the CPU's fused attention; the plain one is matrix products.
    with sdpa_kernel(SDPBackend.MATH), counter:
        module(example)
    return counter.get_total_flops() // 2


def graph_cost(model: onnx.ModelProto) -> GraphCost:
    """Cost of a graph for a batch of one.

    Raises `ValueError` where a shape that counts does not follow from the input's.
    """
    inferred = with_shapes(model)
    shapes = _shapes(inferred)
    stored = _stored_parameters(inferred)
    return GraphCost(
        parameters=sum(math.prod(tensor.dims) for tensor in stored),
        parameter_bytes=sum(math.prod(tensor.dims) * _item_bytes(tensor) for tensor in stored),
        macs=sum(_node_macs(node, shapes) for node in inferred.graph.node),
    )


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` for a batch of one, in which every value has its shape."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del copy.graph.value_info[:]  # would keep the batch as a symbol
    return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def split_at_log_mel(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The front end of a graph and its network, each a model of its own with a batch of one.

    The front end ends with the normalised log-mel: the logarithm, the only `Log` of a student's graph, and what scales
    and turns its output before anything else uses it. None where there is no such place.
    """
    from onnx.utils import Extractor

    logarithms = [node for node in model.graph.node if node.op_type == "Log"]
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


def _item_bytes(tensor: onnx.TensorProto) -> int:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
