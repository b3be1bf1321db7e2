#!/usr/bin/env bash
# TensorRT for RTX builds an int8 convolution for Turing in float32, and says nothing; an int8 product it refuses, as a
# float32 one.
#
# Expected: GPUs of compute capability 7.5 have tensor cores for int8, and they are among those it builds for: a Q/DQ
# model gives an int8 engine, or is refused as int8.
# Seen (TensorRT for RTX 1.7.1.116, built ahead of time, which needs no GPU): a quantized convolution is Int8 for 8.6
# and Float for 7.5, without a warning, and the engine is larger. A quantized MatMul is Int8 for 8.6; for 7.5 the build
# ends in "FP32 GEMM is not supported", though no product of the model is float32. The same in float16 builds for both.
# Matters: an int8 model loses there what int8 is for, and a search for the float32 product finds none. Give Turing the
# float16 model, and look at the layers' types.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 tensorrt-rtx-cu13-{bindings,libs}==1.7.1.116
cd "$work"
cat >builds.py <<'PY'
import re
import sys

import numpy as np
import onnx
import tensorrt_rtx_bindings as tensorrt
from onnx import TensorProto, helper, numpy_helper


class Log(tensorrt.ILogger):
    def __init__(self):
        super().__init__()
        self.messages = []

    def log(self, severity, message):
        self.messages.append((severity, message))


def quantized(operator, x, y, weight, **attributes):
    """One operator between a quantized input and a quantized weight."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "step", "zero"], ["w"]),
        helper.make_node(operator, ["d", "w"], ["y"], **attributes),
    ]
    values = np.random.default_rng(0).integers(-127, 128, weight).astype("int8")
    return model(nodes, x, y, scale=np.float32(0.05), step=np.float32(0.01), zero=np.int8(0), weight=values)


def half(x, y, weight):
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "weight"], ["p"]),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    return model(nodes, x, y, weight=np.random.default_rng(0).standard_normal(weight).astype("float16"))


def model(nodes, x, y, **stored):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


log = Log()
builder = tensorrt.Builder(log)


def build(content, capability):
    """Bytes of the engine (None where it is refused), types of convolution or product, warnings and errors."""
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    assert parser.parse(content)
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(capability, 0)
    log.messages.clear()
    engine = builder.build_serialized_network(network, config)
    layers = "\n".join(message for _, message in log.messages if message.startswith("Layers:\n"))
    types = re.findall(r"LayerType: (?:correlation|gemm), .*?Datatype: (\w+)", layers)
    severe = [message for severity, message in log.messages if severity <= tensorrt.ILogger.Severity.WARNING]
    return engine and engine.nbytes, types, severe


models = {
    "convolution": quantized("Conv", [1, 32, 16, 16], [1, 32, 16, 16], [32, 32, 3, 3], pads=[1, 1, 1, 1]),
    "product": quantized("MatMul", [8, 64], [8, 32], [64, 32]),
    "half product": half([8, 64], [8, 32], [64, 32]),
}
content = models[sys.argv[1]]
# 8.6 first: a build that is refused has effects on the one after it.
ampere, turing = (build(content, getattr(tensorrt.ComputeCapability, name)) for name in ("SM86", "SM75"))
print(sys.argv[1], "8.6:", ampere, "7.5:", turing)
if sys.argv[1] == "convolution":
    assert ampere[1] == ["Int8"] and turing[1] == ["Float"]
    assert turing[0] > 1.2 * ampere[0] and not turing[2]
elif sys.argv[1] == "product":
    assert ampere[1] == ["Int8"]
    assert turing[0] is None and "FP32 GEMM is not supported" in turing[2][0]
else:
    assert ampere[0] and turing[0]
PY
for name in convolution product "half product"; do
    venv/bin/python -I builds.py "$name"
done
