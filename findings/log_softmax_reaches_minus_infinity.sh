#!/usr/bin/env bash
# LogSoftmax is minus infinity in tract and in onnx.reference where onnxruntime has a number.
#
# Expected: an operator of its own for the logarithm is there to be exact where a softmax underflows: x -
# logsumexp(x).
# Seen (tract 0.23.9, onnx.reference 1.23.2): logits 0 and 120 give -inf and 0: the logarithm of the softmax.
# onnxruntime 1.32.0 gives -120 and 0. At a difference of 60 all agree.
# Matters: per-frame logits of a sure net reach such differences; sums of log-probabilities over frames (smoothing,
# Viterbi, CTC) become -inf or nan on the device, and a comparison with the reference evaluator fails for no fault of
# the runtime.
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
from onnx.reference import ReferenceEvaluator

graph = helper.make_graph(
    [helper.make_node("LogSoftmax", ["x"], ["y"], axis=-1)],
    "graph",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")


def outputs(difference):
    x = np.array([[0, difference]], "float32")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    with np.errstate(divide="ignore"):
        reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
    runnable = tract.onnx().load("model.onnx").into_model().into_runnable()
    return session.run(None, {"x": x})[0][0], runnable.run([x])[0].to_numpy()[0], reference[0]


for difference in (60, 120):
    found = outputs(difference)
    print(difference, "onnxruntime:", found[0], "tract:", found[1], "onnx.reference:", found[2])
    assert np.allclose(found[0], [-difference, 0])
    for other in found[1:]:
        assert np.allclose(other, [-difference if difference == 60 else -np.inf, 0])
PY
