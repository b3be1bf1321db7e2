#!/usr/bin/env bash
# OpenVINO returns a DFT of real input with one axis more than ONNX says.
#
# Expected: [1, 64, 1] becomes [1, 33, 2], as the model's output states, and as onnxruntime and onnx.reference give.
# Seen (OpenVINO 2026.4.1, CPU): [1, 33, 1, 2], loaded without an error although the model's own output has another
# rank; the numbers are right. STFT is right, too.
# Matters: what comes after the transform addresses axes by number; a mean over "frequency" is one over something
# else, or broadcasting makes a larger array of it, and there is no error.
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

graph = helper.make_graph(
    [helper.make_node("DFT", ["x"], ["y"], axis=1, onesided=1)],
    "dft",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 1])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 33, 2])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "dft.onnx")
x = np.random.default_rng(0).standard_normal((1, 64, 1)).astype("float32")
plain = onnxruntime.InferenceSession("dft.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
compiled = openvino.Core().compile_model("dft.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
other = compiled(x)[0]
print("onnxruntime:", plain.shape, "OpenVINO:", other.shape)
assert plain.shape == (1, 33, 2)
assert other.shape == (1, 33, 1, 2)
assert np.allclose(other[:, :, 0], plain, atol=1e-4)
PY
