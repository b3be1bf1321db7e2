#!/usr/bin/env bash
# onnxscript's optimizer makes an invalid model of two pairs of clips that read the same value.
#
# Expected: Relu and Clip one after another become one Clip, as often as they occur.
# Seen (onnxscript 0.7.2, onnx_ir 1.1.0): one pair of Clip and Relu becomes a Clip with bounds "x_min" and "x_max". A
# second pair on the same x needs a "x_min_1", which is named as an input of its Clip and stored nowhere; optimize()
# returns that model without a word, and onnxruntime 1.32.0 refuses it: "Node input 'x_min_1' is not a graph input,
# initializer, or output of a previous node". The same for two pairs of Max and Min, or of Clip and Clip. rewrite(),
# with the same rules, raises "'NoneType' object has no attribute 'numpy'" for a single Relu and Clip (ReLU6).
# Matters: two branches with a bounded activation each are common in small nets, and the optimizer is what PyTorch's
# exporter runs by default: torch.onnx.export of PyTorch 2.13.0 gave the same refused model for two clamp and relu
# pairs (seen, and not part of this script), and a right one with optimize=False. Load each model after export.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnx_ir==1.1.0 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxscript.optimizer import optimize
from onnxscript.rewriter import rewrite

BOUNDS = {"low": np.float32(-3), "high": np.float32(6), "other_low": np.float32(-1), "other_high": np.float32(1)}
x = np.linspace(-8, 8, 64, dtype="float32")


def pair(first, second, low, high, name):
    """Two operators that bound x, one after another, into `name`."""
    bounds = {"Relu": [], "Clip": [low, high], "Max": [low], "Min": [high]}
    between = f"{name}_between"
    return [
        helper.make_node(first, ["x", *bounds[first]], [between]),
        helper.make_node(second, [between, *bounds[second]], [name]),
    ]


def model(nodes):
    used = sorted({name for node in nodes for name in node.input} & set(BOUNDS))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
        [numpy_helper.from_array(np.asarray(BOUNDS[name]), name) for name in used],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(made):
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def outcome(change, nodes):
    made = model(nodes)
    before = run(made)
    try:
        after = run(change(made))
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        return str(error)[:120]
    return "right" if np.allclose(before, after) else "wrong"


def two(first, second):
    branches = pair(first, second, "low", "high", "a") + pair(first, second, "other_low", "other_high", "b")
    return [*branches, helper.make_node("Sub", ["a", "b"], ["y"])]


for first, second in (("Clip", "Relu"), ("Max", "Min"), ("Clip", "Clip")):
    once, twice = outcome(optimize, pair(first, second, "low", "high", "y")), outcome(optimize, two(first, second))
    print(first, second, "once:", once, "twice:", twice)
    assert once == "right"
    assert "Node input 'x_min_1' is not a graph input" in twice
once = outcome(rewrite, pair("Relu", "Clip", "low", "high", "y"))
print("rewrite of Relu and Clip:", once)
assert outcome(optimize, pair("Relu", "Clip", "low", "high", "y")) == "right"
assert "'NoneType' object has no attribute 'numpy'" in once
PY
