#!/usr/bin/env bash
# tract runs a recurrent layer with direction "reverse" forwards, and says nothing.
#
# Expected: the layer reads from the last frame to the first; or it is refused.
# Seen (tract 0.23.9): LSTM, GRU and RNN with direction="reverse" give exactly what direction="forward" gives.
# "bidirectional" is right, and onnxruntime 1.32.0 and onnx.reference 1.23.2 agree on all three.
# Matters: tract is a runtime for small devices, keyword spotters among them. A network of two layers of opposite
# directions, one of them exported as "reverse", gives plausible and wrong scores there.
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

random = np.random.default_rng(0)
x = random.standard_normal((5, 1, 3)).astype("float32")


def outputs(operator, gates, direction):
    count = 2 if direction == "bidirectional" else 1
    weights = np.random.default_rng(1)
    stored = {
        "w": weights.standard_normal((count, gates * 2, 3)).astype("float32"),
        "r": weights.standard_normal((count, gates * 2, 2)).astype("float32"),
    }
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w", "r"], ["y"], hidden_size=2, direction=direction)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, count, 1, 2])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "layer.onnx")
    right = onnxruntime.InferenceSession("layer.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], right, atol=1e-5)
    return right, tract.onnx().load("layer.onnx").into_model().into_runnable().run([x])[0].to_numpy()


for operator, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    right = {}
    found = {}
    for direction in ("forward", "reverse", "bidirectional"):
        right[direction], found[direction] = outputs(operator, gates, direction)
    print(operator, {direction: float(np.abs(right[direction] - found[direction]).max()) for direction in right})
    assert np.allclose(right["forward"], found["forward"], atol=1e-5)
    assert np.allclose(right["bidirectional"], found["bidirectional"], atol=1e-5)
    assert np.abs(right["reverse"] - found["reverse"]).max() > 0.05
    assert np.allclose(found["reverse"], found["forward"], atol=1e-6)
PY
