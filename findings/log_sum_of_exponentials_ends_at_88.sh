#!/usr/bin/env bash
# The logarithm of a sum of exponentials ends at 88 in three runtimes, each in its own way.
#
# Expected: ReduceLogSumExp is an operator of its own so that the largest value can be taken out first: 90, 91 and 92
# give 92.41 in float32.
# Seen (opset 13, float32): onnxruntime 1.32.0 and onnx.reference 1.23.2 give 92.41. tract 0.23.9 and tinygrad 0.14.0
# give infinity, and minus infinity for values around -104; MNN 3.6.1 gives 88.10, and -85.90 for -100, -101, -102,
# where -99.59 is right: it limits the exponents. Softplus of 100 is infinity in tract, and 87 in MNN. For 10, 11, 12
# all agree.
# Matters: this is the energy score that tells unknown sounds from known ones. Where logits reach 88, as sums over
# frames do, clips have an infinite score, or all the same one, and are taken for known. Subtract ReduceMax in the
# graph.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 MNN==3.6.1 tinygrad==0.14.0 tract==0.23.9
cd "$work"
venv/bin/python -I - <<'PY'
import os
import pathlib
import subprocess
import sys

os.environ["DEV"] = "PYTHON"  # tinygrad's own interpreter, which needs no compiler
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner

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


def outputs(node, x):
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    np.save("x.npy", x)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    found = {
        "onnxruntime": session.run(None, {"x": x})[0],
        "onnx.reference": ReferenceEvaluator(model).run(None, {"x": x})[0],
        "tract": tract.onnx().load("model.onnx").into_model().into_runnable().run([x])[0].to_numpy(),
        "tinygrad": OnnxRunner("model.onnx")({"x": Tensor(x)})["y"].numpy(),
        "MNN": mnn(x),
    }
    return {name: round(float(value.ravel()[0]), 2) for name, value in found.items()}


def energy(*logits):
    return outputs(
        helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[2]), np.array([[logits]], "float32")
    )


small, large, low = energy(10, 11, 12), energy(90, 91, 92), energy(-100, -101, -102)
lower = energy(-104, -104, -105)
softplus = outputs(helper.make_node("Softplus", ["x"], ["y"]), np.full((1, 1, 2), 100, "float32"))
for name, found in (("10", small), ("90", large), ("-100", low), ("-104", lower), ("Softplus of 100", softplus)):
    print(name, found)
right = ("onnxruntime", "onnx.reference")
assert set(small.values()) == {12.41}
assert {large[name] for name in right} == {92.41} and {low[name] for name in right} == {-99.59}
assert {lower[name] for name in right} == {-103.14}
assert large["tract"] == large["tinygrad"] == np.inf and lower["tract"] == lower["tinygrad"] == -np.inf
assert large["MNN"] == 88.1 and low["MNN"] == -85.9
assert softplus["onnxruntime"] == 100 and softplus["tract"] == np.inf and softplus["MNN"] == 87
PY
