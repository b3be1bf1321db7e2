#!/usr/bin/env bash
# onnxruntime's CPU provider has no Conv for double, though it has MatMul and Gemm, and the checker accepts it.
#
# Expected: double is slow, and works: the standard's Conv takes double, and the provider computes other operators in
# it.
# Seen (onnxruntime 1.32.0 and 1.19.2, onnx 1.23.2): Conv: "NOT_IMPLEMENTED: Could not find an implementation for
# Conv(11)" when it is loaded; MatMul, Gemm, Relu and Softmax run. The full check of onnx passes.
# Matters: a net that was made double for a comparison, or trained so by numpy code, exports without a word and loads
# nowhere.
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

CASES = {
    "Conv": ([1, 1, 5, 5], {"w": np.ones((1, 1, 3, 3))}),
    "MatMul": ([2, 4], {"w": np.ones((4, 3))}),
    "Gemm": ([2, 4], {"w": np.ones((4, 3))}),
    "Relu": ([2, 4], {}),
    "Softmax": ([2, 4], {}),
}


def outcome(operator):
    shape, stored = CASES[operator]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *stored], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None] * len(shape))],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error)
    assert session.run(None, {"x": np.ones(shape)})[0].dtype == np.float64
    return "runs"


seen = {operator: outcome(operator) for operator in CASES}
print(seen)
assert "Could not find an implementation for Conv(11)" in seen.pop("Conv")
assert set(seen.values()) == {"runs"}
PY
