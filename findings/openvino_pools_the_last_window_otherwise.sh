#!/usr/bin/env bash
# OpenVINO and onnxruntime divide the last window of an average pooling with ceil_mode by different numbers.
#
# Expected: count_include_pad counts the padding that is asked for, and not what ceil_mode reads past it.
# Seen (OpenVINO 2026.4.1 and onnxruntime 1.32.0, CPU, float32): 6 ones, kernel 3, stride 2, one pad on each side,
# ceil_mode: the last window holds one value, one pad, and one place past it. onnxruntime and onnx.reference 1.23.2
# divide by 2 (0.5), OpenVINO by 3 (0.333). All other windows agree.
# Matters: pooling over time with ceil_mode is common for clips of any length; the last frame is weighted otherwise,
# and with few frames that moves scores far more than int8 does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

graph = helper.make_graph(
    [
        helper.make_node(
            "AveragePool",
            ["x"],
            ["y"],
            kernel_shape=[3],
            strides=[2],
            pads=[1, 1],
            ceil_mode=1,
            count_include_pad=1,
        )
    ],
    "pool",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 6])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "pool.onnx")
x = np.ones((1, 1, 6), "float32")
results = {
    "onnxruntime": onnxruntime.InferenceSession("pool.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[
        0
    ],
    "onnx.reference": ReferenceEvaluator(model).run(None, {"x": x})[0],
    "OpenVINO": openvino.Core().compile_model("pool.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0],
}
for name, result in results.items():
    print(name, result.ravel())
assert np.allclose(results["onnxruntime"], results["onnx.reference"])
assert np.allclose(results["onnxruntime"].ravel()[:3], results["OpenVINO"].ravel()[:3])
assert np.allclose(results["onnxruntime"].ravel()[3], 1 / 2)
assert np.allclose(results["OpenVINO"].ravel()[3], 1 / 3)
PY
