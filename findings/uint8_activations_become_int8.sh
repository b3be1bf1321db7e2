#!/usr/bin/env bash
# NVIDIA's ONNX parser takes QuantizeLinear without a zero point as INT8, where the standard says uint8.
#
# Expected: as in ONNX (and onnxruntime), a missing zero point and output type give uint8, 0 to 255; or a refusal.
# Seen (TensorRT for RTX 1.7.1.116, its parser alone, which needs no GPU): parse() is true, the layer's output is
# INT8, and no warning comes. With an explicit uint8 zero point of 0 it is INT8, too, with the warning "Defaulting to
# INT8 instead". onnxruntime 1.32.0 gives 20.0 for 20.0 at a scale of 0.1 (step 200), which INT8 ends at 12.7.
# Matters: activations after a ReLU, calibrated to 0..255 steps, lose their upper half; a model that was verified with
# onnxruntime loses accuracy on the GPU without a word. Calibrate to symmetric int8 with a stored zero point for this
# backend.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    numpy==2.4.6 onnx==1.23.2 tensorrt-rtx-cu13-{bindings,libs}==1.7.1.116 onnxruntime==1.32.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
import tensorrt_rtx_bindings as tensorrt
from onnx import TensorProto, helper, numpy_helper


class Log(tensorrt.ILogger):
    def __init__(self):
        super().__init__()
        self.warnings = []

    def log(self, severity, message):
        if severity == tensorrt.ILogger.Severity.WARNING:
            self.warnings.append(message)


def model(zero):
    names = ["scale", "zero"] if zero is not None else ["scale"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *names], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *names], ["y"]),
    ]
    stored = {"scale": np.float32(0.1), "zero": zero}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(stored[name]), name) for name in names],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


log = Log()
builder = tensorrt.Builder(log)


def parsed(content):
    """The type that the QuantizeLinear has, and the warnings."""
    log.warnings.clear()
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    assert parser.parse(content)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    (kind,) = [layer.get_output(0).dtype for layer in layers if layer.type == tensorrt.LayerType.QUANTIZE]
    return kind, " ".join(log.warnings)


none, stated = model(None), model(np.uint8(0))
session = onnxruntime.InferenceSession(none, providers=["CPUExecutionProvider"])
onnx_says = session.run(None, {"x": np.array([[20, 0, 0, 0]], "float32")})[0][0, 0]
print("onnxruntime:", onnx_says, "parser:", parsed(none), "with a zero point:", parsed(stated))
assert abs(onnx_says - 20) < 1e-4
kind, warnings = parsed(none)
assert kind == tensorrt.DataType.INT8 and "INT8" not in warnings
kind, warnings = parsed(stated)
assert kind == tensorrt.DataType.INT8 and "Defaulting to INT8 instead" in warnings
PY
