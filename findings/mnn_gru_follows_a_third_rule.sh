#!/usr/bin/env bash
# MNN computes a GRU with linear_before_reset=0, which is ONNX's default, by a rule that is neither of ONNX's two.
#
# ONNX has two forms of the candidate: tanh(W x + Wb + R (r * h) + Rb) by default, and tanh(W x + Wb + r * (R h + Rb))
# with linear_before_reset=1, which PyTorch exports.
# Expected: both are right; or the one that is not there is refused.
# Seen (MNN 3.6.1, CPU, float32): with 1 it agrees with onnxruntime 1.32.0 and onnx.reference 1.23.2 to 1e-6. With 0 it
# gives tanh(W x + Wb + r * (R h) + Rb), to 1e-6, which differs from ONNX's by up to 0.08 within five frames. Nothing is
# said, neither by the converter nor when it runs.
# Matters: Keras with reset_after=False and hand-written exporters use the default; a keyword spotter then has other
# scores on the phone. Compare on several frames: the first, where h is 0, is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 MNN==3.6.1
cd "$work"
venv/bin/python -I - <<'PY'
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv[1:])"  # the command without what it logs
RUN = """
import MNN.expr as expr
import MNN.nn as nn
import numpy as np

x = np.load("x.npy")
y = nn.load_module_from_file("model.mnn", ["x"], ["y"]).forward([expr.const(x, list(x.shape), expr.NCHW)])[0]
y = expr.convert(y, expr.NCHW)
np.save("y.npy", np.array(y.read(), copy=True).reshape(y.shape))
"""


def mnn(x):
    pathlib.Path("model.mnn").unlink(missing_ok=True)
    options = ["mnnconvert", "-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel", "model.mnn", "--bizCode", "x"]
    for code, arguments in ((CONVERT, options), (RUN, [])):
        subprocess.run([sys.executable, "-I", "-c", code, *arguments], check=True, capture_output=True)
    return np.load("y.npy")


def mixed(x, w, r, b):
    """The rule that MNN follows: the reset gate between the product and the bias."""
    sigmoid = lambda value: 1 / (1 + np.exp(-value))
    state, rows = np.zeros((1, 3)), []
    for frame in x:
        outer, inner = frame @ w[0].T + b[0, :9], state @ r[0].T
        update, reset = np.split(sigmoid(outer[:, :6] + inner[:, :6] + b[0, 9:15]), 2, axis=1)
        candidate = np.tanh(outer[:, 6:] + reset * inner[:, 6:] + b[0, 15:])
        state = (1 - update) * candidate + update * state
        rows.append(state)
    return np.array(rows)[:, None]


random = np.random.default_rng(0)
stored = {"w": (1, 9, 4), "r": (1, 9, 3), "b": (1, 18)}
stored = {name: random.standard_normal(shape).astype("float32") for name, shape in stored.items()}
x = random.standard_normal((5, 1, 4)).astype("float32")
np.save("x.npy", x)
right, found = {}, {}
for after in (0, 1):
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=3, linear_before_reset=after)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 1, 1, 3])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    right[after] = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], right[after], atol=1e-5)
    found[after] = mnn(x)
    print("linear_before_reset", after, "differs by", np.abs(found[after] - right[after]).max((1, 2, 3)).tolist())
print("MNN's 0 and the mixed rule:", np.abs(found[0] - mixed(x, **stored)).max())
assert np.allclose(found[1], right[1], atol=1e-5)
assert np.allclose(found[0], mixed(x, **stored), atol=1e-5)
assert min(np.abs(found[0] - right[after]).max() for after in (0, 1)) > 0.03
PY
