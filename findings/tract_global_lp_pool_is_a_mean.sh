#!/usr/bin/env bash
# tract divides a GlobalLpPool by the number of values: it is a mean where ONNX has a sum.
#
# Expected: for p=2 the root of the sum of squares, as the standard says, and as tract's own ReduceL2 gives.
# Seen (tract 0.23.9, onnxruntime 1.32.0): over 4 x 4 values a quarter of it (the root of the mean of squares), and for
# p=1 a sixteenth. ReduceL2 and ReduceL1 over the same axes are right.
# Matters: it replaces the mean over time and frequency in some nets; the layer after it gets inputs that are too small
# by the root of their number. Write ReduceL2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper

x = np.abs(np.random.default_rng(0).standard_normal((1, 2, 4, 4))).astype("float32")


def ratio(operator, **attributes):
    """tract's output in units of onnxruntime's, and onnxruntime's in units of the definition."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "net.onnx")
    right = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    power = 1 if operator == "ReduceL1" else attributes.get("p", 2)
    assert np.allclose(right.ravel(), (x**power).sum((2, 3)).ravel() ** (1 / power), rtol=1e-5)
    found = tract.onnx().load("net.onnx").into_model().into_runnable().run([x])[0].to_numpy()
    return (found.ravel() / right.ravel()).round(5).tolist()


ratios = [ratio("GlobalLpPool", p=2), ratio("GlobalLpPool", p=1)]
ratios += [ratio("ReduceL2", axes=[2, 3]), ratio("ReduceL1", axes=[2, 3])]
print("GlobalLpPool of 2 and 1, ReduceL2, ReduceL1:", ratios)
assert ratios == [[0.25, 0.25], [0.0625, 0.0625], [1, 1], [1, 1]]
PY
