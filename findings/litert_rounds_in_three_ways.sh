#!/usr/bin/env bash
# LiteRT rounds a value half-way between two int8 steps in three ways, by operator and by set of kernels.
#
# Expected: one rule in one runtime; the specification of int8 (and ONNX) says nearest, and ONNX ties to even.
# Seen (ai-edge-litert 2.3.0): QUANTIZE from float takes ties to even with the default kernels, and away from zero
# with the reference kernels, those that LiteRT for microcontrollers is built on. QUANTIZE from int8 to int8 of twice
# the scale takes ties up (-1 step becomes 0, 1 becomes 1), AVERAGE_POOL_2D away from zero, with both.
# Matters: scores of a model checked on a desk differ in the last step on the microcontroller, first of all for 16-bit
# audio and mel values on a coarse grid, where ties are common. Compare within a step, and not for equality.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cd "$work"
venv/bin/python -I - <<'PY'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def tensor(kind, shape, scale):
    made = schema.TensorT()
    made.type, made.shape, made.buffer, made.name = kind, shape, 0, b"tensor"
    if scale:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
    return made


def model(operator, version, options_type, options, before, after):
    code, node, graph, made = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = operator, operator, version
    node.opcodeIndex, node.inputs, node.outputs = 0, [0], [1]
    node.builtinOptionsType, node.builtinOptions = options_type, options
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [before, after], [node], [0], [1]
    made.version, made.operatorCodes, made.subgraphs, made.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(content, values):
    results = {}
    for kernels in ("AUTO", "BUILTIN_REF"):
        interpreter = Interpreter(
            model_content=content, experimental_op_resolver_type=getattr(OpResolverType, kernels)
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
        interpreter.invoke()
        results[kernels] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel().tolist()
    return results


INT8, FLOAT = schema.TensorType.INT8, schema.TensorType.FLOAT32
QUANTIZE = (schema.BuiltinOperator.QUANTIZE, 1, schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT())
ties = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], "float32")
floats = run(model(*QUANTIZE, tensor(FLOAT, [6], None), tensor(INT8, [6], 1.0)), ties)
print("float to int8:", floats)
assert floats == {"AUTO": [-2, -2, 0, 0, 2, 2], "BUILTIN_REF": [-3, -2, -1, 1, 2, 3]}
odd = np.array([-5, -3, -1, 1, 3, 5], "int8")
halved = run(model(*QUANTIZE, tensor(INT8, [6], 1.0), tensor(INT8, [6], 2.0)), odd)
print("int8 to int8 of twice the scale:", halved)
assert halved["AUTO"] == halved["BUILTIN_REF"] == [-2, -1, 0, 1, 2, 3]
pool = schema.Pool2DOptionsT()
pool.padding, pool.strideW, pool.strideH, pool.filterWidth, pool.filterHeight = schema.Padding.VALID, 1, 2, 1, 2
POOL = (schema.BuiltinOperator.AVERAGE_POOL_2D, 2, schema.BuiltinOptions.Pool2DOptions, pool)
pairs = np.stack([odd, np.zeros(6, "int8")], 1).reshape(1, 12, 1, 1)  # each value next to a zero
means = run(model(*POOL, tensor(INT8, [1, 12, 1, 1], 1.0), tensor(INT8, [1, 6, 1, 1], 1.0)), pairs)
print("mean of two int8:", means)
assert means["AUTO"] == means["BUILTIN_REF"] == [-3, -2, -1, 1, 2, 3]
PY
