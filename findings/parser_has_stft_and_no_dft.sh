#!/usr/bin/env bash
# NVIDIA's ONNX parser has STFT and HannWindow, but no DFT and no MelWeightMatrix.
#
# Expected: the standard brought these operators together in opset 17, for audio; who has STFT has DFT, which is a
# part of it. And what supports_operator answers yes to can be parsed.
# Seen (TensorRT for RTX 1.7.1.116, its parser alone, which needs no GPU): STFT and HannWindow are parsed; DFT ends in
# "Plugin not found, are the plugin name, version, and namespace correct?", which leads to a search for a plugin that
# does not exist. supports_operator tells that, but says yes to MaxPool, whose dilated form is refused.
# Matters: a log-mel front end inside the graph has to be written with STFT, or as a matrix product, and the mel
# matrix as a constant. Ask by parsing the real graph.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 tensorrt-rtx-cu13-{bindings,libs}==1.7.1.116
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import tensorrt_rtx_bindings as tensorrt
from onnx import TensorProto, helper, numpy_helper


class Silent(tensorrt.ILogger):
    def __init__(self):
        super().__init__()

    def log(self, severity, message):
        pass


log = Silent()
builder = tensorrt.Builder(log)


def parse(node, shape, rank, stored=()):
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, log)
    done = parser.parse(model.SerializeToString())
    listed = parser.supports_operator(node.op_type)
    return listed, done, "" if done else parser.get_error(0).desc()


window = [("step", np.int64(4)), ("window", np.ones(8, "float32"))]
mel = [("bands", np.int64(40)), ("points", np.int64(400)), ("rate", np.int64(16000))]
mel += [("low", np.float32(0)), ("high", np.float32(8000))]
seen = {
    "HannWindow": parse(helper.make_node("HannWindow", ["size"], ["y"]), [1], 1, [("size", np.int64(400))]),
    "MelWeightMatrix": parse(helper.make_node("MelWeightMatrix", [name for name, _ in mel], ["y"]), [1], 2, mel),
    "DFT": parse(helper.make_node("DFT", ["x"], ["y"], axis=1, onesided=1), [1, 16, 1], 3),
    "STFT": parse(helper.make_node("STFT", ["x", "step", "window"], ["y"]), [1, 64, 1], 4, window),
    "MaxPool": parse(helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]), [1, 1, 8, 8], 4),
    "dilated MaxPool": parse(
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]), [1, 1, 8, 8], 4
    ),
}
for name, result in seen.items():
    print(name, "(listed, parsed, error):", result)
assert [name for name, (_, done, _) in seen.items() if done] == ["HannWindow", "STFT", "MaxPool"]
assert [name for name, (listed, *_) in seen.items() if not listed] == ["MelWeightMatrix", "DFT"]
assert "Plugin not found" in seen["DFT"][2]
PY
