#!/usr/bin/env bash
# Entropy calibration of onnxruntime's quantizer never clips: it is MinMax under another name.
#
# Expected: CalibrationMethod.Entropy looks for the threshold that loses least, and cuts rare outliers off.
# Seen (onnxruntime 1.32.0, quantize_static): eight normal inputs, one of which holds a single 100. MinMax and Entropy
# give the same ranges, -4.03 to 100, so that one step is 0.41 wide. The search starts from a histogram of 128 bins and
# merges it into 128: there is one candidate, the whole range. With 2048 bins, which only the calibrator takes and
# quantize_static cannot be told, it ends at 7.03. Without outliers the two agree, too.
# Matters: "entropy was no better than MinMax" is true of any data, and a click in one clip of the calibration set costs
# four of eight bits. Take Percentile with a share that fits the number of values, or clip the calibration data.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
venv/bin/python -I - <<'PY'
import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static
from onnxruntime.quantization.calibrate import create_calibrator

logging.disable(logging.WARNING)  # the advice to run its preprocessing first, which a single Conv does not need
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
    "net",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 64, 64])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 64, 64])],
    [numpy_helper.from_array(np.ones((1, 1, 1, 1), "float32"), "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "net.onnx")


class Inputs(CalibrationDataReader):
    def __init__(self, outlier):
        inputs = np.random.default_rng(1).standard_normal((8, 1, 1, 64, 64)).astype("float32")
        if outlier:
            inputs[3, 0, 0, 0, 0] = outlier
        self.left = [{"x": x} for x in inputs]

    def get_next(self):
        return self.left.pop() if self.left else None


def step(method, outlier):
    """Widths of a step of the input and of the output."""
    quantize_static("net.onnx", "int8.onnx", Inputs(outlier), calibrate_method=getattr(CalibrationMethod, method))
    stored = {value.name: numpy_helper.to_array(value) for value in onnx.load("int8.onnx").graph.initializer}
    return float(stored["x_scale"]), float(stored["y_scale"])


def end(bins):
    """The end of the range of x, from the calibrator itself."""
    options = {"num_bins": bins, "num_quantized_bins": 128}
    calibrator = create_calibrator(
        "net.onnx", ["Conv", "Relu"], calibrate_method=CalibrationMethod.Entropy, extra_options=options
    )
    calibrator.collect_data(Inputs(100.0))
    return float(calibrator.compute_data().data["x"].range_value[1])


steps = {(method, outlier): step(method, outlier) for method in ("MinMax", "Entropy") for outlier in (None, 100.0)}
ends = {bins: end(bins) for bins in (128, 2048)}
print(steps)
print("end of the range by bins:", ends)
assert steps["Entropy", 100.0] == steps["MinMax", 100.0]
assert steps["Entropy", None] == steps["MinMax", None]
assert 0.4 < steps["Entropy", 100.0][0] < 0.42
assert ends[128] == 100.0 and 6 < ends[2048] < 9
PY
