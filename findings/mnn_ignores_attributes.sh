#!/usr/bin/env bash
# MNN takes ONNX nodes whose attributes it does not know, and computes as if they were not there.
#
# Expected: a converter refuses what it cannot express, or says so.
# Seen (MNN 3.6.1, CPU; onnxruntime 1.32.0 and onnx.reference 1.23.2 agree with each other): a strided Conv with
# auto_pad SAME_LOWER is padded at the end, as SAME_UPPER. Mod with fmod=1 gives the sign of the divisor. ArgMax with
# select_last_index=1 gives the first. Round takes 0.5, 1.5 and 2.5 to 1, 2 and 3 (away from zero), where ONNX takes
# them to even. All are converted and run without a word.
# Matters: one frame of shift in every strided layer costs accuracy that is looked for in the quantization; and rounding
# written out with Round (fake quantization) differs on the coarse grids of 8-bit inputs. Compare each layer's output
# with onnxruntime after conversion.
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


def outputs(nodes, stored, x):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    np.save("x.npy", x)
    right = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], right, atol=1e-5)
    return right, mnn(x).reshape(right.shape)


random = np.random.default_rng(0)
image = random.standard_normal((1, 2, 8, 8)).astype("float32")
weights = {"w": random.standard_normal((3, 2, 3, 3)).astype("float32")}
padded = {
    name: outputs(
        [helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=name, strides=[2, 2])], weights, image
    )
    for name in ("SAME_UPPER", "SAME_LOWER")
}
print("Conv:", {name: float(np.abs(right - found).max()) for name, (right, found) in padded.items()})
assert np.allclose(*padded["SAME_UPPER"], atol=1e-4)
assert np.allclose(padded["SAME_LOWER"][1], padded["SAME_UPPER"][1], atol=1e-5)
assert np.abs(padded["SAME_LOWER"][0] - padded["SAME_LOWER"][1]).max() > 0.5

three = {"d": np.array(3, "float32")}
right, found = outputs(
    [helper.make_node("Mod", ["x", "d"], ["y"], fmod=1)], three, np.array([[-4, -2, 2, 4]], "float32")
)
print("Mod:", right.tolist(), found.tolist())
assert right.tolist() == [[-1, -2, 2, 1]] and found.tolist() == [[2, 1, 2, 1]]

last = [
    helper.make_node("ArgMax", ["x"], ["i"], axis=-1, select_last_index=1),
    helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
]
right, found = outputs(last, {}, np.zeros((1, 5), "float32"))
print("ArgMax:", right.tolist(), found.tolist())
assert right.tolist() == [[4]] and found.tolist() == [[0]]

right, found = outputs(
    [helper.make_node("Round", ["x"], ["y"])], {}, np.array([[-1.5, -0.5, 0.5, 1.5, 2.5]], "float32")
)
print("Round:", right.tolist(), found.tolist())
assert right.tolist() == [[-2, 0, 0, 2, 2]] and found.tolist() == [[-2, -1, 1, 2, 3]]
PY
