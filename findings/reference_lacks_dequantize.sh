#!/usr/bin/env bash
# onnx.reference runs QuantizeLinear of any opset, and DequantizeLinear from opset 19 on only.
#
# Expected: the standard's own evaluator runs what the standard's checker accepts, and the two operators alike.
# Seen (onnx 1.23.2 and 1.18.0): QuantizeLinear runs at opset 10 to 25. DequantizeLinear at 10, 13 or 18 raises "No
# implementation for operator 'DequantizeLinear' domain '' and version 13, found 19, 21, ...". onnxruntime 1.32.0 runs
# all.
# Matters: int8 models are exported at opset 13 to 17 for older devices; the reference cannot serve as their oracle.
# Raise a copy to opset 19 with onnx.version_converter or by its opset number, which for these two operators changes
# nothing.
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
from onnx.reference import ReferenceEvaluator


def model(opset, both):
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q" if both else "y"])]
    if both:
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT if both else TensorProto.INT8, [3])],
        [numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.int8(0), "zero")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.checker.check_model(made, full_check=True)
    return made


x = np.array([0.05, 0.2, 99], "float32")
for opset in (10, 13, 18, 19, 21):
    assert list(ReferenceEvaluator(model(opset, False)).run(None, {"x": x})[0]) == [0, 2, 127]
    session = onnxruntime.InferenceSession(model(opset, True).SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"x": x})[0], [0, 0.2, 12.7])
    try:
        ReferenceEvaluator(model(opset, True)).run(None, {"x": x})
        runs = True
    except RuntimeError as error:
        runs = False
        assert "No implementation for operator 'DequantizeLinear'" in str(error)
    print("opset", opset, "dequantizes:", runs)
    assert runs == (opset >= 19)
PY
