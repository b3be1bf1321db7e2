#!/usr/bin/env bash
# A model in the newest opset of the onnx package runs in onnxruntime as float, and not as int8.
#
# Expected: onnxruntime, which loads opset 28, has the operators of opset 28; or it refuses the opset number.
# Seen (onnx 1.23.2, whose default is opset 28; onnxruntime 1.32.0): Conv, Relu and Pad load at opset 28,
# QuantizeLinear and DequantizeLinear, which 28 changed, do not: "Could not find an implementation for
# QuantizeLinear(28)". Opset 25 runs all of them. The number is refused as a whole only at 29. onnxruntime 1.15.1 is
# the same about opset 19: Conv and Relu load, Pad(19) and Identity(19) do not.
# Matters: an exporter that takes helper.make_model's default gives a float model that works and an int8 model that
# does not load on the newest runtime there is. State the opset, and try the int8 graph.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

STORED = {
    "scale": np.float32(0.1),
    "zero": np.int8(0),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], "int64"),
    "kernel": np.ones((1, 1, 3, 3), "float32"),
}
FLOAT = [("Pad", ["x", "pads"], ["p"]), ("Conv", ["p", "kernel"], ["c"]), ("Relu", ["c"], ["y"])]
INT8 = [("QuantizeLinear", ["x", "scale", "zero"], ["q"]), ("DequantizeLinear", ["q", "scale", "zero"], ["y"])]


def outcome(nodes, opset):
    used = {name for _, inputs, _ in nodes for name in inputs} & set(STORED)
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(np.asarray(STORED[name]), name) for name in sorted(used)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if opset <= onnx.defs.onnx_opset_version():
        onnx.checker.check_model(model, full_check=True)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error)
    return "loads"


print("default opset of onnx", onnx.__version__, "is", onnx.defs.onnx_opset_version())
assert onnx.defs.onnx_opset_version() == 28
for opset in (25, 28, 29):
    print(opset, "float:", outcome(FLOAT, opset)[:90], "int8:", outcome(INT8, opset)[:90])
assert outcome(FLOAT, 25) == outcome(INT8, 25) == "loads"
assert outcome(FLOAT, 28) == "loads"
assert "Could not find an implementation for QuantizeLinear(28)" in outcome(INT8, 28)
assert "ValidateOpsetForDomain" in outcome(FLOAT, 29)
PY
