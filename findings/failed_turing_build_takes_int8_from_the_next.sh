#!/usr/bin/env bash
# After a build that TensorRT for RTX refuses, the next engine of the process has its int8 convolutions in float32.
#
# Expected: a build that fails leaves nothing behind; the next one, with its own network and configuration, is what it
# would be in a fresh process.
# Seen (TensorRT for RTX 1.7.1.116, built ahead of time, which needs no GPU): a Q/DQ model of four convolutions and a
# float32 product is refused for compute capability 7.5 ("FP32 GEMM is not supported"). The build for 8.6 after it
# succeeds, without a warning, and is larger by 30 %: its four convolutions are Float where a build without the refused
# one before it has Int8. The build after that is right again.
# Matters: a script that builds for a list of GPUs and goes on past a refusal ships one engine that is larger and
# computes in float32, under the name of int8. Build each in a process of its own, and look at the layers' types.
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


def model():
    random = np.random.default_rng(0)
    stored = {"scale": np.float32(0.05), "step": np.float32(0.01), "zero": np.int8(0)}
    nodes = []
    value = "x"
    for index in range(4):
        stored[f"kernel{index}"] = random.integers(-127, 128, (32, 32, 3, 3)).astype("int8")
        nodes += [
            helper.make_node("QuantizeLinear", [value, "scale", "zero"], [f"q{index}"]),
            helper.make_node("DequantizeLinear", [f"q{index}", "scale", "zero"], [f"d{index}"]),
            helper.make_node("DequantizeLinear", [f"kernel{index}", "step", "zero"], [f"k{index}"]),
            helper.make_node("Conv", [f"d{index}", f"k{index}"], [f"c{index}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        value = f"r{index}"
    stored["matrix"] = random.standard_normal((16, 8)).astype("float32")
    nodes.append(helper.make_node("MatMul", [value, "matrix"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32, 16, 8])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


log = Log()
builder = tensorrt.Builder(log)
content = model()


def build(capability):
    """Bytes of the engine (None where it is refused), types of its convolutions and product, warnings and errors."""
    log.messages.clear()
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


TURING, AMPERE = tensorrt.ComputeCapability.SM75, tensorrt.ComputeCapability.SM86
if sys.argv[1] == "alone":
    alone = build(AMPERE)
    print("8.6 alone:", alone)
    assert alone[1] == ["Int8"] * 4 + ["Float"]
else:
    turing, second, third = build(TURING), build(AMPERE), build(AMPERE)
    print("7.5:", turing, "then 8.6:", second, "and again:", third)
    assert turing[0] is None and "FP32 GEMM is not supported" in turing[2][0]
    assert second[1] == ["Float"] * 5 and not second[2]
    assert third[1] == ["Int8"] * 4 + ["Float"] and not third[2]
    assert second[0] > 1.2 * third[0]
PY
venv/bin/python -I builds.py alone
venv/bin/python -I builds.py after
